"""DINO on moco_det. Importing it registers the meta-architecture."""

from moco_dino import dino as _dino  # noqa: F401
from moco_dino.config import add_dino_config

__all__ = ["add_dino_config"]
