"""The paper's head for semantic segmentation (MoCo v1, A.5): dilated convolutions on a ResNet of stride 16.

The rest of the FCN is detectron2's: its ``SemanticSegmentor``, and a ResNet whose conv5 has dilation 2 and
stride 1 (MODEL.RESNETS.RES5_DILATION 2).

Shapes: N images, K classes, h x w positions of the feature map, H x W pixels.
"""

from collections.abc import Mapping

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn
from torch.nn import functional as F


@SEM_SEG_HEADS_REGISTRY.register()
class DilatedFCNHead(nn.Module):
    """Two dilated 3x3 convolutions with norm and ReLU, then a 1x1 convolution to the classes."""

    @configurable
    def __init__(
        self,
        *,
        in_feature: str,
        in_shape: ShapeSpec,
        num_classes: int,
        conv_dim: int,
        dilation: int,
        norm: str,
        ignore_value: int,
        loss_weight: float,
    ):
        """
        Args:
            in_feature: name of the backbone's map that the head reads.
            in_shape: its channels and stride.
            num_classes: K.
            conv_dim: channels of the two convolutions; 256 in the paper.
            dilation: of the two convolutions; 6 in the paper.
            norm: a name that detectron2's ``get_norm`` knows.
            ignore_value: label of the pixels that have no class.
            loss_weight: factor of the loss.
        """
        super().__init__()
        self.in_feature, self.stride = in_feature, in_shape.stride
        self.ignore_value, self.loss_weight = ignore_value, loss_weight
        shape = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "bias": not norm}
        self.convs = nn.Sequential(
            *(
                Conv2d(c, conv_dim, **shape, norm=get_norm(norm, conv_dim), activation=F.relu)
                for c in (in_shape.channels, conv_dim)
            )
        )
        self.predictor = Conv2d(conv_dim, num_classes, kernel_size=1)
        for conv in self.convs:
            weight_init.c2_msra_fill(conv)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg, input_shape: Mapping[str, ShapeSpec]):
        head = cfg.MODEL.SEM_SEG_HEAD
        (in_feature,) = head.IN_FEATURES
        return {
            "in_feature": in_feature,
            "in_shape": input_shape[in_feature],
            "num_classes": head.NUM_CLASSES,
            "conv_dim": head.CONVS_DIM,
            "dilation": head.DILATION,
            "norm": head.NORM,
            "ignore_value": head.IGNORE_VALUE,
            "loss_weight": head.LOSS_WEIGHT,
        }

    def forward(
        self, features: Mapping[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """
        Args:
            features: maps of the backbone; the one read is (N, channels, h, w).
            targets: (N, H, W), labels; needed in training.

        Returns:
            in training None and the loss; else the class scores (N, K, >= H, >= W) and no loss. Whoever asked
            cuts them to the image.
        """
        x = self.convs(features[self.in_feature])  # (N, conv_dim, h, w)
        scores = upsample(self.predictor(x).float(), self.stride)  # (N, K, >= H, >= W)
        if not self.training:
            return scores, {}
        scores = scores[..., : targets.shape[-2], : targets.shape[-1]]  # (N, K, H, W)
        loss = F.cross_entropy(scores, targets, ignore_index=self.ignore_value)
        return None, {"loss_sem_seg": loss * self.loss_weight}


def upsample(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Bilinear, each position to the pixel that it stands for; what lies beyond the last is as the last.

    Position i of a ResNet's map is centered on pixel ``stride * i``. So the paper's crops of 513 and 769 pixels
    (a multiple of 16, plus 1) begin and end with a position, and this is ``align_corners=True`` for them.

    Args:
        x: (N, K, h, w).
        stride: pixels between two positions.

    Returns:
        (N, K, h * stride + 1, w * stride + 1).
    """
    size = [side * stride + 1 for side in x.shape[-2:]]
    return F.interpolate(F.pad(x, (0, 1, 0, 1), mode="replicate"), size, mode="bilinear", align_corners=True)
