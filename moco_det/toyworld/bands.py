"""A toy set of 4-band images whose classes only the fourth band shows; ``python -m moco_det.toyworld.bands``.

Red, green and blue are the same empty ground in all images, with noise. The fourth band is the gray of a scene
of the toy world. So whoever sees three bands can find neither objects nor classes, nor tell one image from
another, and labels are exact. Files are TIFFs as GDAL writes them: 12 bits in 16, tiled, deflated, no
photometric meaning.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.scenes import ONE_LARGE, SEVERAL, Recipe, Scene, compose
from moco_det.utils.errors import user_errors
from moco_det.utils.seeding import numpy_generator

# Of ITU-R 601, which Pillow's "L" has, too.
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)
# What a level of 8 bits becomes in 12.
STEP = 16


def write_bands(
    root: str | Path,
    *,
    channels: int = 4,
    seed: int = 0,
    num_unlabeled: int = 2000,
    num_per_class: int = 20,
    num_train: int = 120,
    num_test: int = 60,
    image_size: int = 96,
) -> None:
    """Write ``unlabeled/``, ``classes/{train,test}/<class>/``, and ``{train,test}/`` with COCO's labels.

    Args:
        channels: 4, or 3 for the same images without the band that matters.
        num_unlabeled: images without labels, of one object.
        num_per_class: images of one object in each class folder.
        num_train, num_test: images of some objects, with boxes.

    Raises:
        ValueError: a number is out of range, or ``root`` is there.
    """
    root, art = Path(root), ProceduralArt(seed)
    ground = art.background(numpy_generator(seed, "toy bands ground"), image_size).rgb
    if channels not in (3, 4) or min(num_unlabeled, num_per_class, num_train, num_test, image_size - 31) < 1:
        raise ValueError(
            f"{channels} channels, {num_unlabeled}, {num_per_class}, {num_train} and {num_test} images of "
            f"{image_size} pixels; expected 3 or 4 channels, at least 1 image of each kind, and 32 pixels"
        )
    if root.exists():
        raise ValueError(f"{str(root)!r} exists; name another --output, or remove it first")

    def write(folder: str, count: int, recipe: Recipe, classes: Sequence[str]) -> Iterator[tuple[str, Scene]]:
        (root / folder).mkdir(parents=True)
        for index in range(count):
            rng = numpy_generator(seed, f"toy bands {folder}", index)
            name = f"{index:06d}.tif"
            scene = compose(rng, art, image_size, recipe, first=classes[index % len(classes)])
            _write_tiff(root / folder / name, _bands(rng, ground, scene)[..., :channels])
            yield name, scene

    list(write("unlabeled", num_unlabeled, ONE_LARGE, art.classes))
    for split, count in (("train", num_train), ("test", num_test)):
        for name in art.classes:
            list(write(f"classes/{split}/{name}", num_per_class, ONE_LARGE, (name,)))
        labels = coco_labels(write(split, count, SEVERAL, art.classes), art.classes, image_size)
        (root / f"{split}.json").write_text(json.dumps(labels))


def _bands(rng: np.random.Generator, ground: np.ndarray, scene: Scene) -> np.ndarray:
    """S x S x 4, uint16 of 12 bits."""
    noise = rng.standard_normal(ground.shape, dtype=np.float32) * 3
    levels = np.concatenate((ground + noise, scene.image @ _GRAY[:, None]), axis=2)
    return (levels.clip(0, 255) * STEP).astype(np.uint16)


def _write_tiff(path: Path, bands: np.ndarray) -> None:
    import tifffile  # here, since only these images need the package

    tifffile.imwrite(
        path,
        bands,
        photometric="minisblack",
        planarconfig="contig",
        tile=(64, 64),
        compression="zlib",
        predictor=2,
    )


def coco_labels(written: Iterator[tuple[str, Scene]], classes: Sequence[str], image_size: int) -> dict:
    """Boxes in COCO's format."""
    images, annotations = [], []
    for number, (name, scene) in enumerate(written, start=1):
        images.append({"id": number, "file_name": name, "height": image_size, "width": image_size})
        for placed in scene.objects:
            x0, y0, x1, y1 = placed.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(placed.category) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(placed.visible.sum()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write 4-band images whose classes only the fourth band shows.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder to make")
    for name, default in (write_bands.__kwdefaults__ or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    arguments = vars(parser.parse_args(argv))
    root = arguments.pop("output")
    write_bands(root, **arguments)
    print(f"{root}: images of {arguments['channels']} bands, 12 bits in 16")


if __name__ == "__main__":
    main()
