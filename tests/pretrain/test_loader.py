"""The order and the views are functions of the seed; what cannot be read is replaced, counted and listed."""

import dataclasses
import itertools
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image

from moco_det.config import get_cfg
from moco_det.data.augment import COLUMNS
from moco_det.data.decoding import decode_pixels
from moco_det.data.image_format import ImageFormat
from moco_det.data.sample_order import PackedPaths, epoch_order, rank_batches, steps_per_epoch
from moco_det.data.unreadable import FILE_NAME, UnreadableLog, begin_list
from moco_det.data.views import ViewSettings, apply_view, draw_view
from moco_det.pretrain import loader
from moco_det.pretrain.loader import (
    MAX_REPLACEMENTS,
    TwoViews,
    augments_on_device,
    build_loader,
    finish_batch,
)
from moco_det.utils.seeding import numpy_generator

VIEWS = ViewSettings("v2", 16, (0.2, 1.0))
SETTINGS = {"seed": 3, "views": VIEWS}


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """Eleven images, each of another color and size."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(11):
        noise = rng.integers(-20, 20, (20 + i, 30, 3)) + rng.integers(30, 220, 3)
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
    return sorted(str(path) for path in folder.iterdir())


def batches(paths, count, *, images_per_batch=4, num_workers=0, **changes) -> list[dict]:
    made = build_loader(
        paths, **{**SETTINGS, **changes}, images_per_batch=images_per_batch, num_workers=num_workers
    )
    return list(itertools.islice(made, count))


def assert_equal_batches(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a["epoch"] == b["epoch"] and a["unreadable"] == b["unreadable"]
        assert all(torch.equal(a[name], b[name]) for name in ("query", "key", "index"))


def views_of(path: str, epoch: int, index: int, views: ViewSettings = VIEWS) -> list[torch.Tensor]:
    """The views of a slot, from the keys as the module's docstring states them."""
    pixels = decode_pixels(path)
    generators = [numpy_generator(3, "view", epoch, index, view) for view in range(2 + views.small_crops)]
    height, width = pixels.shape[1:]
    drawn = [draw_view(g, width, height, views, view) for view, g in enumerate(generators)]
    return [apply_view(pixels, parameters) for parameters in drawn]


# ---- order and views ---------------------------------------------------------------------------------


def test_batches_follow_the_stated_keys(paths):
    made = batches(paths, 5)  # 2 steps an epoch, 3 of 11 images left over
    for t, batch in enumerate(made):
        epoch, step = divmod(t, 2)
        order = numpy_generator(3, "order", epoch).permutation(11)
        assert batch["epoch"] == epoch and batch["unreadable"] == []
        assert batch["query"].shape == batch["key"].shape == (4, 3, 16, 16)
        assert batch["query"].dtype == batch["key"].dtype == torch.uint8
        assert batch["index"].tolist() == order[4 * step : 4 * step + 4].tolist()
        for i, index in enumerate(order[4 * step : 4 * step + 4]):
            query, key = views_of(paths[index], epoch, index)
            assert torch.equal(batch["query"][i], query) and torch.equal(batch["key"][i], key)
            assert not torch.equal(query, key)


def test_small_views_come_on_top_and_change_no_large_one(paths):
    small = dataclasses.replace(VIEWS, recipe="byol", small_crops=3, small_size=8)
    with_them, without = (
        batches(paths, 3, views=views) for views in (small, dataclasses.replace(small, small_crops=0))
    )
    assert all("small" not in batch for batch in without)
    assert_equal_batches(with_them, without)
    for batch in with_them:
        assert batch["small"].shape == (4, 3, 3, 8, 8) and batch["small"].dtype == torch.uint8
        for i, index in enumerate(batch["index"].tolist()):
            views = views_of(paths[index], batch["epoch"], index, small)
            assert all(map(torch.equal, views, [batch["query"][i], batch["key"][i], *batch["small"][i]]))
            assert len({tuple(view.flatten().tolist()) for view in views}) == 5


