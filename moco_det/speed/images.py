"""Loading: a JPEG file to two views, and what the device does to them."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import resized_crop, to_pil_image

from moco_det.data.augment import augment
from moco_det.data.decoding import UnreadableImage, decode_pixels, decode_rgb
from moco_det.data.views import ViewSettings, crop_view, draw_view
from moco_det.pretrain.loader import TwoViews, build_loader, collate, finish_batch
from moco_det.speed.clock import Pair, Sample, alternate, seconds_a_unit
from moco_det.speed.measurement import Measurement, rates, times
from moco_det.speed.options import Options
from moco_det.speed.references import (
    float_images,
    open_rgb,
    published_colors,
    published_item,
    published_views,
)
from moco_det.utils.machine import num_cores

MADE_UP, MADE_UP_SIZE = 64, (500, 375)
PROFILED = 32
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
        values = 128 + 50 * shaped / shaped.std(axis=(1, 2), keepdims=True)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
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


def view_settings(size: int) -> ViewSettings:
    """Those of MoCo v2's recipe."""
    return ViewSettings("v2", size, (0.2, 1.0))


def measure_loader(options: Options) -> Iterator[Measurement]:
    """Files to views on one core, then on more: with colors left to the device, and all of it."""
    paths, side = readable(options.paths)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _on_one_core(paths, side, options)
        yield from _profile(paths, side, options)
        yield from _on_more_cores(paths, side, options)
    finally:
        torch.set_num_threads(threads)


def _on_one_core(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    transform, files = published_views(options.size), itertools.cycle(paths)
    what = f"{side:.0f} px JPEG to two views of {options.size} px, one core"
    for finished, target, where in (
        (False, 10.0, "colors left to the device"),
        (True, 3.5, "all on the CPU"),
    ):
        dataset = TwoViews(paths, seed=0, views=view_settings(options.size), finished=finished)
        pair = alternate(
            functools.partial(_ten, lambda: published_item(next(files), transform)),
            functools.partial(_ten, functools.partial(_next_item, dataset, _slots(len(paths)))),
            rounds=options.rounds,
            seconds=options.seconds,
            device="cpu",
        )
        reference = "Pillow and torchvision, recipe v2"
        yield rates("loader", f"{what}, {where}", reference, pair, target=(">=", target))


def _profile(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    """Measure the time of one core step by step, on the same images and random numbers."""
    paths, settings = paths[:PROFILED], view_settings(options.size)
    pixels = [decode_pixels(path) for path in paths]
    pictures = [to_pil_image(image) for image in pixels]
    parameters = [
        draw_view(np.random.default_rng(number), image.shape[2], image.shape[1], settings)
        for number, image in enumerate(pixels)
    ]
    crops = [crop_view(image, view) for image, view in zip(pixels, parameters, strict=True)]
    cropped = [to_pil_image(crop) for crop in crops]
    rows = [torch.tensor([view.photometric_row()]) for view in parameters]
    transform, count = published_colors(on_tensors=False), range(len(paths))

    def over(work: Callable[[int], object]) -> Callable[[], int]:
        return lambda: sum(work(number) is not None for number in count)

    for what, theirs, ours in (
        ("decoding alone", lambda i: open_rgb(paths[i]), lambda i: decode_pixels(paths[i])),
        (
            "one crop alone",
            lambda i: resized_crop(pictures[i], *parameters[i].crop, [options.size] * 2),
            lambda i: crop_view(pixels[i], parameters[i]),
        ),
        (
            "colors of one view alone",
            lambda i: transform(cropped[i]),
            lambda i: augment(crops[i][None], rows[i], parameters[i].operations),
        ),
    ):
        pair = alternate(
            over(theirs), over(ours), rounds=options.rounds, seconds=options.seconds, device="cpu"
        )
        yield times("loader", f"{side:.0f} px JPEG, one core: {what}", "Pillow and torchvision", pair)


def _slots(count: int) -> Iterator[tuple[int, int]]:
    return ((epoch, index) for epoch in itertools.count() for index in range(count))


def _next_item(dataset: TwoViews, slots: Iterator[tuple[int, int]]) -> dict:
    return dataset[next(slots)]


def _ten(work: Callable[[], object]) -> int:
    for _ in range(10):
        work()
    return 10


def _on_more_cores(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    """The same loader with one worker and with several."""
    workers = [count for count in (2, 4, 8, 16, 32) if count <= num_cores()]
    found = {
        count: Sample(tuple(_seconds_an_image(paths, options, count) for _ in range(options.rounds)))
        for count in (1, *workers)
    }
    for count in workers:
        yield rates(
            *("loader", f"{side:.0f} px JPEG to two views, colors left to the device, {count} workers"),
            *("1 worker", Pair(found[1], found[count])),
        )


def _seconds_an_image(paths: Sequence[str], options: Options, workers: int) -> float:
    """Seconds per image of a loader that is running."""
    batches = build_loader(
        paths,
        seed=0,
        images_per_batch=min(32, len(paths)),
        views=view_settings(options.size),
        num_workers=workers,
        finished=False,
    )
    for _ in range(3 * workers):  # until what they had ready is used up
        next(batches)
    return seconds_a_unit(lambda: len(next(batches)["index"]), max(options.seconds, 0.1), "cpu")


def measure_augment(options: Options) -> Iterator[Measurement]:
    """Color, blur, flip and normalization of two views for each image of a batch, on the device."""
    paths, _ = readable(options.paths)
    dataset = TwoViews(paths, seed=0, views=view_settings(options.size), finished=False)
    batch = collate([dataset[0, number % len(paths)] for number in range(options.batch)])
    batch = {name: batch[name] for name in ("query", "key", "photometric")}
    on_device = [batch[name].to(options.device) for name in ("query", "key")]
    transform = published_colors()

    def reference() -> int:
        torch.stack([transform(view) for views in on_device for view in views])
        return options.batch

    def ours() -> int:
        finished = finish_batch(batch, view_settings(options.size), torch.device(options.device))
        for name in ("query", "key"):
            float_images(finished[name])
        return options.batch

    pair = alternate(reference, ours, rounds=options.rounds, seconds=options.seconds, device=options.device)
    what = f"colors of 2 x {options.batch} views of {options.size} px on {options.device}"
    yield rates(
        *("augment", what, "torchvision on the device, view by view", pair),
        target=(">=", 5.0) if options.cuda else None,
    )
