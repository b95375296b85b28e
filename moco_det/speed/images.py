"""Loading: a JPEG file to two views, and what the device does to them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from moco_det.images import UnreadableImage, decode_rgb
from moco_det.machine import num_cores
from moco_det.pretrain.loader import TwoViews
from moco_det.speed.clock import Pair, Sample, alternate, seconds_a_unit
from moco_det.speed.measurement import Measurement, rates
from moco_det.speed.options import Options
from moco_det.speed.references import published_item, published_views
from moco_det.views import ViewSettings

MADE_UP, MADE_UP_SIZE = 64, (500, 375)
AT_MOST = 256  # files; they are read once before, so that no disk is measured


def write_photographs(folder: Path, count: int = MADE_UP) -> list[str]:
    """JPEG files whose detail falls with its frequency as that of photographs does."""
    width, height = MADE_UP_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    paths = []
    for number in range(count):
        noise = np.random.default_rng(number).standard_normal((3, height, width))
        noise[1:] = noise[:1] + 0.3 * noise[1:]  # channels go together
        shaped = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(height, width))
        levels = 128 + 50 * shaped / shaped.std(axis=(1, 2), keepdims=True)
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        paths.append(str(folder / f"{number:03d}.jpg"))
        image.save(paths[-1], quality=92)
    return paths


def readable(paths: Sequence[str]) -> tuple[list[str], float]:
    """The first files that can be decoded, and the mean length of their longer side in pixels.

    Raises:
        ValueError: none can.
    """
    found, sides = [], []
    for path in paths:
        try:
            sides.append(max(decode_rgb(path).size))
        except UnreadableImage:
            continue
        found.append(path)
        if len(found) == AT_MOST:
            break
    if not found:
        raise ValueError(f"none of the {len(paths)} images can be read, the first is {paths[0]!r}")
    return found, float(np.mean(sides))


def views_dataset(paths: Sequence[str], size: int, recipe: str = "v2") -> TwoViews:
    """Our loader's items, made in the process that asks for them: ``dataset[(epoch, index)]``."""
    return TwoViews(paths, seed=0, views=ViewSettings(recipe, size, (0.2, 1.0)))


def measure_loader(options: Options) -> Iterator[Measurement]:
    """Files to views on one core, then on more: with colours left to the device, and all of it."""
    paths, side = readable(options.images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _on_one_core(paths, side, options)
        yield from _on_more_cores(paths, side, options)
    finally:
        torch.set_num_threads(threads)


def _on_one_core(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    transform, files = published_views(options.size), itertools.cycle(paths)
    what = f"{side:.0f} px JPEG to two views of {options.size} px, one core"
    for on_device, target, where in (
        (True, 10.0, "colours left to the device"),
        (False, 3.5, "all on the CPU"),
    ):
        dataset, slots = views_dataset(paths, options.size, on_device=on_device), _slots(len(paths))
        pair = alternate(
            lambda: _ten(lambda: published_item(next(files), transform)),
            lambda: _ten(lambda: dataset[next(slots)]),  # noqa: B023
            rounds=options.rounds,
            seconds=options.seconds,
            device="cpu",
        )
        reference = "Pillow and torchvision, recipe v2"
        yield rates("loader", f"{what}, {where}", reference, pair, target=(">=", target))


def _slots(count: int) -> Iterator[tuple[int, int]]:
    return ((epoch, index) for epoch in itertools.count() for index in range(count))


def _ten(work: Callable[[], object]) -> int:
    for _ in range(10):
        work()
    return 10


def _on_more_cores(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    """The same loader with one worker and with several."""
    workers = [count for count in (2, 4, 8, 16, 32) if count <= num_cores()]
    found = {
        count: Sample(tuple(_rate(paths, options, count) for _ in range(options.rounds)))
        for count in (1, *workers)
    }
    for count in workers:
        yield rates(
            *("loader", f"{side:.0f} px JPEG to two views, colours left to the device, {count} workers"),
            *("1 worker", Pair(found[1], found[count])),
        )


def _rate(paths: Sequence[str], options: Options, workers: int) -> float:
    """Seconds an image, of a loader that is running."""
    batches = build_loader(
        paths,
        seed=0,
        images_per_batch=min(32, len(paths)),
        views=view_settings(options.size),
        num_workers=workers,
        colour_on_device=True,
    )
    for _ in range(2 * workers):  # until all of them are at work
        next(batches)
    return seconds_a_unit(lambda: len(next(batches)["index"]), max(options.seconds, 0.1), "cpu")
