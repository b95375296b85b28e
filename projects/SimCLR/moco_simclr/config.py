"""Every config key of this project. Defaults are those of the paper for ImageNet-1k (arXiv 2002.05709)."""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, within

ROWS = (
    Key(
        "MODEL.SIMCLR.DIM",
        128,
        "Length of the embedding.",
        (METHOD,),
        within("[1, inf)"),
        "section 4.2",
    ),
    Key(
        "MODEL.SIMCLR.HIDDEN_DIM",
        2048,
        "Width of the projection head's hidden layer.",
        (METHOD,),
        within("[1, inf)"),
        "section 4.2 and B.3",
    ),
    Key(
        "MODEL.SIMCLR.TEMPERATURE",
        0.1,
        "Temperature tau of NT-Xent.",
        (METHOD,),
        within("(0, inf)"),
        "Table 5",
    ),
)


def add_simclr_config(cfg: CfgNode) -> None:
    """Add the keys of SimCLR to a config."""
    add_keys(cfg, ROWS)
