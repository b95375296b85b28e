"""CMC on moco_det. Importing it registers the meta-architecture."""

from moco_cmc import cmc as _cmc  # noqa: F401
from moco_cmc.config import add_cmc_config

__all__ = ["add_cmc_config"]
