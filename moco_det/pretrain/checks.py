"""What the settings of every method must fulfil, asked before a model is built."""

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
