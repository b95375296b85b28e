"""Pictures made of images: sample views, nearest neighbors, detections; None where a run left none."""

import contextlib
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import yaml
from matplotlib.patches import Rectangle
from PIL import Image

from moco_det.data.decoding import UnreadableImage
from moco_det.data.image_files import entry_of
from moco_det.data.image_format import RGB, ImageFormat, picture
from moco_det.report.figures import STYLE, WIDTH, new_figure, to_png
from moco_det.report.rows import Row
from moco_det.report.runs import Run

SAME, OTHER = "#0072b2", "#d55e00"  # apart for the color-blind too
TRUTH, FOUND = "#ffffff", "#ffb000"
MAX_VIEW_WIDTH = 1200  # pixels: more does not show on the page
NEIGHBORS, QUERIES, TEST_IMAGES = 5, 8, 6


def sample_views(run: Run) -> bytes | None:
    """The grid of views that pre-training saved, made smaller if it is large; None without one."""
    path = run.folder / "sample_views.png"
    if not path.is_file():
        return None
    image = Image.open(path).convert("RGB")
    if image.width > MAX_VIEW_WIDTH:
        image = image.resize((MAX_VIEW_WIDTH, round(image.height * MAX_VIEW_WIDTH / image.width)))
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def read_list(path: Path) -> list[dict]:
    """A JSON file that holds a list; empty when the file is missing, ValueError when it is broken."""
    try:
        return json.loads(path.read_text()) if path.is_file() else []
    except ValueError as error:
        raise ValueError(
            f"{path} is not readable JSON ({error}); remove it to leave its figure out"
        ) from error


def open_image(name: str, folder: Path) -> Image.Image | None:
    """The image at ``name``, in a shard or not, absolute or relative to the run or the working folder; or None.

    Of other than RGB images it shows the run's INPUT.SHOWN_CHANNELS.
    """
    image_format, channels = _image_format(folder / "config.yaml")
    for path in (name, str(folder / name)):
        with contextlib.suppress(UnreadableImage):
            return picture(image_format.decode(entry_of(path)), channels)
    return None


@functools.lru_cache
def _image_format(config: Path) -> tuple[ImageFormat, list[int]]:
    """How a run reads images, and the channels that it shows; of a run without a config that says it, RGB."""
    with contextlib.suppress(OSError, yaml.YAMLError, KeyError, TypeError):
        keys = yaml.safe_load(config.read_text())["INPUT"]
        return ImageFormat(keys["CHANNELS"], tuple(keys["RANGE"])), keys["SHOWN_CHANNELS"]
    return RGB, [0, 1, 2]


def neighbors(run: Run) -> bytes | None:
    """One row per query: the test image, then its nearest training images, framed by same or other class."""
    queries = read_list(run.folder / "neighbors.json")[:QUERIES]
    if not queries:
        return None
    columns = 1 + NEIGHBORS
    with matplotlib.rc_context(STYLE):
        figure = new_figure(len(queries) * (WIDTH / columns + 0.2))
        axes = figure.subplots(len(queries), columns, squeeze=False)
        for line, query in zip(axes, queries, strict=True):
            _tile(line[0], open_image(query["query"], run.folder), query["label"], None)
            for axis in line[1:]:
                axis.axis("off")
            for axis, near in zip(line[1:], query["neighbors"], strict=False):
                axis.axis("on")
                color = SAME if near["label"] == query["label"] else OTHER
                _tile(axis, open_image(near["path"], run.folder), f"{near['similarity']:.2f}", color)
        return to_png(figure)


def _tile(axis, image: Image.Image | None, title: str, frame: str | None) -> None:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_title(title, fontsize=8, pad=2, loc="center")
    if image is None:
        axis.text(0.5, 0.5, "no\nimage", ha="center", va="center", transform=axis.transAxes, fontsize=7)
    else:
        image.thumbnail((160, 160))
        axis.imshow(image)
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame or "none", linewidth=2.5)
        spine.set_linestyle((0, (2, 1)) if frame == OTHER else "-")


def detections(rows: Sequence[Row]) -> bytes | None:
    """The same test images for each init side by side (its run of the lowest seed), one image per line."""
    runs = {row.label: min(row.runs, key=lambda run: run.seed) for row in rows}
    samples = {label: read_list(run.folder / "sample_detections.json") for label, run in runs.items()}
    samples = {
        label: {entry["file_name"]: entry for entry in found} for label, found in samples.items() if found
    }
    if not samples:
        return None
    names = list(dict.fromkeys(name for found in samples.values() for name in found))[:TEST_IMAGES]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(len(names) * _shape(samples, runs) * WIDTH / len(samples) + 0.3)
        axes = figure.subplots(len(names), len(samples), squeeze=False)
        for line, name in zip(axes, names, strict=True):
            for axis, (label, found) in zip(line, samples.items(), strict=True):
                _detection_tile(axis, found.get(name), runs[label].folder)
        for axis, label in zip(axes[0], samples, strict=True):
            axis.set_title(label, loc="center")
        return to_png(figure)


def _shape(samples: dict, runs: dict) -> float:
    """Height over width of the tallest first image, so that no tile leaves a gap below it."""
    label, found = next(iter(samples.items()))
    images = [open_image(entry["file_name"], runs[label].folder) for entry in found.values()]
    return max((image.height / image.width for image in images[:TEST_IMAGES] if image), default=0.75)


def _detection_tile(axis, entry: dict | None, folder: Path) -> None:
    axis.axis("off")
    image = open_image(entry["file_name"], folder) if entry else None
    if image is None:
        axis.text(0.5, 0.5, "no image", ha="center", va="center", transform=axis.transAxes, fontsize=8)
        return
    axis.imshow(image)
    for truth in entry["ground_truth"]:
        axis.add_patch(_box(truth["bbox"], edgecolor="black", linewidth=2.2, alpha=0.5))
        axis.add_patch(_box(truth["bbox"], edgecolor=TRUTH, linewidth=1.2, linestyle=(0, (3, 2))))
    for found in entry["detections"]:
        axis.add_patch(_box(found["bbox"], edgecolor=FOUND, linewidth=1.6))
        text = f"{found['class']} {found['score']:.2f}"
        inside = found["bbox"][1] < image.height / 10  # above the box it would leave the image
        axis.text(
            *found["bbox"][:2], text, fontsize=6.5, color="black", va="top" if inside else "bottom", clip_on=True,
            bbox={"facecolor": FOUND, "edgecolor": "none", "pad": 0.8, "alpha": 0.9},
        )  # fmt: skip


def _box(bbox: Sequence[float], **style) -> Rectangle:
    x0, y0, x1, y1 = bbox
    return Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **style)
