"""MoCoV3 on moco_det. Importing it registers the method with detectron2."""

from moco_v3.config import add_moco_v3_config
from moco_v3.method import MoCoV3

__all__ = ["MoCoV3", "add_moco_v3_config"]