@pytest.mark.parametrize("num_workers", [0, 2])
def test_colors_of_the_whole_batch_are_those_of_the_workers(paths, num_workers, monkeypatch):
    """AUGMENT_ON device: the same random numbers, so the same views but for a rounding; small ones too."""
    views = dataclasses.replace(VIEWS, recipe="byol", small_crops=3, small_size=8)
    crops = batches(paths, 4, views=views, finished=False, num_workers=num_workers, prefetch=1)
    finished = [finish_batch(batch, views, "cpu") for batch in crops]
    together = batches(paths, 4, views=views, num_workers=num_workers)
    assert all(map(torch.equal, *([batch["small"] for batch in made] for made in (finished, together))))
    assert_equal_batches(finished, together)
    monkeypatch.setattr(loader, "TOGETHER", views.size - 1)
    expected = batches(paths, 4, views=views)
    for crop, ours, theirs in zip(crops, finished, expected, strict=True):
        assert crop["photometric"].shape == (4, 5, COLUMNS) and ours.keys() == theirs.keys()
        assert torch.equal(ours["index"], theirs["index"])
        for name in ("query", "key", "small"):
            assert ours[name].shape == theirs[name].shape and ours[name].dtype == torch.uint8
            assert (ours[name].int() - theirs[name].int()).abs().max() <= 1
            assert not torch.equal(crop[name], ours[name])
        assert finish_batch(theirs, views, "cpu") is theirs


