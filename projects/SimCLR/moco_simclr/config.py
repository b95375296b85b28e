"""Every config key of this project. Defaults are those of the paper for ImageNet-1k (arXiv 2002.05709)."""

from detectron2.config import CfgNode as CN


def add_simclr_config(cfg: CN) -> None:
    """Add the keys of SimCLR to a config."""
    cfg.MODEL.SIMCLR = CN()
    # Length of the embedding, and width of the projection head's hidden layer (section 4.2 and B.3).
    cfg.MODEL.SIMCLR.DIM = 128
    cfg.MODEL.SIMCLR.HIDDEN_DIM = 2048
    # Temperature tau of NT-Xent, > 0 (Table 5).
    cfg.MODEL.SIMCLR.TEMPERATURE = 0.1
