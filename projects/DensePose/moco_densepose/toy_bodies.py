"""Pictures of toy bodies in the layout of COCO dense pose, and the body's tables beside them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from moco_densepose.charts import BOX_UNITS, COARSE_OF_CHART, MASK_SIZE, NUM_COARSE
from moco_densepose.toy_figure import PARTS, Pose, Rendered, render
from moco_densepose.toy_tables import write_tables
from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.textures import random_color
from moco_det.utils.errors import user_errors
from moco_det.utils.seeding import numpy_generator

# Annotated points of a body, about as many as in COCO; and the fewest pixels of a body that is annotated.
POINTS = 120
MIN_PIXELS = 150
# The body's height in metres, from crown to sole.
HEIGHT = 1.75
# Hue, saturation and value in [0, 1].
CLOTHES = (
    (0.0, 0.8, 0.8),
    (0.1, 0.85, 0.95),
    (0.36, 0.6, 0.6),
    (0.58, 0.7, 0.8),
    (0.0, 0.0, 0.95),
    (0.0, 0.0, 0.2),
)
SKIN = ((0.07, 0.35, 0.9), (0.06, 0.5, 0.6), (0.05, 0.6, 0.35))


def random_pose(rng: np.random.Generator, size: int, slot: tuple[float, float]) -> Pose:
    """A pose in a picture of side ``size``, its middle between the fractions ``slot`` of the width."""
    scale = size * rng.uniform(0.55, 0.9) / HEIGHT
    turns = {"torso": rng.uniform(-0.15, 0.15), "head": rng.uniform(-0.25, 0.25)}
    for side, sign in (("left", -1), ("right", 1)):
        turns[f"{side} upper arm"] = sign * rng.uniform(-0.2, 1.9)
        turns[f"{side} lower arm"] = sign * rng.uniform(-0.6, 1.2)
        turns[f"{side} hand"] = rng.uniform(-0.3, 0.3)
        turns[f"{side} upper leg"] = sign * rng.uniform(-0.1, 0.5)
        turns[f"{side} lower leg"] = -sign * rng.uniform(0, 0.5)
    center = size * rng.uniform(*slot), size * rng.uniform(0.35, 0.45)
    return Pose(center, scale, bool(rng.random() < 0.5), turns, bool(rng.random() < 0.5))


def paint(rng: np.random.Generator, seen: Rendered, back: bool, canvas: np.ndarray) -> None:
    """Draw a body onto a picture (H x W x 3, float in [0, 255]): a dressed doll with a face and a tie in front."""
    shirt, trousers, shoes = (random_color(rng, CLOTHES) for _ in range(3))
    skin = random_color(rng, SKIN)
    cloth = {"torso": shirt, "upper arm": shirt * 0.85, "upper leg": trousers, "lower leg": trousers * 0.85}
    cloth |= {"foot": shoes}
    for index, part in enumerate(PARTS):
        here = seen.part == index
        a, b = seen.a[here], seen.b[here]
        kind = part.name.removeprefix("left ").removeprefix("right ")
        color = np.tile(cloth.get(kind, skin), (len(a), 1))
        if part.name == "head":
            hair = (b < -0.4) | back
            color[hair] = color[hair] * 0.3
            face = (np.hypot(np.abs(a) - 0.4, b) < 0.2) | ((np.abs(a) < 0.35) & (np.abs(b - 0.5) < 0.1))
            color[face & ~hair] = 0.1
        if part.name == "torso" and not back:
            color[np.abs(a) < 0.15] = 1 - shirt
        shade = 1.05 - 0.45 * np.clip(np.abs(a) ** 3 + np.abs(b) ** 6, 0, 1)
        canvas[here] = 255 * np.clip(color * shade[:, None], 0, 1)


def annotate(rng: np.random.Generator, seen: Rendered, visible: np.ndarray) -> dict:
    """One person's entry of the annotations, without its ids.

    Args:
        visible: H x W, bool: where nobody hides the body.

    Returns:
        bbox (x, y, width, height in pixels), area, and the points and masks of dense pose in units of the box.
    """
    rows, columns = np.nonzero(visible)
    x0, y0 = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) + 1 - x0, int(rows.max()) + 1 - y0
    taken = rng.permutation(len(rows))[:POINTS]
    rows, columns = rows[taken], columns[taken]
    coarse = np.where(visible, COARSE_OF_CHART[seen.label], 0)[y0 : y0 + height, x0 : x0 + width]
    grid = [(np.arange(MASK_SIZE) + 0.5) * side / MASK_SIZE for side in (height, width)]
    coarse = coarse[np.ix_(*(line.astype(int) for line in grid))]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x0, y0, width, height],
        "area": int(visible.sum()),
        "dp_x": ((columns + 0.5 - x0) / width * BOX_UNITS).tolist(),
        "dp_y": ((rows + 0.5 - y0) / height * BOX_UNITS).tolist(),
        "dp_I": seen.label[rows, columns].astype(float).tolist(),
        "dp_U": seen.u[rows, columns].tolist(),
        "dp_V": seen.v[rows, columns].tolist(),
        "dp_masks": [_run_lengths(coarse == part) for part in range(1, NUM_COARSE + 1)],
    }


def _run_lengths(mask: np.ndarray) -> dict | list:
    """Compressed run lengths, as text; an empty list where the mask is empty, as in COCO."""
    if not mask.any():
        return []
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def make_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[dict]]:
    """A picture (size x size x 3, uint8, RGB) of one or two bodies, and their annotations."""
    canvas = ProceduralArt().background(rng, size).rgb.copy()
    slots = ((0.35, 0.65),) if rng.random() < 0.5 else ((0.2, 0.4), (0.6, 0.8))
    poses = [random_pose(rng, size, slot) for slot in slots]
    bodies = [render(pose, size, size) for pose in poses]
    owner = np.zeros((size, size), dtype=int)
    for number, (pose, seen) in enumerate(zip(poses, bodies, strict=True), start=1):
        paint(rng, seen, pose.back, canvas)
        owner[seen.part >= 0] = number  # a later one stands in front
    canvas += rng.normal(0, rng.uniform(0, 6), canvas.shape)
    visible = [owner == number for number in range(1, len(bodies) + 1)]
    people = [annotate(rng, s, v) for s, v in zip(bodies, visible, strict=True) if v.sum() >= MIN_PIXELS]
    return np.clip(canvas, 0, 255).astype(np.uint8), people


def make_toy_bodies(
    folder: Path, num_train: int = 240, num_val: int = 60, size: int = 128, seed: int = 0
) -> None:
    """Write ``images``, ``annotations`` and the body's tables; a picture is a function of seed and number.

    Raises:
        ValueError: the folder already holds something.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{str(folder)!r} is not empty; choose another folder, or remove it first")
    (folder / "annotations").mkdir(parents=True)
    write_tables(folder)
    for split, count in (("train", num_train), ("val", num_val)):
        (folder / split).mkdir()
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels, people = make_scene(numpy_generator(seed, f"toy bodies {split}", number), size)
            name = f"{number:06d}.jpg"
            Image.fromarray(pixels).save(folder / split / name, quality=95)
            images.append({"id": number, "file_name": name, "height": size, "width": size})
            for person in people:
                annotations.append({"id": len(annotations) + 1, "image_id": number} | person)
        categories = [{"id": 1, "name": "person", "supercategory": "person"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = folder / "annotations" / f"densepose_{split}.json"
        file.write_text(json.dumps({"info": {"description": "moco_det toy bodies"}} | content))


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write pictures of toy bodies with dense pose annotations.")
    parser.add_argument("output", type=Path, help="a new folder: toy_bodies in $DETECTRON2_DATASETS")
    parser.add_argument("--train", type=int, default=240, help="pictures to train on (%(default)s)")
    parser.add_argument("--val", type=int, default=60, help="pictures to measure on (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="their side in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    make_toy_bodies(args.output, args.train, args.val, args.size, args.seed)
