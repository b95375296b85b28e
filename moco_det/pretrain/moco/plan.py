"""What ``--plan`` says of a dictionary: its size, its age, and the momentum against the length of the run.

The functions and rules that speak of a queue and its key encoder hold for all methods that have them.
"""

import math

from moco_det.engine.plan_text import PlanRow
from moco_det.pretrain.moco.checks import queue_fix
from moco_det.pretrain.plan.advice import Advice
from moco_det.pretrain.plan.facts import Facts
from moco_det.utils.files import gib

ENOUGH_STEPS = 5  # time constants of the key encoder: then less than 1% of its start is left
PAPER_MOMENTUM = 0.999
OLD_KEYS = 4  # batches in the queue from which on the age of a key can be told


def queue_size(facts: Facts) -> int:
    return facts.cfg.MODEL.MOCO.QUEUE_SIZE


def key_momentum(facts: Facts) -> float:
    return facts.cfg.MODEL.MOCO.MOMENTUM


def own_entry_share(facts: Facts) -> float:
    """Fraction of queries that sample the entry of their own image from a memory bank as a negative."""
    return 1 - (1 - 1 / facts.num_images) ** queue_size(facts)


def queue_batches(facts: Facts) -> float:
    """Steps that the oldest key has been in the queue."""
    return queue_size(facts) / facts.batch


def own_key_share(facts: Facts) -> float:
    """Fraction of queries, from the second epoch on, that have a stale positive in the queue.

    In step t of an epoch the queue holds K - tN keys of the epoch before, whose order is another one.
    """
    older = (queue_size(facts) - step * facts.batch for step in range(math.ceil(queue_batches(facts))))
    return sum(older) / (facts.steps_per_epoch * facts.num_images)


def time_constant(facts: Facts) -> float:
    """Steps after which 1/e of the key encoder's old weights is left."""
    return 1 / (1 - key_momentum(facts))


def start_left(facts: Facts) -> float:
    """Fraction of the key encoder's start in its weights at the end of the run."""
    return key_momentum(facts) ** facts.steps


def queue_rows(facts: Facts) -> list[PlanRow]:
    return [
        (
            "queue",
            f"{queue_size(facts):,} keys: {queue_batches(facts):.4g} batches, "
            f"{queue_size(facts) / facts.num_images:.2%} of the images; "
            f"{own_key_share(facts):.2%} of queries meet a stale positive",
        ),
        (
            "momentum",
            f"{key_momentum(facts):g}: the key encoder follows over {time_constant(facts):,.0f} steps, "
            f"the oldest key is {queue_batches(facts):.4g} steps old; "
            f"{start_left(facts):.2%} of its start is left at the end",
        ),
    ]


def memory_bank_rows(facts: Facts) -> list[PlanRow]:
    moco = facts.cfg.MODEL.MOCO
    return [
        (
            "memory bank",
            f"an entry for each of {facts.num_images:,} images, {gib(2 * facts.num_images * moco.DIM)}; "
            f"{queue_size(facts):,} negatives a step, for {own_entry_share(facts):.2%} of queries their own among "
            f"them; loss {moco.LOSS}",
        )
    ]


def end_to_end_rows(facts: Facts) -> list[PlanRow]:
    who = "one encoder" if facts.cfg.MODEL.MOCO.SHARED_ENCODER else "an encoder for queries and one for keys"
    return [("end-to-end", f"{facts.batch - 1:,} negatives, the other keys of the batch; {who}, all trained")]


def one_batch_norm_group(facts: Facts) -> Advice | None:
    if facts.group < facts.batch:
        return None
    sizes = [size for size in range(2, facts.batch) if facts.micro_batch % size == 0]
    if not sizes:
        return None
    size = min(sizes, key=lambda size: abs(size - facts.batch / 8))
    return Advice(
        f"the {facts.batch} images of a step are one batch-norm group, so shuffling the keys changes nothing",
        ("MODEL.ENCODER.NORM BN " if facts.cfg.MODEL.ENCODER.NORM != "BN" else "")
        + f"MODEL.ENCODER.BN_GROUP_SIZE {size}",
        "the statistics of a group give away which key belongs to a query; the paper has 8 groups, and without "
        "shuffling kNN fell from 42 to 23% (Figure A.1, read off the plot).",
    )


def queue_too_large(facts: Facts) -> Advice | None:
    if queue_size(facts) <= facts.num_images // 4:
        return None
    return Advice(
        f"the queue holds {queue_size(facts) / facts.num_images:.0%} as many keys as there are images: "
        f"{own_key_share(facts):.0%} of the queries have a stale positive (a false negative)",
        queue_fix(facts.cfg, facts.num_images),
        "a quarter of the images or less keeps that below some 3%; a rule of thumb (the CIFAR-10 demo of MoCo's "
        "authors keeps 4,096 of 50,000). A smaller queue costs little: 59.0% with 4,096 keys, 60.6% with 65,536 "
        "(MoCo v1, Figure 3).",
    )


def key_encoder_hardly_moves(facts: Facts) -> Advice | None:
    needed = ENOUGH_STEPS * time_constant(facts)
    if facts.steps >= needed:
        return None
    fix = f"SOLVER.EPOCHS {facts.epochs_for(needed)}"
    faster = int(100 * (1 - ENOUGH_STEPS / facts.steps)) / 100
    if faster >= 0.9:
        queue = min((OLD_KEYS - 1) * facts.batch, queue_size(facts))
        fix += f"; or MODEL.MOCO.MOMENTUM {faster} MODEL.MOCO.QUEUE_SIZE {queue}"
    return Advice(
        f"{facts.steps:,} steps are few for a momentum of {key_momentum(facts):g}: at the end "
        f"{start_left(facts):.0%} of the key encoder is still its start",
        fix,
        f"it follows over 1 / (1 - m) = {time_constant(facts):,.0f} steps; {ENOUGH_STEPS} times that leaves less "
        "than 1%. A rule of thumb; a faster key encoder wants a short queue, since keys of different age differ.",
    )


def age_gives_keys_away(facts: Facts) -> Advice | None:
    if key_momentum(facts) >= PAPER_MOMENTUM or queue_batches(facts) < OLD_KEYS:
        return None
    fix = f"MODEL.MOCO.MOMENTUM {PAPER_MOMENTUM}"
    needed = ENOUGH_STEPS / (1 - PAPER_MOMENTUM)
    if facts.steps < needed:
        fix += f" SOLVER.EPOCHS {facts.epochs_for(needed)}; or a queue of fewer batches: " + (
            f"MODEL.MOCO.QUEUE_SIZE {(OLD_KEYS - 1) * facts.batch}"
        )
    return Advice(
        f"with a momentum of {key_momentum(facts):g} the key encoder changes while a key is in the queue "
        f"({queue_batches(facts):.3g} steps), so the age of a key can give it away as a negative",
        fix,
        "measured in this project on small photographs: with 0.99 and 8 batches the similarity to keys falls with "
        "their age, with 0.999 it is level. The paper: 57.8% with 0.99, 59.0% with 0.999 (16 batches). The "
        "CIFAR-10 demo of MoCo's authors does work with 0.99 and 8 batches, over 19,400 steps.",
    )


DICTIONARY_ROWS = {"queue": queue_rows, "memory_bank": memory_bank_rows, "end_to_end": end_to_end_rows}
DICTIONARY_RULES = {
    "queue": (one_batch_norm_group, queue_too_large, key_encoder_hardly_moves, age_gives_keys_away),
    "memory_bank": (),
    "end_to_end": (one_batch_norm_group,),
}
