"""What the MoCo papers printed for the recipes of this package, in AP or mIoU points.

Tables and sections are those of MoCo v1 (He et al. 2019, arXiv 1911.05722) unless the source names another paper.
"""

from dataclasses import dataclass

VOC_C4_24K = "PascalVOC-Detection/faster_rcnn_R_50_C4_24k"
VOC_DC5_24K = "PascalVOC-Detection/faster_rcnn_R_50_DC5_24k"
VOC_C4_9K = "PascalVOC-Detection/faster_rcnn_R_50_C4_9k"
COCO_C4_1X = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x"
COCO_C4_2X = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_2x"
COCO_FPN_1X = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"
COCO_FPN_2X = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_2x"
COCO_FPN_6X = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_6x"
LVIS_1X = "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"
LVIS_2X = "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_2x"
LVIS_1X_FROZEN = "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_frozenBN"
LVIS_2X_FROZEN = "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_2x_frozenBN"
KEYPOINTS_2X = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_2x"
DENSEPOSE_S1X = "COCO-DensePose/densepose_rcnn_R_50_FPN_s1x_legacy"
CITYSCAPES_SEMANTIC = "Cityscapes/fcn_R_50_dilated_90k"
CITYSCAPES_INSTANCE = "Cityscapes/mask_rcnn_R_50_FPN"
VOC_SEMANTIC = "PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k"

# The inits as the tables call them.
RANDOM, SUPERVISED, MOCO, MOCO_IG = "random", "supervised IN-1M", "MoCo IN-1M", "MoCo IG-1B"
# The names of the columns, in the order in which the papers print them.
VOC_COLUMNS = ("bbox/AP50", "bbox/AP", "bbox/AP75")
COCO_COLUMNS = ("bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75")
MASK_COLUMNS = COCO_COLUMNS[3:]
KEYPOINT_COLUMNS = ("keypoints/AP", "keypoints/AP50", "keypoints/AP75")
DENSEPOSE_COLUMNS = ("densepose_gps/AP", "densepose_gps/AP50", "densepose_gps/AP75")
CITYSCAPES_COLUMNS = ("segm/AP", "segm/AP50")
CITYSCAPES_IOU = ("sem_seg/IoU",)
VOC_IOU = ("sem_seg/mIoU",)


@dataclass(frozen=True)
class PaperResult:
    """One printed row. ``runs`` is the number of runs behind it, None where the paper does not say."""

    task: str
    iterations: int
    init: str
    source: str
    runs: int | None
    metrics: dict[str, float]


def _rows(recipe: str, iterations: int, source: str, columns: tuple, values: dict, runs: int | None = None):
    return [
        PaperResult(recipe, iterations, init, source, runs, dict(zip(columns, numbers, strict=True)))
        for init, numbers in values.items()
    ]


_VOC = (
    *_rows(
        *(VOC_C4_24K, 24_000, "Table 2", VOC_COLUMNS),
        {
            RANDOM: (60.2, 33.8, 33.1),
            SUPERVISED: (81.3, 53.5, 58.8),
            MOCO: (81.5, 55.9, 62.6),
            MOCO_IG: (82.2, 57.2, 63.7),
        },
        runs=5,
    ),
    *_rows(
        *(VOC_C4_24K, 24_000, "Table 3", VOC_COLUMNS),
        {"end-to-end IN-1M": (80.4, 54.6, 60.3), "memory bank IN-1M": (80.6, 54.9, 60.6)},
        runs=5,
    ),
    *_rows(
        *(VOC_C4_24K, 24_000, "MoCo v2, Table 1", VOC_COLUMNS),
        {
            "MoCo v2 IN-1M, 200 epochs": (82.4, 57.0, 63.6),
            "MoCo v2 IN-1M, 800 epochs": (82.5, 57.4, 64.0),
        },
        runs=5,
    ),
    *_rows(
        *(VOC_DC5_24K, 24_000, "Table 2", VOC_COLUMNS),
        {
            RANDOM: (64.4, 37.9, 38.6),
            SUPERVISED: (81.4, 54.0, 59.1),
            MOCO: (81.1, 54.6, 59.9),
            MOCO_IG: (81.6, 55.5, 61.2),
        },
        runs=5,
    ),
    *_rows(
        *(VOC_DC5_24K, 24_000, "Table 3", VOC_COLUMNS),
        {"end-to-end IN-1M": (79.2, 52.0, 56.6), "memory bank IN-1M": (79.8, 52.9, 57.9)},
        runs=5,
    ),
    # MoCo v1 has no random start here.
    *_rows(VOC_C4_9K, 9_000, "SimSiam, Table 5", VOC_COLUMNS, {RANDOM: (35.9, 16.8, 13.0)}),
    *_rows(
        *(VOC_C4_9K, 9_000, "Table 4", VOC_COLUMNS),
        {
            SUPERVISED: (74.4, 42.4, 42.7),
            MOCO: (74.9, 46.6, 50.1),
            "MoCo IN-14M": (75.2, 46.9, 50.2),
            "MoCo YFCC-100M": (74.7, 45.9, 49.0),
            MOCO_IG: (75.6, 47.6, 51.7),
        },
        runs=5,
    ),
)

