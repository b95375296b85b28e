"""Every config key of this project. Defaults are the authors' for ResNet-50.

Caron et al. 2021, arXiv 2104.14294.
"""

from detectron2.config import CfgNode as CN


def add_dino_config(cfg: CN) -> None:
    """Add the keys of DINO to a config."""
    cfg.MODEL.DINO = dino = CN()
    # The head: width of its hidden layers, of the unit-length vector before the last layer, and of the output
    # (K in the paper).
    dino.HIDDEN_DIM = 2048
    dino.BOTTLENECK_DIM = 256
    dino.OUT_DIM = 65536
    # Batch norm in the head (section 3.2: none).
    dino.HEAD_NORM = False
    # Temperatures, > 0 (section 3.1): the student's; the teacher's in the first epoch and from WARMUP_EPOCHS on.
    dino.STUDENT_TEMPERATURE = 0.1
    dino.TEACHER_TEMPERATURE_START = 0.04
    dino.TEACHER_TEMPERATURE = 0.04
    dino.TEACHER_WARMUP_EPOCHS = 30
    # Momentum of the teacher at the beginning, in [0, 1]; it rises to 1 along half a cosine.
    dino.MOMENTUM = 0.996
    # Momentum m of the centre (equation 4), in [0, 1).
    dino.CENTER_MOMENTUM = 0.9
    # Epochs at the beginning in which the last layer is not trained.
    dino.FREEZE_LAST_LAYER_EPOCHS = 1
