"""What a run will write, against what the disk has left: known before it starts."""

import shutil

from torch import nn

from moco_det.utils.files import existing_parent, gib


def check_space(name: str, folder: str, needed: int, what: str, fix: str) -> int:
    """Bytes that are free at ``folder``, which need not exist yet.

    Args:
        name: of the setting that is the folder; what: takes the space; fix: how to take less.

    Raises:
        ValueError: they are fewer than needed.
    """
    free = shutil.disk_usage(existing_parent(folder)).free
    if needed > free:
        raise ValueError(
            f"{name} {folder!r} has {gib(free)} free, but {what} need {gib(needed)}; free space, choose another "
            f"{name}, or {fix}"
        )
    return free


def state_bytes(model: nn.Module, *, momentum: bool) -> int:
    """Bytes of a checkpoint: all that the model keeps, and the optimizer's momentum of what is trained."""
    saved = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return saved + (trained if momentum else 0)


def checkpoint_bytes(cfg, model: nn.Module) -> int:
    """Size of a checkpoint of a stage that trains by epochs."""
    return state_bytes(model, momentum=cfg.SOLVER.MOMENTUM > 0)


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
    fix = (
        f"keep fewer checkpoints: SOLVER.CHECKPOINT_KEEP is {cfg.SOLVER.CHECKPOINT_KEEP} (0 keeps all), 1 needs "
        f"{gib(2 * size)}"
    )
    what = f"{count} checkpoints of {gib(size)}"
    return count * size, check_space("OUTPUT_DIR", cfg.OUTPUT_DIR, count * size, what, fix)
