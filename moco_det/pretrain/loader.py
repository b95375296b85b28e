"""Batches of view pairs without end, in an order and with views that are a function of the seed.

The order is :mod:`moco_det.data.sample_order`'s; a slot's views are keyed (seed, "view", epoch, index, view).
So the number of workers and ranks, and where a run was stopped, change no view. Nothing here reads a global
generator.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from moco_det.data.augment import augment
from moco_det.data.decoding import UnreadableImage
from moco_det.data.fast_jpeg import decode_for_views
from moco_det.data.sample_order import PackedPaths, Slot, rank_batches, steps_per_epoch
from moco_det.data.unreadable import Unreadable, UnreadableLog, begin_list
from moco_det.data.views import LARGE_VIEWS, ViewParameters, ViewSettings, crop_view, draw_view
from moco_det.engine.hooks import is_due
from moco_det.engine.launch import check_batch
from moco_det.utils.children import ignore_stop_signals
from moco_det.utils.seeding import numpy_generator, torch_generator

MAX_REPLACEMENTS = 20  # images tried in place of one that cannot be read
# Side of views, in pixels, up to which a worker finishes those of a batch at once. A small view costs less time
# than starting its hundred operations; large ones, together, would not fit the processor's cache.
TOGETHER = 96


class TwoViews(Dataset):
    """Maps a slot to the query view, the key view and the local crops of its image, or of what replaces it.

    An image that cannot be read is replaced by one that is a function of (seed, epoch, index, attempt), the
    same on every rank; its views are sampled with the key of the slot.
    """

    def __init__(self, paths: Sequence[str], *, seed: int, views: ViewSettings, finished: bool = True):
        """
        Args:
            paths: files of the images; a slot's index counts in it.
            finished: else the views are crops, which :func:`finish_batch` finishes from the item's "photometric".
        """
        self.paths = PackedPaths(paths)
        self.seed, self.views, self.finished = seed, views, finished

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, slot: Slot) -> dict:
        """One item of a batch; without its views if neither the image nor a replacement can be read."""
        read, index, unreadable = self._read(slot)
        item = {"epoch": slot[0], "index": index, "unreadable": unreadable}
        if read is not None:
            pixels, parameters = read
            crops, rows = zip(*(self._view(pixels, view) for view in parameters), strict=True)
            item["query"], item["key"] = crops[:LARGE_VIEWS]
            if self.views.small_crops:
                item["small"] = torch.stack(crops[LARGE_VIEWS:])
            if not self.finished:
                item["photometric"] = torch.tensor(rows)
        return item

    def _read(self, slot: Slot) -> tuple[tuple[Tensor, list[ViewParameters]] | None, int, list[Unreadable]]:
        """The slot's image or its replacement with its views, which it is, and what could not be read before."""
        unreadable: list[Unreadable] = []
        for index in self._candidates(slot):
            try:
                draw = functools.partial(self._draw, slot)
                return decode_for_views(self.paths[index], self.views, draw), index, unreadable
            except UnreadableImage as error:
                unreadable.append((error.path, error.reason))
        return None, slot[1], unreadable

    def _candidates(self, slot: Slot) -> Iterator[int]:
        yield slot[1]
        for attempt in range(MAX_REPLACEMENTS):
            yield int(numpy_generator(self.seed, "replacement", *slot, attempt).integers(len(self)))

    def _draw(self, slot: Slot, width: int, height: int) -> list[ViewParameters]:
        return [
            draw_view(numpy_generator(self.seed, "view", *slot, view), width, height, self.views, view)
            for view in range(self.views.num_views)
        ]

    def _view(self, pixels: Tensor, parameters: ViewParameters) -> tuple[Tensor, list[float]]:
        """The view, or its crop, and its row of photometric parameters."""
        crop, row = crop_view(pixels, parameters), parameters.photometric_row()
        if self.finished:
            rows = torch.tensor([row])
            crop = augment(crop[None], rows, parameters.operations, has_colors=parameters.has_colors)[0]
        return crop, row


