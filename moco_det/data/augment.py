"""The colors of many views at once, and their flip, by the parameters that were sampled: on the CPU or a GPU.

The definition is torchvision's for Pillow images. Between two operations there are whole numbers from 0 to 255, as
in Pillow, here held in float32. Brightness, contrast, saturation, grayscale and solarization give the same values;
after a turn of the hue fewer than 1 pixel in 100 differs from Pillow's, by at most 6 pixel values; and the passes
of the blur do not round, which Pillow's do (tests/data/test_augment.py holds how little the results differ).

Images of other channels than red, green and blue, C of them, use the same numbers. Where the first three are
RGB and others follow, hue, saturation and grayscale are theirs alone, and contrast goes by their common
gray; where none are, these three do nothing. Each other channel is a gray image of its own: contrast goes by
its own mean. All else is done to each channel.

The parameters of a view are a row of float32 numbers, COLUMNS of them, on the CPU: which views an operation is for
is known without asking the GPU, so nothing here waits for it.

Letters: n views, S: their side.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# Of a row: factors of brightness, contrast and saturation, and the shift of the hue (0 to 255); then which of the
# four comes first, second, ... (-1: none does); then whether or how much of the others.
HUE, SLOTS, GRAYSCALE, BLUR, SOLARIZE, FLIP = 3, slice(4, 8), 8, 9, 10, 11
# Of the channels that are replaced by their mean, a bit each.
DROPPED = 12
COLUMNS = 13

# Red, green and blue in Pillow's conversion to gray levels ("L"), in 65536ths; float32 holds the sums exactly.
_GRAY = (19595, 38470, 7471)


def augment(
    views: Tensor,
    photometric: Tensor,
    operations: Sequence[str],
    device: torch.device | str | None = None,
    has_colors: bool = True,
) -> Tensor:
    """Do to crops what was sampled for them.

    Args:
        views: uint8 (n, C, S, S).
        photometric: float32 (n, COLUMNS), on the CPU.
        operations: names of the operations, first to last: "jitter", "grayscale", "blur", "solarize".
        device: where to work; default: where the views are.
        has_colors: whether the first three channels are red, green and blue.

    Returns:
        uint8 (n, C, S, S) on the device.
    """
    rows = photometric.numpy()
    x = views.to(device or views.device, non_blocking=True).contiguous()
    steps = [step for name in operations for step in _STEPS[name](rows)]
    if x.shape[1] != 3 or not has_colors:
        steps = [(chosen, _for_channels(step, has_colors), *columns) for chosen, step, *columns in steps]
    steps += _dropout_steps(rows, x.shape[1])
    if any(chosen.any() for chosen, *_ in steps):
        values = x.float()
        for chosen, operation, *columns in steps:
            values = _on(values, chosen, operation, *columns)
        x = values.to(torch.int16).to(torch.uint8)  # much faster on a CPU than at once
    return _on(x.clone() if x is views else x, rows[:, FLIP] > 0, lambda some: some.flip(-1))


def _on(x: Tensor, chosen: np.ndarray, operation: Callable, *columns: np.ndarray) -> Tensor:
    """The operation on the chosen views, with their rows of the columns, (n, k), as tensors (m, k, 1, 1).

    The views are changed in place, or given up.
    """
    if not chosen.any():
        return x
    numbers = [_to(column[chosen], x.device)[..., None, None] for column in columns]
    if chosen.all():
        return operation(x, *numbers)
    index = _to(np.flatnonzero(chosen), x.device)
    return x.index_copy_(0, index, operation(x[index], *numbers))


def _to(numbers: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


# ---- Operations on pixel values, float32 (n, C, S, S), which they may change in place --------------------------


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return _whole(x.sub_(other).mul_(factor).add_(other))


def _whole(x: Tensor) -> Tensor:
    return x.clamp_(0, 255).floor_()


def _gray(x: Tensor) -> Tensor:
    """(n, 1, S, S)."""
    red, green, blue = x.split(1, dim=1)
    sums = (red * _GRAY[0]).add_(green, alpha=_GRAY[1]).add_(blue, alpha=_GRAY[2])
    return sums.add_(1 << 15).mul_(2.0**-16).floor_()


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return _whole(x.mul_(factor))


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, _gray(x).mean((1, 2, 3), keepdim=True).add_(0.5).floor_(), factor)


def contrast_of_each(x: Tensor, factor: Tensor) -> Tensor:
    """Contrast of each channel by itself; the factor may be one for each, (n, C, 1, 1)."""
    return _blend(x, x.mean((2, 3), keepdim=True).add_(0.5).floor_(), factor)


def _for_channels(operation: Callable, has_colors: bool) -> Callable:
    """An operation on RGB for other channels, see above."""
    if operation not in (contrast, saturation, grayscale, hue):
        return operation
    num_colors = 3 if has_colors else 0

    def apply(x: Tensor, *numbers: Tensor) -> Tensor:
        if num_colors:
            x[:, :num_colors] = operation(x[:, :num_colors].clone(), *numbers)
        if operation is contrast:
            contrast_of_each(x[:, num_colors:], *numbers)
        return x

    return apply


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, _gray(x), factor)


def grayscale(x: Tensor) -> Tensor:
    return x.copy_(_gray(x))


def solarize(x: Tensor) -> Tensor:
    return torch.minimum(x, 255 - x)  # the second is smaller from 128 on


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Through HSV of 8 bits, as Pillow: a turn of the hue is 255 values, which wrap at 256.

    Written for speed: in place, with ``lerp_`` by weights of 0 and 1 for ``where``. The plain form, which takes
    twice the time for the same bits, is ``plain_hue`` in tests/data/test_augment.py.
    """
    value = x.amax(1, keepdim=True)  # nx1xSxS, as all planes below
    chroma = value - x.amin(1, keepdim=True)
    red, green, blue = x.sub_(value).split(1, dim=1)  # 0 where a channel is the largest, else -1 or less
    # Sixths of a turn, times chroma, counted from the largest channel: red, else green, else blue.
    from_red, from_green = green - blue, blue - red
    turn = (chroma * 4).sub_(from_red).sub_(from_green)
    turn.lerp_(from_green.add_(chroma, alpha=2), green.add_(1).clamp_(min=0))
    turn.lerp_(from_red, red.add_(1).clamp_(min=0))
    turn.div_(chroma.clamp(min=1))
    negative = (turn * -512).clamp_(0, 1)
    level = turn.mul_(42.5).add_(negative, alpha=255).to(torch.int16)
    sixths = level.add_(shift.to(torch.int16)).bitwise_and_(255) * (6 / 255)
    # The range of the channels, from a saturation of 8 bits.
    spread = chroma.mul_(255).div_(value.clamp(min=1)).floor_().mul_(value).mul_(1 / 255)
    highest = value.add_(0.5)
    lowest = highest - spread
    # A channel is highest within a sixth of its own hue, and falls to its lowest over the next.
    for channel, center in zip(x.split(1, dim=1), (3.0, 2.0, 4.0), strict=True):
        torch.sub(sixths, center, out=channel)
    share = x.abs_().sub_(1).clamp_(0, 1)  # of red, from below; of the others, from above
    share[:, :1].mul_(spread).add_(lowest)
    share[:, 1:].mul_(-spread).add_(highest)
    return share.floor_()


