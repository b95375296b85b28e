"""Every config key of this project; those of MODEL.MOCO that it shares are named in ``cmc.py``.

Defaults are the paper's (Tian et al. 2019, arXiv 1906.05849), with MoCo's queue in place of its memory bank.
"""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import METHOD, Key, one_of

ROWS = (
    Key(
        "MODEL.CMC.SPACE",
        "ydbdr",
        "lab: CIE Lab. ydbdr: luma and two color differences, linear in RGB, so that the encoder of luma is "
        "one of RGB images too and converts.",
        (METHOD,),
        one_of("lab", "ydbdr"),
        "Table 1 has both",
    ),
    Key(
        "MODEL.CMC.TWO_CROPS",
        False,
        "False: lightness and color of one crop (the paper). True: queries from one random view, keys from "
        "the other.",
        (METHOD,),
    ),
)


def add_cmc_config(cfg: CfgNode) -> None:
    """Add the keys of CMC to a config."""
    add_keys(cfg, ROWS)
