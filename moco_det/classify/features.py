"""Features of a labeled set, computed once and kept in a file for what evaluates them: kNN and linear probes."""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch
from detectron2.utils import comm
from torch import Tensor, nn

from moco_det.classify.classifier import Classifier
from moco_det.classify.data import CenterViews, view_batches
from moco_det.data.image_files import file_of
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.utils.progress import progress

logger = logging.getLogger(__name__)


def cached_features(
    model: Classifier, folder: LabeledFolder, cache: str, *, images_per_batch: int, num_workers: int
) -> Tensor:
    """Pooled features of the central views, float32 (M, D), in the folder's order; computed or from the cache.

    Called on all ranks, which share the work; ``cache`` must be on a disk that they share.

    Args:
        model: in any mode; the encoder is put into evaluation mode.
        cache: a folder; features of the same part of a set that are not these are removed from it.

    Raises:
        ValueError: an image cannot be read. OSError: the cache cannot be written.
    """
    part = os.path.basename(folder.root)
    path = Path(cache, f"{part}_{cache_key(model, folder)}.npy")
    found = comm.all_gather(path.exists())
    if all(found):
        logger.info(f"features of {len(folder)} images in {folder.root} taken from {path}")
    else:
        _compute(model, folder, path, part, images_per_batch, num_workers)
    return torch.from_numpy(np.load(path, mmap_mode="c"))  # read as needed; nothing is written back


def cache_key(model: Classifier, folder: LabeledFolder) -> str:
    """12 hex digits that change with the encoder, its input, the view, and the images' paths, sizes and times."""
    digest = hashlib.sha256(weights_digest(model.encoder).encode())
    mean, std = model.pixel_mean.flatten().tolist(), model.pixel_std.flatten().tolist()
    strides = [module.stride for module in model.encoder.modules() if isinstance(module, nn.Conv2d)]
    digest.update(repr((mean, std, model.flip_channels, strides, str(model.precision), folder.size)).encode())
    if not folder.image_format.is_plain:
        digest.update(repr(folder.image_format).encode())
    for path in folder.paths:
        status, name = os.stat(file_of(path)), path.removeprefix(folder.root)
        digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:12]


def weights_digest(module: nn.Module) -> str:
    """sha256 over the names and values of all tensors of a module."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _compute(
    model: Classifier, folder: LabeledFolder, path: Path, part: str, images_per_batch: int, num_workers: int
) -> None:
    """Each rank writes the rows of its block of the images into one file, which takes its name at the end."""
    model.encoder.eval()
    temporary = path.with_name(f".{path.name}.tmp")
    if comm.is_main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in (*path.parent.glob(f"{part}_*.npy"), *path.parent.glob(f".{part}_*.tmp")):
            stale.unlink()
        shape, dtype = (len(folder), pooled_dim(model.encoder)), str(model.pixel_mean.dtype).split(".")[1]
        np.lib.format.open_memmap(temporary, "w+", dtype=dtype, shape=shape).flush()
        logger.info(f"features of {len(folder)} images in {folder.root} are computed once, for {path}")
    comm.synchronize()
    mine = torch.arange(len(folder)).tensor_split(comm.get_world_size())[comm.get_rank()]
    slots = [part.tolist() for part in mine.split(images_per_batch)]
    rows = np.load(temporary, mmap_mode="r+")
    batches = progress(view_batches(CenterViews(folder), slots, num_workers), "features", len(slots), "batch")
    for slot, batch in zip(slots, batches, strict=True):
        rows[slot] = model.features(batch["image"]).cpu().numpy()
    rows.flush()
    comm.synchronize()
    if comm.is_main_process():
        os.replace(temporary, path)
    comm.synchronize()


def pooled_dim(encoder: nn.Module) -> int:
    """D of a torchvision ResNet, whatever its ``fc`` is: 512 or 2048."""
    last = encoder.layer4[-1]
    return last.conv3.out_channels if hasattr(last, "conv3") else last.conv2.out_channels
