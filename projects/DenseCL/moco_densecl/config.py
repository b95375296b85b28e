"""Every config key of this project; those of MODEL.MOCO that it shares are named in ``densecl.py``.

Defaults are the paper's (Wang et al. 2020, arXiv 2011.09157, section 4.1).
"""

from detectron2.config import CfgNode as CN


def add_densecl_config(cfg: CN) -> None:
    """Add the keys of DenseCL to a config."""
    cfg.MODEL.DENSECL = densecl = CN()
    # Share lambda of the dense loss, in [0, 1]; the global one has the rest (equation 3, Table 5).
    densecl.LAMBDA = 0.5
    # Positions on a side of the dense grid (S, Table 6); 0: those of the encoder's map, which are 7 at 224 px.
    densecl.GRID = 0
    # Steps at the beginning without the dense loss, as the first correspondences are random (authors' code: 1000).
    densecl.WARMUP_STEPS = 1000
