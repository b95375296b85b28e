"""The chart-based head of DensePose R-CNN. Its parameters have upstream's names, so that its checkpoints load."""

import math

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn
from torch.nn import functional as F

from moco_densepose.charts import NUM_CHARTS
from moco_densepose.output import ChartOutput

# The decoder joins the levels at this stride.
COMMON_STRIDE = 4


class ConvStack(nn.Module):
    """Convolutions with ReLU, named ``body_conv_fcn1`` and so on (upstream's DensePoseV1ConvXHead)."""

    def __init__(self, channels: int, width: int, kernel: int, count: int):
        super().__init__()
        for number in range(1, count + 1):
            layer = nn.Conv2d(channels if number == 1 else width, width, kernel, padding=kernel // 2)
            self.add_module(f"body_conv_fcn{number}", layer)
        _initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N x channels x P x P to N x width x P x P."""
        for layer in self.children():
            x = F.relu(layer(x))
        return x


class ChartPredictor(nn.Module):
    """Four transposed convolutions: coarse segmentation, charts, U and V."""

    def __init__(self, channels: int, num_coarse: int, kernel: int, up_scale: int):
        """
        Args:
            num_coarse: channels of the coarse segmentation, background included.
            kernel: even.
            up_scale: factor of the enlargement that follows.
        """
        super().__init__()
        options = {"kernel_size": kernel, "stride": 2, "padding": kernel // 2 - 1}
        self.ann_index_lowres = nn.ConvTranspose2d(channels, num_coarse, **options)
        self.index_uv_lowres = nn.ConvTranspose2d(channels, NUM_CHARTS + 1, **options)
        self.u_lowres = nn.ConvTranspose2d(channels, NUM_CHARTS + 1, **options)
        self.v_lowres = nn.ConvTranspose2d(channels, NUM_CHARTS + 1, **options)
        self.up_scale = up_scale
        _initialize(self)

    def forward(self, x: torch.Tensor) -> ChartOutput:
        """Map N x channels x P x P to maps of side S = 2 P up_scale."""
        layers = (self.ann_index_lowres, self.index_uv_lowres, self.u_lowres, self.v_lowres)
        return ChartOutput(*(self._enlarged(layer(x)) for layer in layers))

    def _enlarged(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=self.up_scale, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Joins the levels of an FPN to one map at stride 4 (Kirillov et al. 2019, section 3 and Figure 3)."""

    def __init__(self, shapes: dict[str, ShapeSpec], width: int, num_out: int, norm: str):
        """
        Args:
            shapes: of the levels by name, e.g. ``p2`` to ``p5``; strides are COMMON_STRIDE times powers of 2.
            width: channels on the way.
            num_out: channels of the map.
        """
        super().__init__()
        for name, shape in shapes.items():
            doublings = round(math.log2(shape.stride / COMMON_STRIDE))
            layers = []
            for number in range(max(1, doublings)):
                layers.append(_decoder_conv(shape.channels if number == 0 else width, width, norm))
                if doublings:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(name, nn.Sequential(*layers))
        self.levels = tuple(shapes)
        self.predictor = Conv2d(width, num_out, kernel_size=1)
        c2_msra_fill(self.predictor)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """B x num_out x H/4 x W/4."""
        return self.predictor(sum(self.get_submodule(name)(features[name]) for name in self.levels))


def _decoder_conv(channels: int, width: int, norm: str) -> Conv2d:
    layer = Conv2d(
        *(channels, width),
        kernel_size=3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, width),
        activation=F.relu,
    )
    c2_msra_fill(layer)
    return layer


def _initialize(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")


def build_head(cfg: CfgNode, channels: int) -> tuple[ConvStack, ChartPredictor]:
    """Convolutions and predictor of MODEL.ROI_DENSEPOSE_HEAD for maps of ``channels``.

    Raises:
        ValueError: a key has a value that no head has.
    """
    head = cfg.MODEL.ROI_DENSEPOSE_HEAD
    for key, found, fits, expected in (
        ("NUM_COARSE_SEGM_CHANNELS", head.NUM_COARSE_SEGM_CHANNELS, (2, 15), "2 or 15"),
        ("CONV_HEAD_KERNEL", head.CONV_HEAD_KERNEL, range(1, 99, 2), "an odd number"),
        ("DECONV_KERNEL", head.DECONV_KERNEL, range(2, 99, 2), "an even number"),
    ):
        if found not in fits:
            raise ValueError(f"MODEL.ROI_DENSEPOSE_HEAD.{key} is {found}; give {expected}")
    stack = ConvStack(channels, head.CONV_HEAD_DIM, head.CONV_HEAD_KERNEL, head.NUM_STACKED_CONVS)
    width = head.CONV_HEAD_DIM if head.NUM_STACKED_CONVS else channels
    return stack, ChartPredictor(width, head.NUM_COARSE_SEGM_CHANNELS, head.DECONV_KERNEL, head.UP_SCALE)
