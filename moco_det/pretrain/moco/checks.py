"""What MoCo's own settings must fulfil, asked before a model is built."""


def check_moco_config(cfg) -> None:
    """Refuse settings that do not fit each other.

    Raises:
        ValueError: with the key, the value found, what was expected and the fix.
    """
    moco, batch = cfg.MODEL.MOCO, cfg.SOLVER.IMS_PER_BATCH
    kind = moco.DICTIONARY
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
        ValueError: with the key, the value found, what was expected and the fix.
    """
    if cfg.MODEL.MOCO.DICTIONARY != "end_to_end" and cfg.MODEL.MOCO.QUEUE_SIZE > num_images:
        raise ValueError(
            f"MODEL.MOCO.QUEUE_SIZE is {cfg.MODEL.MOCO.QUEUE_SIZE}, but there are only {num_images} images: every "
            "query would find a stale positive among its negatives; set it to a quarter of the images "
            f"({max(num_images // 4, cfg.SOLVER.IMS_PER_BATCH)}) or less, or add images"
        )
