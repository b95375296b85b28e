"""Every config key of this project; those of MODEL.MOCO that it shares are named in ``densecl.py``.

Defaults are the paper's (Wang et al. 2020, arXiv 2011.09157, section 4.1).
"""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, within

ROWS = (
    Key(
        "MODEL.DENSECL.LAMBDA",
        0.5,
        "Fraction lambda of the dense loss; the global one has the rest.",
        (METHOD,),
        within("[0, 1]"),
        "equation 3, Table 5",
    ),
    Key(
        "MODEL.DENSECL.GRID",
        0,
        "Positions on a side of the dense grid (S); 0: those of the encoder's map, which are 7 at 224 px.",
        (METHOD,),
        within("[0, inf)"),
        "Table 6",
    ),
    Key(
        "MODEL.DENSECL.WARMUP_STEPS",
        1000,
        "Steps at the beginning without the dense loss, as the first correspondences are random.",
        (METHOD,),
        within("[0, inf)"),
        "authors' code",
    ),
)


def add_densecl_config(cfg: CfgNode) -> None:
    """Add the keys of DenseCL to a config."""
    add_keys(cfg, ROWS)