def blur(x: Tensor, boxes: Tensor) -> Tensor:
    """Three passes of a box down, three across; outside of the view its edge is repeated.

    Args:
        boxes: (n, K, 1, 1) weights of the pixel itself and its neighbors up to K - 1 away, on either side.
    """
    weights = boxes.split(1, dim=1)
    for dim in (2, 2, 2, 3, 3, 3):
        x = _box(x, weights, dim)
    return x.add_(0.5).floor_()


def _box(x: Tensor, weights: Sequence[Tensor], dim: int) -> Tensor:
    side, total = x.shape[dim], x * weights[0]
    for away, weight in enumerate(weights[1:], 1):
        kept = max(side - away, 0)
        for here, there, edge in ((0, side - kept, side - 1), (side - kept, 0, 0)):
            total.narrow(dim, here, kept).addcmul_(x.narrow(dim, there, kept), weight)
            rest = kept if here == 0 else 0
            total.narrow(dim, rest, side - kept).addcmul_(x.narrow(dim, edge, 1), weight)
    return total


def box_of_blur(sigma: float) -> np.ndarray:
    """Half of the box whose three passes are Pillow's GaussianBlur; its last pixel has a part of the weight.

    Three times the box's variance is sigma's square (Gwosdek et al. 2011, the extended box filter).

    Returns:
        float64 weights, from the middle on.
    """
    variance = sigma**2 / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return np.array([*[1.0] * (whole + 1), part]) / (2 * whole + 1 + 2 * part)


# ---- Which operations the rows ask for -------------------------------------------------------------------------

# (which views: bool (n,), operation, *its columns: float32 (n, k))
Step = tuple


def _jitter_steps(rows: np.ndarray) -> list[Step]:
    return [
        (slot == number, _JITTER[number], rows[:, number : number + 1])
        for slot in rows[:, SLOTS].astype(int).T
        for number in sorted({*slot.tolist()} - {-1})
    ]


def _grayscale_steps(rows: np.ndarray) -> list[Step]:
    return [(rows[:, GRAYSCALE] > 0, grayscale)]


def _blur_steps(rows: np.ndarray) -> list[Step]:
    halves = [box_of_blur(sigma) for sigma in rows[:, BLUR]]
    boxes = np.zeros((len(rows), max(map(len, halves))), np.float32)
    for row, half in zip(boxes, halves, strict=True):
        row[: len(half)] = half
    return [(rows[:, BLUR] > 0, blur, boxes)]


def _solarize_steps(rows: np.ndarray) -> list[Step]:
    return [(rows[:, SOLARIZE] > 0, solarize)]


def _dropout_steps(rows: np.ndarray, channels: int) -> list[Step]:
    bits = rows[:, DROPPED].astype(int)[:, None] >> np.arange(channels) & 1
    return [(rows[:, DROPPED] > 0, contrast_of_each, (1 - bits).astype(np.float32))]


_JITTER = (brightness, contrast, saturation, hue)
_STEPS = {
    "jitter": _jitter_steps,
    "grayscale": _grayscale_steps,
    "blur": _blur_steps,
    "solarize": _solarize_steps,
}
