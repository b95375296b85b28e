"""What happens around the steps of pre-training alone: unreadable images, and what a log line says."""

import datetime
import itertools

from detectron2.engine import HookBase
from detectron2.utils import comm

from moco_det.engine.hooks import is_due
from moco_det.pretrain.loader import UnreadableLog


class UnreadableImages(HookBase):
    """Passes the files that any rank could not read to the main process's log, every ``period`` steps."""

    def __init__(self, log: UnreadableLog | None, period: int, images_per_batch: int):
        self.log, self.period, self.images_per_batch = log, period, images_per_batch
        self.pending = []

    def after_step(self):
        self.pending += self.trainer.batch["unreadable"]
        if is_due(self.trainer, self.period):
            self.flush()

    def flush(self) -> None:
        """Note what is pending, on all ranks at once."""
        found = comm.gather(self.pending)
        self.pending = []
        if comm.is_main_process():
            slots = (self.trainer.iter + 1) * self.images_per_batch
            self.log.update(itertools.chain.from_iterable(found), slots)
            self.trainer.storage.put_scalar("unreadable_images", len(self.log.files), smoothing_hint=False)


def describe_step(latest: dict, done: int, max_iter: int, epochs: int) -> str:
    """One line of the log in words that a newcomer can read; methods put in what they have."""
    left = datetime.timedelta(seconds=int((max_iter - done) * latest["seconds_per_step"]))
    parts = [
        f"epoch {latest['epoch']:.2f}/{epochs} step {done}/{max_iter}",
        f"loss {latest['total_loss']:.4f}",
    ]
    if "accuracy" in latest:
        parts.append(f"(K+1)-way accuracy {latest['accuracy']:.1%}")
    if "similarity_positive" in latest:
        own, others = latest["similarity_positive"], latest["similarity_negative"]
        where = next((name for name in ("queue", "bank") if f"{name}_real" in latest), "negatives")
        parts.append(
            f"similarity {own:.2f} own, {latest['similarity_batch']:.2f} batch, {others:.2f} {where}"
        )
    elif "embedding_spread" in latest:
        parts.append(f"spread of the embeddings {latest['embedding_spread']:.2f} (1: even, 0: all the same)")
    for name in ("queue", "bank"):
        real = latest.get(f"{name}_real")
        if real is not None:
            filling = " (the loss rises until it is full)" if real < 0.99 else ""
            parts.append(f"{name} {real:.0%} real{filling}")
    parts += [
        f"lr {latest['lr']:.5g}",
        f"{latest['images_per_second']:.0f} images/s, {latest['data_wait']:.0%} waiting for data",
        f"left {left}",
    ]
    return "  ".join(parts)
