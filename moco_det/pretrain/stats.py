"""``tools/compute_stats.py``: mean and std of a set of images, as an overlay for pre-training.

The pixels are those that pre-training sees (:mod:`moco_det.data.image_format`). Each image weighs the same,
however large it is, since each gives as many crops to an epoch: mean and std are those of the average of the
images' histograms, so the std holds how pixels differ within images and between them. (ImageNet's usual std is
the mean of each image's own std, which leaves the second part out and is smaller: 58 where this way gives 70 or
so.)
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from moco_det.config import get_cfg
from moco_det.config.overlays import check_replaceable, overlay_text
from moco_det.data.decoding import UnreadableImage
from moco_det.data.image_files import find_images
from moco_det.data.image_format import MAX_CHANNELS, RGB, ImageFormat, checked_format
from moco_det.data.sample_order import PackedPaths
from moco_det.data.unreadable import Unreadable
from moco_det.utils.children import ignore_stop_signals
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det.utils.progress import progress
from moco_det.utils.seeding import numpy_generator
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING as IMAGENET
from moco_det_cli.parsers.choices import PERCENTILES
from moco_det_cli.parsers.data import stats_parser

TITLE = "Mean and std of images, written by tools/compute_stats.py"
VALUES = np.arange(256.0)
# Of the 256 pixel values; data between fewer are warned about.
FEW_VALUES = 64
_STRETCH = (
    "16-bit files are scaled from 0..65535 to 0..255: if yours hold smaller values (12 bits: 0..4095), "
    "give --range 0 4095, or --range measured"
)
# For --range measured, so many images and pixels of each are read.
RANGE_IMAGES, RANGE_PIXELS = 1000, 4096


@dataclasses.dataclass(frozen=True)
class ImageStatistics:
    """What was measured.

    Attributes:
        fractions: fraction of each pixel value in each channel, averaged over the images; float64 (C, 256).
        num_images: images that were read.
        unreadable: files that could not be, with the reasons.
    """

    fractions: np.ndarray
    num_images: int
    unreadable: list[Unreadable]

    @property
    def mean(self) -> np.ndarray:
        """The mean of each channel, in pixel values; float64 (C,)."""
        return self.fractions @ VALUES

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of each channel, in pixel values; float64 (C,)."""
        return np.sqrt((self.fractions * (VALUES - self.mean[:, None]) ** 2).sum(axis=1))

    @property
    def value_range(self) -> tuple[int, int]:
        """Lowest and highest pixel value after the darkest and the brightest 0.1 % of the pixels are left out."""
        below = self.fractions.mean(axis=0).cumsum()
        return int(np.searchsorted(below, 0.001, side="right")), int(np.searchsorted(below, 0.999))


class _ValueFractions(Dataset):
    """Maps an index to the image's fraction of each pixel value, float64 (C, 256), or to why it cannot be read."""

    def __init__(self, paths: Sequence[str], image_format: ImageFormat):
        self.paths, self.image_format = PackedPaths(paths), image_format

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray | Unreadable:
        try:
            pixels = self.image_format.decode(self.paths[index]).flatten(1).numpy()
        except UnreadableImage as error:
            return error.path, error.reason
        return np.stack([np.bincount(channel, minlength=256) for channel in pixels]) / pixels.shape[1]


