"""Checkpoint files that are damaged, older or half-written; and the logs beside them."""

import random
import warnings

import pytest
import torch

from moco_det.engine.checkpoint_files import (
    DamagedCheckpoint,
    keep_newest,
    newest_first,
    newest_whole,
    read_checked,
    remove_left_over,
)
from moco_det.engine.run_logs import cut_metrics
from moco_det.utils.files import atomic_write, cut_unfinished_line


def save(folder, name, iteration):
    path = folder / f"{name}.pth"
    torch.save({"model": {"weight": torch.randn(20, 30)}, "iteration": iteration, "text": "x"}, path)
    return path


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["model"]["weight"], b["model"]["weight"]) and a["iteration"] == b["iteration"]


def flip(path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_a_changed_bit_is_found_anywhere_in_the_file(tmp_path):
    """Either the file is refused or it reads as it was written (some bytes are padding); torch alone reads on."""
    original = save(tmp_path, "model_0000001", 1)
    expected, content = read_checked(original), original.read_bytes()
    refused, missed_by_torch, rng = 0, 0, random.Random(0)
    for byte in rng.sample(range(len(content)), 400):
        original.write_bytes(content)
        flip(original, byte, rng.randrange(8))
        try:
            assert same(read_checked(original), expected), byte
            continue
        except DamagedCheckpoint:
            refused += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.load(original, weights_only=True)
            missed_by_torch += 1
        except Exception:
            pass
    assert refused > 200 and missed_by_torch > 100


@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_a_file_that_was_cut_is_damaged(tmp_path, share):
    path = save(tmp_path, "model_0000001", 1)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DamagedCheckpoint, match="model_0000001.pth' is damaged"):
        read_checked(path)


class Foreign:
    def __reduce__(self):
        return open, ("touched", "w")


def test_code_in_a_whole_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Foreign()}, tmp_path / "model_0000001.pth")
    with pytest.raises(ValueError, match="asks for .*open, so it is not a checkpoint") as error:
        read_checked(tmp_path / "model_0000001.pth")
    assert not isinstance(error.value, DamagedCheckpoint) and not (tmp_path / "touched").exists()


def test_the_newest_whole_file_is_taken_and_the_others_are_named(tmp_path):
    paths = [save(tmp_path, f"model_{iteration:07d}", iteration) for iteration in (2, 5, 8)]
    assert newest_whole(tmp_path) == (paths[2], [])
    flip(paths[2], paths[2].stat().st_size // 2)
    chosen, damaged = newest_whole(tmp_path)
    assert chosen == paths[1] and len(damaged) == 1 and "model_0000008.pth' is damaged" in damaged[0]
    for path in paths[:2]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="0000008.*0000005.*0000002"):
        newest_whole(tmp_path)


def test_the_final_checkpoint_has_its_place_by_its_iteration(tmp_path):
    """There are newer ones after a run was made longer."""
    for iteration in (2, 5, 8):
        save(tmp_path, f"model_{iteration:07d}", iteration)
    save(tmp_path, "model_final", 5)
    (tmp_path / "model_notes.pth").touch()
    assert [path.stem[6:] for path in newest_first(tmp_path)] == ["0000008", "final", "0000005", "0000002"]
    assert newest_first(tmp_path / "nowhere") == [] and newest_whole(tmp_path / "nowhere") == (None, [])


@pytest.mark.parametrize("keep, left", [(0, 4), (1, 2), (2, 3), (5, 4)])
def test_the_oldest_go_and_the_final_one_stays(tmp_path, keep, left):
    for iteration in (2, 5, 8):
        save(tmp_path, f"model_{iteration:07d}", iteration)
    save(tmp_path, "model_final", 8)
    keep_newest(tmp_path, keep)
    found = newest_first(tmp_path)
    assert len(found) == left and found[0].stem == "model_final" and found[1].stem == "model_0000008"


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    kept = [save(tmp_path, "model_0000001", 1), tmp_path / ".hidden", tmp_path / "notes.tmp"]
    for path in kept[1:]:
        path.touch()
    with atomic_write(tmp_path / "model_0000002.pth") as temporary:
        temporary.touch()
        assert remove_left_over(tmp_path) == [temporary.name]
        temporary.touch()  # so that it may take its name
    assert {*kept, tmp_path / "model_0000002.pth"} == {*tmp_path.iterdir()}


def test_metrics_of_steps_that_are_done_again_are_cut(tmp_path):
    path = tmp_path / "metrics.json"
    cut_metrics(path, 3)  # none yet
    lines = [f'{{"iteration": {iteration}, "loss": 1.5}}\n' for iteration in range(6)]
    path.write_text("".join(lines) + '{"iterat')
    cut_metrics(path, 4)
    assert path.read_text() == "".join(lines[:4])
    cut_metrics(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("content, left", [("a\nb\n", "a\nb\n"), ("a\nb", "a\n"), ("a", ""), ("", "")])
def test_a_line_without_an_end_is_cut(tmp_path, content, left):
    path = tmp_path / "lines.txt"
    path.write_text(content)
    cut_unfinished_line(path)
    assert path.read_text() == left
