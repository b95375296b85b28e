import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator

from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.finetune.datasets import check_datasets
from moco_det.finetune.evaluators import build_evaluator, check_evaluator
from moco_det.model_zoo import get_config

TOY = ("toy_voc_2007_trainval", "toy_voc_2007_test", "toy_coco_train", "toy_coco_val")


@pytest.fixture
def default_again():
    """Undoes a test's registration of another toy world."""
    yield
    register_toy_datasets()


def test_toy_data_sets_can_be_read_and_registered_twice():
    register_toy_datasets()
    assert [len(DatasetCatalog.get(name)) for name in TOY] == [13, 12, 13, 12]
    for name in TOY:
        assert MetadataCatalog.get(name).thing_classes == list(TOY_CLASSES)
    assert [len(DatasetCatalog.get(f"toy_keypoints_{split}")) for split in ("train", "val")] == [13, 12]


def test_both_layouts_tell_the_same_truth():
    for voc, coco in (TOY[0::2], TOY[1::2]):
        for a, b in zip(DatasetCatalog.get(voc), DatasetCatalog.get(coco), strict=True):
            boxes = [[x, y, x + w, y + h] for x, y, w, h in (o["bbox"] for o in b["annotations"])]
            assert [o["bbox"] for o in a["annotations"]] == boxes
            labels = [[o["category_id"] for o in r["annotations"]] for r in (a, b)]
            assert labels[0] == labels[1]


def test_classes_come_from_the_manifest(tmp_path, default_again):
    (tmp_path / "toyworld.json").write_text(json.dumps({"classes": ["cat", "hat"]}))
    register_toy_datasets(str(tmp_path))
    assert MetadataCatalog.get("toy_coco_val").thing_classes == ["cat", "hat"]
    assert MetadataCatalog.get("toy_voc_2007_test").thing_classes == ["cat", "hat"]


@pytest.mark.parametrize(
    ("recipe", "missing"),
    [
        ("toy/faster_rcnn_R_18_FPN", "VOC2007/ImageSets/Main/trainval.txt"),
        ("toy/mask_rcnn_R_18_FPN", "coco/annotations/instances_train2017.json"),
    ],
)
def test_a_missing_toy_world_is_said_with_its_place_and_maker(
    tmp_path, monkeypatch, default_again, recipe, missing
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_toy_datasets()
    cfg = get_config(recipe)
    with pytest.raises(
        ValueError, match=f"{tmp_path}/toyworld/{missing}.*DETECTRON2_DATASETS.*make_toyworld.py"
    ):
        check_datasets(cfg, cfg.DATASETS.TRAIN)
    monkeypatch.undo()


@pytest.mark.parametrize("place", ["Annotations", "JPEGImages"])
def test_each_part_of_voc_is_looked_for(tmp_path, default_again, place):
    splits = tmp_path / "VOC2007" / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "test.txt").write_text("000001\n")
    for part in {"Annotations", "JPEGImages"} - {place}:
        (tmp_path / "VOC2007" / part).mkdir()
    register_toy_datasets(str(tmp_path))
    with pytest.raises(ValueError, match=f"VOC2007/{place}' does not exist"):
        check_datasets(get_config("toy/faster_rcnn_R_18_FPN"), ("toy_voc_2007_test",))


@pytest.mark.parametrize(
    ("name", "archive"),
    [("voc_2012_trainval", "VOCtrainval_11-May-2012.tar"), ("coco_2017_val", "annotations_trainval2017.zip")],
)
def test_real_data_sets_are_looked_for_too_and_their_archive_is_named(name, archive):
    with pytest.raises(ValueError, match=f"{name}.*fetch {archive} from .*, or set DETECTRON2_DATASETS"):
        check_datasets(get_config("toy/mask_rcnn_R_18_FPN"), (name,))


def test_an_unknown_data_set_names_the_nearest():
    with pytest.raises(ValueError, match="'toy_voc_2007_tset' is not registered.*'toy_voc_2007_test'"):
        check_datasets(get_config("toy/mask_rcnn_R_18_FPN"), ("toy_voc_2007_tset",))


def test_no_data_set_at_all():
    with pytest.raises(ValueError, match="are empty"):
        check_datasets(get_config("toy/mask_rcnn_R_18_FPN"), ())


def test_another_number_of_classes_is_refused():
    cfg = get_config("toy/faster_rcnn_R_18_FPN")
    check_datasets(cfg, TOY)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 20
    with pytest.raises(ValueError, match="NUM_CLASSES is 20.*'toy_coco_val' .* 12 "):
        check_datasets(cfg, ("toy_coco_val",))


def test_the_metadata_choose_the_evaluator(tmp_path):
    cfg = get_config("toy/mask_rcnn_R_18_FPN")
    cfg.OUTPUT_DIR = str(tmp_path)
    assert isinstance(build_evaluator(cfg, "toy_coco_val"), COCOEvaluator)
    assert isinstance(build_evaluator(cfg, "toy_voc_2007_test"), PascalVOCDetectionEvaluator)


def test_an_unknown_evaluator_is_refused():
    MetadataCatalog.get("nobody_measures_this").evaluator_type = "beauty"
    with pytest.raises(ValueError, match="evaluator_type 'beauty'; expected one of .*'coco', .*'pascal_voc'"):
        check_evaluator("nobody_measures_this")
    MetadataCatalog.remove("nobody_measures_this")