def measure_range(paths: Sequence[str], channels: int) -> tuple[float, ...]:
    """INPUT.RANGE by percentiles of each channel: of pixels on a grid, as many of each image, NaN left out.

    Raises:
        ValueError: no image can be read, or a channel has one value.
    """
    image_format, samples, error = ImageFormat(channels), [], None
    sample = sample_paths(paths, RANGE_IMAGES)
    for path in progress(sample, "measuring the range", len(sample)):
        try:
            values = image_format.values(path).reshape(channels, -1)
        except UnreadableImage as found:
            error = error or found
            continue
        samples.append(values[:, :: max(values.shape[1] // RANGE_PIXELS, 1)].astype(np.float64))
    if not samples:
        raise ValueError(f"none of the images can be read, e.g.: {error}")
    limits = np.nanpercentile(np.concatenate(samples, axis=1), PERCENTILES, axis=1).T  # C x 2
    for number, (low, high) in enumerate(limits):
        if not low < high:
            raise ValueError(
                f"nearly all values of channel {number} are {low:g}, so there is no range to measure: check "
                "the files, or give --range LOW HIGH"
            )
    return tuple(float(f"{value:.6g}") for value in limits.flatten())


def measure(paths: Sequence[str], num_workers: int = 0, image_format: ImageFormat = RGB) -> ImageStatistics:
    """Read the images one by one; the result does not depend on ``num_workers``, which keep their order.

    Raises:
        ValueError: more than DATASETS.MAX_UNREADABLE (its default) of them cannot be read, or a channel is
            the same in all pixels.
    """
    max_share = get_cfg().DATASETS.MAX_UNREADABLE
    total, unreadable = np.zeros((image_format.channels, 256)), []
    fractions = _ValueFractions(paths, image_format)
    items = DataLoader(
        fractions,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        worker_init_fn=ignore_stop_signals,
    )
    for item in progress(items, "reading images", len(paths)):
        if isinstance(item, np.ndarray):
            total += item
            continue
        unreadable.append(item)
        if len(unreadable) > max_share * len(paths):
            named = "; ".join(f"{path!r} ({reason})" for path, reason in unreadable[:5])
            raise ValueError(
                f"{len(unreadable)} of {len(paths)} images cannot be read, more than the accepted fraction "
                f"{max_share}: {named}; fix or remove them"
            )
    num_images = len(paths) - len(unreadable)
    statistics = ImageStatistics(total / num_images, num_images, unreadable)
    _refuse_one_color(statistics)
    return statistics


def _as_it_is(item):
    return item


def _refuse_one_color(statistics: ImageStatistics) -> None:
    count = len(statistics.mean)
    names = ("red", "green", "blue") if count == 3 else [f"channel {number}" for number in range(count)]
    for channel, mean, std in zip(names, statistics.mean, statistics.std, strict=True):
        if round(std, 3) == 0:
            raise ValueError(
                f"{channel} is {mean:.0f} in all pixels of the {statistics.num_images} images, so there is no "
                f"std to divide by: check the files, or, if the channel is empty on purpose, write the overlay "
                f"by hand with a MODEL.PIXEL_STD of 1.0 for it. {_STRETCH}"
            )


def sample_paths(paths: Sequence[str], count: int | None) -> Sequence[str]:
    """``count`` of the paths without replacement, in their order, the same ones each time; None: all.

    Raises:
        ValueError: ``count`` is no number of images.
    """
    if count is not None and count < 1:
        raise ValueError(f"--num-images is {count}; expected at least 1, or leave it out for all images")
    if count is None or count >= len(paths):
        return paths
    chosen = numpy_generator(0, "statistics").choice(len(paths), count, replace=False)
    return [paths[index] for index in np.sort(chosen)]


def overlay_of(statistics: ImageStatistics, where: str, found: int, image_format: ImageFormat = RGB) -> str:
    """The overlay's text.

    Args:
        where: the images are, as the user named it.
        found: how many are there.
        image_format: how they were read.
    """
    pixels = (
        "8-bit RGB" if image_format.is_plain else f"{image_format.channels} channels, 8 bits of INPUT.RANGE"
    )
    notes = (
        f"{statistics.num_images} of the {found} images of {where!r}, {len(statistics.unreadable)} unreadable.",
        f"Each image weighs the same; pixels as pre-training decodes them, {pixels}.",
        f"Use: tools/pretrain_moco.py --overlay FILE. ImageNet has {list(IMAGENET.pixel_mean)} and "
        f"{list(IMAGENET.pixel_std)}.",
    )
    others = {"INPUT.CHANNELS": image_format.channels, "INPUT.RANGE": list(image_format.range)}
    values = {
        "INPUT.FORMAT": image_format.channel_order,
        **({} if image_format.is_plain else others),
        "MODEL.PIXEL_MEAN": [round(value, 3) for value in statistics.mean.tolist()],
        "MODEL.PIXEL_STD": [round(value, 3) for value in statistics.std.tolist()],
    }
    return overlay_text(TITLE, notes, values)


def summary(statistics: ImageStatistics, found: int, image_format: ImageFormat = RGB) -> str:
    """The lines for the terminal."""
    rows = [f"unreadable  {path}: {reason}" for path, reason in statistics.unreadable]
    rows.append(f"{'images':11} {statistics.num_images:,} of {found:,}")
    if image_format.range:
        rows.append(f"{'range':11} {' '.join(f'{value:g}' for value in image_format.range)}")
    for name, ours, usual in (
        (f"mean, {image_format.channel_order}", statistics.mean, IMAGENET.pixel_mean),
        (f"std, {image_format.channel_order}", statistics.std, IMAGENET.pixel_std),
    ):
        beside = f"   (ImageNet: {_numbers(usual)})" if image_format.is_plain else ""
        rows.append(f"{name:11} {_numbers(ours)}{beside}")
    low, high = statistics.value_range
    if high - low + 1 < FEW_VALUES:
        rows.append(
            f"{'warning':11} nearly all pixel values lie between {low} and {high}, {high - low + 1} of 256, so "
            f"fine differences are lost. {_STRETCH}"
        )
    return "\n".join(rows)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:7.3f}" for value in values)


def _image_format(args: argparse.Namespace, paths: Sequence[str]) -> ImageFormat:
    """What the options say of the images; the range is measured where that is asked for."""
    channels = args.channels
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"--channels is {channels}; expected 1 to {MAX_CHANNELS}")
    if args.range == ["measured"]:
        limits = measure_range(paths, channels)
    else:
        try:
            limits = tuple(map(float, args.range or ()))
        except ValueError:
            raise ValueError(f"--range is {args.range}; expected numbers, or measured") from None
    return checked_format(
        channels, limits, args.format or ("RGB" if channels >= 3 else "L"), "--range", "--format"
    )


@user_errors
def main(argv: list[str] | None = None) -> None:
    """Entry of ``tools/compute_stats.py``."""
    args = stats_parser().parse_args(argv)
    if not args.output.endswith(".yaml"):
        raise ValueError(f"--output is {args.output!r}; expected a name that ends in .yaml")
    check_replaceable(args.output, TITLE)
    paths = find_images(args.images)
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    image_format = _image_format(args, paths)
    statistics = measure(sample_paths(paths, args.num_images), args.num_workers, image_format)
    with atomic_write(args.output) as temporary:
        text = overlay_of(statistics, args.images, len(paths), image_format)
        temporary.write_text(text, encoding="utf-8")
    print(summary(statistics, len(paths), image_format))
    print(f"{'written':11} {args.output}; next: tools/pretrain_moco.py --overlay {args.output} …")
