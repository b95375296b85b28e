"""A tiny world and tiny folders of pictures, made once."""

import json

import numpy as np
import pytest
from PIL import Image

from moco_det.toyworld.make import make_toyworld


@pytest.fixture(scope="session")
def small():
    """Arguments of a world that takes half a second."""
    return {
        "num_unlabeled": 4,
        "num_per_class_train": 2,
        "num_per_class_test": 1,
        "num_train": 14,
        "num_test": 12,
        "image_size": 48,
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory, small):
    """A complete procedural world."""
    root = tmp_path_factory.mktemp("worlds") / "toyworld"
    make_toyworld(root, **small)
    return root


@pytest.fixture(scope="session")
def instances(world):
    """The annotations of both COCO splits."""
    return {
        split: json.loads((world / "coco" / "annotations" / f"instances_{split}.json").read_text())
        for split in ("train2017", "val2017")
    }


def write_cutout(path, color, size=(30, 20)):
    """An opaque ellipse of one color on nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    rgba = np.empty((size[1], size[0], 4), dtype=np.uint8)
    rgba[..., :3] = color
    rgba[..., 3] = np.where(x**2 + y**2 <= 1, 255, 0)
    Image.fromarray(rgba).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Folders of cut-outs (two classes) and of backgrounds; red is only in train, blue is only in test."""
    for split, strong, pale in (("train", (250, 0, 0), (90, 0, 0)), ("test", (0, 0, 250), (0, 0, 90))):
        for name in ("apple", "boat"):
            for number in range(2):
                color = [c * (3 + number + (name == "boat")) // 5 for c in strong]
                write_cutout(tmp_path / "cutouts" / split / name / f"{number}.png", color)
        for number in range(2):
            path = tmp_path / "backgrounds" / split / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60 + number, 50), pale).save(path)
    return {"cutouts": tmp_path / "cutouts", "backgrounds": tmp_path / "backgrounds"}