_COCO = (
    *_rows(
        *(COCO_C4_1X, 90_000, "Table 5", COCO_COLUMNS),
        {
            RANDOM: (26.4, 44.0, 27.8, 29.3, 46.9, 30.8),
            SUPERVISED: (38.2, 58.2, 41.2, 33.3, 54.7, 35.2),
            MOCO: (38.5, 58.3, 41.6, 33.6, 54.8, 35.6),
            MOCO_IG: (39.1, 58.7, 42.2, 34.1, 55.4, 36.4),
        },
    ),
    *_rows(
        *(COCO_C4_2X, 180_000, "Table 5", COCO_COLUMNS),
        {
            RANDOM: (35.6, 54.6, 38.2, 31.4, 51.5, 33.5),
            SUPERVISED: (40.0, 59.9, 43.1, 34.7, 56.5, 36.9),
            MOCO: (40.7, 60.5, 44.1, 35.4, 57.3, 37.6),
            MOCO_IG: (41.1, 60.7, 44.8, 35.6, 57.4, 38.1),
        },
    ),
    *_rows(
        *(COCO_FPN_1X, 90_000, "Table 5", COCO_COLUMNS),
        {
            RANDOM: (31.0, 49.5, 33.2, 28.5, 46.8, 30.4),
            SUPERVISED: (38.9, 59.6, 42.7, 35.4, 56.5, 38.1),
            MOCO: (38.5, 58.9, 42.0, 35.1, 55.9, 37.7),
            MOCO_IG: (38.9, 59.4, 42.3, 35.4, 56.5, 37.9),
        },
    ),
    *_rows(
        *(COCO_FPN_2X, 180_000, "Table 5", COCO_COLUMNS),
        {
            RANDOM: (36.7, 56.7, 40.0, 33.7, 53.8, 35.9),
            SUPERVISED: (40.6, 61.3, 44.4, 36.8, 58.1, 39.5),
            MOCO: (40.8, 61.6, 44.7, 36.9, 58.4, 39.7),
            MOCO_IG: (41.1, 61.8, 45.1, 37.4, 59.1, 40.2),
        },
    ),
    *_rows(
        *(COCO_FPN_6X, 540_000, "Table A.1", COCO_COLUMNS),
        {
            RANDOM: (41.4, 61.9, 45.1, 37.6, 59.1, 40.3),
            SUPERVISED: (41.9, 62.5, 45.6, 38.0, 59.6, 40.8),
            MOCO: (42.3, 62.7, 46.2, 38.3, 60.1, 41.2),
            MOCO_IG: (42.8, 63.2, 47.0, 38.7, 60.5, 41.3),
        },
    ),
)

# Table 6 is the 2x schedule: the supervised row with frozen batch norm, which is better there, the others tuned.
_LVIS = (
    *_rows(
        *(LVIS_1X, 90_000, "LVIS ablation", MASK_COLUMNS),
        {SUPERVISED: (23.5, 36.6, 24.8), MOCO: (23.2, 36.0, 24.7), MOCO_IG: (24.3, 37.4, 25.9)},
        runs=5,
    ),
    *_rows(LVIS_1X_FROZEN, 90_000, "LVIS ablation", MASK_COLUMNS, {SUPERVISED: (24.1, 37.3, 25.4)}, runs=5),
    *_rows(LVIS_2X, 180_000, "Table 6", MASK_COLUMNS, {RANDOM: (22.5, 34.8, 23.8)}),
    *_rows(
        *(LVIS_2X, 180_000, "LVIS ablation", MASK_COLUMNS),
        {SUPERVISED: (23.2, 36.0, 24.4), MOCO: (24.1, 37.4, 25.5), MOCO_IG: (24.9, 38.2, 26.4)},
        runs=5,
    ),
    *_rows(LVIS_2X_FROZEN, 180_000, "LVIS ablation", MASK_COLUMNS, {SUPERVISED: (24.4, 37.8, 25.8)}, runs=5),
)

_OTHERS = (
    *_rows(
        *(KEYPOINTS_2X, 180_000, "Table 6", KEYPOINT_COLUMNS),
        {
            RANDOM: (65.9, 86.5, 71.7),
            SUPERVISED: (65.8, 86.9, 71.9),
            MOCO: (66.8, 87.4, 72.5),
            MOCO_IG: (66.9, 87.8, 73.0),
        },
    ),
    *_rows(
        *(DENSEPOSE_S1X, 130_000, "Table 6", DENSEPOSE_COLUMNS),
        {
            RANDOM: (39.4, 78.5, 35.1),
            SUPERVISED: (48.3, 85.6, 50.6),
            MOCO: (50.1, 86.8, 53.9),
            MOCO_IG: (50.6, 87.0, 54.3),
        },
    ),
    *_rows(
        *(CITYSCAPES_INSTANCE, 24_000, "Table 6", CITYSCAPES_COLUMNS),
        {RANDOM: (25.4, 51.1), SUPERVISED: (32.9, 59.6), MOCO: (32.3, 59.3), MOCO_IG: (32.9, 60.3)},
    ),
    *_rows(
        *(CITYSCAPES_SEMANTIC, 90_000, "Table 6", CITYSCAPES_IOU),
        {RANDOM: (65.3,), SUPERVISED: (74.6,), MOCO: (75.3,), MOCO_IG: (75.5,)},
        runs=5,
    ),
    *_rows(
        *(VOC_SEMANTIC, 30_000, "Table 6", VOC_IOU),
        {RANDOM: (39.5,), SUPERVISED: (74.4,), MOCO: (72.5,), MOCO_IG: (73.6,)},
        runs=5,
    ),
)

PAPER_RESULTS = (*_VOC, *_COCO, *_LVIS, *_OTHERS)
