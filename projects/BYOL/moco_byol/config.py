"""Every config key of this project. Defaults are those of the paper for ImageNet-1k (arXiv 2006.07733)."""

from detectron2.config import CfgNode as CN


def add_byol_config(cfg: CN) -> None:
    """Add the keys of BYOL to a config."""
    cfg.MODEL.BYOL = CN()
    # Length of the projection, and width of the hidden layer of projector and predictor (section 3.3).
    cfg.MODEL.BYOL.DIM = 256
    cfg.MODEL.BYOL.HIDDEN_DIM = 4096
    # Momentum tau_base of the target network, in [0, 1]; it rises to 1 along half a cosine (section 3.3).
    cfg.MODEL.BYOL.MOMENTUM = 0.996
