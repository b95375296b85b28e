"""What ``--plan`` says of a dictionary: its size, its age, and the momentum against the length of the run."""

from moco_det.engine.plan_text import Row
from moco_det.pretrain.plan.facts import Facts
from moco_det.utils.files import gib


def queue_rows(facts: Facts) -> list[Row]:
    return [
        (
            "queue",
            f"{facts.queue:,} keys: {facts.queue_batches:.4g} batches, {facts.queue / facts.images:.2%} of the "
            f"images; {facts.own_key_share:.2%} of queries meet a stale positive",
        ),
        (
            "momentum",
            f"{facts.momentum:g}: the key encoder follows over {facts.time_constant:,.0f} steps, the oldest key "
            f"is {facts.queue_batches:.4g} steps old; {facts.start_left:.2%} of its start is left at the end",
        ),
    ]


def memory_bank_rows(facts: Facts) -> list[Row]:
    moco = facts.cfg.MODEL.MOCO
    return [
        (
            "memory bank",
            f"an entry for each of {facts.images:,} images, {gib(2 * facts.images * moco.DIM)}; {facts.queue:,} "
            f"negatives a step, for {facts.own_entry_share:.2%} of queries their own among them; loss {moco.LOSS}",
        )
    ]


def end_to_end_rows(facts: Facts) -> list[Row]:
    who = "one encoder" if facts.cfg.MODEL.MOCO.SHARED_ENCODER else "an encoder for queries and one for keys"
    return [("end-to-end", f"{facts.batch - 1:,} negatives, the other keys of the batch; {who}, all trained")]


DICTIONARY_ROWS = {"queue": queue_rows, "memory_bank": memory_bank_rows, "end_to_end": end_to_end_rows}
