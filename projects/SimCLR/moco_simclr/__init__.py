"""SimCLR on moco_det. Importing it registers the method with detectron2."""

from moco_simclr.config import add_simclr_config
from moco_simclr.simclr import SimCLR

__all__ = ["SimCLR", "add_simclr_config"]
