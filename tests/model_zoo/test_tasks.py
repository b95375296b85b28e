"""The tasks agree with their recipes, and the paper's rows with the paper."""

import pytest
from detectron2.data import MetadataCatalog

import moco_det.finetune  # noqa: F401  registers data sets
from moco_det.model_zoo import get_config, list_configs
from moco_det.model_zoo.paper_results import MOCO, MOCO_IG, PAPER_RESULTS, RANDOM, SUPERVISED
from moco_det.model_zoo.tasks import METRICS, TASKS, get_task, main_metric, task_name

# Recipes that are a project of their own.
ELSEWHERE = {"COCO-DensePose/densepose_rcnn_R_50_FPN_s1x_legacy", "toy/densepose_rcnn_R_18_FPN"}
# Folders of recipes that have no task: toys, and those of the stages before and beside fine-tuning.
OTHER_STAGES = ("toy/", "Imagenette/", "Pretrain/", "ImageNet-Classification/", "iNaturalist-Classification/")
HERE = [(task, recipe) for task in TASKS for recipe in task.recipes if recipe not in ELSEWHERE]


def named():
    return {recipe for task in TASKS for recipe in (*task.recipes, task.toy) if recipe}


def test_every_recipe_of_a_task_exists_and_every_recipe_has_a_task():
    known = set(list_configs())
    assert not named() - known - ELSEWHERE
    assert {n for n in known if not n.startswith(OTHER_STAGES)} <= named()
    assert not ELSEWHERE & known


def test_names_tell_tasks_apart():
    assert len({task.name for task in TASKS}) == len({task.title for task in TASKS}) == len(TASKS)
    assert [get_task(task.name) for task in TASKS] == list(TASKS)
    with pytest.raises(ValueError, match="there is no task 'voc'; known: voc-c4, voc-dc5"):
        get_task("voc")


@pytest.mark.parametrize(("task", "recipe"), HERE, ids=[recipe for _, recipe in HERE])
def test_a_task_says_what_its_recipe_does(task, recipe):
    cfg = get_config(recipe)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (task.train, task.test)
    assert {MetadataCatalog.get(name).evaluator_type for name in task.test} == {task.evaluator}
    assert {result.iterations for result in task.printed if result.task == recipe} <= {cfg.SOLVER.MAX_ITER}
    detector = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    measured = {
        "bbox": detector,
        "segm": detector and cfg.MODEL.MASK_ON,
        "keypoints": detector and cfg.MODEL.KEYPOINT_ON,
        "sem_seg": not detector,
    }
    assert all(measured[metric.split("/")[0]] for metric in task.metrics)


def test_the_papers_rows_belong_to_tasks():
    recipes = {recipe for task in TASKS for recipe in task.recipes}
    assert {result.task for result in PAPER_RESULTS} <= recipes
    for task in TASKS:
        for result in task.printed:
            assert task.metric in result.metrics and set(result.metrics) <= set(task.metrics)
    assert len({(result.task, result.init) for result in PAPER_RESULTS}) == len(PAPER_RESULTS)
    without = {task.name for task in TASKS if not task.printed}
    assert without == {"coco-fpn-4conv1fc", "lvis-v1"}


# The gap to supervised that the tables print beside MoCo's numbers: an independent copy of each row.
GAPS = {
    "PascalVOC-Detection/faster_rcnn_R_50_C4_24k": (0.2, 2.4, 3.8, 0.9, 3.7, 4.9),
    "PascalVOC-Detection/faster_rcnn_R_50_DC5_24k": (-0.3, 0.6, 0.8, 0.2, 1.5, 2.1),
    "PascalVOC-Detection/faster_rcnn_R_50_C4_9k": (0.5, 4.2, 7.4, 1.2, 5.2, 9.0),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": (
        *(-0.4, -0.7, -0.7, -0.3, -0.6, -0.4),
        *(0.0, -0.2, -0.4, 0.0, 0.0, -0.2),
    ),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_2x": (
        *(0.2, 0.3, 0.3, 0.1, 0.3, 0.2),
        *(0.5, 0.5, 0.7, 0.6, 1.0, 0.7),
    ),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_6x": (
        *(0.4, 0.2, 0.6, 0.3, 0.5, 0.4),
        *(0.9, 0.7, 1.4, 0.7, 0.9, 0.5),
    ),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": (
        *(0.3, 0.1, 0.4, 0.3, 0.1, 0.4),
        *(0.9, 0.5, 1.0, 0.8, 0.7, 1.2),
    ),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_2x": (
        *(0.7, 0.6, 1.0, 0.7, 0.8, 0.7),
        *(1.1, 0.8, 1.7, 0.9, 0.9, 1.2),
    ),
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_2x": (1.0, 0.5, 0.6, 1.1, 0.9, 1.1),
    "COCO-DensePose/densepose_rcnn_R_50_FPN_s1x_legacy": (1.8, 1.2, 3.3, 2.3, 1.4, 3.7),
    "Cityscapes/fcn_R_50_dilated_90k": (0.7, 0.9),
    "Cityscapes/mask_rcnn_R_50_FPN": (-0.6, -0.3, 0.0, 0.7),
    "PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k": (-1.9, -0.8),
}


def rows(recipe):
    return {result.init: list(result.metrics.values()) for result in PAPER_RESULTS if result.task == recipe}


@pytest.mark.parametrize("recipe", GAPS)
def test_the_papers_gaps_come_out(recipe):
    found = rows(recipe)
    assert {RANDOM, SUPERVISED, MOCO, MOCO_IG} <= set(found)
    gaps = [a - b for init in (MOCO, MOCO_IG) for a, b in zip(found[init], found[SUPERVISED], strict=True)]
    assert gaps == pytest.approx(GAPS[recipe], abs=1e-6)


def test_lvis_compares_with_the_frozen_baseline():
    frozen, tuned = (
        rows(f"LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_2x{suffix}") for suffix in ("_frozenBN", "")
    )
    assert set(frozen) == {SUPERVISED} and set(tuned) == {RANDOM, SUPERVISED, MOCO, MOCO_IG}
    gaps = [a - b for i in (MOCO, MOCO_IG) for a, b in zip(tuned[i], frozen[SUPERVISED], strict=True)]
    assert gaps == pytest.approx([-0.3, -0.4, -0.3, 0.5, 0.4, 0.6])


def test_the_name_of_a_run_tells_shares_of_the_labels_apart():
    assert task_name("toy/x", 1.0) == "toy/x"
    assert task_name("toy/x", 0.015) == "toy/x, 1.5% of the labels"


def test_a_run_is_compared_by_its_tasks_metric():
    for task in TASKS:
        for recipe in filter(None, (*task.recipes, task.toy)):
            assert main_metric(task_name(recipe, 0.1), METRICS) == task.metric, recipe
    keypoints = "toy/keypoint_rcnn_R_18_FPN"
    assert main_metric(keypoints, {"bbox/AP": 1.0}) == "bbox/AP"  # the task's own was not measured
    assert main_metric("mine/x", {"segm/AP": 1.0, "sem_seg/mIoU": 2.0}) == "segm/AP"
    assert main_metric("mine/x", {"loss": 1.0}) is None
