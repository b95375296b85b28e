"""SwAV on moco_det. Importing it registers the meta-architecture."""

from moco_swav import swav as _swav  # noqa: F401
from moco_swav.config import add_swav_config

__all__ = ["add_swav_config"]
