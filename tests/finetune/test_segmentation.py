"""VOC segmentation and Cityscapes through the real readers, the training and the metrics in use."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.structures import Instances, polygons_to_bitmask
from PIL import Image

from moco_det.data.datasets.segmentation import load_voc_sem_seg, register_toy, register_voc_sem_seg
from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.engine.record import read_run_record
from moco_det.finetune.datasets import check_datasets
from moco_det.finetune.evaluators import build_evaluator, check_evaluator
from moco_det.finetune.segmentation_mapper import SegmentationMapper
from moco_det.model_zoo import get_config
from moco_det.toyworld.layouts.voc_segmentation import label_image
from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.world import Counts, World

RECIPES = {
    "toy_voc_sem_seg_val": "toy/fcn_R_50_dilated_voc",
    "toy_cityscapes_sem_seg_val": "toy/fcn_R_50_dilated_cityscapes",
    "toy_cityscapes_instance_val": "toy/mask_rcnn_R_18_FPN_cityscapes",
}
VOC_CLASSES = 1 + len(TOY_CLASSES)  # the background is number 0
SMALL_FCN = ("INPUT.CROP.SIZE", "[33,33]", "INPUT.MIN_SIZE_TEST", "0")


@pytest.fixture
def default_again():
    """Undoes a test's registration of another toy world."""
    yield
    register_toy_datasets()


@pytest.fixture(scope="module")
def written():
    """The label arrays of the toy VOC test split, made again from the scenes."""
    world = World(0, 64, Counts(1, 1, 1, 13, 12), dict.fromkeys(("train", "test"), ProceduralArt()))
    return [label_image(world.detection("test", index), TOY_CLASSES).astype(int) for index in range(12)]


# ---- training and evaluation --------------------------------------------------------------------------------


# cityscapesscripts 2.3.0, the newest, calls it; NumPy 2.4 and newer lack it, which check_evaluator says.
measures_cityscapes = pytest.mark.skipif(not hasattr(np, "in1d"), reason="cityscapesscripts needs numpy.in1d")


@pytest.mark.parametrize(
    "name, options, metrics",
    [
        ("toy_voc_sem_seg_val", SMALL_FCN, {"sem_seg/mIoU", "sem_seg/IoU-cup", "sem_seg/pACC"}),
        pytest.param(
            *("toy_cityscapes_sem_seg_val", SMALL_FCN, {"sem_seg/IoU", "sem_seg/iIoU"}),
            marks=measures_cityscapes,
        ),
        pytest.param(
            *("toy_cityscapes_instance_val", (), {"segm/AP", "segm/AP50"}), marks=measures_cityscapes
        ),
    ],
)
def test_each_task_trains_and_is_measured(train, name, options, metrics):
    record = read_run_record(train("--init", "random", *options, recipe=RECIPES[name]))
    assert metrics <= set(record["metrics"])
    assert all(0 <= record["metrics"][metric] <= 100 for metric in metrics)
    assert record["extra"]["task"] == RECIPES[name]


# ---- the metrics in use -------------------------------------------------------------------------------------


def score(name, outputs, folder):
    """What the evaluator in use says of the outputs, which come in the order of the data set."""
    cfg = get_config(RECIPES[name], "random")
    cfg.OUTPUT_DIR = str(folder)
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for record, output in zip(DatasetCatalog.get(name), outputs, strict=True):
        evaluator.process([{"file_name": record["file_name"]}], [output])
    return evaluator.evaluate()


def as_scores(labels, num_classes):
    """Class scores (num_classes, H, W) that say ``labels``; where there are none, the last class."""
    known = np.where(labels == 255, num_classes - 1, labels)
    return {"sem_seg": torch.nn.functional.one_hot(torch.from_numpy(known), num_classes).permute(2, 0, 1)}


def test_voc_perfect_shifted_and_wrong_predictions(written, tmp_path):
    def miou(predictions):
        outputs = [as_scores(labels, VOC_CLASSES) for labels in predictions]
        return score("toy_voc_sem_seg_val", outputs, tmp_path)["sem_seg"]["mIoU"]

    assert miou(written) == pytest.approx(100)
    shifted = miou([np.roll(labels, 3, axis=1) for labels in written])
    assert 20 < shifted < 90
    assert miou([np.zeros_like(labels) for labels in written]) < 15


def test_voc_miou_is_the_mean_over_classes_of_intersection_over_union(written, tmp_path):
    shifted = [np.roll(labels, 2, axis=0) for labels in written]
    shifted = [np.where(labels == 255, 0, labels) for labels in shifted]
    ious = []
    for label in range(VOC_CLASSES):
        both = sum(((a == label) & (b == label)).sum() for a, b in zip(written, shifted, strict=True))
        either = sum(
            (((a == label) | (b == label)) & (a != 255)).sum() for a, b in zip(written, shifted, strict=True)
        )
        ious.append(both / either)
    outputs = [as_scores(labels, VOC_CLASSES) for labels in shifted]
    found = score("toy_voc_sem_seg_val", outputs, tmp_path)["sem_seg"]
    assert found["mIoU"] == pytest.approx(100 * np.mean(ious))
    assert found["IoU-bird"] == pytest.approx(100 * ious[1])


