"""DenseCL on moco_det. Importing it registers the meta-architecture."""

from moco_densecl import densecl as _densecl  # noqa: F401
from moco_densecl.config import add_densecl_config

__all__ = ["add_densecl_config"]
