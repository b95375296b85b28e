"""Packed copies: which pixels and names they hold, that they are whole or not there, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from moco_det.data import pack as pack_module
from moco_det.data import shards
from moco_det.data.decoding import decode_rgb
from moco_det.data.image_files import find_images
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.data.pack import main
from moco_det.data.packed_images import Settings, member_names, packed_jpeg
from moco_det.testing.core import REPOSITORY, write_random_images, write_shard
from moco_det.utils.errors import INTERRUPTED


def names(folder) -> list[str]:
    return [path.name for path in find_images(str(folder))]


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.fixture
def source(tmp_path):
    """Two classes of six images of 40 px, one of them damaged."""
    for number, name in enumerate(("cow", "hut")):
        write_random_images(tmp_path / "source" / name, 6, seed=number)
    (tmp_path / "source/cow/002.jpg").write_bytes(b"no image")
    return tmp_path / "source"


# ---- one image -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, expected", [((100, 50), (40, 20)), ((30, 91), (20, 61)), ((60, 60), (20, 20))]
)
def test_the_shorter_side_is_as_asked_and_the_shape_stays(tmp_path, size, expected):
    Image.new("RGB", size, (200, 10, 10)).save(tmp_path / "a.png")
    file = tmp_path / "packed.jpg"
    file.write_bytes(packed_jpeg(str(tmp_path / "a.png"), Settings(shorter_side=20)))
    packed = Image.open(file)
    assert (packed.format, packed.mode, packed.size) == ("JPEG", "RGB", expected)
    assert np.abs(np.asarray(packed).astype(int) - (200, 10, 10)).max() <= 3


def test_small_images_are_not_enlarged_and_jpegs_stay_byte_for_byte(tmp_path):
    (path,) = write_random_images(tmp_path, 1, size=40)
    for settings in (Settings(shorter_side=40), Settings(shorter_side=0), Settings()):
        assert packed_jpeg(str(path), settings) == path.read_bytes()
    assert packed_jpeg(str(path), Settings(shorter_side=39)) != path.read_bytes()
    shard = write_shard(tmp_path / "0.tar", {"a.jpg": path.read_bytes()})
    assert packed_jpeg(find_images(shard)[0], Settings()) == path.read_bytes()


@pytest.mark.parametrize("kind", ["rotated", "gray", "png", "wrong name"])
def test_what_is_no_upright_rgb_jpeg_becomes_one(tmp_path, kind):
    (path,) = write_random_images(tmp_path, 1, size=40)
    image, exif, target = Image.open(path).crop((0, 0, 40, 24)), Image.Exif(), tmp_path / "a.jpg"
    exif[0x0112] = 6 if kind == "rotated" else 1
    image = image.convert("L") if kind == "gray" else image
    image.save(target, "PNG" if kind in ("png", "wrong name") else "JPEG", exif=exif, quality=95)
    file = tmp_path / "packed.jpg"
    file.write_bytes(packed_jpeg(str(target), Settings(quality=95)))
    packed, expected = Image.open(file), np.asarray(decode_rgb(str(target))).astype(int)
    assert (packed.format, packed.mode) == ("JPEG", "RGB") and packed.getexif().get(0x0112, 1) == 1
    assert packed.size == ((24, 40) if kind == "rotated" else (40, 24))
    assert np.abs(np.asarray(packed).astype(int) - expected).mean() < 3


def test_quality_is_that_asked_for(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    sizes = [len(packed_jpeg(str(tmp_path / "a.png"), Settings(quality=q))) for q in (30, 90, 100)]
    assert sizes == sorted(sizes) and sizes[2] > 2 * sizes[0]


def test_names_are_kept_once_each_and_lead_nowhere(tmp_path):
    evil = write_shard(tmp_path / "0.tar", {"../../a.jpg": b"", "/etc/b.JPEG": b"", "x/./../c.png": b""})
    places = list(shards._members(evil, (".jpg", ".jpeg", ".png")))
    plain = ["r/n01/a.png", "r/n01/a.jpg", "r/n02/a.jpeg", "r/.x/b.jpg", "/else/where/c.jpg", "r/n01/a.webp"]
    assert member_names([*plain, *places], "r") == [
        *("n01/a.jpg", "n01/a_2.jpg", "n02/a.jpeg", "_.x/b.jpg", "else/where/c.jpg", "n01/a_3.jpg"),
        *("a.jpg", "etc/b.JPEG", "x/c.jpg"),
    ]


# ---- the whole copy --------------------------------------------------------------------------------


def test_a_packed_copy_stands_for_its_folder(source, tmp_path, capsys):
    output = tmp_path / "packed"
    main(["--images", str(source), "--output", str(output), "--shorter-side", "24", "--num-workers", "2"])
    kept = [f"cow/{n:03d}.jpg" for n in (0, 1, 3, 4, 5)] + [f"hut/{n:03d}.jpg" for n in range(6)]
    assert names(output) == kept
    for path, name in zip(find_images(str(output)), kept, strict=True):
        packed = decode_rgb(path)
        whole = decode_rgb(str(source / name)).resize((24, 24), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(packed).astype(int) - np.asarray(whole)).mean() < 6
    record = json.loads((output / "pack.json").read_text())
    assert (record["images"], record["unreadable"]) == (11, 1)
    assert record["settings"] == {"shorter_side": 24, "quality": 92, "shard_mib": 1024}
    assert record["source"] == str(source) and record["found"].startswith("12 (names ")
    assert [shard["images"] for shard in record["shards"]] == [11]
    (line,) = (output / "unreadable_images.txt").read_text().splitlines()
    assert line.startswith(f"{source}/cow/002.jpg\tnot an image")
    said = capsys.readouterr().out
    assert "12 images, packed about" in said and "1 could not be read and are left out" in said
    assert LabeledFolder(str(output), 16, "--images").classes == ["cow", "hut"]
    assert sorted(os.listdir(tmp_path)) == ["packed", "source"]


@pytest.fixture
def small_shards(monkeypatch):
    """A shard is full after some three images."""
    monkeypatch.setattr(pack_module, "MIB", 6)


def test_shards_do_not_depend_on_workers(source, tmp_path, small_shards):
    words = ["--images", str(source), "--output"]
    main([*words, str(tmp_path / "a"), "--num-workers", "0"])
    main([*words, str(tmp_path / "b"), "--num-workers", "3"])
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(list((tmp_path / "a").glob("*.tar"))) > 2 and len(names(tmp_path / "a")) == 11


def pack_and_cut(words, writes: int) -> None:
    """Stop at the given replacement of a file by its final name: an odd one before, an even one after it."""
    left, replace = [writes], os.replace

    def cut(old, new):
        left[0] -= 1
        if left[0] == 0 and writes % 2:
            raise KeyboardInterrupt
        replace(old, new)
        if left[0] == 0:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(os, "replace", cut)
        main(words)
    assert ended.value.code == INTERRUPTED


@pytest.mark.parametrize("writes", range(1, 12))
def test_a_copy_that_is_cut_goes_on(source, tmp_path, small_shards, writes):
    words = ["--images", str(source), "--num-workers", "0", "--output"]
    main([*words, str(tmp_path / "whole")])
    pack_and_cut([*words, str(tmp_path / "cut")], writes)
    assert not (tmp_path / "cut").exists()
    main([*words, str(tmp_path / "cut")])
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_killed_copy_has_no_half_shard(tmp_path):
    """kill -9 while it writes: what has a final name is whole, and the same command ends with the same bytes."""
    write_random_images(tmp_path / "source", 60, size=400)
    command = [sys.executable, "-W", "ignore", str(REPOSITORY / "tools/pack_images.py"), "--images"]
    options = "--shorter-side 300 --shard-mib 1 --num-workers 1 --output"
    command += [str(tmp_path / "source"), *options.split()]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    unfinished = tmp_path / "cut.unfinished"
    process = subprocess.Popen([*command, str(tmp_path / "cut")], env=environment, stdout=subprocess.DEVNULL)
    while not list(unfinished.glob(".images-*.tmp")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut").exists()
    for shard in unfinished.glob("*.tar"):
        assert all(decode_rgb(path) for path in find_images(str(shard)))
    main([*command[4:], str(tmp_path / "cut")])
    main([*command[4:], str(tmp_path / "whole")])
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert not unfinished.exists() and len(names(tmp_path / "cut")) == 60


def test_the_beginning_of_another_copy_is_not_continued(source, tmp_path, small_shards, capsys):
    words = ["--images", str(source), "--output", str(tmp_path / "out"), "--num-workers", "0"]
    pack_and_cut(words, 3)
    said = refused([*words, "--quality", "50"], capsys)
    assert f"'{tmp_path}/out.unfinished' holds the beginning of another copy (settings was " in said
    shutil.copy(source / "hut/001.jpg", source / "hut/new.jpg")
    assert "(found was '12 (names " in refused(words, capsys)


def test_lists_shards_and_registered_sets_can_be_packed(source, tmp_path):
    (tmp_path / "list.txt").write_text("source/hut/001.jpg\nsource/cow/000.jpg\n")
    main(["--images", str(tmp_path / "list.txt"), "--output", str(tmp_path / "a"), "--num-workers", "0"])
    assert names(tmp_path / "a") == ["source/hut/001.jpg", "source/cow/000.jpg"]
    main(["--images", str(tmp_path / "a"), "--output", str(tmp_path / "b"), "--num-workers", "0"])
    assert content(tmp_path / "a")["images-000000.tar"] == content(tmp_path / "b")["images-000000.tar"]
    DatasetCatalog.register("packed_set", lambda: [{"file_name": str(source / "hut/003.jpg")}])
    try:
        main(["--datasets", "packed_set", "--output", str(tmp_path / "c"), "--num-workers", "0"])
    finally:
        DatasetCatalog.remove("packed_set")
    assert len(names(tmp_path / "c")) == 1 and names(tmp_path / "c")[0].endswith("source/hut/003.jpg")


# ---- what is refused -------------------------------------------------------------------------------


def refused(words, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--quality", "0"], "--quality is 0; expected 1 to 100"),
        (["--quality", "101"], "--quality is 101; expected 1 to 100"),
        (["--shorter-side", "-1"], "--shorter-side is -1; expected 0 to 10000"),
        (["--shard-mib", "0"], "--shard-mib is 0; expected 1 to"),
        (["--num-workers", "-2"], "--num-workers is -2; expected 0 or more"),
        (["--datasets", "coco_2017_train"], "expected either --images or --datasets"),
        (["--output", "source"], "--output 'source' exists already"),
        (["--images", "nowhere"], "'nowhere' does not exist"),
        (["--images", "bad"], "none of 2 images can be read, e.g.: cannot read image 'bad/1.jpg'"),
    ],
)
def test_wrong_words_are_refused_and_nothing_is_written(
    source, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").mkdir()
    for number in range(2):
        (tmp_path / f"bad/{number}.jpg").write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    said = refused(["--images", "source", "--output", "out", *words], capsys)
    assert message in said and sorted(tmp_path.rglob("*")) == before


def test_too_little_disk_is_refused_with_both_numbers(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 100))
    said = refused(["--images", str(source), "--output", str(tmp_path / "out")], capsys)
    assert "has 0.00 GiB free, but about 12 packed images need 0.00 GiB" in said


def test_a_dry_run_foresees_the_size_and_writes_nothing(source, tmp_path, capsys, monkeypatch):
    words = ["--images", str(source), "--output", str(tmp_path / "out"), "--num-workers", "0"]
    main([*words, "--dry-run"])
    assert "12 images, packed about 0.00 GiB in 1 shards" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["source"]
    foreseen = pack_module.foresee_bytes(find_images(str(source)), Settings())
    main(words)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    assert abs(foreseen - written) < 0.5 * written
