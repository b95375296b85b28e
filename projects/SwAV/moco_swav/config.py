"""Every config key of this project. Defaults are the paper's (Caron et al. 2020, arXiv 2006.09882, appendix A)."""

from detectron2.config import CfgNode as CN


def add_swav_config(cfg: CN) -> None:
    """Add the keys of SwAV to a config."""
    cfg.MODEL.SWAV = swav = CN()
    # Length of the embedding, and of the projection head's hidden layer.
    swav.DIM = 128
    swav.HIDDEN_DIM = 2048
    # Prototypes (K in the paper).
    swav.PROTOTYPES = 3000
    # Temperature tau of the prediction, > 0 (equation 2).
    swav.TEMPERATURE = 0.1
    # Of the codes: weight epsilon of the entropy, > 0 (equation 3), and rounds of Sinkhorn-Knopp.
    swav.EPSILON = 0.05
    swav.SINKHORN_ITERATIONS = 3
    # Epochs at the beginning in which the prototypes are not trained.
    swav.FREEZE_PROTOTYPES_EPOCHS = 1
    # Embeddings of earlier batches that share the assignment with those of a batch (section 3.1, "Working with
    # small batches"); of each large view so many, at least SOLVER.IMS_PER_BATCH; 0: none. Batches of 256, 3840.
    swav.QUEUE_SIZE = 0
    # Epochs before embeddings are kept; they take part once the queue is full.
    swav.QUEUE_START_EPOCH = 15
