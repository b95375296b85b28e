"""Every config key of this project; those of MODEL.MOCO that it shares are named in ``cmc.py``.

Defaults are the paper's (Tian et al. 2019, arXiv 1906.05849), with MoCo's queue in place of its memory bank.
"""

from detectron2.config import CfgNode as CN


def add_cmc_config(cfg: CN) -> None:
    """Add the keys of CMC to a config."""
    cfg.MODEL.CMC = cmc = CN()
    # "lab": CIE Lab. "ydbdr": luma and two colour differences, linear in RGB, so that the encoder of luma is one
    # of RGB images too and converts (the paper's Table 1 has both).
    cmc.SPACE = "ydbdr"
    # False: lightness and colour of one crop (the paper). True: queries from one random view, keys from the other.
    cmc.TWO_CROPS = False
