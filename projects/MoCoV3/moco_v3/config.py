"""Every config key of this project. Defaults are those for ResNet-50 and 100 epochs (arXiv 2104.02057)."""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, within

ROWS = (
    Key(
        "MODEL.MOCO_V3.DIM",
        256,
        "Length of the embedding.",
        (METHOD,),
        within("[1, inf)"),
        "section 4.2",
    ),
    Key(
        "MODEL.MOCO_V3.HIDDEN_DIM",
        4096,
        "Width of the hidden layers of projector and predictor.",
        (METHOD,),
        within("[1, inf)"),
        "section 4.2",
    ),
    Key(
        "MODEL.MOCO_V3.PROJECTOR_LAYERS",
        2,
        "Layers of the projector: 2 for ResNets; the paper's text has 3, for ViT.",
        (METHOD,),
        within("[1, inf)"),
        "official code",
    ),
    Key(
        "MODEL.MOCO_V3.ZERO_INIT_RESIDUAL",
        True,
        "The last batch norm of each residual block starts at 0, so that a block starts as the identity; in "
        "short runs that costs time.",
        (METHOD,),
        source="official code",
    ),
    Key(
        "MODEL.MOCO_V3.TEMPERATURE",
        1.0,
        "Softmax temperature tau. For ResNet-50 1.0; ViT: 0.2.",
        (METHOD,),
        within("(0, inf)"),
        "official code",
    ),
    Key(
        "MODEL.MOCO_V3.MOMENTUM",
        0.99,
        "Momentum m of the key encoder; it rises to 1 along half a cosine. For 1000 epochs 0.996.",
        (METHOD,),
        within("[0, 1]"),
        "official code",
    ),
)


def add_moco_v3_config(cfg: CfgNode) -> None:
    """Add the keys of MoCo v3 to a config."""
    add_keys(cfg, ROWS)
