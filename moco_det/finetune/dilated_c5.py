"""The paper's dilated C5 backbone (MoCo v1, A.1), which detectron2 lacks."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling.backbone import BACKBONE_REGISTRY, Backbone, ResNet, build_resnet_backbone
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

FEATURE = "dilated_c5"
CHANNELS = 512


class DilatedC5(Backbone):
    """A ResNet that ends in a dilated res5, and a 3x3 convolution with norm and ReLU that narrows its output.

    The paper says "a 3x3 convolution (with BN)": the ReLU and the initialization are this code's choice. The
    detector's weights of the ResNet are called ``backbone.bottom_up.*``, as with an FPN.
    """

    def __init__(self, bottom_up: ResNet, norm: str):
        """
        Args:
            bottom_up: gives ``res5`` and nothing else.
            norm: of the convolution, by detectron2's name.
        """
        super().__init__()
        (shape,) = bottom_up.output_shape().values()
        self.bottom_up = bottom_up
        self.reduce = Conv2d(
            *(shape.channels, CHANNELS),
            kernel_size=3,
            padding=1,
            bias=False,
            norm=get_norm(norm, CHANNELS),
            activation=nn.ReLU(),
        )
        c2_msra_fill(self.reduce)
        self._shape = ShapeSpec(channels=CHANNELS, stride=shape.stride)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map N x 3 x H x W to FEATURE: N x CHANNELS x H/16 x W/16."""
        (res5,) = self.bottom_up(images).values()
        return {FEATURE: self.reduce(res5)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {FEATURE: self._shape}


@BACKBONE_REGISTRY.register()
def build_resnet_dilated_c5_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> DilatedC5:
    """:class:`DilatedC5` of MODEL.RESNETS, one norm throughout.

    Raises:
        ValueError: the config's ResNet does not end in a dilated res5.
    """
    found = {key: cfg.MODEL.RESNETS[key] for key in ("OUT_FEATURES", "RES5_DILATION")}
    expected = {"OUT_FEATURES": ["res5"], "RES5_DILATION": 2}
    if found != expected:
        raise ValueError(
            f"MODEL.BACKBONE.NAME build_resnet_dilated_c5_backbone needs MODEL.RESNETS {expected}, found {found}"
        )
    return DilatedC5(build_resnet_backbone(cfg, input_shape), cfg.MODEL.RESNETS.NORM)
