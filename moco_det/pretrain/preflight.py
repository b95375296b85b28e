"""What must hold before a run starts: the same checks for a run and for its ``--plan``. Nothing here writes."""

import shutil

from torch import nn

from moco_det.epochs import steps_per_epoch
from moco_det.images import find_images, registered_images
from moco_det.pretrain.loader import UnreadableLog
from moco_det.pretrain.method import method_class
from moco_det.pretrain.monitor import KNNMonitor
from moco_det.run_folder import check_output, existing_parent
from moco_det.schedule import check_schedule
from moco_det.views import ViewSettings


def unlabelled_images(cfg) -> list[str]:
    """The images that a config names, in the order of the run.

    Raises:
        ValueError: there are none.
    """
    return find_images(cfg.DATASETS.IMAGES) if cfg.DATASETS.IMAGES else registered_images(cfg.DATASETS.TRAIN)


def check_run(cfg, num_images: int, ranks: int, resume: bool) -> None:
    """Everything that can be known before the model is built.

    Args:
        ranks: processes of the run, which may be others than those that are there now.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    check_output(cfg, resume)
    check_periods(cfg)
    method_class(cfg).check_config(cfg, ranks)
    check_schedule(cfg)
    method_class(cfg).check_num_images(cfg, num_images)
    steps = steps_per_epoch(num_images, cfg.SOLVER.IMS_PER_BATCH)
    ViewSettings.from_config(cfg)
    # Without a path and to be continued, it only looks at its settings.
    UnreadableLog("", max_share=cfg.DATASETS.MAX_UNREADABLE, num_images=num_images, resume=True)
    if cfg.TEST.KNN.IMAGES:
        KNNMonitor(cfg, steps)


def check_periods(cfg) -> None:
    """Refuse what would otherwise stop a run after its first step."""
    for key, value, least in (
        ("SOLVER.LOG_PERIOD", cfg.SOLVER.LOG_PERIOD, 1),
        ("SOLVER.CHECKPOINT_EPOCHS", cfg.SOLVER.CHECKPOINT_EPOCHS, 1),
        ("SOLVER.CHECKPOINT_KEEP", cfg.SOLVER.CHECKPOINT_KEEP, 0),
        ("TEST.KNN.PERIOD_EPOCHS", cfg.TEST.KNN.PERIOD_EPOCHS, 1),
    ):
        if value < least:
            raise ValueError(f"{key} is {value}; expected {least} or more")


def checkpoint_bytes(cfg, model: nn.Module) -> int:
    """Size of a checkpoint: the encoders, the dictionary, and the optimizer's momentum of what is trained."""
    saved = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return saved + (trained if cfg.SOLVER.MOMENTUM else 0)


def checkpoints_at_most(cfg, epochs_done: int = 0) -> int:
    """How many checkpoints the rest of a run has on the disk at once."""
    solver = cfg.SOLVER
    saved = solver.EPOCHS // solver.CHECKPOINT_EPOCHS - epochs_done // solver.CHECKPOINT_EPOCHS
    # The oldest goes after the newest was written, and model_final comes on top.
    return (min(saved, solver.CHECKPOINT_KEEP) if solver.CHECKPOINT_KEEP else saved) + 1


def check_disk_space(cfg, model: nn.Module, epochs_done: int = 0) -> tuple[int, int]:
    """Refuse to start what would fill the disk.

    Args:
        model: of the run.
        epochs_done: epochs that a resumed run has behind it; their checkpoints are on the disk already.

    Returns:
        bytes that the checkpoints will take, bytes free at OUTPUT_DIR.

    Raises:
        ValueError: there is too little space.
    """
    size, count = checkpoint_bytes(cfg, model), checkpoints_at_most(cfg, epochs_done)
    free = shutil.disk_usage(existing_parent(cfg.OUTPUT_DIR)).free
    if count * size > free:
        raise ValueError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} has {gib(free)} free, but {count} checkpoints of {gib(size)} need "
            f"{gib(count * size)}; free space, choose another OUTPUT_DIR, or keep fewer checkpoints: "
            f"SOLVER.CHECKPOINT_KEEP is {cfg.SOLVER.CHECKPOINT_KEEP} (0 keeps all), 1 needs {gib(2 * size)}"
        )
    return count * size, free


def gib(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.2f} GiB"
