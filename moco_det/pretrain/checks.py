"""What the settings of every method must fulfil, asked before a model is built."""

import math

from moco_det.modeling.grouped_batch_norm import bn_group_size


def check_vector_norm(cfg) -> None:
    """Refuse groups in which batch norm has nothing to normalize: a vector has one number for each channel.

    Raises:
        ValueError: groups are single images.
    """
    group = bn_group_size(cfg)
    if group < 2:
        raise ValueError(
            f"batch norm has groups of {group} image, and that of the head needs 2 or more: set "
            "MODEL.ENCODER.BN_GROUP_SIZE, or SOLVER.IMS_PER_BATCH with MODEL.ENCODER.NORM SyncBN"
        )


def check_groups(cfg, local: int, ranks: int) -> None:
    """Refuse batch-norm groups and micro-batches that do not divide the images of a rank, or these them.

    Args:
        local: images on each rank.

    Raises:
        ValueError: with the numbers and what would fit.
    """
    group, parts = bn_group_size(cfg), cfg.SOLVER.ACCUMULATE
    found = (
        f"SOLVER.IMS_PER_BATCH is {local * ranks}, that is {local} images on each of {ranks} processes, "
        f"in SOLVER.ACCUMULATE {parts} micro-batches"
    )
    if local % parts:
        raise ValueError(f"{found}; expected a divisor of {local}, for example {math.gcd(local, parts)}")
    if (local // parts) % group and (group % local or (local * ranks) % group):
        raise ValueError(
            f"{found}, and MODEL.ENCODER.BN_GROUP_SIZE is {group}; expected a divisor of the {local // parts} "
            f"images of a micro-batch, for example {math.gcd(local // parts, group)}, or a multiple of {local} "
            f"that divides {local * ranks}"
        )
    if group > local and parts > 1:
        raise ValueError(
            f"{found}, and a batch-norm group of {group} images spans {group // local} processes: a micro-batch "
            "would be a part of a group; set SOLVER.ACCUMULATE 1 (SOLVER.ACTIVATION_CHECKPOINTING True saves "
            "memory as well), or MODEL.ENCODER.BN_GROUP_SIZE lower"
        )
