"""SimSiam on moco_det. Importing it registers the method with detectron2."""

from moco_simsiam.config import add_simsiam_config
from moco_simsiam.simsiam import SimSiam

__all__ = ["SimSiam", "add_simsiam_config"]
