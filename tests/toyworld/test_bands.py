"""The set of 4 bands: three tell nothing, the fourth shows what the labels say."""

import json

import numpy as np
import pytest

from moco_det.toyworld.bands import main, write_bands

tifffile = pytest.importorskip("tifffile")
SMALL = {"num_unlabeled": 4, "num_per_class": 1, "num_train": 3, "num_test": 2, "image_size": 64}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy") / "bands"
    write_bands(root, **SMALL)
    return root


def test_three_bands_are_the_same_ground_and_the_fourth_is_not(root):
    images = np.stack([tifffile.imread(path) / 16.0 for path in sorted(root.glob("unlabeled/*.tif"))])
    assert images.shape == (4, 64, 64, 4) and images.max() <= 255
    for a in range(4):
        for b in range(a):
            difference = np.abs(images[a] - images[b]).mean(axis=(0, 1))
            assert difference[:3].max() < 4.5 and difference[3] > 15  # the noise has a std of 3


def test_labels_are_where_the_fourth_band_shows_objects(root):
    labels = json.loads((root / "train.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == [
        p.name for p in sorted(root.glob("train/*"))
    ]
    assert len(labels["categories"]) == 12 and len(labels["annotations"]) >= 3
    for annotation in labels["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 64 and 0 <= y < y + height <= 64 and annotation["area"] <= width * height
    assert len(list(root.glob("classes/*/*/*.tif"))) == 24


def test_three_channels_are_the_same_images_without_it(root, tmp_path):
    write_bands(tmp_path / "three", channels=3, **SMALL)
    for path in sorted(root.rglob("*.tif")):
        three = tifffile.imread(tmp_path / "three" / path.relative_to(root))
        assert np.array_equal(three, tifffile.imread(path)[..., :3])
    assert (tmp_path / "three/test.json").read_text() == (root / "test.json").read_text()


def test_what_cannot_be_written_is_refused(root, capsys):
    for words, message in (
        (["--output", str(root)], "exists; name another"),
        (["--channels", "5"], "3 or 4 ch"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["--output", str(root.parent / "new"), *words])
        assert message in capsys.readouterr().err
