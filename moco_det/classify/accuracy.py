"""Top-1 and top-5 accuracy, in percent of the images."""

from collections.abc import Iterable

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from moco_det.classify.classifier import Classifier

TOP = (1, 5)


def count_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images have their class among the 1, and the 5, largest logits: (n, C), (n,) -> int64 (2,)."""
    best = logits.topk(min(max(TOP), logits.shape[1]), dim=1).indices  # nx5
    hit = best == labels[:, None]
    return torch.stack([hit[:, :k].sum() for k in TOP])


@torch.no_grad()
def accuracy_on_features(classifier: nn.Module, features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 of a linear classifier on features (M, D)."""
    device = next(classifier.parameters()).device
    hits = sum(
        count_hits(classifier(part.to(device)), truth.to(device))
        for part, truth in zip(features.split(8192), labels.split(8192), strict=True)
    )
    return percent(hits, len(labels))


@torch.no_grad()
def accuracy_on_images(model: Classifier, batches: Iterable[dict], num_images: int) -> tuple[float, float]:
    """Top-1 and top-5 of the whole network on the images of all ranks, in evaluation mode.

    Args:
        batches: of this rank.
        num_images: of all ranks.
    """
    training = model.training
    model.eval()
    device = model.pixel_mean.device
    hits = torch.zeros(len(TOP), dtype=torch.int64, device=device)
    for batch in batches:
        hits += count_hits(model.logits(batch)[0], batch["label"].to(device))
    model.train(training)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(hits)
    return percent(hits, num_images)


def percent(hits: Tensor, count: int) -> tuple[float, float]:
    """Counts in percent."""
    top1, top5 = (100.0 * number / count for number in hits.tolist())
    return top1, top5
