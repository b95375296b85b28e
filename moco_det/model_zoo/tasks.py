"""The transfer tasks of the MoCo paper as data: recipes, data sets, metric, and what the paper printed.

Fine-tuning, the benchmark and the report all ask for it, so it stands in a room below them.
"""

from collections.abc import Collection
from dataclasses import dataclass

from moco_det.model_zoo import paper_results as paper
from moco_det.model_zoo.paper_results import PAPER_RESULTS, PaperResult

# Metrics by their names in run.json -> what a table calls them, in the order of its columns.
METRICS = {
    "bbox/AP": "AP",
    "bbox/AP50": "AP50",
    "bbox/AP75": "AP75",
    "segm/AP": "mask AP",
    "segm/AP50": "mask AP50",
    "segm/AP75": "mask AP75",
    "keypoints/AP": "keypoint AP",
    "keypoints/AP50": "keypoint AP50",
    "keypoints/AP75": "keypoint AP75",
    "densepose_gps/AP": "dense pose AP",
    "densepose_gps/AP50": "dense pose AP50",
    "densepose_gps/AP75": "dense pose AP75",
    "sem_seg/IoU": "IoU",
    "sem_seg/mIoU": "mIoU",
}


@dataclass(frozen=True)
class Task:
    """A transfer task.

    Attributes:
        name: a short name for command lines, e.g. ``"voc-c4"``.
        title: what a table calls it.
        recipes: the task's schedules, by names of :mod:`moco_det.model_zoo`, shortest first.
        toy: the recipe of the same kind on the toy world. Tasks that differ in their data alone share one.
        train: DATASETS.TRAIN of every recipe.
        test: DATASETS.TEST of every recipe.
        evaluator: the metadata's ``evaluator_type`` of the test set, which chooses the metric.
        metrics: what the paper compares, by the names in run.json; the first is the main one.
        tool: the script that trains it, below the repository's root; that of a project where the core lacks it.
        toy_maker: the script that makes the toy recipe's data, and their folder among the data sets; None where
            they are in the toy world.
    """

    name: str
    title: str
    recipes: tuple[str, ...]
    toy: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    evaluator: str
    metrics: tuple[str, ...]
    tool: str = "tools/train_net.py"
    toy_maker: tuple[str, str] | None = None

    @property
    def metric(self) -> str:
        """The metric by which inits are compared."""
        return self.metrics[0]

    @property
    def printed(self) -> tuple[PaperResult, ...]:
        """The papers' rows for the task's recipes; none for a recipe that is not of the papers."""
        return tuple(result for result in PAPER_RESULTS if result.task in self.recipes)


_VOC = ("bbox/AP", "bbox/AP50", "bbox/AP75")
_COCO = {"train": ("coco_2017_train",), "test": ("coco_2017_val",), "evaluator": "coco"}
_LVIS = {"evaluator": "lvis", "metrics": paper.MASK_COLUMNS, "toy": "toy/lvis_mask_rcnn_R_18_FPN"}

