"""Makes a toy world on disk from arguments: all of it or nothing. Command line: ``tools/make_toyworld.py``."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from moco_det.toyworld.cutouts import list_pictures, load_art
from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.world import Counts, World
from moco_det.utils.errors import user_errors
from moco_det.utils.machine import num_cores
from moco_det_cli.parsers.data import toyworld_parser

# Raised by every change that alters a pixel or a label; a world of another version is not reused.
VERSION = 7
MANIFEST = "toyworld.json"
MIN_IMAGE_SIZE = 32


def make_toyworld(
    root: str | Path,
    *,
    seed: int = 0,
    num_unlabeled: int = 4000,
    num_per_class_train: int = 30,
    num_per_class_test: int = 20,
    num_train: int = 120,
    num_test: int = 60,
    image_size: int = 128,
    cutouts: str | Path | None = None,
    backgrounds: str | Path | None = None,
    processes: int = 1,
) -> dict:
    """Render a toy world, unless the same one is already there.

    Other counts change no image that both worlds have. The detection scenes are the same in every layout.

    Args:
        root: the folder to make. Either all of it appears or nothing.
        seed: of everything that is random.
        num_unlabeled: images in ``unlabeled/``, each of one large object.
        num_per_class_train: images in each ``classes/train/<class>/``.
        num_per_class_test: images in each ``classes/test/<class>/``.
        num_train: detection scenes for training, at least one per class.
        num_test: detection scenes for testing, at least one per class: a class that is absent from the test
            split would score 0 and enter the mean.
        image_size: side of every image, in pixels.
        cutouts: folder with ``{train,test}/<class>/*.png``; needs ``backgrounds``. None: procedural art.
        backgrounds: folder with ``{train,test}/*.jpg``.
        processes: that draw procedural art at a time; pictures are pasted in this one.

    Returns:
        the manifest, as written to ``root/toyworld.json``.

    Raises:
        ValueError: an argument is out of range, the folders of pictures are not as expected, or ``root``
            holds something else already, which is left as it is.
    """
    root = Path(root)
    if (cutouts is None) != (backgrounds is None):
        missing = "--backgrounds" if backgrounds is None else "--cutouts"
        raise ValueError(f"{missing} is missing: cut-outs and the photographs behind them go together")
    if image_size < MIN_IMAGE_SIZE:
        raise ValueError(f"--image-size is {image_size}; expected at least {MIN_IMAGE_SIZE} pixels")
    pictures = None if cutouts is None else list_pictures(cutouts, backgrounds)
    classes = ProceduralArt.classes if pictures is None else pictures.classes
    counts = Counts(num_unlabeled, num_per_class_train, num_per_class_test, num_train, num_test)
    _check_counts(counts, len(classes))
    identity = {
        "version": VERSION,
        "seed": seed,
        "image_size": image_size,
        "counts": asdict(counts),
        "source": "procedural" if pictures is None else "cutouts",
        "pictures_sha256": "" if pictures is None else pictures.digest,
        "classes": list(classes),
    }
    found = _find(root, identity)
    if found is not None:
        return found
    art = (
        dict.fromkeys(("train", "test"), ProceduralArt(seed))
        if pictures is None
        else load_art(pictures, image_size)
    )
    return _build(root, identity, World(seed, image_size, counts, art), processes if pictures is None else 1)


def _check_counts(counts: Counts, num_classes: int) -> None:
    least = Counts(unlabeled=1, per_class_train=1, per_class_test=1, train=num_classes, test=num_classes)
    for name, needed in asdict(least).items():
        value = getattr(counts, name)
        if value < needed:
            flag = f"--num-{name.replace('_', '-')}"
            raise ValueError(
                f"{flag} is {value}; expected at least {needed} (there are {num_classes} classes)"
            )


def _find(root: Path, identity: dict) -> dict | None:
    """The manifest of the world that is already there; None when the place is free."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    fix = "name another --output, or remove it first"
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{root} exists and is not a toy world (no readable {MANIFEST}); {fix}") from error
    differ = [key for key in identity if manifest.get(key) != identity[key]]
    if differ:
        facts = "; ".join(f"{key}: found {manifest.get(key)}, asked for {identity[key]}" for key in differ)
        raise ValueError(f"{root} holds another toy world ({facts}); {fix}")
    return manifest


def _build(root: Path, identity: dict, world: World, processes: int) -> dict:
    """Render beside ``root`` and move there when complete: an atomic write of a folder."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as beside:
        folder = Path(beside, root.name)
        folder.mkdir()
        world.write(folder, processes)
        manifest = identity | {"pictures_used": world.sources}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        os.replace(folder, root)
    return manifest


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    arguments = vars(toyworld_parser().parse_args(argv))
    root = arguments.pop("output")
    manifest = make_toyworld(root, **arguments, processes=num_cores())
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in manifest["counts"].items())
    print(f"{root}: {len(manifest['classes'])} classes; images: {counts}")
