"""Every config key of this project. Defaults are those for ResNet-50 and 100 epochs (arXiv 2104.02057)."""

from detectron2.config import CfgNode as CN


def add_moco_v3_config(cfg: CN) -> None:
    """Add the keys of MoCo v3 to a config."""
    cfg.MODEL.MOCO_V3 = CN()
    # Length of the embedding, and width of the hidden layers of projector and predictor (section 4.2).
    cfg.MODEL.MOCO_V3.DIM = 256
    cfg.MODEL.MOCO_V3.HIDDEN_DIM = 4096
    # Layers of the projector: 2 for ResNets (official code; the paper's text has 3, for ViT).
    cfg.MODEL.MOCO_V3.PROJECTOR_LAYERS = 2
    # The last batch norm of each residual block starts at 0, so that a block starts as the identity (official
    # code); in short runs that costs time.
    cfg.MODEL.MOCO_V3.ZERO_INIT_RESIDUAL = True
    # Softmax temperature tau, > 0. For ResNet-50 1.0 (official code); ViT: 0.2.
    cfg.MODEL.MOCO_V3.TEMPERATURE = 1.0
    # Momentum m of the key encoder, in [0, 1]; it rises to 1 along half a cosine. 0.99; for 1000 epochs 0.996.
    cfg.MODEL.MOCO_V3.MOMENTUM = 0.99
