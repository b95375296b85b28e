"""What the dense pose head predicts, as a field of ``Instances``."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class ChartOutput:
    """Predictions for N boxes, each S x S over its box.

    Attributes:
        coarse: N x 2 or 15 x S x S, scores (before the softmax) of background and coarse parts.
        fine: N x 25 x S x S, scores of background (0) and charts I.
        u, v: N x 25 x S x S, coordinate in each chart, meant to lie in [0, 1]; channel 0 means nothing.
    """

    coarse: torch.Tensor
    fine: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor

    def __len__(self) -> int:
        return len(self.fine)

    def __getitem__(self, item) -> "ChartOutput":
        if isinstance(item, int):
            item = slice(item, item + 1)
        return ChartOutput(*(value[item] for value in vars(self).values()))

    def to(self, *args, **kwargs) -> "ChartOutput":
        return ChartOutput(*(value.to(*args, **kwargs) for value in vars(self).values()))

    def resampled(self, index: int, box: tuple[float, float, float, float]) -> torch.Tensor:
        """I, 255 U and 255 V of each pixel of a box (x, y, width, height in pixels); 3 x H x W, uint8.

        A pixel is a person's where the coarse segmentation says so, and of the chart with the best score then.
        """
        size = max(int(box[3]), 1), max(int(box[2]), 1)
        coarse, fine, u, v = (
            F.interpolate(value[index : index + 1].float(), size, mode="bilinear", align_corners=False)[0]
            for value in vars(self).values()
        )
        label = fine.argmax(dim=0) * (coarse.argmax(dim=0) > 0)  # H x W
        maps = [(value.gather(0, label[None])[0] * 255).clamp(0, 255) * (label > 0) for value in (u, v)]
        return torch.stack([label, *maps]).to(torch.uint8)
