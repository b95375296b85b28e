"""Every config key of this project. Defaults are those of the paper for ImageNet-1k (arXiv 2011.10566)."""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, within

ROWS = (
    Key(
        "MODEL.SIMSIAM.DIM",
        2048,
        "Length of the projection and of the projector's hidden layers.",
        (METHOD,),
        within("[1, inf)"),
        "section 3, Projection MLP",
    ),
    Key(
        "MODEL.SIMSIAM.PREDICTOR_DIM",
        512,
        "Width of the predictor's hidden layer, a quarter of DIM.",
        (METHOD,),
        within("[1, inf)"),
        "section 3, Prediction MLP",
    ),
    Key(
        "MODEL.SIMSIAM.ZERO_INIT_RESIDUAL",
        True,
        "The last batch norm of each residual block starts at 0, so that a block starts as the identity; in "
        "short runs that costs time.",
        (METHOD,),
        source="official code",
    ),
    Key(
        "MODEL.SIMSIAM.FIX_PREDICTOR_LR",
        True,
        "True: the predictor's learning rate does not decay.",
        (METHOD,),
        source="last row of Table 1",
    ),
    Key(
        "MODEL.SIMSIAM.PREDICTOR_LR_FACTOR",
        1.0,
        "The predictor's learning rate, in units of SOLVER.BASE_LR (the paper: 1). A higher one lets it "
        "follow the encoder, which keeps the features of short runs in small batches from falling into few "
        "dimensions.",
        (METHOD,),
        within("(0, inf)"),
    ),
)


def add_simsiam_config(cfg: CfgNode) -> None:
    """Add the keys of SimSiam to a config."""
    add_keys(cfg, ROWS)
