"""A labeled set, its views and its batches.

Randomness is a function of (seed, epoch, image): rank, worker, restart change none. Nothing here reads a global
generator.
"""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from moco_det.data.decoding import to_pixels
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.data.sample_order import Slot
from moco_det.data.views import ViewSettings, apply_view, center_view, draw_view
from moco_det.utils.children import ignore_stop_signals
from moco_det.utils.seeding import numpy_generator, torch_generator


class CenterViews(Dataset):
    """Maps the number of an image to its central view and its class."""

    def __init__(self, folder: LabeledFolder):
        self.folder = folder

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, slot: int | Slot) -> dict:
        """``image``, uint8 (C, S, S), and ``label``; or ``error``, since exceptions leave a worker wrapped."""
        index = slot if isinstance(slot, int) else slot[1]
        try:
            image = self.folder.decode(index)
        except ValueError as error:
            return {"error": str(error)}
        return {"image": self._view(image, slot), "label": self.folder.labels[index]}

    def _view(self, image: Image.Image | Tensor, slot: int) -> Tensor:
        return center_view(image, self.folder.size)


class RandomViews(CenterViews):
    """Maps a slot to a random view of its image, a function of (seed, "classified view", epoch, index)."""

    def __init__(self, folder: LabeledFolder, *, seed: int, recipe: str, crop_scale: Sequence[float]):
        super().__init__(folder)
        self.seed = seed
        self.settings = ViewSettings(recipe, folder.size, tuple(crop_scale), image_format=folder.image_format)

    def _view(self, image: Image.Image | Tensor, slot: Slot) -> Tensor:
        rng = numpy_generator(self.seed, "classified view", *slot)
        pixels = image if isinstance(image, Tensor) else to_pixels(image)
        height, width = pixels.shape[1:]
        return apply_view(pixels, draw_view(rng, width, height, self.settings))


def view_batches(views: CenterViews, slots, num_workers: int) -> Iterator[dict]:
    """Batches of views.

    Args:
        slots: lists of what ``views`` maps, one list a batch.

    Raises:
        ValueError: while iterating, an image cannot be read.
    """
    batches = DataLoader(
        views,
        batch_sampler=slots,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_stop_signals,
        generator=torch_generator(0, "workers"),  # else DataLoader takes numbers from the global one
    )
    for batch in batches:
        if "error" in batch:
            raise ValueError(batch["error"])
        yield batch


def _collate(items: list[dict]) -> dict:
    for item in items:
        if "error" in item:
            return item
    return {
        "image": torch.stack([item["image"] for item in items]),  # nxCxSxS
        "label": torch.tensor([item["label"] for item in items]),  # n
    }


def feature_batches(features: Tensor, labels: Tensor, slots: Iterator[list[Slot]]) -> Iterator[dict]:
    """Batches of cached features, (n, D), in the order in which their images would come."""
    for batch in slots:
        index = torch.tensor([index for _, index in batch])
        yield {"features": features[index], "label": labels[index]}
