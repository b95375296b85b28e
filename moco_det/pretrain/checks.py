"""What the settings of every method must fulfil, asked before a model is built."""

import math

from moco_det.encoder import parse_arch
from moco_det.pretrain.optimizers import OPTIMIZERS


def check_choices(*settings: tuple[str, object, tuple]) -> None:
    """Refuse values that are none of the choices.

    Args:
        settings: triples of key, value and the choices.

    Raises:
        ValueError: with the key, the value found and the choices.
    """
    for key, value, choices in settings:
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; expected one of {', '.join(map(str, choices))}")


def check_values(*settings: tuple[str, object, bool, str]) -> None:
    """Refuse values out of their range.

    Args:
        settings: of key, value, whether that is right, and what is expected.

    Raises:
        ValueError: with the first key that is wrong, the value found and what was expected.
    """
    for key, value, right, expected in settings:
        if not right:
            raise ValueError(f"{key} is {value}; expected {expected}")


def check_vector_norm(cfg) -> None:
    """Refuse groups in which batch norm has nothing to normalise: a vector has one number for each channel.

    Raises:
        ValueError: groups are single images.
    """
    group = cfg.SOLVER.IMS_PER_BATCH if cfg.MODEL.MOCO.NORM == "SyncBN" else cfg.MODEL.MOCO.BN_GROUP_SIZE
    if group < 2:
        raise ValueError(
            f"batch norm has groups of {group} image, and that of the head needs 2 or more: set "
            "MODEL.MOCO.BN_GROUP_SIZE, or SOLVER.IMS_PER_BATCH with MODEL.MOCO.NORM SyncBN"
        )


def check_common(cfg, ranks: int) -> None:
    """Refuse settings that no method can have.

    Args:
        ranks: processes of the run.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    solver, batch = cfg.SOLVER, cfg.SOLVER.IMS_PER_BATCH
    parse_arch(cfg.MODEL.MOCO.ARCH)
    check_choices(
        ("MODEL.MOCO.NORM", cfg.MODEL.MOCO.NORM, ("BN", "SyncBN")),
        ("SOLVER.PRECISION", solver.PRECISION, ("float32", "bfloat16", "float16")),
        ("SOLVER.OPTIMIZER", solver.OPTIMIZER, OPTIMIZERS),
        ("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB",)),
    )
    if solver.LARS_TRUST <= 0:
        raise ValueError(f"SOLVER.LARS_TRUST is {solver.LARS_TRUST}; expected > 0 (usual: 0.001)")
    if batch < 1 or batch % ranks:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch}; expected a multiple of the {ranks} processes, since it counts "
            f"the images of all of them: for example {max(batch // ranks, 1) * ranks}"
        )
    check_groups(cfg, batch // ranks, ranks)


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
