"""Schedules over a run: the learning rate, and the momentum of a moving-average encoder."""

import math


def learning_rate(cfg, epoch: float, base_lr: float | None = None) -> float:
    """The learning rate of a step; the schedule begins with ``base_lr``, by default SOLVER.BASE_LR.

    The first two change once an epoch, as MoCo's official code does (adjust_learning_rate in main_moco.py).
    ``EpochMultiStepLR`` (v1) multiplies by SOLVER.GAMMA at each of SOLVER.STEP_EPOCHS; ``EpochCosineLR`` (v2)
    follows half a period of a cosine over SOLVER.EPOCHS, without warm-up. ``CosineLR`` rises in proportion to the
    steps over SOLVER.WARMUP_EPOCHS, then follows half a period of a cosine down to SOLVER.BASE_LR_END
    (Loshchilov & Hutter 2016, without restarts; SimCLR, section 2.2; BYOL, section 3.3).

    Args:
        epoch: epochs that are done, with the part of the one that the step is in.
    """
    solver = cfg.SOLVER
    base_lr = solver.BASE_LR if base_lr is None else base_lr
    if solver.LR_SCHEDULER_NAME == "CosineLR":
        if epoch < solver.WARMUP_EPOCHS:
            return base_lr * epoch / solver.WARMUP_EPOCHS
        done = (epoch - solver.WARMUP_EPOCHS) / (solver.EPOCHS - solver.WARMUP_EPOCHS)
        return solver.BASE_LR_END + (base_lr - solver.BASE_LR_END) * 0.5 * (1.0 + math.cos(math.pi * done))
    epoch = int(epoch)
    if solver.LR_SCHEDULER_NAME == "EpochCosineLR":
        return base_lr * 0.5 * (1.0 + math.cos(math.pi * epoch / solver.EPOCHS))
    return base_lr * solver.GAMMA ** sum(epoch >= step for step in solver.STEP_EPOCHS)


def cosine_momentum(base: float, progress: float) -> float:
    """A momentum that rises from ``base`` to 1 along half a period of a cosine (BYOL, section 3.2).

    Args:
        progress: fraction of the run that is done, in [0, 1].
    """
    return 1.0 - (1.0 - base) * 0.5 * (1.0 + math.cos(math.pi * progress))


def check_schedule(cfg) -> None:
    """Refuse a schedule that cannot run.

    Raises:
        ValueError: with the key, the value found, what was expected and the fix.
    """
    solver = cfg.SOLVER
    if solver.WARMUP_EPOCHS >= solver.EPOCHS:
        raise ValueError(
            f"SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS}; expected less than SOLVER.EPOCHS, which is "
            f"{solver.EPOCHS}"
        )
    if solver.LR_SCHEDULER_NAME == "CosineLR" and solver.BASE_LR_END > solver.BASE_LR:
        raise ValueError(
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}; expected at most SOLVER.BASE_LR, "
            f"which is {solver.BASE_LR}"
        )
