"""Every config key of this project. Defaults are the paper's (Caron et al. 2020, arXiv 2006.09882, appendix A)."""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, unless, within

ROWS = (
    Key(
        "MODEL.SWAV.DIM",
        128,
        "Length of the embedding.",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.SWAV.HIDDEN_DIM",
        2048,
        "Width of the projection head's hidden layer.",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.SWAV.PROTOTYPES",
        3000,
        "Prototypes (K in the paper).",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.SWAV.TEMPERATURE",
        0.1,
        "Temperature tau of the prediction.",
        (METHOD,),
        within("(0, inf)"),
        "equation 2",
    ),
    Key(
        "MODEL.SWAV.EPSILON",
        0.05,
        "Weight epsilon of the entropy of the codes.",
        (METHOD,),
        within("(0, inf)"),
        "equation 3",
    ),
    Key(
        "MODEL.SWAV.SINKHORN_ITERATIONS",
        3,
        "Rounds of Sinkhorn-Knopp.",
        (METHOD,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.SWAV.FREEZE_PROTOTYPES_EPOCHS",
        1,
        "Epochs at the beginning in which the prototypes are not trained.",
        (METHOD,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.SWAV.QUEUE_SIZE",
        0,
        "Embeddings of earlier batches that share the assignment with those of a batch; of each global crop "
        "so many, at least SOLVER.IMS_PER_BATCH; 0: none. Batches of 256: 3840.",
        (METHOD,),
        within("[0, inf)"),
        "section 3.1, Working with small batches",
    ),
    Key(
        "MODEL.SWAV.QUEUE_START_EPOCH",
        15,
        "Epochs before embeddings are kept; they take part once the queue is full.",
        (METHOD,),
        within("[0, inf)"),
        effect=(unless("MODEL.SWAV.QUEUE_SIZE", 0),),
    ),
)


def add_swav_config(cfg: CfgNode) -> None:
    """Add the keys of SwAV to a config."""
    add_keys(cfg, ROWS)
