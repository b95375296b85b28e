"""Random views of an image: what is sampled, and crops; colors are :mod:`moco_det.data.augment`'s.

Order and parameters are those of the official code (main_moco.py at 3b42c2a), not of the paper's prose, which
names another order. Views stay 8-bit; the model normalizes them on its device.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import functional as F

from moco_det.config.key import PRETRAIN
from moco_det.config.rules import check_value
from moco_det.data import augment
from moco_det.data.image_format import RGB, ImageFormat

ASPECT_RATIO = (3 / 4, 4 / 3)  # width / height of a crop
CROP_ATTEMPTS = 10
BLUR_SIGMA = (0.1, 2.0)  # pixels of the finished view, the official code's for 224 px
SMALL_CROP_SCALE = (0.05, 0.14)  # SwAV, section 3.3 and appendix
FLIP_PROBABILITY = 0.5
LARGE_VIEWS = 2  # the query's and the key's; views from this number on are local crops


@dataclasses.dataclass(frozen=True)
class Photometric:
    """What may happen to the colors of one view.

    Attributes:
        operations: names of the operations between crop and flip, first to last.
        jitter: strengths of brightness, contrast and saturation, which are multiplied by 1 - s .. 1 + s (not
            below 0), and the largest shift of the hue, as a fraction of the color circle.
        jitter_probability, grayscale_probability, blur_probability, solarize_probability: of each operation.
    """

    operations: tuple[str, ...] = ()
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    grayscale_probability: float = 0.0
    blur_probability: float = 0.0
    solarize_probability: float = 0.0


_V1 = Photometric(("grayscale", "jitter"), (0.4, 0.4, 0.4, 0.4), 1.0, 0.2)
_V2 = Photometric(("jitter", "grayscale", "blur"), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5)
_CIFAR = dataclasses.replace(_V2, operations=("jitter", "grayscale"), blur_probability=0.0)
_SIMCLR = dataclasses.replace(_V2, jitter=(0.8, 0.8, 0.8, 0.2))
_BYOL = Photometric(("jitter", "grayscale", "blur", "solarize"), (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 1.0)

# Of each recipe: the first view, the second, the local crops.
RECIPES = {
    # MoCo: main_moco.py without and with --aug-plus.
    "v1": (_V1, _V1, _V1),
    "v2": (_V2, _V2, _V2),
    # The CIFAR-10 demo of MoCo's authors. (It flips first; the other operations do the same to a mirror image.)
    "cifar": (_CIFAR,) * 3,
    # Crop and flip alone, as classifiers are trained (official code, main_lincls.py).
    "crop_flip": (Photometric(), Photometric(), Photometric()),
    # SimCLR (Chen et al. 2020, appendix A, with s = 1). SwAV takes it for views of both sizes (Caron et al. 2020,
    # appendix A; its code, multicropdataset.py).
    "simclr": (_SIMCLR, _SIMCLR, _SIMCLR),
    # BYOL (Grill et al. 2020, Table 6), and with it MoCo v3 (Chen et al. 2021, main_moco.py). The local crops are
    # DINO's, whose global ones are the same (Caron et al. 2021, main_dino.py).
    "byol": (
        _BYOL,
        dataclasses.replace(_BYOL, blur_probability=0.1, solarize_probability=0.2),
        dataclasses.replace(_BYOL, blur_probability=0.5),
    ),
}


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How views are sampled: the keys of INPUT.VIEWS. An image has two global and ``small_crops`` local crops.

    Attributes:
        recipe: a name in ``RECIPES``.
        size, small_size: sides of the views, in pixels.
        crop_scale, small_crop_scale: smallest and largest fraction of the image's area that a crop takes.
        blur_sigma: smallest and largest sigma of the blur, in pixels of the view.
        channel_dropout: probability with which each channel of a view is replaced by its mean.
        image_format: how the images' files become pixels (not of INPUT.VIEWS).
        decode: INPUT.DECODE, see :mod:`moco_det.data.fast_jpeg`.

    Raises:
        ValueError: names the key under INPUT.VIEWS, what was found and what is expected.
    """

    recipe: str
    size: int
    crop_scale: tuple[float, float]
    blur_sigma: tuple[float, float] = BLUR_SIGMA
    small_crops: int = 0
    small_size: int = 96
    small_crop_scale: tuple[float, float] = SMALL_CROP_SCALE
    channel_dropout: float = 0.0
    image_format: ImageFormat = RGB
    decode: str = "exact"

    @classmethod
    def from_config(cls, cfg) -> "ViewSettings":
        """The settings of a config."""
        views = cfg.INPUT.VIEWS
        settings = {name: views[name.upper()] for name in cls._names()}
        return cls(**settings, image_format=ImageFormat.from_config(cfg), decode=cfg.INPUT.DECODE)

    @classmethod
    def _names(cls) -> list[str]:
        own = ("image_format", "decode")
        return [field.name for field in dataclasses.fields(cls) if field.name not in own]

    def __post_init__(self):
        for name in self._names():
            check_value(f"INPUT.VIEWS.{name.upper()}", getattr(self, name), PRETRAIN)

    @property
    def num_views(self) -> int:
        """The number of views of an image: global and local crops."""
        return LARGE_VIEWS + self.small_crops

    def operations(self, view: int) -> tuple[str, ...]:
        """Names of the operations on the colors of a view, by its number."""
        return RECIPES[self.recipe][min(view, LARGE_VIEWS)].operations

    @property
    def blurs(self) -> bool:
        """Whether a view may be blurred."""
        return any(photometric.blur_probability for photometric in RECIPES[self.recipe])


