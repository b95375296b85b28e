"""Which scenes a toy world holds, and in which layouts they are written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from moco_det.seeding import numpy_generator
from moco_det.toyworld.art import Art
from moco_det.toyworld.layouts.cityscapes import write_cityscapes
from moco_det.toyworld.layouts.coco import write_coco
from moco_det.toyworld.layouts.folders import write_folder
from moco_det.toyworld.layouts.lvis import write_lvis
from moco_det.toyworld.layouts.voc import write_voc
from moco_det.toyworld.layouts.voc_segmentation import write_voc_segmentation
from moco_det.toyworld.scenes import ONE_LARGE, SEVERAL, Scene, compose


@dataclass(frozen=True)
class Counts:
    """Numbers of images: unlabelled ones, a class and split (class folders), a split (in each layout)."""

    unlabelled: int
    per_class_train: int
    per_class_test: int
    train: int
    test: int

    def total(self, num_classes: int) -> int:
        """Scenes of a whole world; those for detection are written in four layouts."""
        per_class = self.per_class_train + self.per_class_test
        return self.unlabelled + num_classes * per_class + self.train + self.test


class SplitNames(NamedTuple):
    """What a split is called in each layout."""

    voc: str
    coco: str
    voc_segmentation: str
    cityscapes: str


SPLITS = {
    "train": SplitNames("trainval", "train2017", "train_aug", "train"),
    "test": SplitNames("test", "val2017", "val", "val"),
}


class World:
    """Renders every part of a toy world. Each scene is a function of the seed, its part and its index.

    Args:
        seed: of everything that is random.
        image_size: side of every image, in pixels.
        counts: numbers of images.
        art: what the scenes of "train" and of "test" are made of.
    """

    def __init__(self, seed: int, image_size: int, counts: Counts, art: Mapping[str, Art]):
        self._seed = seed
        self._size = image_size
        self._counts = counts
        self._art = art
        self._classes = art["train"].classes
        self._sources: dict[str, set[str]] = {"train": set(), "test": set()}

    @property
    def sources(self) -> dict[str, list[str]]:
        """The pictures that went into the scenes of each split so far; none when the art is procedural."""
        return {split: sorted(used) for split, used in self._sources.items()}

    def write(self, folder: Path) -> None:
        """Render all scenes and write them below ``folder``."""
        counts = self._counts
        with tqdm(
            total=counts.total(len(self._classes)), desc="toy world", unit="image", disable=None
        ) as bar:

            def shown(scenes: Iterator[Scene]) -> Iterator[Scene]:
                for scene in scenes:
                    yield scene
                    bar.update()

            write_folder(folder / "unlabelled", shown(self.unlabelled(counts.unlabelled)))
            for split, count in (("train", counts.per_class_train), ("test", counts.per_class_test)):
                for name in self._classes:
                    scenes = self.one_class(split, name, count)
                    write_folder(folder / "classes" / split / name, shown(scenes))
            for split, count in (("train", counts.train), ("test", counts.test)):
                names = SPLITS[split]
                scenes = list(shown(self.detection(split, count)))  # some 0.2 MB each
                write_voc(folder / "VOC2007", names.voc, scenes)
                write_coco(folder / "coco", names.coco, self._classes, scenes)
                write_voc_segmentation(folder / "VOC2012", names.voc_segmentation, self._classes, scenes)
                write_cityscapes(folder / "cityscapes", names.cityscapes, self._classes, scenes)
            write_lvis(folder, self._classes)

    def unlabelled(self, count: int) -> Iterator[Scene]:
        """Scenes for pre-training: one large object each, which teaches more than a crowd."""
        for index in range(count):
            rng = numpy_generator(self._seed, "toyworld unlabelled", index)
            yield self._noted("train", compose(rng, self._art["train"], self._size, ONE_LARGE))

    def one_class(self, split: str, name: str, count: int) -> Iterator[Scene]:
        """Scenes with one large object of a class."""
        for index in range(count):
            rng = numpy_generator(self._seed, f"toyworld classes {split} {name}", index)
            yield self._noted(split, compose(rng, self._art[split], self._size, ONE_LARGE, first=name))

    def detection(self, split: str, count: int) -> Iterator[Scene]:
        """Scenes with several objects; the classes take turns at being in front, so that each occurs."""
        for index in range(count):
            rng = numpy_generator(self._seed, f"toyworld detection {split}", index)
            first = self._classes[index % len(self._classes)]
            yield self._noted(split, compose(rng, self._art[split], self._size, SEVERAL, first=first))

    def _noted(self, split: str, scene: Scene) -> Scene:
        used = {scene.background_source, *(placed.sprite.source for placed in scene.objects)} - {""}
        strangers = [source for source in used if not source.startswith(f"{split}/")]
        assert not strangers, f"a scene of {split} shows {strangers}"
        self._sources[split] |= used
        return scene
