"""Every config key of this project. Defaults are those of the paper for ImageNet-1k (arXiv 2006.07733)."""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, within

ROWS = (
    Key(
        "MODEL.BYOL.DIM",
        256,
        "Length of the projection.",
        (METHOD,),
        within("[1, inf)"),
        "section 3.3",
    ),
    Key(
        "MODEL.BYOL.HIDDEN_DIM",
        4096,
        "Width of the hidden layer of projector and predictor.",
        (METHOD,),
        within("[1, inf)"),
        "section 3.3",
    ),
    Key(
        "MODEL.BYOL.MOMENTUM",
        0.996,
        "Momentum tau_base of the target network; it rises to 1 along half a cosine.",
        (METHOD,),
        within("[0, 1]"),
        "section 3.3",
    ),
)


def add_byol_config(cfg: CfgNode) -> None:
    """Add the keys of BYOL to a config."""
    add_keys(cfg, ROWS)