def test_where_colors_are_done():
    cfg = get_cfg()
    for device, where, expected in (
        ("cuda", "auto", True),
        ("cpu", "auto", False),
        ("cuda", "workers", False),
        ("cpu", "device", True),
    ):
        cfg.MODEL.DEVICE, cfg.INPUT.VIEWS.AUGMENT_ON = device, where
        assert augments_on_device(cfg) == expected


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_no_draw(paths, num_workers):
    assert_equal_batches(batches(paths, 5, num_workers=num_workers), batches(paths, 5))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_hold_contiguous_blocks_of_the_same_global_batches(paths, world_size):
    ranks = [batches(paths, 5, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [
        {
            "query": torch.cat([batch["query"] for batch in parts]),
            "key": torch.cat([batch["key"] for batch in parts]),
            "index": torch.cat([batch["index"] for batch in parts]),
            "epoch": parts[0]["epoch"],
            "unreadable": sum((batch["unreadable"] for batch in parts), []),
        }
        for parts in zip(*ranks, strict=True)
    ]
    assert_equal_batches(joined, batches(paths, 5))


@pytest.mark.parametrize("start", [1, 2, 3, 4])
def test_a_restart_anywhere_continues_exactly(paths, start):
    assert_equal_batches(batches(paths, 6 - start, start_iteration=start), batches(paths, 6)[start:])


def test_seed_and_epoch_change_the_draws(paths):
    first, second = batches(paths, 3)[::2]
    other = batches(paths, 1, seed=4)[0]
    assert not torch.equal(first["query"], other["query"])
    assert not torch.equal(first["query"], second["query"])
    # The same image in two epochs is cropped and colored differently.
    views = TwoViews(paths, **SETTINGS)
    assert not torch.equal(views[0, 5]["query"], views[1, 5]["query"])


def test_each_epoch_is_a_permutation_without_its_last_part_batch():
    endless = rank_batches(10, seed=0, images_per_batch=4, rank=0, world_size=1, start_iteration=0)
    slots = list(itertools.islice(endless, 60))
    met = set()
    for epoch in range(30):
        batches_of_epoch = slots[2 * epoch : 2 * epoch + 2]
        indices = [index for batch in batches_of_epoch for _, index in batch]
        assert {e for batch in batches_of_epoch for e, _ in batch} == {epoch}
        assert len(indices) == len(set(indices)) == 8
        met.update(indices)
    assert met == set(range(10))  # none is left out for ever
    assert len({tuple(epoch_order(10, 0, epoch)) for epoch in range(30)}) == 30


@pytest.mark.parametrize(
    ("num_images", "batch", "last"),
    [
        (143, 32, 16),
        (100, 32, 8),
        (96, 32, 32),
        (41, 20, 8),
        (39, 20, 20),
    ],  # (39: a multiple of 8 is no more than 20)
)
def test_a_last_smaller_batch_is_filled_as_by_8_official_processes(num_images, batch, last):
    """Each image once, then the first of the order again until 8 processes could share the batch equally."""
    steps = steps_per_epoch(num_images, batch, drop_last=False)
    order = [*map(int, epoch_order(num_images, 0, 1))]
    for world_size in (1, 2, 4):
        ranks = [
            rank_batches(
                num_images,
                seed=0,
                images_per_batch=batch,
                rank=rank,
                world_size=world_size,
                start_iteration=steps,
                drop_last=False,
            )
            for rank in range(world_size)
        ]
        parts = list(itertools.islice(zip(*ranks, strict=True), steps + 1))
        assert all(len({len(slots) for slots in batch_of_ranks}) == 1 for batch_of_ranks in parts)
        together = [sum(slots, []) for slots in parts]
        assert {epoch for slots in together[:-1] for epoch, _ in slots} == {1} and together[-1][0][0] == 2
        seen = [index for slots in together[:-1] for _, index in slots]
        assert len(together[-2]) == last and seen == order + order[: len(seen) - num_images]


def test_the_linear_epoch_of_imagenet_has_the_official_number_of_steps():
    """1,281,167 images on 8 processes: 5,004 batches of 8 x 32, then one of 8 x 18, of which one is repeated."""
    assert steps_per_epoch(1_281_167, 256) == 5_004
    assert steps_per_epoch(1_281_167, 256, drop_last=False) == 5_005
    settings = {"seed": 0, "images_per_batch": 256, "rank": 0, "world_size": 1, "start_iteration": 5_004}
    assert len(next(rank_batches(1_281_167, **settings, drop_last=False))) == 144


def test_global_generators_are_left_alone(paths):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    batches(paths, 3)
    batches(paths, 3, num_workers=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()


def test_packed_paths_are_the_paths():
    paths = ["a.jpg", "", "dir/ünï 图.png", os.fsdecode(b"\xff\xfe.jpg"), "b"]
    packed = PackedPaths(paths)
    assert list(packed) == paths and len(packed) == 5 and packed[np.int64(2)] == paths[2]


# ---- settings ----------------------------------------------------------------------------------------


def test_fewer_images_than_a_batch_is_refused(paths):
    assert steps_per_epoch(11, 4) == 2 and steps_per_epoch(11, 11) == 1
    with pytest.raises(ValueError, match="11 images do not fill .*IMS_PER_BATCH is 12; .*at most 11"):
        batches(paths, 1, images_per_batch=12)


def test_bad_settings_are_refused_before_the_first_batch(paths):
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 4; .*the 3 processes.* 3$"):
        batches(paths, 0, world_size=3)
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 0"):
        batches(paths, 0, images_per_batch=0)
    with pytest.raises(ValueError, match="DATALOADER.PREFETCH is 0; expected at least 1"):
        batches(paths, 0, prefetch=0)


# ---- unreadable images -------------------------------------------------------------------------------


@pytest.fixture
def some_broken(paths, tmp_path) -> list[str]:
    """The eleven images, of which 2 is empty, 5 is a truncated JPEG and 7 has vanished."""
    changed = list(paths)
    changed[2], changed[5], changed[7] = (str(tmp_path / name) for name in ("empty", "cut", "vanished"))
    open(changed[2], "wb").close()
    Image.open(paths[5]).save(changed[5], format="JPEG")
    with open(changed[5], "r+b") as file:
        file.truncate(os.path.getsize(changed[5]) // 2)
    return changed


def test_unreadable_images_are_replaced_with_the_slots_own_draws(some_broken):
    for index, reason in ((2, "empty file"), (5, "truncated"), (7, "no such file")):
        for epoch in range(6):
            item = TwoViews(some_broken, **SETTINGS)[epoch, index]
            tried = [index]
            while tried[-1] in (2, 5, 7):
                attempt = len(tried) - 1
                tried.append(numpy_generator(3, "replacement", epoch, index, attempt).integers(11))
            query, key = views_of(some_broken[tried[-1]], epoch, index)
            assert torch.equal(item["query"], query) and torch.equal(item["key"], key)
            assert item["index"] == tried[-1]
            assert [path for path, _ in item["unreadable"]] == [some_broken[i] for i in tried[:-1]]
            assert reason in item["unreadable"][0][1].lower()


def test_replacement_changes_no_other_image_and_no_batch_size(paths, some_broken):
    clean, fixed = batches(paths, 4), batches(some_broken, 4)
    slots = rank_batches(11, seed=3, images_per_batch=4, rank=0, world_size=1, start_iteration=0)
    replaced = 0
    for a, b, batch in zip(clean, fixed, slots, strict=False):
        assert a["query"].shape == b["query"].shape
        for i, (_, index) in enumerate(batch):
            assert torch.equal(a["query"][i], b["query"][i]) == (index not in (2, 5, 7))
            replaced += index in (2, 5, 7)
    assert replaced >= 3
    assert {p for b in fixed for p, _ in b["unreadable"]} == {some_broken[i] for i in (2, 5, 7)}


def test_replacements_are_the_same_for_all_workers_and_ranks(some_broken):
    alone = batches(some_broken, 4)
    assert_equal_batches(batches(some_broken, 4, num_workers=2), alone)
    ranks = [batches(some_broken, 4, rank=rank, world_size=2) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole["query"], torch.cat([part["query"] for part in parts]))
        assert whole["unreadable"] == sum((part["unreadable"] for part in parts), [])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_readable_at_all_stops_with_one_line(tmp_path, num_workers):
    broken = [str(tmp_path / f"{i}.jpg") for i in range(4)]
    with pytest.raises(ValueError, match=f"^{MAX_REPLACEMENTS + 1} images in a row") as caught:
        batches(broken, 1, num_workers=num_workers)
    assert "no such file" in str(caught.value) and "\n" not in str(caught.value)


# ---- the list of unreadable files --------------------------------------------------------------------


def test_each_unreadable_file_is_listed_once(tmp_path):
    listed = tmp_path / "unreadable_images.txt"
    log = UnreadableLog(str(tmp_path), max_share=0.5, num_images=10)
    log.update([], 4)
    assert not listed.exists()
    log.update([("a.jpg", "empty file"), ("b.jpg", "no such file"), ("a.jpg", "empty file")], 8)
    log.update([("b.jpg", "no such file"), ("c d.jpg", "cut")], 12)
    assert listed.read_text() == "a.jpg\tempty file\nb.jpg\tno such file\nc d.jpg\tcut\n"

    with listed.open("a") as lines:
        lines.write("unfin")
    begin_list(str(tmp_path), True)
    resumed = UnreadableLog(str(tmp_path), max_share=0.5, num_images=10)
    resumed.update([("c d.jpg", "cut"), ("e.jpg", "cut")], 16)
    assert listed.read_text().splitlines()[3:] == ["e.jpg\tcut"]

    begin_list(str(tmp_path), False)
    assert not listed.exists()  # a new run does not inherit the list


def test_too_many_unreadable_files_stop_the_run(tmp_path):
    log = UnreadableLog(str(tmp_path), max_share=0.02, num_images=1000)
    log.update([(f"{i}.jpg", "cut") for i in range(3)], 64)  # 3 of 64, but few images were met yet
    log.update([("2.jpg", "cut")] * 50, 150)  # 3 of 150 is 2 %, however often they come
    with pytest.raises(
        ValueError, match=r"4 of the 160 images .* = 0.02; listed in .*able_images.txt.*MAX_UNRE"
    ):
        log.update([("3.jpg", "cut")], 160)


def test_share_is_of_distinct_images_over_epochs(tmp_path):
    log = UnreadableLog(str(tmp_path), max_share=0.1, num_images=20)
    log.update([("0.jpg", "cut"), ("1.jpg", "cut")], 19)  # the 20 images are fewer than the grace
    log.update([], 5000)  # 2 of 20, however many epochs
    with pytest.raises(ValueError, match="3 of the 20 images cannot"):
        log.update([("2.jpg", "cut")], 5016)


def test_accepting_all_or_none(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    UnreadableLog(str(tmp_path / "a"), max_share=1, num_images=1).update([("0.jpg", "cut")], 8)
    with pytest.raises(ValueError, match="1 of the 200 images"):
        UnreadableLog(str(tmp_path / "b"), max_share=0, num_images=999).update([("0.jpg", "cut")], 200)


def test_a_run_over_broken_images_is_listed_and_stopped(some_broken, tmp_path):
    log = UnreadableLog(str(tmp_path), max_share=0.2, num_images=11)
    with pytest.raises(ValueError, match="3 of the 11 images cannot"):
        for step, batch in enumerate(batches(some_broken, 12)):
            log.update(batch["unreadable"], 4 * (step + 1))
    names = {os.path.basename(line.split("\t")[0]) for line in (tmp_path / FILE_NAME).open()}
    assert names == {"empty", "cut", "vanished"}


@pytest.mark.parametrize("order", ["RGB", "L"])
def test_many_channels_have_the_same_views_in_workers_and_on_the_device(tmp_path, order):
    rng = np.random.default_rng(0)
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", rng.integers(0, 256, (30, 40, 5), dtype=np.uint8))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    image_format = ImageFormat(5, (), order)
    views = dataclasses.replace(
        VIEWS, recipe="byol", small_crops=2, small_size=8, channel_dropout=0.3, image_format=image_format
    )
    crops = batches(paths, 2, views=views, finished=False)
    for crop, theirs in zip(crops, batches(paths, 2, views=views), strict=True):
        ours = finish_batch(crop, views, "cpu")
        assert crop["query"].shape == (4, 5, 16, 16) and crop["small"].shape == (4, 2, 5, 8, 8)
        for name in ("query", "key", "small"):
            assert (ours[name].int() - theirs[name].int()).abs().max() <= 1
            assert not torch.equal(theirs[name], crop[name])
