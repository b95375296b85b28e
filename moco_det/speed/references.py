"""The published recipe in plain form, as a reader of the papers and of the official code would write it down.

Each stands next to ours in one measurement; tests hold that both compute the same. The official code is
facebookresearch/moco at 3b42c2a.

N: images of a batch, S: side of a view, C: embedding length, K: negatives.
"""

import copy
import random

import torch
import torchvision
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms as T

from moco_det.data.decoding import open_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Blur:
    def __call__(self, view: Image.Image) -> Image.Image:
        return view.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def published_views(size: int = 224) -> T.Compose:
    """The augmentation of MoCo v2 (official code, ``--aug-plus``): Pillow image -> float (3, S, S)."""
    crop = T.RandomResizedCrop(size, scale=(0.2, 1.0))
    return T.Compose([crop, *published_colors(on_tensors=False).transforms])


def published_colors(on_tensors: bool = True) -> T.Compose:
    """The same without the crop: Pillow image, or a view on its device, uint8 (3, S, S) -> float (3, S, S).

    The blur of tensors takes a window, which ours and Pillow's do not cut: 23 pixels, for 224 as in SimCLR.
    """
    return T.Compose(
        [
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomApply([T.GaussianBlur(23, (0.1, 2.0)) if on_tensors else _Blur()], p=0.5),
            T.RandomHorizontalFlip(),
            T.ConvertImageDtype(torch.float) if on_tensors else T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )


def open_rgb(path: str) -> Image.Image:
    """A file as torchvision's ImageFolder reads it; or a member of a shard."""
    with open_image(path) as image:
        return image.convert("RGB")


def published_item(path: str, transform) -> tuple[Tensor, Tensor]:
    """Two views of a file, as torchvision's ImageFolder and the official ``TwoCropsTransform`` make them."""
    image = open_rgb(path)
    return transform(image), transform(image)


def published_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE by concatenated logits and cross-entropy (official code, moco/builder.py).

    Args:
        q: (N, C); k: (N, C); queue: (C, K).
    """
    positive = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)  # Nx1
    negative = torch.einsum("nc,ck->nk", q, queue.clone().detach())  # NxK
    logits = torch.cat([positive, negative], dim=1)  # Nx(1+K)
    logits /= temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@torch.no_grad()
def published_momentum_update(key_encoder: nn.Module, query_encoder: nn.Module, m: float) -> None:
    """One tensor at a time (official code, moco/builder.py)."""
    for k, q in zip(key_encoder.parameters(), query_encoder.parameters(), strict=True):
        k.data = k.data * m + q.data * (1.0 - m)


class PublishedMoCo(nn.Module):
    """Algorithm 1 on one device, without the shuffle: one batch-norm group, contiguous, concatenated logits."""

    def __init__(self, arch: str, dim: int, queue_size: int, momentum: float, temperature: float):
        super().__init__()
        self.encoder_q = getattr(torchvision.models, arch)(num_classes=dim)
        width = self.encoder_q.fc.in_features
        self.encoder_q.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), self.encoder_q.fc)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.momentum, self.temperature = momentum, temperature
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))  # CxK
        self.pointer = 0

    def forward(self, query: Tensor, key: Tensor) -> Tensor:  # each Nx3xSxS, normalized floats
        q = F.normalize(self.encoder_q(query), dim=1)  # NxC
        with torch.no_grad():
            published_momentum_update(self.encoder_k, self.encoder_q, self.momentum)
            k = F.normalize(self.encoder_k(key), dim=1)  # NxC
        loss = published_loss(q, k, self.queue, self.temperature)
        self.queue[:, self.pointer : self.pointer + len(k)] = k.T  # whole batches fit the queue
        self.pointer = (self.pointer + len(k)) % self.queue.shape[1]
        return loss


def float_images(images: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) -> normalized floats, as ToTensor and Normalize leave them."""
    mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (MEAN, STD))
    return (images / 255 - mean) / std


def all_gather_bytes(num_images: int, ranks: int, size: int) -> int:
    """What each rank sends when all gather the float images: its own, to every other rank."""
    return (ranks - 1) * num_images * 3 * size * size * 4


def bytes_of_shuffle(permutation: Tensor, ranks: int, size: int) -> list[int]:
    """What each rank sends when each uint8 image goes to the one rank that takes it.

    Args:
        permutation: (N,) of the global batch: which image each place takes.
    """
    count = len(permutation) // ranks
    sent = [0] * ranks
    for place, image in enumerate(permutation.tolist()):
        owner, taker = image // count, place // count
        if owner != taker:
            sent[owner] += 3 * size * size
    return sent
