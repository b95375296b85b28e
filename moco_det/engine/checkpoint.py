"""Checkpoints of the stages that train by epochs: all that a run is, in a file that never loads half-written."""

import os
import time

import torch
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from moco_det.config.rules import new_name
from moco_det.engine.checkpoint_files import keep_newest, newest_first, newest_whole, read_checked
from moco_det.engine.threads import keep_threads
from moco_det.modeling.grouped_batch_norm import (
    average_running_statistics,
    own_running_statistics,
    set_running_statistics,
)
from moco_det.utils.files import atomic_write
from moco_det.utils.machine import describe_machine
from moco_det.weights.backbone_file import Preprocessing

CONTINUE_LOWER = (
    "the checkpoints are untouched: start from the last one (MODEL.WEIGHTS) in another OUTPUT_DIR with a lower "
    "SOLVER.BASE_LR, or with SOLVER.CLIP_GRADIENTS.ENABLED True"
)


class RunCheckpointer(Checkpointer):
    """fvcore's checkpointer, made atomic, with the run's config and the record that convert reads.

    A file holds the model (in pre-training: both encoders and the dictionary), the optimizer, the iteration and
    the config. The config holds the seed and every random number is a function of seed and iteration
    (:mod:`moco_det.utils.seeding`), so these two are the whole random state.
    """

    def __init__(
        self,
        model,
        cfg,
        *,
        arch: str,
        save_to_disk: bool,
        num_images: int,
        stride_in_1x1: bool = False,
        **checkpointables,
    ):
        """
        Args:
            arch, stride_in_1x1: of the encoder, for the record.
            num_images: of the run, which resumes with as many.
        """
        super().__init__(model, cfg.OUTPUT_DIR, save_to_disk=save_to_disk, **checkpointables)
        preprocessing = Preprocessing(
            format=cfg.INPUT.FORMAT,
            pixel_mean=tuple(cfg.MODEL.PIXEL_MEAN),
            pixel_std=tuple(cfg.MODEL.PIXEL_STD),
            stride_in_1x1=stride_in_1x1,
            range=tuple(map(float, cfg.INPUT.RANGE)),
        )
        self.num_images, self.epochs = num_images, cfg.SOLVER.EPOCHS
        self.keep = cfg.SOLVER.CHECKPOINT_KEEP
        self.record = {
            "config": cfg.dump(),
            "num_images": num_images,
            "environment": environment(cfg),
            "moco_det": {"arch": arch, "preprocessing": preprocessing.to_dict()},
        }

    def save(self, name: str, **kwargs) -> None:
        """Write ``name``.pth. Called on all ranks, written by the main one.

        Raises:
            FloatingPointError: a weight is not finite; a checkpoint of it would push out good ones.
            OSError: the file could not be written; the checkpoints before it are untouched.
        """
        average_running_statistics(self.model)
        for parameter, value in self.model.named_parameters():
            if not value.isfinite().all():
                raise FloatingPointError(
                    f"the weight {parameter} is not finite, so {name} is not saved; {CONTINUE_LOWER}"
                )
        if not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **self.record, **kwargs}
        data.update({key: value.state_dict() for key, value in self.checkpointables.items()})
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        try:
            with atomic_write(path) as temporary:
                _torch_save(data, temporary)
        except OSError as error:
            raise OSError(
                f"{error}; free space or choose another OUTPUT_DIR, then continue with --resume from the last "
                "checkpoint, which is untouched"
            ) from error
        self.tag_last_checkpoint(os.path.basename(path))
        keep_newest(self.save_dir, self.keep)

    def save_before_stop(self, name: str, **kwargs) -> None:
        """Save where an uninterrupted run would not, and so would not average the statistics."""
        own = comm.gather(own_running_statistics(self.model))
        self.save(name, statistics_of_ranks=own, **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        # For other programs; a resume looks at the files.
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint")) as temporary:
            temporary.write_text(last_filename_basename)

    def has_checkpoint(self) -> bool:
        return bool(newest_first(self.save_dir))

    def load_newest(self) -> dict | None:
        """Load the newest checkpoint that is as it was written; newer ones that are damaged are named in the log.

        Returns:
            what it holds beside what was loaded; None when there is no checkpoint.

        Raises:
            ValueError: some machines have it and some have not, all are damaged, or it is of another run.
        """
        found = comm.all_gather(self.has_checkpoint())
        if any(found) and not all(found):
            raise ValueError(
                f"{sum(found)} of {len(found)} processes find a checkpoint in OUTPUT_DIR {self.save_dir!r}; "
                "expected all or none: put OUTPUT_DIR on a disk that all machines share"
            )
        if not all(found):
            return None
        chosen, damaged = comm.all_gather(newest_whole(self.save_dir) if comm.is_main_process() else None)[0]
        for reason in damaged:
            self.logger.warning(f"The checkpoint {reason}; going back to the one before it")
        saved = self.load(str(chosen))
        statistics = saved.get("statistics_of_ranks", [])
        if len(statistics) == comm.get_world_size():
            set_running_statistics(self.model, statistics[comm.get_rank()])
        return saved

    def next_iteration(self, saved: dict, max_iter: int) -> int:
        """The iteration at which a run resumes from what :meth:`load_newest` gave; the log names what changed.

        Raises:
            ValueError: the run is beyond ``max_iter``.
        """
        before, now = saved["environment"], self.record["environment"]
        if now["device"] == "cpu":
            now["threads a process"] = keep_threads(before.get("threads a process"))
        changes = describe_changes(before, now)
        if changes:
            self.logger.warning(
                f"Continued on other terms ({', '.join(changes)}): samples are the same, rounding is not, and "
                "the numbers will part from those of an uninterrupted run"
            )
        iteration = saved["iteration"] + 1
        if iteration > max_iter:
            raise ValueError(
                f"SOLVER.EPOCHS is {self.epochs}, which ends at step {max_iter}, but the run in "
                f"{self.save_dir!r} is at step {iteration}; give as many epochs or more"
            )
        return iteration

    def _load_file(self, f: str) -> dict:
        return read_checked(f)

    def _load_model(self, checkpoint: dict) -> None:
        """All or nothing: fvcore would skip what does not fit, with a line in the log.

        Raises:
            ValueError: the checkpoint is of another model or of another set of images.
        """
        if checkpoint.get("num_images") != self.num_images:
            raise ValueError(
                f"the checkpoint was made on {checkpoint.get('num_images')} images, there are {self.num_images} "
                "now; continue on the same images, or start again in another OUTPUT_DIR"
            )
        try:
            self.model.load_state_dict(checkpoint.pop("model"))
        except RuntimeError as error:
            raise ValueError(f"the checkpoint is of another model: {error}") from error


def _torch_save(data: dict, path) -> None:
    try:
        torch.save(data, path)
    except RuntimeError as error:  # how torch's writer reports a full disk
        raise OSError(str(error)) from error


class RunHistory:
    """What a run carries over its resumes besides its state: the seconds it took, and the weights it started from.

    Attributes:
        weights, weights_sha256: name and identity of the MODEL.WEIGHTS file; empty for a random start.
    """

    def __init__(self):
        self._start = time.perf_counter()
        self.weights = self.weights_sha256 = ""

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def state_dict(self) -> dict[str, float | str]:
        return {
            "seconds": self.seconds,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
        }

    def load_state_dict(self, state: dict[str, float | str]) -> None:
        self._start -= state["seconds"]
        self.weights, self.weights_sha256 = state["weights"], state["weights_sha256"]


def environment(cfg) -> dict[str, str | int]:
    """What the bits of a run depend on besides its config; equal here, a resumed run is equal bit for bit."""
    machine = describe_machine(cfg.MODEL.DEVICE)
    return {
        "processes": comm.get_world_size(),
        "device": cfg.MODEL.DEVICE,
        "INPUT.VIEWS.AUGMENT_ON": cfg.INPUT.VIEWS.AUGMENT_ON,
        "GPU": machine["gpus"][0] if cfg.MODEL.DEVICE == "cuda" else "none",
        "processor": machine["cpu"],
        "threads a process": torch.get_num_threads(),
        "torch": str(torch.__version__),  # a plain string, which loads without code
        **({"simplejpeg": machine.get("simplejpeg", "none")} if cfg.INPUT.DECODE == "fast" else {}),
        **{key: cfg.SOLVER[key] for key in ("ACCUMULATE", "ACTIVATION_CHECKPOINTING", "CHANNELS_LAST")},
    }


def describe_changes(saved: dict, now: dict) -> list[str]:
    """``"processes 2 -> 1"`` for each entry of an environment that is another one now."""
    saved = {new_name(name): value for name, value in saved.items()}
    return [f"{name} {saved.get(name, '?')} -> {now[name]}" for name in now if saved.get(name) != now[name]]
