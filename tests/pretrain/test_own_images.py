"""Pre-training on registered sets of the user's own, without the images of a list."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from moco_det.data.datasets import own as own_datasets
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.preflight import unlabeled_images
from moco_det.pretrain.settings import build_config
from moco_det.testing.core import write_random_images


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Builds the config of a command line and gives the images that it names."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))
    monkeypatch.setattr(own_datasets, "_registered", {})

    def call(*flags, keys=()):
        words = ["--config-file", "toy/pretrain_moco_v2_R_18", "--num-gpus", "0", *flags, *keys]
        args = argument_parser().parse_args([*words, "OUTPUT_DIR", str(tmp_path / "out")])
        return unlabeled_images(build_config(args))

    return call


def test_the_images_of_a_set_with_labels(images, tmp_path):
    paths = sorted(str(path) for path in write_random_images(tmp_path / "images", 4))
    names = [path.rsplit("/", 1)[1] for path in paths]
    content = {"categories": [{"id": 1, "name": "x"}], "annotations": [], "images": []}
    content["images"] = [
        {"id": n, "file_name": name, "width": 9, "height": 9} for n, name in enumerate(names)
    ]
    (tmp_path / "mine.json").write_text(json.dumps(content))
    own = ("--coco", "mine", str(tmp_path / "mine.json"), str(tmp_path / "images"))
    assert images(*own, keys=("DATASETS.TRAIN", "('mine',)")) == paths
    with pytest.raises(ValueError, match="--coco mine: "):
        images("--images", str(tmp_path / "images"), *own)


def test_the_images_of_a_list_are_left_out(images, tmp_path):
    paths = sorted(str(path) for path in write_random_images(tmp_path / "images", 4))
    (tmp_path / "leaks.txt").write_text(f"{paths[1]}\nimages/{paths[3].rsplit('/', 1)[1]}\n")
    words = ("--images", str(tmp_path / "images"), "--exclude", str(tmp_path / "leaks.txt"))
    assert images(*words) == [paths[0], paths[2]]