TASKS = (
    Task(
        name="voc-c4",
        title="VOC07+12 detection, R50-C4",
        recipes=(paper.VOC_C4_24K,),
        toy="toy/faster_rcnn_R_50_C4",
        train=("voc_2007_trainval", "voc_2012_trainval"),
        test=("voc_2007_test",),
        evaluator="pascal_voc",
        metrics=_VOC,
    ),
    Task(
        name="voc-dc5",
        title="VOC07+12 detection, R50-dilated-C5",
        recipes=(paper.VOC_DC5_24K,),
        toy="toy/faster_rcnn_R_50_DC5",
        train=("voc_2007_trainval", "voc_2012_trainval"),
        test=("voc_2007_test",),
        evaluator="pascal_voc",
        metrics=_VOC,
    ),
    Task(
        name="voc07-c4",
        title="VOC07 detection, R50-C4",
        recipes=(paper.VOC_C4_9K,),
        toy="toy/faster_rcnn_R_50_C4",
        train=("voc_2007_trainval",),
        test=("voc_2007_test",),
        evaluator="pascal_voc",
        metrics=_VOC,
    ),
    Task(
        name="coco-c4",
        title="COCO detection and instance segmentation, R50-C4",
        recipes=(paper.COCO_C4_1X, paper.COCO_C4_2X),
        toy="toy/mask_rcnn_R_50_C4",
        metrics=paper.COCO_COLUMNS,
        **_COCO,
    ),
    Task(
        name="coco-fpn",
        title="COCO detection and instance segmentation, R50-FPN",
        recipes=(paper.COCO_FPN_1X, paper.COCO_FPN_2X, paper.COCO_FPN_6X),
        toy="toy/mask_rcnn_R_18_FPN",
        metrics=paper.COCO_COLUMNS,
        **_COCO,
    ),
    # Not the paper's: its numbers stand beside no row of coco-fpn.
    Task(
        name="coco-fpn-4conv1fc",
        title="COCO detection and instance segmentation, R50-FPN with 4conv1fc heads",
        recipes=("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_4conv1fc_1x",),
        toy="toy/mask_rcnn_R_18_FPN_4conv1fc",
        metrics=paper.COCO_COLUMNS,
        **_COCO,
    ),
    Task(
        name="lvis-v0.5",
        title="LVIS v0.5 instance segmentation, R50-FPN",
        recipes=(paper.LVIS_1X, paper.LVIS_1X_FROZEN, paper.LVIS_2X, paper.LVIS_2X_FROZEN),
        train=("moco_lvis_v0.5_train",),
        test=("moco_lvis_v0.5_val",),
        **_LVIS,
    ),
    Task(
        name="lvis-v1",
        title="LVIS v1 instance segmentation, R50-FPN",
        recipes=tuple(f"LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_{x}" for x in ("1x", "2x")),
        train=("moco_lvis_v1_train",),
        test=("moco_lvis_v1_val",),
        **_LVIS,
    ),
    Task(
        name="coco-keypoints",
        title="COCO keypoints, R50-FPN",
        recipes=(paper.KEYPOINTS_2X,),
        toy="toy/keypoint_rcnn_R_18_FPN",
        train=("keypoints_coco_2017_train",),
        test=("keypoints_coco_2017_val",),
        evaluator="coco",
        metrics=paper.KEYPOINT_COLUMNS,
    ),
    Task(
        name="coco-densepose",
        title="COCO dense pose, R50-FPN",
        recipes=(paper.DENSEPOSE_S1X,),  # in projects/DensePose
        toy="toy/densepose_rcnn_R_18_FPN",
        train=("moco_densepose_coco_2014_train", "moco_densepose_coco_2014_valminusminival"),
        test=("moco_densepose_coco_2014_minival",),
        evaluator="densepose",
        metrics=paper.DENSEPOSE_COLUMNS,
        tool="projects/DensePose/train_net.py",
        toy_maker=("projects/DensePose/make_toy_bodies.py", "toy_bodies"),
    ),
    Task(
        name="cityscapes-semantic",
        title="Cityscapes semantic segmentation, dilated R50 FCN",
        recipes=(paper.CITYSCAPES_SEMANTIC,),
        toy="toy/fcn_R_50_dilated_cityscapes",
        train=("cityscapes_fine_sem_seg_train",),
        test=("cityscapes_fine_sem_seg_val",),
        evaluator="cityscapes_sem_seg",
        metrics=paper.CITYSCAPES_IOU,
    ),
    Task(
        name="cityscapes-instance",
        title="Cityscapes instance segmentation, R50-FPN",
        recipes=(paper.CITYSCAPES_INSTANCE,),
        toy="toy/mask_rcnn_R_18_FPN_cityscapes",
        train=("cityscapes_fine_instance_seg_train",),
        test=("cityscapes_fine_instance_seg_val",),
        evaluator="cityscapes_instance",
        metrics=paper.CITYSCAPES_COLUMNS,
    ),
    Task(
        name="voc-semantic",
        title="VOC semantic segmentation, dilated R50 FCN",
        recipes=(paper.VOC_SEMANTIC,),
        toy="toy/fcn_R_50_dilated_voc",
        train=("voc_2012_sem_seg_train_aug",),
        test=("voc_2012_sem_seg_val",),
        evaluator="sem_seg",
        metrics=paper.VOC_IOU,
    ),
)


def get_task(name: str) -> Task:
    """The task of a name.

    Raises:
        ValueError: there is none of this name; the known ones are listed.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise ValueError(f"there is no task {name!r}; known: {', '.join(task.name for task in TASKS)}")


def task_name(recipe: str, fraction: float = 1) -> str:
    """What the run of a recipe is called in records and tables: ``"toy/faster_rcnn_R_18_FPN, 10% of the labels"``.

    Args:
        fraction: DATASETS.LABEL_FRACTION.
    """
    return recipe if fraction == 1 else f"{recipe}, {100 * fraction:g}% of the labels"


def main_metric(name: str, found: Collection[str]) -> str | None:
    """The metric by which the runs of a recipe are compared.

    Args:
        name: as :func:`task_name` gives it.
        found: the metrics that there are.

    Returns:
        that of the recipe's task; for a recipe of no task, the first of METRICS that was found; None for none.
    """
    recipe = name.partition(",")[0]
    named = [task.metric for task in TASKS if recipe in (*task.recipes, task.toy)]
    return next((metric for metric in (*named, *METRICS) if metric in found), None)
