"""The learning rate, stepped once an epoch as the official code does (adjust_learning_rate in main_moco.py)."""

import math

SCHEDULES = ("EpochMultiStepLR", "EpochCosineLR")


def learning_rate(cfg, epoch: int) -> float:
    """The learning rate of an epoch (0-based).

    ``EpochMultiStepLR`` (v1) multiplies by SOLVER.GAMMA at each of SOLVER.STEP_EPOCHS; ``EpochCosineLR`` (v2)
    follows half a period of a cosine over SOLVER.EPOCHS, without warm-up.
    """
    if cfg.SOLVER.LR_SCHEDULER_NAME == "EpochCosineLR":
        return cfg.SOLVER.BASE_LR * 0.5 * (1.0 + math.cos(math.pi * epoch / cfg.SOLVER.EPOCHS))
    return cfg.SOLVER.BASE_LR * cfg.SOLVER.GAMMA ** sum(epoch >= step for step in cfg.SOLVER.STEP_EPOCHS)


def check_schedule(cfg, num_images: int) -> None:
    """Refuse a schedule that cannot run on this many images.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME not in SCHEDULES:
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME!r}; pre-training knows {', '.join(SCHEDULES)}"
        )
    if solver.EPOCHS < 1 or solver.BASE_LR <= 0:
        raise ValueError(
            f"SOLVER.EPOCHS is {solver.EPOCHS} and SOLVER.BASE_LR {solver.BASE_LR}; expected both above 0"
        )
    if list(solver.STEP_EPOCHS) != sorted(set(solver.STEP_EPOCHS)):
        raise ValueError(f"SOLVER.STEP_EPOCHS is {solver.STEP_EPOCHS}; expected rising epochs")
    if cfg.MODEL.MOCO.DICTIONARY != "end_to_end" and cfg.MODEL.MOCO.QUEUE_SIZE > num_images:
        raise ValueError(
            f"MODEL.MOCO.QUEUE_SIZE is {cfg.MODEL.MOCO.QUEUE_SIZE}, but there are only {num_images} images: every "
            "query would find older keys of its own image among its negatives; set it to a quarter of the images "
            f"({max(num_images // 4, solver.IMS_PER_BATCH)}) or less, or add images"
        )
