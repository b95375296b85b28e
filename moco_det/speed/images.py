"""Loading: a JPEG file to two views, and what the device does to them."""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F
from torchvision.transforms.functional import resized_crop, to_pil_image

from moco_det.data.augment import BLUR, COLUMNS, GRAYSCALE, HUE, SLOTS, augment
from moco_det.data.decoding import UnreadableImage, decode_pixels, decode_rgb, jpeg_content
from moco_det.data.fast_jpeg import EXACT, FAST, decode_for_views
from moco_det.data.views import ViewParameters, ViewSettings, crop_view, draw_view
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
SMALL = 64  # px of a view
AT_MOST = 256  # files; they are read once before, so that no disk is measured
LARGE = 1000  # px of the longer side, from which photographs are called large
# Operations on colors: torchvision's on a Pillow image, and what asks ours for the same in a row of augment().
OPERATIONS = (
    ("brightness", lambda image: F.adjust_brightness(image, 1.2), {0: 1.2, SLOTS.start: 0.0}),
    ("contrast", lambda image: F.adjust_contrast(image, 1.2), {1: 1.2, SLOTS.start: 1.0}),
    ("saturation", lambda image: F.adjust_saturation(image, 1.2), {2: 1.2, SLOTS.start: 2.0}),
    ("hue", lambda image: F.adjust_hue(image, 0.08), {HUE: 20.0, SLOTS.start: float(HUE)}),
    ("grayscale", lambda image: F.rgb_to_grayscale(image, 3), {GRAYSCALE: 1.0}),
    ("blur", lambda image: image.filter(ImageFilter.GaussianBlur(1.0)), {BLUR: 1.0}),
)


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


def view_settings(size: int, decode: str = EXACT) -> ViewSettings:
    """Those of MoCo v2's recipe."""
    return ViewSettings("v2", size, (0.2, 1.0), decode=decode)


def decoders() -> tuple[str, ...]:
    """The values of INPUT.DECODE that can be measured here."""
    return (EXACT, FAST) if importlib.util.find_spec("simplejpeg") else (EXACT,)


def measure_loader(options: Options) -> Iterator[Measurement]:
    """Files to views on one core, then on more: with colors left to the device, and all of it."""
    paths, side = readable(options.paths)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _on_one_core(paths, side, options)
        yield from _profile(paths[:PROFILED], side, options)
        yield from _on_more_cores(paths, side, options)
    finally:
        torch.set_num_threads(threads)


