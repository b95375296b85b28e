"""Tar shards: a folder's images from other places, and nothing of a shard is unpacked, followed or believed."""

import copy
import functools
import io
import os
import pickle
import random
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import mutated_bytes
from PIL import Image

from moco_det.data import shards
from moco_det.data.decoding import UnreadableImage, decode_rgb
from moco_det.data.image_files import find_images
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.data.sample_order import PackedPaths
from moco_det.data.views import ViewSettings
from moco_det.pretrain.loader import build_loader
from moco_det.pretrain.plan.facts import typical_side
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import tiny_pretrain_config, write_random_images
from moco_det.testing.core import write_shard as pack


def jpeg(value: int = 0, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value, value, value)).save(file, "JPEG")
    return file.getvalue()


def value_of(path: str) -> int:
    return round(np.asarray(decode_rgb(path)).mean())


def names(paths) -> list[str]:
    return [path.name for path in paths]


@pytest.fixture
def twice(tmp_path):
    """The same 40 images as a folder and as three shards of 15, 15 and 10 with other members between them."""
    paths = write_random_images(tmp_path / "folder", 40)
    for number in range(3):
        files = {}
        for path in paths[15 * number : 15 * number + 15]:
            files[path.name] = path.read_bytes()
            files[f"{path.stem}.cls"] = files[f"{path.stem}.json"] = b"3"
        pack(tmp_path / "shards" / f"train-{number:06d}.tar", files)
    return str(tmp_path / "folder"), str(tmp_path / "shards")


# ---- the same images -------------------------------------------------------------------------------


def batches(paths, count=7, **options):
    settings = {"seed": 5, "images_per_batch": 8, "views": ViewSettings("v2", 24, (0.2, 1.0))}
    loader = build_loader(paths, **{**settings, "num_workers": 0, **options})
    return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"rank": 1, "world_size": 2, "num_workers": 1}])
def test_batches_are_those_of_the_folder_bit_for_bit(twice, options):
    """Over more than an epoch, in which each order visits the shards at random."""
    of_shards, of_folder = batches(find_images(twice[1]), **options), batches(find_images(twice[0]))
    for ours, theirs in zip(of_shards, of_folder, strict=True):
        share = slice(4, 8) if options.get("rank") else slice(0, 8)
        for name in ("query", "key", "index"):
            assert torch.equal(ours[name], theirs[name][share]), name
        assert ours["epoch"] == theirs["epoch"] and ours["unreadable"] == []


def test_all_ways_to_name_shards_give_the_same_list(twice, tmp_path, monkeypatch):
    folder = twice[1]
    found = find_images(folder)
    assert names(found) == sorted(os.listdir(twice[0])) and not any(map(os.path.exists, found))
    assert found[14:16] == [
        f"{folder}/train-000000.tar/014.jpg",
        f"{folder}/train-000001.tar/015.jpg",
    ]
    assert find_images(f"{folder}/train-{{000000..000002}}.tar") == found
    assert find_images(f"{folder}/train-{{000000,000001,000002}}.tar") == found
    assert find_images(f"{folder}/train-000001.tar") == found[15:30]
    (tmp_path / "list.txt").write_text("# all\nshards/train-{000000..000001}.tar\nshards/train-000002.tar\n")
    assert find_images(str(tmp_path / "list.txt")) == found
    (tmp_path / "both.txt").write_text("folder/007.jpg\nshards/train-000002.tar\nfolder/008.jpg\n")
    mixed = find_images(str(tmp_path / "both.txt"))
    assert mixed == [f"{twice[0]}/007.jpg", *found[30:], f"{twice[0]}/008.jpg"]
    monkeypatch.chdir(folder)
    assert names(find_images("train-{000000..000002}.tar")) == names(found)


def test_a_place_is_a_path_that_keeps_where_its_bytes_lie(tmp_path):
    """It is text wherever a path is expected, and survives pickles, copies and the list of the workers."""
    shard = pack(tmp_path / "a.tar", {"x/1.jpg": jpeg(1), "x/2.jpg": jpeg(2)})
    (Path(shard).with_name("b.tar")).write_bytes(Path(shard).read_bytes()[:700])
    places = [*find_images(shard), *shards._members(str(tmp_path / "b.tar"), (".jpg",))]
    assert sorted(places)[:2] == [f"{shard}/x/1.jpg", f"{shard}/x/2.jpg"] and places[1].name == "x/2.jpg"
    assert os.path.basename(places[1]) == "2.jpg" and places[1].encode().endswith(b"a.tar/x/2.jpg")
    assert places[2].error and places[1].offset > places[0].offset > 0
    for again in (pickle.loads(pickle.dumps(places)), copy.deepcopy(places), list(PackedPaths(places))):
        assert all(
            (new.shard, new.name, new.offset, new.size, new.error)
            == (old.shard, old.name, old.offset, old.size, old.error)
            for new, old in zip(again, places, strict=True)
        )
        assert [value_of(place) for place in again[:2]] == [1, 2]


