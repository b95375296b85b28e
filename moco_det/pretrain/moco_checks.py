"""What the method's settings must fulfil, asked before a model is built."""

import math

from moco_det.encoder import parse_arch


def check_moco_config(cfg, ranks: int) -> None:
    """Refuse settings that the method cannot have.

    Args:
        ranks: processes of the run.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    moco, batch = cfg.MODEL.MOCO, cfg.SOLVER.IMS_PER_BATCH
    parse_arch(moco.ARCH)
    for key, value, choices in (
        ("MODEL.MOCO.DICTIONARY", moco.DICTIONARY, ("queue", "memory_bank", "end_to_end")),
        ("MODEL.MOCO.LOSS", moco.LOSS, ("infonce", "nce")),
        ("MODEL.MOCO.NORM", moco.NORM, ("BN", "SyncBN")),
        ("SOLVER.PRECISION", cfg.SOLVER.PRECISION, ("float32", "bfloat16", "float16")),
        ("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB",)),
    ):
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; expected one of {', '.join(choices)}")
    if moco.DIM < 1:
        raise ValueError(f"MODEL.MOCO.DIM is {moco.DIM}; expected 1 or more (the paper: 128)")
    if not 0 <= moco.MOMENTUM < 1:
        raise ValueError(f"MODEL.MOCO.MOMENTUM is {moco.MOMENTUM}; expected 0 <= m < 1 (the paper: 0.999)")
    if moco.TEMPERATURE <= 0:
        raise ValueError(f"MODEL.MOCO.TEMPERATURE is {moco.TEMPERATURE}; expected > 0 (v1: 0.07, v2: 0.2)")
    if batch < 1 or batch % ranks:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch}; expected a multiple of the {ranks} processes, since it counts "
            f"the images of all of them: for example {max(batch // ranks, 1) * ranks}"
        )
    check_groups(cfg, batch // ranks, ranks)
    check_dictionary(cfg)


def check_dictionary(cfg) -> None:
    """Refuse settings that the chosen dictionary cannot have.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    moco, batch = cfg.MODEL.MOCO, cfg.SOLVER.IMS_PER_BATCH
    kind = moco.DICTIONARY
    for key, value, default, owner in (
        ("LOSS", moco.LOSS, "infonce", "memory_bank"),
        ("PROXIMAL", moco.PROXIMAL, 0.0, "memory_bank"),
        ("SHARED_ENCODER", moco.SHARED_ENCODER, False, "end_to_end"),
    ):
        if value != default and kind != owner:
            raise ValueError(
                f"MODEL.MOCO.{key} is {value!r} with MODEL.MOCO.DICTIONARY {kind}; only {owner} has it: set "
                f"MODEL.MOCO.{key} {default}, or MODEL.MOCO.DICTIONARY {owner}"
            )
    if not 0 <= moco.BANK_MOMENTUM < 1:
        raise ValueError(
            f"MODEL.MOCO.BANK_MOMENTUM is {moco.BANK_MOMENTUM}; expected 0 <= t < 1 (InstDisc's code: 0.5)"
        )
    if moco.PROXIMAL < 0:
        raise ValueError(f"MODEL.MOCO.PROXIMAL is {moco.PROXIMAL}; expected 0 (off) or more")
    if kind == "memory_bank" and moco.QUEUE_SIZE < 1:
        raise ValueError(f"MODEL.MOCO.QUEUE_SIZE is {moco.QUEUE_SIZE}; expected 1 or more negatives")
    if kind == "memory_bank" and moco.SYMMETRIC:
        raise ValueError(
            "MODEL.MOCO.SYMMETRIC is True with MODEL.MOCO.DICTIONARY memory_bank, whose keys are entries of "
            "images and not of views: there is no other order; set MODEL.MOCO.SYMMETRIC False"
        )
    keys = 2 * batch if moco.SYMMETRIC else batch
    if kind == "queue" and moco.QUEUE_SIZE < keys:
        twice = ", twice with MODEL.MOCO.SYMMETRIC" if moco.SYMMETRIC else ""
        raise ValueError(
            f"MODEL.MOCO.QUEUE_SIZE is {moco.QUEUE_SIZE}, smaller than SOLVER.IMS_PER_BATCH {batch}{twice}: the "
            f"keys of a step do not fit; set it to {keys} or more"
        )
    if kind == "end_to_end" and batch < 2:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch} with MODEL.MOCO.DICTIONARY end_to_end, whose negatives are the "
            "other keys of the batch; expected 2 or more"
        )


def check_groups(cfg, local: int, ranks: int) -> None:
    """Refuse batch-norm groups and micro-batches that do not divide the images of a rank, or these them.

    Args:
        local: images on each rank.

    Raises:
        ValueError: with the numbers and what would fit.
    """
    moco, parts = cfg.MODEL.MOCO, cfg.SOLVER.ACCUMULATE
    group = local * ranks if moco.NORM == "SyncBN" else moco.BN_GROUP_SIZE
    found = (
        f"SOLVER.IMS_PER_BATCH is {local * ranks}, that is {local} images on each of {ranks} processes, "
        f"in SOLVER.ACCUMULATE {parts} micro-batches"
    )
    if parts < 1 or local % parts:
        raise ValueError(
            f"{found}; expected a divisor of {local}, for example {math.gcd(local, max(parts, 1))}"
        )
    if group < 1 or (local // parts) % group and (group % local or (local * ranks) % group):
        raise ValueError(
            f"{found}, and MODEL.MOCO.BN_GROUP_SIZE is {group}; expected a divisor of the {local // parts} images "
            f"of a micro-batch, for example {math.gcd(local // parts, max(group, 1))}, or a multiple of {local} "
            f"that divides {local * ranks}"
        )
    if group > local and parts > 1:
        raise ValueError(
            f"{found}, and a batch-norm group of {group} images spans {group // local} processes: a micro-batch "
            "would be a part of a group; set SOLVER.ACCUMULATE 1 (SOLVER.ACTIVATION_CHECKPOINTING True saves "
            "memory as well), or MODEL.MOCO.BN_GROUP_SIZE lower"
        )


def check_queue_size(cfg, num_images: int) -> None:
    """Refuse a dictionary with more keys than there are images.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    if cfg.MODEL.MOCO.DICTIONARY != "end_to_end" and cfg.MODEL.MOCO.QUEUE_SIZE > num_images:
        raise ValueError(
            f"MODEL.MOCO.QUEUE_SIZE is {cfg.MODEL.MOCO.QUEUE_SIZE}, but there are only {num_images} images: every "
            "query would find older keys of its own image among its negatives; set it to a quarter of the images "
            f"({max(num_images // 4, cfg.SOLVER.IMS_PER_BATCH)}) or less, or add images"
        )
