import hashlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.testing.core import REPOSITORY
from moco_det.toyworld import world as world_module
from moco_det.toyworld.layouts.voc import DIFFICULT_BELOW
from moco_det.toyworld.make import main, make_toyworld
from moco_det.toyworld.procedural import ProceduralArt


def contents(root):
    """Digest of each file below a folder, by its path there."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_the_same_arguments_give_the_same_bytes(tmp_path, world, small):
    make_toyworld(tmp_path / "again", **small)
    assert contents(tmp_path / "again") == contents(world)


def test_another_seed_gives_other_images(tmp_path, world, small):
    make_toyworld(tmp_path / "other", seed=1, **small)
    one, other = contents(world), contents(tmp_path / "other")
    images = [name for name in one if name.endswith(".jpg")]
    assert set(images) <= set(other)
    assert not [name for name in images if one[name] == other[name]]


def test_images_of_one_world_differ(world):
    """No two scenes are alike, but for the detection scenes, which are there in every layout."""
    digests = contents(world)
    names = [name for name in digests if name.endswith(".jpg") and not name.startswith("VOC")]
    assert len({digests[name] for name in names}) == len(names) == 4 + 12 * 3 + 26


def test_more_images_leave_the_earlier_ones_alone(tmp_path, world, small):
    more = {key: value + 1 for key, value in small.items() if key != "image_size"}
    make_toyworld(tmp_path / "more", image_size=small["image_size"], **more)
    one, other = contents(world), contents(tmp_path / "more")
    kept = [name for name in one if name.endswith((".jpg", ".png", ".xml"))]
    assert {name: other[name] for name in kept} == {name: one[name] for name in kept}
    assert (
        sum(name.endswith(".jpg") for name in other)
        == len([n for n in kept if n.endswith(".jpg")]) + 1 + 24 + 6
    )


def test_unlabeled_scenes_show_one_large_object(monkeypatch, tmp_path, small):
    """If the background filled the picture, two views would agree in it and say nothing of objects."""
    counts, compose = [], world_module.compose

    def counted(rng, art, size, recipe, first=None):
        scene = compose(rng, art, size, recipe, first)
        counts.append((len(scene.objects), max(scene.objects[0].sprite.mask.shape)))
        return scene

    monkeypatch.setattr(world_module, "compose", counted)
    make_toyworld(tmp_path / "world", **(small | {"num_unlabeled": 20}))
    assert all(number == 1 and side >= 0.8 * 48 - 1 for number, side in counts[:20])


def test_classes_take_turns_in_front_and_are_scored_there():
    counts = world_module.Counts(1, 1, 1, 12, 12)
    for seed in range(3):
        world = world_module.World(seed, 32, counts, {"train": ProceduralArt(), "test": ProceduralArt()})
        front = [world.detection("test", index).objects[0] for index in range(24)]
        assert [placed.category for placed in front] == list(TOY_CLASSES) * 2
        assert min(placed.visible_share for placed in front) > DIFFICULT_BELOW


def test_a_world_that_is_there_is_kept(world, small):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    manifest = make_toyworld(world, **small)
    assert manifest == json.loads((world / "toyworld.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 5}, r"another toy world \(seed: found 0, asked for 5\); name another --output"),
        (
            {"num_test": 13},
            r"another toy world \(counts: found \{.*'test': 12\}, asked for \{.*'test': 13\}\)",
        ),
        ({"image_size": 64}, r"image_size: found 48, asked for 64"),
    ],
)
def test_other_arguments_are_refused_and_nothing_is_lost(world, change, message, small):
    before = contents(world)
    with pytest.raises(ValueError, match=message):
        make_toyworld(world, **(small | change))
    assert contents(world) == before


def test_a_folder_with_something_else_is_refused(tmp_path, small):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"not a toy world \(no readable toyworld.json\)"):
        make_toyworld(tmp_path, **small)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled(tmp_path, small):
    root = tmp_path / "deep" / "toyworld"
    root.mkdir(parents=True)
    make_toyworld(root, **small)
    assert (root / "toyworld.json").is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_cut_run_leaves_nothing(tmp_path, monkeypatch, error, small):
    def cut(*args):
        raise error

    monkeypatch.setattr(world_module, "write_coco", cut)  # after the folders and VOC have been written
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        make_toyworld(tmp_path / "toyworld", **small)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_test": 11}, r"--num-test is 11; expected at least 12 \(there are 12 classes\)"),
        ({"num_train": 0}, r"--num-train is 0; expected at least 12"),
        ({"num_per_class_train": 0}, r"--num-per-class-train is 0; expected at least 1"),
        ({"num_unlabeled": -1}, r"--num-unlabeled is -1; expected at least 1"),
        ({"image_size": 16}, r"--image-size is 16; expected at least 32 pixels"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, change, message, small):
    with pytest.raises(ValueError, match=message):
        make_toyworld(tmp_path / "toyworld", **(small | change))
    assert list(tmp_path.iterdir()) == []


def flags(arguments):
    return [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]


def test_the_tool_makes_the_world_it_was_asked_for(tmp_path, world, small):
    environment = {key: value for key, value in os.environ.items() if key != "DETECTRON2_DATASETS"}
    command = [sys.executable, REPOSITORY / "tools" / "make_toyworld.py", *flags(small)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "datasets" / "toyworld") == contents(world)
    assert "datasets/toyworld: 12 classes; images: unlabeled 4, per class train 2" in done.stdout


def test_the_output_stands_where_detectron2_looks(tmp_path, monkeypatch, small):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    main(flags(small))
    assert (tmp_path / "toyworld" / "toyworld.json").is_file()


def test_the_command_takes_cutouts(tmp_path, pictures):
    counts = {"num_unlabeled": 2, "num_per_class_train": 1, "num_per_class_test": 1, "num_train": 2}
    main(flags({"output": tmp_path / "world", "num_test": 2, "image_size": 32, **counts, **pictures}))
    assert Image.open(tmp_path / "world/classes/test/boat/000000.jpg").size == (32, 32)


def test_the_command_says_in_one_line_what_is_wrong(world, small, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(flags({"output": world, **small, "seed": 1}))
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {world} holds another toy world (seed: found 0, asked for 1)")
    assert message.count("\n") == 1


def test_more_processes_render_the_same_world(world, small, tmp_path):
    make_toyworld(tmp_path / "two", **small, processes=2)
    files = {path.relative_to(world): path.read_bytes() for path in world.rglob("*") if path.is_file()}
    assert files == {name: (tmp_path / "two" / name).read_bytes() for name in files}
    assert len(list((tmp_path / "two").rglob("*"))) == len(list(world.rglob("*")))