def test_braces_expand_in_order_and_lazily():
    expand = shards.expand_braces
    assert list(expand("a-{08..11}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert list(expand("{x,y}/{1..2}.tar")) == ["x/1.tar", "x/2.tar", "y/1.tar", "y/2.tar"]
    assert list(expand("plain.tar")) == ["plain.tar"] and list(expand("a{b}.tar")) == ["a{b}.tar"]
    assert next(expand("{0..99999999999999999}.tar")) == "00.tar"[1:]
    with pytest.raises(ValueError, match="counts from 9 down to 3"):
        next(expand("{9..3}.tar"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_dialect(tmp_path, format):
    deep = "n01/" + "d" * 80 + "/" + "f" * 60 + ".JPEG"  # more than the 100 bytes of a plain header
    files = {"./a.jpg": jpeg(10), deep: jpeg(20), "ä ö.png": jpeg(30), "x.seg.webp": jpeg(40)}
    skipped = {"notes.txt": b"x", "._a.jpg": b"x", ".cache/b.jpg": b"x", "jpg": b"x"}
    found = find_images(pack(tmp_path / "a.tar", {**files, **skipped}, format))
    assert names(found) == ["a.jpg", deep, "ä ö.png", "x.seg.webp"]
    assert [value_of(path) for path in found] == [10, 20, 30, 40]
    assert typical_side(found) == 8


def test_more_shards_than_may_stay_open(tmp_path, monkeypatch):
    paths = find_images(
        os.path.dirname([pack(tmp_path / f"{n}.tar", {"a.jpg": jpeg(n)}) for n in range(20)][0])
    )
    few = functools.lru_cache(3)(shards._OpenShard)
    monkeypatch.setattr(shards, "_open_shard", few)
    before = len(os.listdir("/proc/self/fd"))
    assert sorted(map(value_of, paths * 2)) == sorted([*range(20)] * 2)
    assert few.cache_info().currsize == 3 and len(os.listdir("/proc/self/fd")) <= before + 3


def test_classes_of_labeled_shards(tmp_path):
    pack(tmp_path / "set/0.tar", {"./cow/a.jpg": jpeg(1), "hut/b.jpg": jpeg(2)})
    pack(tmp_path / "set/1.tar", {"cow/a.jpg": jpeg(3), "ant/c/d.jpg": jpeg(4)})
    labeled = LabeledFolder(str(tmp_path / "set"), 8, "--images")
    assert labeled.classes == ["ant", "cow", "hut"] and labeled.labels == (0, 1, 1, 2)
    assert [round(labeled[n][0].float().mean().item()) for n in range(4)] == [4, 1, 3, 2]
    pack(tmp_path / "flat/0.tar", {"a.jpg": jpeg()})
    with pytest.raises(ValueError, match="--images: .*flat/0.tar/a.jpg: no class folder in its name"):
        LabeledFolder(str(tmp_path / "flat"), 8, "--images")


# ---- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where, message",
    [
        ("{:}/train-{{000000..000003}}.tar", "train-000003.tar' does not exist, after 3 that do"),
        ("{:}/gone.tar", r"gone.tar' does not exist \(looked in"),
        ("{:}/train-000000.tar.gz", "compressed archive.*decompress it to a plain .tar"),
        ("pipe:curl https://x/a.tar", "pipe:curl https://x/a.tar' does not exist"),
    ],
)
def test_shards_that_are_not_there(twice, where, message):
    with pytest.raises(ValueError, match=message):
        find_images(where.format(twice[1]))


def test_a_folder_of_both_kinds_or_of_compressed_shards(twice, tmp_path):
    folder = tmp_path / "other"
    (folder / "deep").mkdir(parents=True)
    with tarfile.open(folder / "deep/a.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match="a.tar.gz' is a compressed archive"):
        find_images(str(folder))
    with tarfile.open(folder / "deep/a.tar", "w:gz"):  # by its content
        pass
    (folder / "deep/a.tar.gz").unlink()
    with pytest.raises(ValueError, match="a.tar' is compressed by gzip"):
        find_images(str(folder))
    (folder / "b.jpg").write_bytes(jpeg())
    with pytest.raises(ValueError, match="1 images and 1 archives"):
        find_images(str(folder))
    pack(tmp_path / "none/0.tar", {"a.txt": b"x"})
    with pytest.raises(ValueError, match="no image in 1 shards, .*none/0.tar'; looked for .jpg"):
        find_images(str(tmp_path / "none"))
    (tmp_path / "list.txt").write_text("shards/train-000000.tar\nshards/gone.tar\n")
    with pytest.raises(ValueError, match="gone.tar' does not exist"):
        find_images(str(tmp_path / "list.txt"))


# ---- damage ------------------------------------------------------------------------------------------


def unreadable(paths) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            decode_rgb(path)
        except UnreadableImage as error:
            found[error.path] = error.reason
    return found


def test_a_shard_cut_anywhere(tmp_path, caplog):
    """What lies before the cut is read; what is lost is one entry, which is listed by its shard."""
    whole = pack(tmp_path / "whole.tar", {f"{n}.jpg": jpeg(n) for n in range(3)})
    content = Path(whole).read_bytes()
    ends = [p.offset + p.size for p in find_images(whole)]
    cut = tmp_path / "cut.tar"
    for length in range(600, ends[-1], 37):
        cut.write_bytes(content[:length])
        complete = sum(end <= length for end in ends)
        if complete:
            found = find_images(str(cut))
            assert [value_of(path) for path in found[:complete]] == list(range(complete))
            assert len(unreadable(found)) == len(found) - complete <= 2
            at_a_header = content[length - length % 512 :][:512] == bytes(512) or length % 512 == 0
            assert len(found) > complete or at_a_header, length
        else:
            with pytest.raises(ValueError, match="no image in 1 shards.*cut.tar/"):
                find_images(str(cut))
    assert "cut.tar/2.jpg: truncated: the shard ends" in caplog.text


def test_a_damaged_header_loses_what_follows_and_says_so(tmp_path):
    whole = pack(tmp_path / "a.tar", {f"{n}.jpg": jpeg(n) for n in range(4)})
    third = find_images(whole)[2].offset - 512
    with open(whole, "r+b") as file:
        file.seek(third + 10)
        file.write(b"xyz")
    found = find_images(whole)
    assert names(found)[:2] == ["0.jpg", "1.jpg"] and len(found) == 3
    ((path, reason),) = unreadable(found).items()
    assert path.startswith(f"{whole}/(after byte {third:,} of") and "the shard is damaged" in reason


def test_an_image_that_is_damaged_or_empty_in_a_whole_shard(tmp_path):
    shard = pack(
        tmp_path / "a.tar", {"a.jpg": b"", "b.jpg": b"no image", "c.jpg": jpeg(), "d.jpg": jpeg()[:200]}
    )
    reasons = unreadable(find_images(shard))
    assert list(reasons) == [f"{shard}/{name}.jpg" for name in "abd"]
    assert reasons[f"{shard}/a.jpg"] == "empty file" and "not an image" in reasons[f"{shard}/b.jpg"]


def test_a_shard_that_changes_or_goes_while_it_is_used(tmp_path):
    first, second = (pack(tmp_path / f"{n}.tar", {"a.jpg": jpeg(side=64)}) for n in range(2))
    paths = find_images(str(tmp_path))
    os.truncate(first, 600)
    os.remove(second)
    assert unreadable(paths) == {
        f"{first}/a.jpg": "the shard ends before the image does; it was changed since the start",
        f"{second}/a.jpg": "no such file",
    }


def test_a_bad_shard_among_good_ones(tmp_path):
    pack(tmp_path / "0.tar", {"a.jpg": jpeg()})
    (tmp_path / "1.tar").write_bytes(b"")
    (tmp_path / "2.tar").write_bytes(b"no archive " * 100)
    os.mkfifo(tmp_path / "3.tar")
    found = find_images(str(tmp_path))
    reasons = unreadable(found)
    assert len(found) == 4 and len(reasons) == 3
    assert reasons[f"{tmp_path}/3.tar/"] == "not a regular file"


@pytest.mark.filterwarnings("ignore")
def test_three_hundred_damaged_shards(tmp_path):
    """Found or refused in a line, quickly; and each entry is decoded or refused."""
    rng, path = random.Random(0), tmp_path / "a.tar"
    files = {f"{'n' * (60 * (n % 3))}/{n}.jpg": jpeg(n) for n in range(6)}
    wholes = []
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        wholes.append(Path(pack(path, files, format)).read_bytes())
    outcomes = {"all": 0, "some": 0, "none": 0}
    for number in range(300):
        path.write_bytes(mutated_bytes(wholes[number % 2][:-8192], rng))
        began = time.process_time()
        try:
            found = find_images(str(path))
            bad = unreadable(found)
            outcomes["some" if bad or len(found) < 6 else "all"] += 1
        except ValueError as error:
            assert "\n" not in str(error)
            outcomes["none"] += 1
        assert time.process_time() - began < 5
    assert min(outcomes.values()) > 10, outcomes


def test_a_run_is_that_of_the_folder_and_lists_what_it_cannot_read(twice, tmp_path):
    bad = tmp_path / "folder/003.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    first = tmp_path / "shards/train-000000.tar"
    pack(first, {path.name: path.read_bytes() for path in sorted((tmp_path / "folder").iterdir())[:15]})
    weights = []
    for where, name in zip(twice, (str(bad), f"{first}/003.jpg"), strict=True):
        cfg = tiny_pretrain_config(tmp_path / f"run{len(weights)}")
        cfg.DATASETS.IMAGES, cfg.DATASETS.MAX_UNREADABLE, cfg.SOLVER.EPOCHS = where, 0.1, 1
        os.makedirs(cfg.OUTPUT_DIR)
        trainer = PretrainTrainer(cfg)
        trainer.run()
        weights.append(trainer.method.state_dict())
        (line,) = Path(cfg.OUTPUT_DIR, "unreadable_images.txt").read_text().splitlines()
        assert line.startswith(f"{name}\t")
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


# ---- hostile -----------------------------------------------------------------------------------------

SECRET = 77


def hostile_members(outside: str) -> list[tarfile.TarInfo]:
    members = []
    for name in ("../../x.jpg", "/tmp/moco_det_evil.jpg", "a/../../y.jpg", "n\n\t\x1b[2J.jpg"):
        members.append(tarfile.TarInfo(name))
    for kind, name in ((tarfile.SYMTYPE, "link.jpg"), (tarfile.LNKTYPE, "hard.jpg")):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, outside
        members.append(member)
    devices = {"zero.jpg": tarfile.CHRTYPE, "disk.jpg": tarfile.BLKTYPE, "pipe.jpg": tarfile.FIFOTYPE}
    for name, kind in devices.items():
        member = tarfile.TarInfo(name)
        member.type, member.devmajor, member.devminor = kind, 1, 5  # /dev/zero, which never ends
        members.append(member)
    folder = tarfile.TarInfo("folder.jpg")
    folder.type = tarfile.DIRTYPE
    return [*members, folder]


def test_hostile_members_are_neither_written_nor_followed(tmp_path, monkeypatch):
    """Path traversal, links, devices: regular members are read in place, the others are not read at all."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    (tmp_path / "secret.jpg").write_bytes(jpeg(SECRET))
    with tarfile.open("evil.tar", "w") as archive:
        for member in hostile_members(str(tmp_path / "secret.jpg")):
            content = jpeg(5) if member.isreg() else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    found = find_images("evil.tar")
    reasons = unreadable(found)
    assert [value_of(path) for path in found if path not in reasons] == [5] * 4
    assert len(reasons) == 6 and all("not followed" in reason for reason in reasons.values())
    assert all(path.isprintable() for path in found)
    batches([*found] * 2, count=3, images_per_batch=4)  # in training too
    assert sorted(tmp_path.rglob("*")) == before and not os.path.exists("/tmp/moco_det_evil.jpg")


@pytest.mark.parametrize("size", [2**40, 2**62, -1, -(2**20), -(2**62)])
def test_a_size_that_lies(tmp_path, size):
    """Sizes beyond the shard allocate nothing, and negative ones do not lead the reader in circles."""
    header = bytearray(tarfile.TarInfo("b.jpg").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size if size >= 0 else 256**12 + size).to_bytes(12, "big")
    header[124] = 0x80 if size >= 0 else 0xFF
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    shard = pack(tmp_path / "a.tar", {"a.jpg": jpeg(3)})
    end = find_images(shard)[0]
    start = end.offset + -(-end.size // 512) * 512
    with open(shard, "r+b") as file:
        file.seek(start)
        file.write(header)
    found = find_images(shard)
    assert value_of(found[0]) == 3 and 1 <= len(unreadable(found)) == len(found) - 1


def test_a_null_byte_in_a_name_forges_no_place(tmp_path):
    """PAX headers may hold any byte."""
    member = tarfile.TarInfo("a.jpg")
    member.pax_headers = {"path": "/etc/passwd\0x\0000\000100\0.jpg"}
    content = jpeg(9)
    member.size = len(content)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    found = find_images(str(tmp_path / "a.tar"))
    assert all(path.shard == str(tmp_path / "a.tar") for path in found)
    assert [value_of(path) for path in found] == [9] * len(found)