@measures_cityscapes
def test_cityscapes_semantic_perfect_and_shifted_predictions(tmp_path):
    name = "toy_cityscapes_sem_seg_val"
    truth = [np.array(Image.open(r["sem_seg_file_name"]), dtype=int) for r in DatasetCatalog.get(name)]
    found = score(name, [as_scores(labels, 19) for labels in truth], tmp_path)["sem_seg"]
    assert found["IoU"] == pytest.approx(100) and found["iIoU"] == pytest.approx(100)
    moved = [np.roll(labels, 3, axis=1) for labels in truth]
    found = score(name, [as_scores(labels, 19) for labels in moved], tmp_path)["sem_seg"]
    assert 20 < found["IoU"] < 90 and found["iIoU"] < 90


def instances_of(record, shift=0):
    """The true instances of an image, as a detector gives them."""
    path = record["file_name"].replace("leftImg8bit.png", "gtFine_instanceIds.png")
    truth = np.array(Image.open(path.replace("leftImg8bit", "gtFine")), dtype=int)
    numbers = np.unique(truth[truth >= 1000])
    things = [c["id"] for c in CITYSCAPES_CATEGORIES if c["isthing"]]
    found = Instances(truth.shape)
    found.pred_masks = torch.from_numpy(np.stack([np.roll(truth == n, shift, axis=1) for n in numbers]))
    found.pred_classes = torch.tensor([things.index(number // 1000) for number in numbers])
    found.scores = torch.linspace(0.9, 0.5, len(numbers))
    return {"instances": found}


@measures_cityscapes
def test_cityscapes_instances_perfect_and_shifted_predictions(tmp_path):
    name = "toy_cityscapes_instance_val"
    records = DatasetCatalog.get(name)
    assert score(name, [instances_of(r) for r in records], tmp_path)["segm"] == {"AP": 100, "AP50": 100}
    shifted = score(name, [instances_of(r, shift=3) for r in records], tmp_path)["segm"]
    assert 0 < shifted["AP"] < 70 and shifted["AP"] < shifted["AP50"]


@measures_cityscapes
def test_cityscapes_instances_are_measured_from_anywhere(toyworld, tmp_path, monkeypatch, default_again):
    """A relative path of the truth works, and the official script's file is not left behind."""
    monkeypatch.chdir(toyworld)
    register_toy("toyworld", TOY_CLASSES)
    before = sorted(path.name for path in toyworld.iterdir())
    name = "toy_cityscapes_instance_val"
    outputs = [instances_of(record) for record in DatasetCatalog.get(name)]
    assert score(name, outputs, tmp_path)["segm"]["AP"] == 100
    assert sorted(path.name for path in toyworld.iterdir()) == before


# ---- readers ------------------------------------------------------------------------------------------------


def test_the_mapper_yields_the_labels_of_the_scenes(written):
    cfg = get_config("toy/fcn_R_50_dilated_voc", "random")
    cfg.INPUT.RANDOM_SCALE, cfg.INPUT.CROP.SIZE, cfg.INPUT.RANDOM_FLIP = (1.0, 1.0), [64, 64], "none"
    mapper = SegmentationMapper(cfg, is_train=True)
    for record, labels in zip(DatasetCatalog.get("toy_voc_sem_seg_val"), written, strict=True):
        assert np.array_equal(mapper(record)["sem_seg"].numpy(), labels)


def test_cityscapes_polygons_are_its_instance_maps():
    for record in DatasetCatalog.get("toy_cityscapes_instance_val"):
        truth = instances_of(record)["instances"]
        masks = {label: np.zeros((64, 64), dtype=bool) for label in range(8)}
        for annotation in record["annotations"]:
            polygons = [np.array(polygon) for polygon in annotation["segmentation"]]
            masks[annotation["category_id"]] |= polygons_to_bitmask(polygons, 64, 64)
        for label, mask in masks.items():
            drawn = truth.pred_masks[truth.pred_classes == label].numpy().any(0)
            assert (mask & drawn).sum() >= 0.85 * (mask | drawn).sum()


@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
def test_voc_lists_of_both_kinds(tmp_path, line):
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text(
        "\n".join(line.format(n, n) for n in ("2007_000032", "2008_1")) + "\n\n"
    )
    assert load_voc_sem_seg(str(tmp_path), "train_aug") == [
        {
            "file_name": str(tmp_path / f"JPEGImages/{name}.jpg"),
            "sem_seg_file_name": str(tmp_path / f"SegmentationClassAug/{name}.png"),
            "image_id": name,
        }
        for name in ("2007_000032", "2008_1")
    ]


def test_the_real_sets_are_registered():
    classes = MetadataCatalog.get("voc_2012_sem_seg_train_aug").stuff_classes
    assert len(classes) == 21 and classes[:2] == ["background", "aeroplane"] and classes[-1] == "tvmonitor"
    assert classes == MetadataCatalog.get("voc_2012_sem_seg_val").stuff_classes
    for name in ("train_aug", "val"):
        metadata = MetadataCatalog.get(f"voc_2012_sem_seg_{name}")
        assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
        assert metadata.dirname.endswith("VOC2012")
        with pytest.raises(ValueError, match=f"VOC2012/ImageSets/Segmentation/{name}.txt' does not exist"):
            cfg = get_config("PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k")
            check_datasets(cfg, (f"voc_2012_sem_seg_{name}",))


# ---- what is missing is said --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", RECIPES)
def test_complete_layouts_pass(name, split):
    check_datasets(get_config(RECIPES[name]), (name.replace("_val", f"_{split}"),))


@pytest.mark.parametrize(
    "name, gone, match",
    [
        (
            "toy_voc_sem_seg_val",
            "VOC2012/ImageSets/Segmentation/val.txt",
            "val.txt' does not exist.*make_toyw",
        ),
        ("toy_voc_sem_seg_val", "VOC2012/JPEGImages", "JPEGImages' does not exist"),
        ("toy_voc_sem_seg_val", "VOC2012/SegmentationClass", "SegmentationClass' does not exist"),
        ("toy_voc_sem_seg_train", "VOC2012/SegmentationClassAug", "SegmentationClassAug' does not exist"),
        ("toy_cityscapes_sem_seg_val", "cityscapes/leftImg8bit", "leftImg8bit/val' does not exist"),
        (
            "toy_cityscapes_sem_seg_val",
            "cityscapes/leftImg8bit/val/toyville",
            r"val/<city>/\*_leftImg8bit.png'",
        ),
        ("toy_cityscapes_sem_seg_val", "cityscapes/gtFine/val", "gtFine/val' does not exist"),
        ("toy_cityscapes_sem_seg_val", "*_labelTrainIds.png", "labelTrainIds.*createTrainIdLabelImgs"),
        ("toy_cityscapes_instance_val", "*_polygons.json", "polygons.json' does not exist"),
        ("toy_cityscapes_instance_val", "*_instanceIds.png", "instanceIds.png' does not exist"),
    ],
)
def test_missing_parts_are_named(toyworld, tmp_path, default_again, name, gone, match):
    root = tmp_path / "toyworld"
    shutil.copytree(toyworld / "toyworld", root, ignore=shutil.ignore_patterns("coco", "classes", "VOC2007"))
    for path in [root / gone] if "*" not in gone else list(root.rglob(gone)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    register_toy(str(root), TOY_CLASSES)
    with pytest.raises(ValueError, match=match):
        check_datasets(get_config(RECIPES[name.replace("_train", "_val")]), (name,))


@pytest.mark.parametrize(
    "name, package, command",
    [
        ("toy_cityscapes_sem_seg_val", "cityscapesscripts", "pip install --no-deps cityscapesscripts"),
        ("toy_cityscapes_sem_seg_val", "pyquaternion", "pip install pyquaternion"),
        ("toy_cityscapes_instance_val", "shapely", "pip install shapely"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, name, package, command):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a))
    with pytest.raises(ValueError, match=f"{name}' needs the package {package}, .* not installed: {command}"):
        check_datasets(get_config(RECIPES[name]), (name,))


def test_another_number_of_classes_is_refused():
    cfg = get_config("toy/fcn_R_50_dilated_voc")
    with pytest.raises(
        ValueError, match="SEM_SEG_HEAD.NUM_CLASSES is 13, .* 'toy_cityscapes_.*' has 19 classes"
    ):
        check_datasets(cfg, ("toy_cityscapes_sem_seg_val",))


def test_another_set_of_classes_can_be_registered(tmp_path):
    register_voc_sem_seg("test_pets", str(tmp_path), "val", ("cat", "dog"))
    assert MetadataCatalog.get("test_pets").stuff_classes == ["background", "cat", "dog"]
    DatasetCatalog.remove("test_pets")
    MetadataCatalog.remove("test_pets")


@pytest.mark.parametrize("name", ["toy_cityscapes_sem_seg_val", "toy_cityscapes_instance_val"])
def test_a_numpy_without_what_the_official_script_calls_is_refused(monkeypatch, name):
    monkeypatch.delattr(np, "in1d", raising=False)
    with pytest.raises(ValueError, match=f"{name}' .*numpy.in1d; NumPy {np.__version__} .*'numpy<2.4'"):
        check_evaluator(name)
    check_evaluator("toy_voc_sem_seg_val")


@measures_cityscapes
@pytest.mark.parametrize("name", ["toy_cityscapes_sem_seg_val", "toy_cityscapes_instance_val"])
def test_the_official_script_is_for_one_machine(name):
    check_evaluator(name, machines=1)
    with pytest.raises(ValueError, match=f"{name}' is measured by .* one machine; found 2"):
        check_evaluator(name, machines=2)
    check_evaluator("toy_voc_sem_seg_val", machines=2)
