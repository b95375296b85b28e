"""Which scenes a toy world holds, and in which layouts they are written."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from moco_det.toyworld.art import Art
from moco_det.toyworld.layouts.cityscapes import write_cityscapes
from moco_det.toyworld.layouts.coco import write_coco
from moco_det.toyworld.layouts.folders import write_folder
from moco_det.toyworld.layouts.lvis import write_lvis
from moco_det.toyworld.layouts.voc import write_voc
from moco_det.toyworld.layouts.voc_segmentation import write_voc_segmentation
from moco_det.toyworld.scenes import ONE_LARGE, SEVERAL, Scene, compose
from moco_det.utils.children import map_in_processes
from moco_det.utils.progress import Progress
from moco_det.utils.seeding import numpy_generator


@dataclass(frozen=True)
class Counts:
    """Numbers of images: unlabeled ones, a class and split (class folders), a split (in each layout)."""

    unlabeled: int
    per_class_train: int
    per_class_test: int
    train: int
    test: int

    def total(self, num_classes: int) -> int:
        """Scenes of a whole world; those for detection are written in four layouts."""
        per_class = self.per_class_train + self.per_class_test
        return self.unlabeled + num_classes * per_class + self.train + self.test


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

    def write(self, folder: Path, processes: int = 1) -> None:
        """Render all scenes and write them below ``folder``.

        Args:
            processes: that render, which changes no scene. More than one copy this object, the art included, many
                times; start them from a script that guards its main part as :mod:`multiprocessing` asks.
        """
        counts = self._counts
        with contextlib.ExitStack() as stack:
            in_order = map
            if processes > 1:  # spawned, since a fork would inherit the threads of torch
                in_order = stack.enter_context(map_in_processes(processes, 16, "spawn"))
            bar = stack.enter_context(Progress("rendering the toy world", counts.total(len(self._classes))))

            def scenes(split: str, count: int, render: Callable[[int], Scene]) -> Iterator[Scene]:
                for scene in in_order(render, range(count)):
                    self._note_sources(split, scene)
                    yield scene
                    bar.update()

            write_folder(folder / "unlabeled", scenes("train", counts.unlabeled, self.unlabeled))
            for split, count in (("train", counts.per_class_train), ("test", counts.per_class_test)):
                for name in self._classes:
                    render = functools.partial(self.one_class, split, name)
                    write_folder(folder / "classes" / split / name, scenes(split, count, render))
            for split, count in (("train", counts.train), ("test", counts.test)):
                names, render = SPLITS[split], functools.partial(self.detection, split)
                several = list(scenes(split, count, render))  # some 0.2 MB each
                write_voc(folder / "VOC2007", names.voc, several)
                write_coco(folder / "coco", names.coco, self._classes, several)
                write_voc_segmentation(folder / "VOC2012", names.voc_segmentation, self._classes, several)
                write_cityscapes(folder / "cityscapes", names.cityscapes, self._classes, several)
            write_lvis(folder, self._classes)

    def unlabeled(self, index: int) -> Scene:
        """A scene for pre-training: one large object, which teaches more than a crowd."""
        rng = numpy_generator(self._seed, "toyworld unlabelled", index)  # a seed: spelled as ever
        return compose(rng, self._art["train"], self._size, ONE_LARGE)

    def one_class(self, split: str, name: str, index: int) -> Scene:
        """A scene with one large object of a class."""
        rng = numpy_generator(self._seed, f"toyworld classes {split} {name}", index)
        return compose(rng, self._art[split], self._size, ONE_LARGE, first=name)

    def detection(self, split: str, index: int) -> Scene:
        """A scene with several objects; the classes take turns at being in front, so that each occurs."""
        rng = numpy_generator(self._seed, f"toyworld detection {split}", index)
        first = self._classes[index % len(self._classes)]
        return compose(rng, self._art[split], self._size, SEVERAL, first=first)

    def _note_sources(self, split: str, scene: Scene) -> None:
        used = {scene.background_source, *(placed.sprite.source for placed in scene.objects)} - {""}
        strangers = [source for source in used if not source.startswith(f"{split}/")]
        assert not strangers, f"a scene of {split} shows {strangers}"
        self._sources[split] |= used
