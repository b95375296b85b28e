"""What MoCo's own settings must fulfil, asked before a model is built."""

from moco_det.pretrain.checks import check_choices


def check_moco_config(cfg) -> None:
    """Refuse settings that the method cannot have.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    moco = cfg.MODEL.MOCO
    check_choices(
        ("MODEL.MOCO.DICTIONARY", moco.DICTIONARY, ("queue", "memory_bank", "end_to_end")),
        ("MODEL.MOCO.LOSS", moco.LOSS, ("infonce", "nce")),
    )
    if moco.DIM < 1:
        raise ValueError(f"MODEL.MOCO.DIM is {moco.DIM}; expected 1 or more (the paper: 128)")
    if not 0 <= moco.MOMENTUM < 1:
        raise ValueError(f"MODEL.MOCO.MOMENTUM is {moco.MOMENTUM}; expected 0 <= m < 1 (the paper: 0.999)")
    if moco.TEMPERATURE <= 0:
        raise ValueError(f"MODEL.MOCO.TEMPERATURE is {moco.TEMPERATURE}; expected > 0 (v1: 0.07, v2: 0.2)")
    check_dictionary(cfg)


# Keys of MODEL.MOCO that only some dictionaries read.
HAS_EFFECT = {
    "QUEUE_SIZE": ("queue", "memory_bank"),
    "MOMENTUM": ("queue",),
    "SHUFFLE_BN": ("queue", "end_to_end"),
    "SHARED_ENCODER": ("end_to_end",),
    "SYMMETRIC": ("queue", "end_to_end"),
    "BANK_MOMENTUM": ("memory_bank",),
    "PROXIMAL": ("memory_bank",),
}


def keys_without_effect(cfg) -> list[tuple[str, bool, str]]:
    """Keys that the chosen dictionary does not read, as ``PretrainMethod.without_effect`` gives them."""
    kind = cfg.MODEL.MOCO.DICTIONARY
    return [
        (f"MODEL.MOCO.{name}", kind not in kinds, f"MODEL.MOCO.DICTIONARY {kind}")
        for name, kinds in HAS_EFFECT.items()
    ]


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
    small = cfg.INPUT.VIEWS.SMALL_CROPS
    if kind == "end_to_end" and small and cfg.SOLVER.ACCUMULATE > 1:
        raise ValueError(
            f"INPUT.VIEWS.SMALL_CROPS is {small} with MODEL.MOCO.DICTIONARY end_to_end and SOLVER.ACCUMULATE "
            f"{cfg.SOLVER.ACCUMULATE}, whose gradient cache has no place for them; set SOLVER.ACCUMULATE 1, "
            "INPUT.VIEWS.SMALL_CROPS 0, or MODEL.MOCO.DICTIONARY queue"
        )
    if kind == "end_to_end" and batch < 2:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch} with MODEL.MOCO.DICTIONARY end_to_end, whose negatives are the "
            "other keys of the batch; expected 2 or more"
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
