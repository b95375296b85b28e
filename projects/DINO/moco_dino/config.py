"""Every config key of this project. Defaults are the authors' for ResNet-50.

Caron et al. 2021, arXiv 2104.14294.
"""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, within

ROWS = (
    Key(
        "MODEL.DINO.HIDDEN_DIM",
        2048,
        "Width of the head's hidden layers.",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.DINO.BOTTLENECK_DIM",
        256,
        "Length of the unit-length vector before the last layer.",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.DINO.OUT_DIM",
        65536,
        "Length of the output (K in the paper).",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.DINO.HEAD_NORM",
        False,
        "Batch norm in the head.",
        (METHOD,),
        source="section 3.2: none",
    ),
    Key(
        "MODEL.DINO.STUDENT_TEMPERATURE",
        0.1,
        "The student's temperature.",
        (METHOD,),
        within("(0, inf)"),
        "section 3.1",
    ),
    Key(
        "MODEL.DINO.TEACHER_TEMPERATURE_START",
        0.04,
        "The teacher's temperature in the first epoch.",
        (METHOD,),
        within("(0, inf)"),
        "section 3.1",
    ),
    Key(
        "MODEL.DINO.TEACHER_TEMPERATURE",
        0.04,
        "The teacher's temperature from TEACHER_WARMUP_EPOCHS on.",
        (METHOD,),
        within("(0, inf)"),
        "section 3.1",
    ),
    Key(
        "MODEL.DINO.TEACHER_WARMUP_EPOCHS",
        30,
        "Epochs over which the teacher's temperature changes.",
        (METHOD,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.DINO.MOMENTUM",
        0.996,
        "Momentum of the teacher at the beginning; it rises to 1 along half a cosine.",
        (METHOD,),
        within("[0, 1)"),
    ),
    Key(
        "MODEL.DINO.CENTER_MOMENTUM",
        0.9,
        "Momentum m of the center.",
        (METHOD,),
        within("[0, 1)"),
        "equation 4",
    ),
    Key(
        "MODEL.DINO.FREEZE_LAST_LAYER_EPOCHS",
        1,
        "Epochs at the beginning in which the last layer is not trained.",
        (METHOD,),
        within("[0, inf)"),
    ),
)


def add_dino_config(cfg: CfgNode) -> None:
    """Add the keys of DINO to a config."""
    add_keys(cfg, ROWS)
