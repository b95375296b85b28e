"""What the MoCo paper printed for the recipes of this package (He et al. 2019, arXiv 1911.05722).

Numbers as printed, in AP points. Table 2 is the mean of five runs; for Table 5 the paper gives no number.
"""

from dataclasses import dataclass

VOC_C4_24K = "PascalVOC-Detection/faster_rcnn_R_50_C4_24k"
COCO_C4_1X = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x"
COCO_C4_2X = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_2x"

_VOC = ("bbox/AP50", "bbox/AP", "bbox/AP75")
_COCO = ("bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75")


@dataclass(frozen=True)
class PaperResult:
    """One printed row. ``runs`` is the number of runs behind it, None where the paper does not say."""

    task: str
    iterations: int
    init: str
    source: str
    runs: int | None
    metrics: dict[str, float]


def _rows(task: str, iterations: int, source: str, runs: int | None, names: tuple, values: dict):
    return [
        PaperResult(task, iterations, init, source, runs, dict(zip(names, numbers, strict=True)))
        for init, numbers in values.items()
    ]


PAPER_RESULTS = (
    *_rows(
        VOC_C4_24K,
        24000,
        "Table 2",
        5,
        _VOC,
        {
            "random": (60.2, 33.8, 33.1),
            "supervised IN-1M": (81.3, 53.5, 58.8),
            "MoCo IN-1M": (81.5, 55.9, 62.6),
            "MoCo IG-1B": (82.2, 57.2, 63.7),
        },
    ),
    *_rows(
        COCO_C4_1X,
        90000,
        "Table 5",
        None,
        _COCO,
        {
            "random": (26.4, 44.0, 27.8, 29.3, 46.9, 30.8),
            "supervised IN-1M": (38.2, 58.2, 41.2, 33.3, 54.7, 35.2),
            "MoCo IN-1M": (38.5, 58.3, 41.6, 33.6, 54.8, 35.6),
            "MoCo IG-1B": (39.1, 58.7, 42.2, 34.1, 55.4, 36.4),
        },
    ),
    *_rows(
        COCO_C4_2X,
        180000,
        "Table 5",
        None,
        _COCO,
        {
            "random": (35.6, 54.6, 38.2, 31.4, 51.5, 33.5),
            "supervised IN-1M": (40.0, 59.9, 43.1, 34.7, 56.5, 36.9),
            "MoCo IN-1M": (40.7, 60.5, 44.1, 35.4, 57.3, 37.6),
            "MoCo IG-1B": (41.1, 60.7, 44.8, 35.6, 57.4, 38.1),
        },
    ),
)
