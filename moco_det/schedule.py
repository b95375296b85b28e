"""The learning rate, stepped once an epoch as the official code does (adjust_learning_rate in main_moco.py)."""

import math

SCHEDULES = ("EpochMultiStepLR", "EpochCosineLR")


def learning_rate(cfg, epoch: int, base_lr: float | None = None) -> float:
    """The learning rate of an epoch (0-based); the schedule begins with ``base_lr``, by default SOLVER.BASE_LR.

    ``EpochMultiStepLR`` (v1) multiplies by SOLVER.GAMMA at each of SOLVER.STEP_EPOCHS; ``EpochCosineLR`` (v2)
    follows half a period of a cosine over SOLVER.EPOCHS, without warm-up.
    """
    base_lr = cfg.SOLVER.BASE_LR if base_lr is None else base_lr
    if cfg.SOLVER.LR_SCHEDULER_NAME == "EpochCosineLR":
        return base_lr * 0.5 * (1.0 + math.cos(math.pi * epoch / cfg.SOLVER.EPOCHS))
    return base_lr * cfg.SOLVER.GAMMA ** sum(epoch >= step for step in cfg.SOLVER.STEP_EPOCHS)


def check_schedule(cfg) -> None:
    """Refuse a schedule that cannot run.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME not in SCHEDULES:
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME!r}; expected one of {', '.join(SCHEDULES)}"
        )
    if solver.EPOCHS < 1 or solver.BASE_LR <= 0:
        raise ValueError(
            f"SOLVER.EPOCHS is {solver.EPOCHS} and SOLVER.BASE_LR {solver.BASE_LR}; expected both above 0"
        )
    if list(solver.STEP_EPOCHS) != sorted(set(solver.STEP_EPOCHS)):
        raise ValueError(f"SOLVER.STEP_EPOCHS is {solver.STEP_EPOCHS}; expected rising epochs")
