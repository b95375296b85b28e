"""detectron2's own model zoo, also where setuptools has no ``pkg_resources`` any more, which it imports.

``from moco_det.model_zoo.detectron2_zoo import model_zoo`` is ``from detectron2 import model_zoo``.
"""

import importlib.resources
import importlib.util
import sys
import types

__all__ = ["model_zoo"]


def _resource_filename(package: str, name: str) -> str:
    """The only function of ``pkg_resources`` that the zoo calls: the path of a file inside a package."""
    return str(importlib.resources.files(package) / name)


def _import_model_zoo() -> types.ModuleType:
    if importlib.util.find_spec("pkg_resources") is not None:
        from detectron2 import model_zoo

        return model_zoo
    # Only while the zoo is imported, which keeps what it found: others see pkg_resources missing, as it is.
    sys.modules["pkg_resources"] = stand_in = types.ModuleType("pkg_resources")
    stand_in.resource_filename = _resource_filename
    try:
        from detectron2 import model_zoo
    finally:
        del sys.modules["pkg_resources"]
    return model_zoo


model_zoo = _import_model_zoo()