def build_loader(
    paths: Sequence[str],
    *,
    seed: int,
    images_per_batch: int,
    views: ViewSettings,
    num_workers: int,
    prefetch: int = 2,
    finished: bool = True,
    rank: int = 0,
    world_size: int = 1,
    start_iteration: int = 0,
) -> Iterator[dict]:
    """The batches of one rank, without end.

    Letters: n = images_per_batch / world_size; C: channels; S and s: sides of the global and local crops; V: local
    views.

    Args:
        paths: all images, the same list on every rank.
        images_per_batch: of the global batch.
        prefetch: batches that each worker has ready ahead.
        finished: as of :class:`TwoViews`.
        start_iteration: iterations (global batches) that were done before.

    Returns:
        iterator over ``{"query": uint8 (n, C, S, S), "key": uint8 (n, C, S, S), "index": int64 (n,),
        "epoch": int, "unreadable": [(path, reason), ...]}``: which images these are (a replacement by its own
        index), and the files that this rank met and replaced; with local crops, also ``"small"``: uint8
        (n, V, C, s, s). Unfinished ones have ``"photometric"``, too: float32 (n, 2 + V, COLUMNS).

    Raises:
        ValueError: a setting is out of range, or batch, ranks and images do not fit together; while
            iterating: an image and all its replacements cannot be read.
    """
    check_batch(images_per_batch, world_size)
    if prefetch < 1:
        raise ValueError(f"DATALOADER.PREFETCH is {prefetch}; expected at least 1 batch for each worker")
    steps_per_epoch(len(paths), images_per_batch)
    together = finished and views.size <= TOGETHER
    dataset = TwoViews(paths, seed=seed, views=views, finished=finished and not together)
    slots = rank_batches(
        len(dataset),
        seed=seed,
        images_per_batch=images_per_batch,
        rank=rank,
        world_size=world_size,
        start_iteration=start_iteration,
    )
    batches = DataLoader(
        dataset,
        batch_sampler=slots,
        num_workers=num_workers,
        prefetch_factor=prefetch if num_workers else None,
        collate_fn=functools.partial(_collate_finished, views) if together else collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_stop_signals,
        generator=torch_generator(seed, "workers"),  # else DataLoader takes numbers from the global one
    )
    return _refuse_unreadable(batches)


def collate(items: list[dict]) -> dict:
    for item in items:
        if "query" not in item:
            return {"unreadable_batch": item["unreadable"]}
    return {
        # nx3xSxS, nx3xSxS, nxVx3xsxs, nx(2+V)xCOLUMNS
        **{
            name: _stack([item[name] for item in items])
            for name in ("query", "key", "small", "photometric")
            if name in items[0]
        },
        "index": torch.tensor([item["index"] for item in items]),  # n
        "epoch": items[0]["epoch"],
        "unreadable": list(itertools.chain.from_iterable(item["unreadable"] for item in items)),
    }


def _collate_finished(views: ViewSettings, items: list[dict]) -> dict:
    return finish_batch(collate(items), views, "cpu")


def _stack(parts: list[Tensor]) -> Tensor:
    """Stacked as they lie in memory; in a worker, straight into the memory that it shares."""
    if parts[0].is_contiguous():
        return default_collate(parts)
    return default_collate([part.movedim(-3, -1) for part in parts]).movedim(-1, -3)  # crops


def augments_on_device(cfg) -> bool:
    """Whether the views get their colors where the model is, and not in the workers (INPUT.VIEWS.AUGMENT_ON)."""
    where = cfg.INPUT.VIEWS.AUGMENT_ON
    return where == "device" or (where == "auto" and cfg.MODEL.DEVICE != "cpu")


def finish_batch(batch: dict, views: ViewSettings, device: torch.device | str) -> dict:
    """The batch with finished views on the device; one with finished views as it is.

    Args:
        batch: of :func:`build_loader`.
        views: the settings that it was sampled with.
    """
    if "photometric" not in batch:
        return batch
    finished = dict(batch)
    photometric = finished.pop("photometric")
    rgb = views.image_format.has_colors
    for view, name in enumerate(("query", "key")):
        finished[name] = augment(batch[name], photometric[:, view], views.operations(view), device, rgb)
    if "small" in batch:
        small = batch["small"].flatten(0, 1)  # n*V
        rows = photometric[:, LARGE_VIEWS:].flatten(0, 1)
        finished["small"] = augment(small, rows, views.operations(LARGE_VIEWS), device, rgb).view(
            batch["small"].shape
        )
    return finished


def _refuse_unreadable(batches: Iterable[dict]) -> Iterator[dict]:
    # Raised here, not in the worker, whose exceptions arrive wrapped in a traceback.
    for batch in batches:
        if "unreadable_batch" in batch:
            (path, reason), tried = batch["unreadable_batch"][0], len(batch["unreadable_batch"])
            raise ValueError(
                f"{tried} images in a row cannot be read, the first is {path!r} ({reason}): check the images"
            )
        yield batch


class UnreadableImages(HookBase):
    """Passes the files that any rank could not read to the main process's log, every ``period`` steps."""

    def __init__(self, cfg: CfgNode, num_images: int, resume: bool):
        self.period, self.pending = cfg.SOLVER.LOG_PERIOD, []
        if comm.is_main_process():
            begin_list(cfg.OUTPUT_DIR, resume)
            share = cfg.DATASETS.MAX_UNREADABLE
            self.log = UnreadableLog(cfg.OUTPUT_DIR, max_share=share, num_images=num_images)

    def after_step(self):
        self.pending += self.trainer.batch["unreadable"]
        if is_due(self.trainer, self.period):
            self.flush()

    def flush(self) -> None:
        """Note what is pending, on all ranks at once."""
        found = comm.gather(self.pending)
        self.pending = []
        if comm.is_main_process():
            slots = (self.trainer.iter + 1) * self.trainer.cfg.SOLVER.IMS_PER_BATCH
            self.log.update(itertools.chain.from_iterable(found), slots)
            self.trainer.storage.put_scalar("unreadable_images", len(self.log.files), smoothing_hint=False)
