"""detectron2's checkpointer, which runs no code from what it reads and leaves no half-written file."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from moco_det.engine.checkpoint_files import newest_whole
from moco_det.finetune.loaded_weights import LoadedWeights
from moco_det.utils.files import atomic_write
from moco_det.weights.backbone_file import restricted_load

logger = logging.getLogger(__name__)


class SafeCheckpointer(DetectionCheckpointer):
    """Reads ``.pkl`` by the allow-list of :mod:`moco_det.weights.backbone_file`, others with ``weights_only``.

    detectron2's own unpickles every ``.pkl`` in full, and torch before 2.6 every other file. A resume takes the
    newest checkpoint that is as it was written.
    """

    _content: dict[str, Any] | None = None  # of the file that is being loaded, where it was read before

    def save(self, name: str, **kwargs: Any) -> None:
        """Save as fvcore does, but as an atomic write."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: value.state_dict() for key, value in self.checkpointables.items()})
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with atomic_write(path) as temporary:
            torch.save(data, temporary)
        self.tag_last_checkpoint(os.path.basename(path))

    def get_checkpoint_file(self) -> str:
        """The newest checkpoint of ``save_dir`` that is whole; damaged ones are named in the log.

        Raises:
            ValueError: all are damaged.
        """
        path, damaged = newest_whole(self.save_dir)
        for reason in damaged:
            logger.warning(f"The checkpoint {reason}; going back to the one before it")
        return str(path) if path else super().get_checkpoint_file()

    def load_weights(self, weights: LoadedWeights) -> None:
        """Load the model alone as ``load`` does, from a file that is in memory."""
        # Loading replaces entries of both dicts.
        self._content = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in weights.content.items()
        }
        try:
            self.load(weights.location, checkpointables=[])
        finally:
            self._content = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        if not filename.endswith(".pkl"):
            return super()._load_file(filename)
        content = restricted_load(filename) if self._content is None else self._content
        if "model" in content and "__author__" in content:
            return content
        # What Caffe2 and Detectron1 wrote; as in detectron2's own method.
        blobs = content.get("blobs", content)
        return {
            "model": {name: value for name, value in blobs.items() if not name.endswith("_momentum")},
            "__author__": "Caffe2",
            "matching_heuristics": True,
        }

    def _torch_load(self, filename: str) -> Any:
        return (
            self._content
            if self._content is not None
            else torch.load(filename, map_location="cpu", weights_only=True)
        )
