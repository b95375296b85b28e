"""Every config key of this project. Defaults are those of the paper for ImageNet-1k (arXiv 2011.10566)."""

from detectron2.config import CfgNode as CN


def add_simsiam_config(cfg: CN) -> None:
    """Add the keys of SimSiam to a config."""
    cfg.MODEL.SIMSIAM = CN()
    # Length of the projection and of the projector's hidden layers (section 3, "Projection MLP").
    cfg.MODEL.SIMSIAM.DIM = 2048
    # Width of the predictor's hidden layer, a quarter of DIM (section 3, "Prediction MLP").
    cfg.MODEL.SIMSIAM.PREDICTOR_DIM = 512
    # The last batch norm of each residual block starts at 0, so that a block starts as the identity (official
    # code); in short runs that costs time.
    cfg.MODEL.SIMSIAM.ZERO_INIT_RESIDUAL = True
    # True: the predictor's learning rate does not decay, which is the last row of Table 1.
    cfg.MODEL.SIMSIAM.FIX_PREDICTOR_LR = True
    # The predictor's learning rate, in units of SOLVER.BASE_LR (the paper: 1). A higher one lets it follow the
    # encoder, which keeps the features of short runs in small batches from falling into few dimensions.
    cfg.MODEL.SIMSIAM.PREDICTOR_LR_FACTOR = 1.0