def _on_one_core(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    transform, files = published_views(options.size), itertools.cycle(paths)
    what = f"{side:.0f} px JPEG to two views of {options.size} px, one core"
    ways = (
        (False, 12.0 if side >= LARGE else 10.0, "colors left to the device"),
        (True, 3.5, "all on the CPU"),
    )
    for decode, (finished, target, where) in itertools.product(decoders(), ways):
        views = view_settings(options.size, decode)
        dataset = TwoViews(paths, seed=0, views=views, finished=finished)
        pair = alternate(
            functools.partial(_ten, lambda: published_item(next(files), transform)),
            functools.partial(_ten, functools.partial(_next_item, dataset, _slots(len(paths)))),
            rounds=options.rounds,
            seconds=options.seconds,
            device="cpu",
        )
        reference = "Pillow and torchvision, recipe v2"
        name = f"{what}, {where}, INPUT.DECODE {decode}"
        yield rates("loader", name, reference, pair, target=(">=", target))


# What it is, then the reference's work and ours on the image of a number.
Step = tuple[str, Callable[[int], object], Callable[[int], object]]


def _profile(paths: Sequence[str], side: float, options: Options) -> Iterator[Measurement]:
    """Measure the time of one core step by step, on the same images and random numbers."""

    def over(work: Callable[[int], object]) -> Callable[[], int]:
        return lambda: sum(work(number) is not None for number in range(len(paths)))

    for what, theirs, ours in (*_decoding(paths, options), *_crops(paths, options), *_colors(paths, options)):
        pair = alternate(
            over(theirs), over(ours), rounds=options.rounds, seconds=options.seconds, device="cpu"
        )
        yield times("loader", f"{side:.0f} px JPEG, one core: {what}", "Pillow and torchvision", pair)


def _drawn(number: int, options: Options) -> Callable[[int, int], list[ViewParameters]]:
    """What samples two views of an image by its width and height."""
    settings = view_settings(options.size)
    return lambda width, height: [
        draw_view(np.random.default_rng((number, view)), width, height, settings) for view in range(2)
    ]


def _decoding(paths: Sequence[str], options: Options) -> Iterator[Step]:
    yield "decoding alone", lambda i: open_rgb(paths[i]), lambda i: decode_pixels(paths[i])
    if FAST not in decoders():
        return
    import simplejpeg  # here, since it is optional

    try:
        contents = [jpeg_content(path)[0] for path in paths]
    except UnreadableImage:
        return  # among them is another file, which both decode alike
    settings = view_settings(options.size, FAST)
    views = [_drawn(number, options)(*open_rgb(path).size) for number, path in enumerate(paths)]
    yield (
        "decoding alone, INPUT.DECODE fast",
        lambda i: open_rgb(paths[i]),
        lambda i: decode_for_views(paths[i], settings, lambda width, height: views[i]),
    )
    yield (  # no decoder can leave these out
        "its Huffman codes, decoded to 1/8, the limit of INPUT.DECODE fast",
        lambda i: open_rgb(paths[i]),
        lambda i: simplejpeg.decode_jpeg(contents[i], min_height=1, min_width=1),
    )


def _crops(paths: Sequence[str], options: Options) -> Iterator[Step]:
    pictures = [open_rgb(path) for path in paths]
    views = [_drawn(number, options)(*picture.size)[0] for number, picture in enumerate(pictures)]
    for decode in decoders():
        settings = view_settings(options.size, decode)
        decoded = [
            decode_for_views(path, settings, _drawn(number, options)) for number, path in enumerate(paths)
        ]
        yield (
            f"one crop alone, INPUT.DECODE {decode}",
            lambda i: resized_crop(pictures[i], *views[i].crop, [options.size] * 2),
            lambda i, decoded=decoded: crop_view(decoded[i][0], decoded[i][1][0]),
        )


def _colors(paths: Sequence[str], options: Options) -> Iterator[Step]:
    """All colors of a view as they are sampled, and one operation after the other on every view."""
    decoded = [
        decode_for_views(path, view_settings(options.size), _drawn(number, options))
        for number, path in enumerate(paths)
    ]
    crops = [crop_view(pixels, views[0]) for pixels, views in decoded]
    pictures, order = [to_pil_image(crop) for crop in crops], decoded[0][1][0].operations
    rows = [torch.tensor([views[0].photometric_row()]) for _, views in decoded]
    transform = published_colors(on_tensors=False)
    yield (
        "colors of one view alone",
        lambda i: transform(pictures[i]),
        lambda i: augment(crops[i][None], rows[i], order),
    )
    nothing = torch.tensor([[0.0] * COLUMNS])
    nothing[:, SLOTS] = -1
    for name, operation, columns in OPERATIONS:
        row = nothing.clone()
        row[0, list(columns)] = torch.tensor(list(columns.values()))
        yield (
            f"{name} of one view alone",
            lambda i, operation=operation: operation(pictures[i]),
            lambda i, row=row: augment(crops[i][None], row, order),
        )


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
    if not options.cuda:
        yield _small_views(paths, options)


def _small_views(paths: Sequence[str], options: Options) -> Measurement:
    """Colors of small views: a batch at once, as a worker finishes them, next to ours view by view."""
    views, count = view_settings(min(SMALL, options.size)), 2 * options.batch
    dataset = TwoViews(paths, seed=0, views=views, finished=False)
    batch = collate([dataset[0, number % len(paths)] for number in range(count)])

    def one_by_one() -> int:
        for view, name in enumerate(("query", "key")):
            for crop, row in zip(batch[name], batch["photometric"][:, view], strict=True):
                augment(crop[None], row[None], views.operations(view))
        return count

    def at_once() -> int:
        finish_batch(batch, views, "cpu")
        return count

    pair = alternate(one_by_one, at_once, rounds=options.rounds, seconds=options.seconds, device="cpu")
    return rates(
        "augment", f"colors of 2 x {count} views of {views.size} px on cpu", "ours, view by view", pair
    )