@dataclasses.dataclass(frozen=True)
class ViewParameters:
    """Everything random about one view.

    Attributes:
        size: side of the view, in pixels.
        operations: names of the operations between crop and flip, first to last (the recipe's).
        crop: top, left, height and width, in pixels of the image.
        jitter: pairs (operation, factor) in the order applied, where the operation is 0 brightness,
            1 contrast, 2 saturation, 3 hue; None: colors stay.
        grayscale: whether color is removed.
        blur: radius (sigma) of the Gaussian blur in pixels of the view; None: no blur.
        solarize: whether bright pixel values are inverted.
        flip: whether left and right are exchanged.
        dropped: numbers of the channels that are replaced by their mean.
        has_colors: whether the first three channels are red, green and blue.
    """

    size: int
    operations: tuple[str, ...]
    crop: tuple[int, int, int, int]
    jitter: tuple[tuple[int, float], ...] | None
    grayscale: bool
    blur: float | None
    solarize: bool
    flip: bool
    dropped: tuple[int, ...] = ()
    has_colors: bool = True

    def photometric_row(self) -> list[float]:
        """The row of these parameters for :func:`moco_det.data.augment.augment`: all but the crop."""
        row = [0.0] * augment.COLUMNS
        row[augment.SLOTS] = [-1.0] * 4
        for slot, (operation, factor) in enumerate(self.jitter or ()):
            # As torchvision: a whole number of pixel values, truncated towards 0.
            row[operation] = float(int(factor * 255)) if operation == augment.HUE else factor
            row[augment.SLOTS.start + slot] = float(operation)
        row[augment.GRAYSCALE], row[augment.BLUR] = float(self.grayscale), self.blur or 0.0
        row[augment.SOLARIZE], row[augment.FLIP] = float(self.solarize), float(self.flip)
        row[augment.DROPPED] = float(sum(1 << channel for channel in self.dropped))
        return row


def draw_view(
    rng: np.random.Generator, width: int, height: int, settings: ViewSettings, view: int = 0
) -> ViewParameters:
    """Sample one view of an image of ``width`` x ``height`` pixels.

    Args:
        rng: the view's own generator; nothing else is sampled from.
        view: its number: 0 the query, 1 the key, from 2 on the local crops.
    """
    large = view < LARGE_VIEWS
    photometric = RECIPES[settings.recipe][min(view, LARGE_VIEWS)]
    crop = _draw_crop(rng, width, height, settings.crop_scale if large else settings.small_crop_scale)
    jitter = _draw_jitter(rng, photometric.jitter) if rng.random() < photometric.jitter_probability else None
    grayscale = rng.random() < photometric.grayscale_probability
    blur = rng.uniform(*settings.blur_sigma) if rng.random() < photometric.blur_probability else None
    flip = rng.random() < FLIP_PROBABILITY
    # These two last, so that settings without them sample the rest as if they did not exist.
    solarize = rng.random() < photometric.solarize_probability
    dropped = _draw_dropped(rng, settings.image_format.channels, settings.channel_dropout)
    return ViewParameters(
        size=settings.size if large else settings.small_size,
        operations=photometric.operations,
        crop=crop,
        jitter=jitter,
        grayscale=grayscale,
        blur=blur,
        solarize=solarize,
        flip=flip,
        dropped=dropped,
        has_colors=settings.image_format.has_colors,
    )


