"""Checkpoints of pre-training: everything that a run is, in a file that never loads half-written."""

import os
import time

import torch
from fvcore.common.checkpoint import Checkpointer

from moco_det.pretrain.grouped_batch_norm import average_running_statistics


class PretrainCheckpointer(Checkpointer):
    """fvcore's checkpointer, made atomic, with the run's config and the record that convert reads.

    A file holds the weights of both encoders, the dictionary, the optimizer, the iteration and the config.
    The config holds the seed and every random draw is a function of seed and iteration
    (:mod:`moco_det.seeding`), so these two are the whole random state.
    """

    def __init__(self, model, cfg, *, save_to_disk: bool, **checkpointables):
        super().__init__(model, cfg.OUTPUT_DIR, save_to_disk=save_to_disk, **checkpointables)
        self.record = {
            "config": cfg.dump(),
            "moco_det": {
                "arch": cfg.MODEL.MOCO.ARCH,
                "preprocessing": {
                    "format": cfg.INPUT.FORMAT,
                    "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
                    "pixel_std": list(cfg.MODEL.PIXEL_STD),
                    "stride_in_1x1": False,  # torchvision's ResNets, the only encoders here
                },
            },
        }

    def save(self, name: str, **kwargs) -> None:
        """Write ``name``.pth. Called on all ranks, written by the main one.

        Raises:
            OSError: the file could not be written; the checkpoints before it are untouched.
        """
        average_running_statistics(self.model)
        if not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **self.record, **kwargs}
        data.update({key: value.state_dict() for key, value in self.checkpointables.items()})
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        write_atomically(path, data)
        self.tag_last_checkpoint(os.path.basename(path))

    def _load_file(self, f: str) -> dict:
        return torch.load(f, map_location="cpu", weights_only=True)


class RunClock:
    """Counts the seconds of a run over all its resumes."""

    def __init__(self):
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._start -= state["seconds"]


def write_atomically(path: str, data: dict) -> None:
    """``torch.save`` to a temporary file beside ``path``, then rename: readers see the old file or the new.

    Raises:
        OSError: names the path, the reason and the mend.
    """
    temporary = f"{path}.writing"
    try:
        with open(temporary, "wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    # torch's writer reports a full disk as RuntimeError
    except (OSError, RuntimeError) as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise OSError(
            f"cannot write checkpoint {path}: {error}; free space or choose another OUTPUT_DIR, then continue "
            "with --resume from the last checkpoint, which is untouched"
        ) from error
