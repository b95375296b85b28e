"""Random views of an image: what is drawn, apart from how it is applied.

Order and parameters are those of the official code (main_moco.py at 3b42c2a), not of the paper's prose, which
names another order. Views stay 8-bit; the model normalises them on its device.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import functional as F

ASPECT_RATIO = (3 / 4, 4 / 3)  # width / height of a crop
CROP_ATTEMPTS = 10
JITTER = 0.4  # brightness, contrast and saturation are multiplied by 1 - JITTER .. 1 + JITTER
GRAYSCALE_PROBABILITY = 0.2
BLUR_SIGMA = (0.1, 2.0)  # pixels of the finished view, the official code's for 224 px
FLIP_PROBABILITY = 0.5


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An augmentation recipe: what differs between them.

    Attributes:
        order: names of the operations between crop and flip, first to last.
        jitter_probability: probability that colours are jittered at all.
        hue: largest shift of the hue, as a share of the colour circle.
        blur_probability: probability of the Gaussian blur.
    """

    order: tuple[str, ...]
    jitter_probability: float
    hue: float
    blur_probability: float


RECIPES = {
    "v1": Recipe(("grayscale", "jitter"), jitter_probability=1.0, hue=0.4, blur_probability=0.0),
    "v2": Recipe(("jitter", "grayscale", "blur"), jitter_probability=0.8, hue=0.1, blur_probability=0.5),
    # The CIFAR-10 demo of MoCo's authors. (It flips first; the other operations do the same to a mirror image.)
    "cifar": Recipe(("jitter", "grayscale"), jitter_probability=0.8, hue=0.1, blur_probability=0.0),
    # Crop and flip alone, as classifiers are trained (official code, main_lincls.py).
    "crop_flip": Recipe((), jitter_probability=0.0, hue=0.0, blur_probability=0.0),
}

_JITTER_OPERATIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


@dataclasses.dataclass(frozen=True)
class ViewParameters:
    """Everything random about one view.

    Attributes:
        order: names of the operations between crop and flip, first to last (the recipe's).
        crop: top, left, height and width, in pixels of the image.
        jitter: pairs (operation, factor) in the order applied, where the operation is 0 brightness,
            1 contrast, 2 saturation, 3 hue; None: colours stay.
        grayscale: whether colour is removed.
        blur: radius (sigma) of the Gaussian blur in pixels of the view; None: no blur.
        flip: whether left and right are exchanged.
    """

    order: tuple[str, ...]
    crop: tuple[int, int, int, int]
    jitter: tuple[tuple[int, float], ...] | None
    grayscale: bool
    blur: float | None
    flip: bool


def check_view_settings(
    recipe: str, size: int, crop_scale: Sequence[float], blur_sigma: Sequence[float] = BLUR_SIGMA
) -> None:
    """Refuse settings that :func:`draw_view` and :func:`apply_view` cannot follow.

    Raises:
        ValueError: names the key under INPUT.VIEWS, what was found and what is expected.
    """
    if recipe not in RECIPES:
        raise ValueError(f"INPUT.VIEWS.RECIPE is {recipe!r}; expected one of {sorted(RECIPES)}")
    if size < 1:
        raise ValueError(f"INPUT.VIEWS.SIZE is {size}; expected at least 1 pixel")
    if len(crop_scale) != 2 or not 0 < crop_scale[0] <= crop_scale[1] <= 1:
        raise ValueError(
            f"INPUT.VIEWS.CROP_SCALE is {tuple(crop_scale)}; expected (min, max) with 0 < min <= max <= 1"
        )
    if len(blur_sigma) != 2 or not 0 <= blur_sigma[0] <= blur_sigma[1]:
        raise ValueError(
            f"INPUT.VIEWS.BLUR_SIGMA is {tuple(blur_sigma)}; expected (min, max) with 0 <= min <= max"
        )


def draw_view(
    rng: np.random.Generator,
    width: int,
    height: int,
    recipe: str,
    crop_scale: Sequence[float],
    blur_sigma: Sequence[float] = BLUR_SIGMA,
) -> ViewParameters:
    """Draw one view of an image of ``width`` x ``height`` pixels.

    Args:
        rng: the view's own generator; nothing else is drawn from.
        recipe: a name in ``RECIPES``.
        crop_scale: smallest and largest share of the image's area that the crop takes.
        blur_sigma: smallest and largest sigma of the blur, in pixels of the view.
    """
    settings = RECIPES[recipe]
    crop = _draw_crop(rng, width, height, crop_scale)
    jitter = _draw_jitter(rng, settings.hue) if rng.random() < settings.jitter_probability else None
    return ViewParameters(
        order=settings.order,
        crop=crop,
        jitter=jitter,
        grayscale=rng.random() < GRAYSCALE_PROBABILITY,
        blur=rng.uniform(*blur_sigma) if rng.random() < settings.blur_probability else None,
        flip=rng.random() < FLIP_PROBABILITY,
    )


def _draw_crop(
    rng: np.random.Generator, width: int, height: int, crop_scale: Sequence[float]
) -> tuple[int, int, int, int]:
    """A box of random area and shape inside the image, as torchvision's RandomResizedCrop draws it."""
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


def _draw_jitter(rng: np.random.Generator, hue: float) -> tuple[tuple[int, float], ...]:
    factors = [*rng.uniform(1 - JITTER, 1 + JITTER, size=3), rng.uniform(-hue, hue)]
    return tuple((int(operation), float(factors[operation])) for operation in rng.permutation(4))


def apply_view(image: Image.Image, parameters: ViewParameters, size: int) -> Tensor:
    """Make the view that was drawn.

    Args:
        image: RGB.
        size: side of the view, in pixels.

    Returns:
        uint8 tensor of shape (3, size, size), RGB.
    """
    view = F.resized_crop(image, *parameters.crop, [size, size])  # bilinear, with antialias
    for name in parameters.order:
        view = _OPERATIONS[name](view, parameters)
    return F.pil_to_tensor(F.hflip(view) if parameters.flip else view)


def _grayscale(view: Image.Image, parameters: ViewParameters) -> Image.Image:
    return F.rgb_to_grayscale(view, num_output_channels=3) if parameters.grayscale else view


def _jitter(view: Image.Image, parameters: ViewParameters) -> Image.Image:
    for operation, factor in parameters.jitter or ():
        view = _JITTER_OPERATIONS[operation](view, factor)
    return view


def _blur(view: Image.Image, parameters: ViewParameters) -> Image.Image:
    return view if parameters.blur is None else view.filter(ImageFilter.GaussianBlur(radius=parameters.blur))


_OPERATIONS = {"grayscale": _grayscale, "jitter": _jitter, "blur": _blur}


def center_view(image: Image.Image, size: int) -> Tensor:
    """The view for evaluation: shorter side to 256/224 of ``size``, then the central square.

    Returns:
        uint8 tensor of shape (3, size, size), RGB.
    """
    return F.pil_to_tensor(F.center_crop(F.resize(image, [round(size * 256 / 224)]), [size, size]))


def whole_view(image: Image.Image, size: int) -> Tensor:
    """The whole image, scaled: uint8 tensor of shape (3, size, size), RGB."""
    return F.pil_to_tensor(F.resize(image, [size, size]))
