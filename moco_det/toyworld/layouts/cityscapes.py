"""The Cityscapes layout: an image, polygons, and the label images that Cityscapes' scripts draw from them.

As its annotators did, an object is one polygon without holes (what is seen through it belongs to it), drawn over
those behind it. Classes stand under names of Cityscapes, since its reader and its metric know no others.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from PIL import Image, ImageDraw

from moco_det.toyworld.polygons import outline
from moco_det.toyworld.scenes import Scene

CITY = {"train": "toytown", "val": "toyville"}
# The bottom of each image shows the car with the camera, which has no class: this fraction of the height.
EGO_VEHICLE_SHARE = 1 / 32


class Label(NamedTuple):
    """A class of Cityscapes: ``train_id`` 255 is not learned; things are told apart as instances."""

    name: str
    id: int
    train_id: int
    is_thing: bool
    color: tuple[int, int, int]


_LABELS = [
    Label(c["name"], c["id"], c["trainId"], bool(c["isthing"]), c["color"]) for c in CITYSCAPES_CATEGORIES
]
THINGS = [label for label in _LABELS if label.is_thing]
ROAD = next(label for label in _LABELS if label.name == "road")
EGO_VEHICLE = Label("ego vehicle", 1, 255, False, (0, 0, 0))


class Shape(NamedTuple):
    """A labeled polygon; ``points`` are (x, y) of pixels."""

    label: Label
    points: list[tuple[int, int]]


def label_of(classes: Sequence[str], name: str) -> Label:
    """Under which name a class stands; there are eight, so of more classes some share one."""
    return THINGS[classes.index(name) % len(THINGS)]


def write_cityscapes(root: Path, split: str, classes: Sequence[str], scenes: Iterable[Scene]) -> None:
    """Write one split.

    Args:
        root: the cityscapes folder; may hold another split already.
        split: ``"train"`` or ``"val"``.
        classes: all classes, see :func:`label_of`.
        scenes: what to write.
    """
    city = CITY[split]
    images, truth = (root / kind / split / city for kind in ("leftImg8bit", "gtFine"))
    images.mkdir(parents=True)
    truth.mkdir(parents=True)
    for number, scene in enumerate(scenes):
        name = f"{city}_{number:06d}_000019"  # of the 30 frames of a snippet, the 20th is labeled
        Image.fromarray(scene.image).save(images / f"{name}_leftImg8bit.png")
        shapes = _shapes(scene, classes)
        height, width, _ = scene.image.shape
        objects = [{"label": shape.label.name, "polygon": shape.points} for shape in shapes]
        polygons = {"imgHeight": height, "imgWidth": width, "objects": objects}
        (truth / f"{name}_gtFine_polygons.json").write_text(json.dumps(polygons))
        for kind, image in _draw(shapes, (width, height)).items():
            image.save(truth / f"{name}_gtFine_{kind}.png")


def _shapes(scene: Scene, classes: Sequence[str]) -> list[Shape]:
    """The shapes from back to front: the road everywhere, the objects, the car with the camera."""
    height, width, _ = scene.image.shape
    right, bottom = width - 1, height - 1
    top = round(height * (1 - EGO_VEHICLE_SHARE))
    objects = [Shape(label_of(classes, p.category), outline(p.silhouette)) for p in reversed(scene.objects)]
    return [
        Shape(ROAD, [(0, 0), (right, 0), (right, bottom), (0, bottom)]),
        *objects,
        Shape(EGO_VEHICLE, [(0, top), (right, top), (right, bottom), (0, bottom)]),
    ]


def _draw(shapes: Sequence[Shape], size: tuple[int, int]) -> dict[str, Image.Image]:
    """What Cityscapes' preparation scripts draw. An instance is 1000 * its label's id + its number there."""
    images = {
        "labelIds": Image.new("L", size),
        "labelTrainIds": Image.new("L", size, 255),
        "color": Image.new("RGBA", size),
        "instanceIds": Image.new("I", size),  # and not I;16, into which Pillow 10 draws the lower byte twice
    }
    pens = {kind: ImageDraw.Draw(image) for kind, image in images.items()}
    count = dict.fromkeys(THINGS, 0)
    for label, points in shapes:
        instance = label.id
        if label.is_thing:
            instance = 1000 * label.id + count[label]
            count[label] += 1
        fills = {"labelIds": label.id, "labelTrainIds": label.train_id, "color": label.color}
        for kind, fill in (fills | {"instanceIds": instance}).items():
            pens[kind].polygon(points, fill=fill)
    images["instanceIds"] = Image.fromarray(np.asarray(images["instanceIds"]).astype(np.uint16))
    return images
