"""What MoCo's own settings must fulfil, asked before a model is built."""

from moco_det.modeling.grouped_batch_norm import bn_group_size


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
            "query would find a stale positive among its negatives; add images, or set it to a quarter of them or "
            f"less: {queue_fix(cfg, num_images)}"
        )


def queue_fix(cfg, num_images: int) -> str:
    """KEY VALUE pairs of a queue of at most a quarter of the images, in which a batch's keys have a place."""
    batch, quarter = cfg.SOLVER.IMS_PER_BATCH, max(num_images // 4, 1)
    size = 1 << (quarter.bit_length() - 1)  # the power of two below it
    pairs = f"MODEL.MOCO.QUEUE_SIZE {size}"
    if size < batch:
        pairs += f" SOLVER.IMS_PER_BATCH {size} SOLVER.BASE_LR {cfg.SOLVER.BASE_LR * size / batch:g}"
        if bn_group_size(cfg) > size:
            pairs += f" MODEL.ENCODER.BN_GROUP_SIZE {size}"
    return pairs
