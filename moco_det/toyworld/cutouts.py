"""Photographic art: RGBA cut-outs pasted on photographs, both read from folders that a user names."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from moco_det.data.decoding import upright_image
from moco_det.toyworld.art import OPAQUE, Background, Sprite

SPLITS = ("train", "test")
BACKGROUND_SUFFIXES = (".jpg", ".jpeg", ".png")
# Degrees to either side: photographs of things have an upright.
MAX_ROTATION = 25
# Least fraction of a cut-out's bounding box that must be opaque: thinner things vanish when scaled down.
MIN_OPAQUE = 0.02


class CutoutArt:
    """The cut-outs and backgrounds of one split; nothing of the other split is reachable from here.

    Args:
        cutouts: cut-outs by class.
        backgrounds: photographs, H x W x 3, uint8, of any size.
    """

    def __init__(self, cutouts: dict[str, list[Sprite]], backgrounds: list[Background]):
        self.classes = tuple(cutouts)
        self._cutouts = cutouts
        self._backgrounds = backgrounds

    def sprite(self, rng: np.random.Generator, category: str, side: float) -> Sprite:
        """A cut-out of a class: flipped, turned, scaled and lit at random."""
        choice = self._cutouts[category][rng.integers(len(self._cutouts[category]))]
        image = Image.fromarray(choice.rgba)
        if rng.random() < 0.5:
            image = ImageOps.mirror(image)
        angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        image = image.crop(image.getchannel("A").getbbox())
        scale = side / max(image.size)
        width, height = (max(1, round(s * scale)) for s in image.size)
        rgba = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
        # What is thinner than a pixel fades; its strongest pixel stays opaque, so no object disappears.
        rgba[..., 3] = rgba[..., 3] * (255.0 / rgba[..., 3].max())
        contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(0.75, 1.25)
        rgb = (rgba[..., :3].astype(np.float32) - 128) * contrast + 128
        rgba[..., :3] = np.clip(rgb * brightness, 0, 255)
        return Sprite(category, rgba, choice.source)

    def background(self, rng: np.random.Generator, size: int) -> Background:
        """A square crop of a photograph, flipped at random, scaled to the scene."""
        choice = self._backgrounds[rng.integers(len(self._backgrounds))]
        height, width = choice.rgb.shape[:2]
        side = max(1, int(min(height, width) * rng.uniform(0.5, 1.0)))
        top, left = rng.integers(0, (height - side + 1, width - side + 1)).tolist()
        image = Image.fromarray(choice.rgb[top : top + side, left : left + side])
        if rng.random() < 0.5:
            image = ImageOps.mirror(image)
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        return Background(np.asarray(image, dtype=np.float32), choice.source)


@dataclass(frozen=True)
class PictureFiles:
    """The files that a user named, by split.

    Attributes:
        cutouts: folder of cut-outs.
        backgrounds: folder of photographs.
        by_class: for each split, the cut-outs of each class.
        photographs: for each split, the backgrounds.
        digest: of all names and bytes, wherever the folders stand.
    """

    cutouts: Path
    backgrounds: Path
    by_class: dict[str, dict[str, list[Path]]]
    photographs: dict[str, list[Path]]
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.by_class["train"])


def list_pictures(cutouts: str | Path, backgrounds: str | Path) -> PictureFiles:
    """List ``cutouts/{train,test}/<class>/*.png`` and ``backgrounds/{train,test}/*.jpg``; decode nothing.

    Raises:
        ValueError: a folder is missing or empty, train and test differ in their classes, or share a picture.
    """
    cutouts, backgrounds = Path(cutouts), Path(backgrounds)
    by_class = {split: _class_folders(_existing(cutouts / split)) for split in SPLITS}
    photographs = {split: _pictures(_existing(backgrounds / split), BACKGROUND_SUFFIXES) for split in SPLITS}
    in_one_only = sorted(set(by_class["train"]) ^ set(by_class["test"]))
    if in_one_only:
        raise ValueError(
            f"{cutouts}: train and test must hold the same classes; found in one only: {in_one_only}"
        )
    total, seen = hashlib.sha256(), {}
    for split in SPLITS:
        for path in (*(path for paths in by_class[split].values() for path in paths), *photographs[split]):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            first_split, first_path = seen.setdefault(digest, (split, path))
            # A copy of a test picture in train would let pre-training see what the test asks for.
            if first_split != split:
                raise ValueError(f"{path} is the same picture as {first_path}; keep it in one split only")
            total.update(f"{split} {path.parent.name}/{path.name} {digest}\n".encode())
    return PictureFiles(cutouts, backgrounds, by_class, photographs, total.hexdigest())


def load_art(files: PictureFiles, image_size: int) -> dict[str, CutoutArt]:
    """Decode the pictures of each split.

    Args:
        files: what to read.
        image_size: side of the scenes in pixels; larger pictures are kept at about twice that.

    Raises:
        ValueError: a picture cannot be read, or a cut-out has no alpha channel or shows hardly anything.
    """
    art = {}
    for split in SPLITS:
        sprites = {
            name: [_read_cutout(path, files.cutouts, name, image_size) for path in paths]
            for name, paths in files.by_class[split].items()
        }
        photographs = [
            _read_background(path, files.backgrounds, image_size) for path in files.photographs[split]
        ]
        art[split] = CutoutArt(sprites, photographs)
    return art


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise ValueError(f"{folder} holds no class folders; expected {folder.name}/<class>/*.png")
    return {entry.name: _pictures(entry, (".png",)) for entry in classes}


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist; expected train/ and test/ in {folder.parent}")
    return folder


def _pictures(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not found:
        raise ValueError(f"{folder} holds no picture; expected files ending in {', '.join(suffixes)}")
    return found


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return upright_image(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the picture {path}: {error}") from error


def _read_cutout(path: Path, root: Path, category: str, image_size: int) -> Sprite:
    image = _open(path)
    if not image.has_transparency_data:
        raise ValueError(f"cut-out {path} has no alpha channel (mode {image.mode}); expected an RGBA picture")
    image = image.convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    fraction = (np.asarray(image.getchannel("A")) >= OPAQUE).mean()
    if fraction < MIN_OPAQUE:
        raise ValueError(
            f"cut-out {path} shows too little: {fraction:.1%} of its bounding box has an alpha of "
            f"{OPAQUE} or more; expected at least {MIN_OPAQUE:.0%}"
        )
    image.thumbnail((2 * image_size, 2 * image_size))
    return Sprite(category, np.array(image), path.relative_to(root).as_posix())


def _read_background(path: Path, root: Path, image_size: int) -> Background:
    image = _open(path).convert("RGB")
    scale = 2 * image_size / min(image.size)
    if scale < 1:
        image = image.resize([round(s * scale) for s in image.size], Image.Resampling.BOX)
    return Background(np.array(image), path.relative_to(root).as_posix())
