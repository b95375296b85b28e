"""BYOL on moco_det. Importing it registers the method with detectron2."""

from moco_byol.byol import BYOL
from moco_byol.config import add_byol_config

__all__ = ["BYOL", "add_byol_config"]
