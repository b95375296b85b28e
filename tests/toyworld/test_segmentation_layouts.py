"""VOC segmentation and Cityscapes, file by file, against the scenes and Cityscapes' own scripts."""

import json
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.preparation.json2instanceImg import json2instanceImg
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image

from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.toyworld.layouts.cityscapes import THINGS, label_of
from moco_det.toyworld.layouts.voc_segmentation import label_image, palette
from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.world import Counts, World

VOID = 255


@pytest.fixture(scope="module")
def scenes():
    """The scenes of the small world's splits, rendered again."""
    art = {"train": ProceduralArt(), "test": ProceduralArt()}
    world = World(0, 48, Counts(1, 1, 1, 14, 12), art)
    return {
        split: [world.detection(split, index) for index in range(count)]
        for split, count in (("train", 14), ("test", 12))
    }


@pytest.fixture(scope="module")
def truths(world):
    """Cityscapes' label files, by split, without their endings."""
    names = (world / "cityscapes/gtFine").glob("*/*/*_gtFine_polygons.json")
    return sorted(path.with_name(path.name.removesuffix("_polygons.json")) for path in names)


def read(path):
    return np.array(Image.open(path))


# ---- VOC ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "split, part, folder, first",
    [("train_aug", "train", "SegmentationClassAug", 1), ("val", "test", "SegmentationClass", 500_001)],
)
def test_voc_labels_are_the_scenes_classes(world, scenes, split, part, folder, first):
    root = world / "VOC2012"
    names = (root / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()
    assert names == [f"2012_{first + i:06d}" for i in range(len(scenes[part]))]
    for name, scene in zip(names, scenes[part], strict=True):
        assert Image.open(root / "JPEGImages" / f"{name}.jpg").size == (48, 48)
        labels = read(root / folder / f"{name}.png")
        assert np.array_equal(labels, label_image(scene, TOY_CLASSES))
        expected = np.zeros((48, 48), dtype=int)
        for placed in scene.objects:
            expected[placed.visible] = 1 + TOY_CLASSES.index(placed.category)
        known = labels != VOID
        assert np.array_equal(labels[known], expected[known]) and 0.5 < known.mean() < 1


def test_voc_void_is_two_pixels_wide_along_each_outline(scenes):
    for scene in scenes["train"]:
        number = np.zeros((48, 48), dtype=int)
        for index, placed in enumerate(scene.objects, start=1):
            number[placed.visible] = index
        void = label_image(scene, TOY_CLASSES) == VOID
        padded = np.pad(number, 1, mode="edge")
        others = [padded[1 + dy : 49 + dy, 1 + dx : 49 + dx] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        assert np.array_equal(void, np.any([other != number for other in others], axis=0))


def test_voc_files_have_the_official_colors(world):
    for folder in ("SegmentationClassAug", "SegmentationClass"):
        image = Image.open(next((world / "VOC2012" / folder).iterdir()))
        assert image.mode == "P"
        colors = np.array(image.getpalette()).reshape(256, 3)
        assert np.array_equal(colors, palette())
        # From the development kit: background, aeroplane, bicycle, person, tvmonitor, void.
        official = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
        for index, color in (official | {255: (224, 224, 192)}).items():
            assert tuple(colors[index]) == color


def test_every_class_is_in_the_voc_test_split(world):
    found = {
        int(x) for path in (world / "VOC2012/SegmentationClass").iterdir() for x in np.unique(read(path))
    }
    assert found == {*range(len(TOY_CLASSES) + 1), VOID}


# ---- Cityscapes ---------------------------------------------------------------------------------------------


def test_cityscapes_files_are_what_its_scripts_draw(truths, tmp_path):
    assert len(truths) == 26
    for stem in truths:
        polygons = f"{stem}_polygons.json"
        for kind, draw, encoding in (
            ("instanceIds", json2instanceImg, "ids"),
            ("labelIds", json2labelImg, "ids"),
            ("labelTrainIds", json2labelImg, "trainIds"),
            ("color", json2labelImg, "color"),
        ):
            draw(polygons, str(tmp_path / "drawn.png"), encoding)
            assert np.array_equal(read(f"{stem}_{kind}.png"), read(tmp_path / "drawn.png")), (stem, kind)


def test_cityscapes_labels_show_the_scenes(truths, scenes):
    for stem, scene in zip(truths, [*scenes["train"], *scenes["test"]], strict=True):
        image = str(stem).replace("gtFine", "leftImg8bit")
        assert np.array_equal(read(f"{image}.png"), scene.image)
        labels, train = read(f"{stem}_labelIds.png"), read(f"{stem}_labelTrainIds.png")
        agree = 0
        expected = np.full((48, 48), 7)  # road
        for placed in reversed(scene.objects):
            expected[placed.visible] = label_of(TOY_CLASSES, placed.category).id
        agree = (labels == expected)[:46]
        assert agree.mean() > 0.93  # but for the holes, which belong to their object
        assert np.all(labels[-1] == 1) and np.all(train[-1] == VOID)  # the car with the camera
        assert np.array_equal(train == VOID, labels == 1)


def test_cityscapes_instances_are_numbered_by_class(truths):
    for stem in truths:
        instances, labels = read(f"{stem}_instanceIds.png"), read(f"{stem}_labelIds.png")
        assert np.array_equal(np.where(instances >= 1000, instances // 1000, instances), labels)
        assert np.array_equal(instances >= 1000, np.isin(labels, [label.id for label in THINGS]))
        objects = [o["label"] for o in json.loads(Path(f"{stem}_polygons.json").read_text())["objects"]]
        assert (objects[0], objects[-1]) == ("road", "ego vehicle")


def test_more_than_eight_classes_share_the_names_of_things():
    names = [label_of(TOY_CLASSES, name).name for name in TOY_CLASSES]
    things = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert names == [*things, *things[:4]]


def test_every_class_is_in_the_cityscapes_test_split(truths):
    found = set()
    for stem in truths:
        if stem.parent.parent.name == "val":
            found |= set(np.unique(read(f"{stem}_labelTrainIds.png")).tolist())
    assert found == {0, *range(11, 19), VOID}