def _draw_dropped(rng: np.random.Generator, channels: int, probability: float) -> tuple[int, ...]:
    if not probability:
        return ()
    dropped = np.flatnonzero(rng.random(channels) < probability).tolist()
    if len(dropped) == channels:  # one is kept
        dropped.pop(int(rng.integers(channels)))
    return tuple(dropped)


def _draw_crop(
    rng: np.random.Generator, width: int, height: int, crop_scale: Sequence[float]
) -> tuple[int, int, int, int]:
    """A box of random area and shape inside the image, as torchvision's RandomResizedCrop samples it."""
    log_ratio = np.log(ASPECT_RATIO)
    for _ in range(CROP_ATTEMPTS):
        area = width * height * rng.uniform(*crop_scale)
        ratio = math.exp(rng.uniform(*log_ratio))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    # No box fitted: the largest central one of an allowed shape.
    w = min(width, round(height * ASPECT_RATIO[1]))
    h = min(height, round(width / ASPECT_RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _draw_jitter(
    rng: np.random.Generator, strengths: tuple[float, float, float, float]
) -> tuple[tuple[int, float], ...]:
    lowest = [max(1 - strength, 0) for strength in strengths[:3]]
    highest = [1 + strength for strength in strengths[:3]]
    factors = [*rng.uniform(lowest, highest), rng.uniform(-strengths[3], strengths[3])]
    return tuple((int(operation), float(factors[operation])) for operation in rng.permutation(4))


def apply_view(pixels: Tensor, parameters: ViewParameters) -> Tensor:
    """Make the view that was sampled.

    Args:
        pixels: of the image, uint8 (C, H, W).

    Returns:
        uint8 tensor of shape (C, S, S); S: the sampled size.
    """
    row, crop = torch.tensor([parameters.photometric_row()]), crop_view(pixels, parameters)[None]
    return augment.augment(crop, row, parameters.operations, has_colors=parameters.has_colors)[0]


def crop_view(pixels: Tensor, parameters: ViewParameters) -> Tensor:
    """The sampled crop and size, with the image's own colors, not flipped; shapes as :func:`apply_view`.

    Bilinear with antialias: within 1 pixel value of Pillow's resize, but for fewer than one value in a million. It
    is fastest on pixels whose channels lie together in memory, and its result is then such, too.
    """
    top, left, height, width = parameters.crop
    crop = pixels[None, :, top : top + height, left : left + width]
    return interpolate(crop, [parameters.size] * 2, mode="bilinear", antialias=True)[0]


def center_view(image: Image.Image | Tensor, size: int) -> Tensor:
    """The view for evaluation: shorter side to 256/224 of ``size``, then the central square.

    Args:
        image: RGB of Pillow, or uint8 (C, H, W), each channel of which is scaled as Pillow scales it.

    Returns:
        uint8 tensor of shape (C, size, size).
    """
    if isinstance(image, Tensor):
        return torch.cat([center_view(channel, size) for channel in _gray_images(image)])
    return F.pil_to_tensor(F.center_crop(F.resize(image, [round(size * 256 / 224)]), [size, size]))


def whole_view(image: Image.Image | Tensor, size: int) -> Tensor:
    """The whole image, scaled; as :func:`center_view`."""
    if isinstance(image, Tensor):
        return torch.cat([whole_view(channel, size) for channel in _gray_images(image)])
    return F.pil_to_tensor(F.resize(image, [size, size]))


def _gray_images(pixels: Tensor) -> list[Image.Image]:
    return [Image.fromarray(channel) for channel in pixels.numpy()]
