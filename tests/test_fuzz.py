"""Damaged files by the hundred: an image is decoded or refused in a line, labels that pass the check train."""

import io
import json
import random
import time

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.data.detection_utils import SizeMismatchError
from fuzzing import mutated_bytes, mutated_json, mutated_xml
from PIL import Image

from moco_det.config import get_cfg, merge_config
from moco_det.data.datasets.lvis import register_lvis
from moco_det.data.decoding import UnreadableImage, decode_rgb
from moco_det.finetune.check_datasets import check_all
from moco_det.finetune.datasets import names_faulty_labels
from moco_det.model_zoo import get_config_file
from moco_det.testing.core import write_random_images

# ---- images -----------------------------------------------------------------------------------------------------


def originals() -> list[bytes]:
    """One small image of each kind that is decoded."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).resize((60, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {}),
        (rgb.convert("P"), "PNG", {"transparency": 3}),
        (rgb.convert("RGBA"), "PNG", {}),
        (rgb.convert("I").point(lambda value: value * 200), "PNG", {}),
        (rgb.convert("P"), "GIF", {}),
        (rgb, "WEBP", {}),
        (rgb, "BMP", {}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "PPM", {}),
    ]
    files = []
    for image, kind, options in kinds:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


@pytest.mark.filterwarnings("ignore")
def test_a_thousand_damaged_images(tmp_path):
    rng, files, path = random.Random(0), originals(), tmp_path / "a.jpg"
    outcomes = {"decoded": 0, "refused": 0}
    slowest = 0.0
    for number in range(1000):
        path.write_bytes(mutated_bytes(files[number % len(files)], rng))
        began = time.process_time()
        try:
            image = decode_rgb(str(path))
            assert image.mode == "RGB" and min(image.size) > 0
            outcomes["decoded"] += 1
        except UnreadableImage as error:
            assert error.reason and "\n" not in error.reason
            outcomes["refused"] += 1
        slowest = max(slowest, time.process_time() - began)
    print(outcomes, f"slowest {slowest:.2f} s")
    assert min(outcomes.values()) > 100  # the mutations are neither harmless nor all deadly
    assert slowest < 10
    assert [file.name for file in tmp_path.iterdir()] == ["a.jpg"]


# ---- labels -----------------------------------------------------------------------------------------------------

CLASSES = ["cow", "hut"]
COCO = {
    "images": [{"id": n, "file_name": f"{n:03d}.jpg", "width": 40, "height": 40} for n in range(4)],
    "categories": [{"id": n + 1, "name": name} for n, name in enumerate(CLASSES)],
    "annotations": [
        {
            "id": n + 1,
            "image_id": n // 2,
            "category_id": n % 2 + 1,
            "bbox": [2 + n, 3, 20, 15],
            "area": 300,
            "iscrowd": 0,
            "segmentation": [[2 + n, 3, 22 + n, 3, 22 + n, 18, 2 + n, 18]],
        }
        for n in range(6)
    ],
}
LVIS = {
    **COCO,
    "images": [
        {
            **image,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
            "coco_url": f"x/images/{n:03d}.jpg",
        }
        for n, image in enumerate(COCO["images"])
    ],
}
VOC_OBJECT = (
    "<object><name>{}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
    "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
)
VOC = (
    "<annotation><filename>000.jpg</filename><size><width>40</width><height>40</height><depth>3</depth></size>"
    + "".join(map(VOC_OBJECT.format, CLASSES))
    + "</annotation>"
)


@pytest.fixture
def labeled(tmp_path, monkeypatch):
    """Three tiny data sets, registered; returns the label file of each by its name."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", {})
    paths = write_random_images(tmp_path / "images", 4)
    voc = tmp_path / "voc"
    for folder in ("ImageSets/Main", "Annotations"):
        (voc / folder).mkdir(parents=True)
    (voc / "JPEGImages").symlink_to(tmp_path / "images")
    (voc / "ImageSets/Main/all.txt").write_text("".join(f"{path.stem}\n" for path in paths))
    for path in paths:
        (voc / "Annotations" / f"{path.stem}.xml").write_text(VOC)
    register_pascal_voc("fuzz_voc", str(voc), "all", 2007, CLASSES)
    MetadataCatalog.get("fuzz_voc").evaluator_type = "pascal_voc"
    metadata = {"thing_classes": CLASSES}
    register_coco_instances("fuzz_coco", metadata, str(tmp_path / "coco.json"), str(tmp_path / "images"))
    register_lvis(
        "fuzz_lvis", str(tmp_path / "lvis.json"), str(tmp_path), ids=[1, 2], folders=("images",), **metadata
    )
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    (tmp_path / "lvis.json").write_text(json.dumps(LVIS))
    return {
        "fuzz_voc": voc / "Annotations/000.xml",
        "fuzz_coco": tmp_path / "coco.json",
        "fuzz_lvis": tmp_path / "lvis.json",
    }


def mapper_of(name: str) -> DatasetMapper:
    cfg = get_cfg()
    merge_config(cfg, get_config_file("toy/mask_rcnn_R_18_FPN"), [])
    cfg.MODEL.MASK_ON = name != "fuzz_voc"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32,), 48
    return DatasetMapper(cfg, is_train=True)


def damage(name: str, rng: random.Random) -> str:
    content = {"fuzz_coco": COCO, "fuzz_lvis": LVIS}.get(name)
    if rng.random() < 0.2:
        return mutated_bytes((json.dumps(content) if content else VOC).encode(), rng).decode(errors="replace")
    return mutated_json(content, rng) if content else mutated_xml(VOC, rng)


def train_on(name: str, mapper: DatasetMapper) -> None:
    """What training does with the labels of each image."""
    with names_faulty_labels([name]):
        records = get_detection_dataset_dicts([name])
    for record in records:
        mapper(record)


@pytest.mark.parametrize("name", ["fuzz_voc", "fuzz_coco", "fuzz_lvis"])
def test_damaged_labels(labeled, name, count=100):
    """The check itself never fails, and what it finds complete can be trained on."""
    rng, mapper = random.Random(count), mapper_of(name)
    (findings,) = check_all([name])
    assert findings.status == "complete"
    train_on(name, mapper)
    states = {"complete": 0, "faulty": 0, "incomplete": 0, "missing": 0}
    for _ in range(count):
        text = damage(name, rng)
        labeled[name].write_text(text)
        (findings,) = check_all([name])
        states[findings.status] += 1
        try:
            train_on(name, mapper)
        except SizeMismatchError:
            pass  # images are not opened by the check; detectron2 names the image and both sizes
        except ValueError as error:
            assert findings.status != "complete", (text, error)
        except Exception as error:
            assert findings.status != "complete", (text, repr(error))
    print(name, states)
    assert states["faulty"] + states["incomplete"] > count // 4
