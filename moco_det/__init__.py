"""Momentum Contrast for detectron2: pre-train on unlabeled images, convert, fine-tune, report.

Importing the package registers its architectures, heads and data sets with detectron2.
"""

import re

from moco_det.version import __version__

__all__ = ["__version__", "add_moco_config", "check_environment", "get_cfg"]


def check_environment() -> None:
    """Say in one sentence when detectron2 is missing or too old.

    Raises:
        ImportError: names what was found and the fix.
    """
    fix = "see INSTALL.md (a source build of upstream, or the wheel that `make setup` takes)"
    try:
        import detectron2
    except ModuleNotFoundError as error:
        if error.name != "detectron2":  # it is there, and something that it needs is not
            raise
        raise ImportError(f"moco_det needs detectron2 0.6 or newer, and there is none; {fix}") from error
    numbers = re.match(r"(\d+)\.(\d+)", detectron2.__version__)
    if numbers and tuple(map(int, numbers.groups())) < (0, 6):
        raise ImportError(f"moco_det needs detectron2 0.6 or newer, found {detectron2.__version__}; {fix}")


check_environment()

from moco_det import finetune as _finetune  # noqa: E402, F401  registers heads and toy data sets
from moco_det.classify import classifier as _classifier  # noqa: E402, F401  registers Classifier
from moco_det.config import add_moco_config, get_cfg  # noqa: E402
from moco_det.data.image_files import register_imagenet as _register_imagenet  # noqa: E402
from moco_det.pretrain.moco import model as _moco  # noqa: E402, F401  registers MoCo

_register_imagenet()
