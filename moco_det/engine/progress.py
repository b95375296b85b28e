"""A progress bar for the stages that train: on a terminal only, so that logs stay plain."""

from detectron2.utils.events import EventWriter, get_event_storage

from moco_det.utils.metric_names import TOTAL_LOSS
from moco_det.utils.progress import terminal_bar


class ProgressBar(EventWriter):
    """Follows the iteration of detectron2's event storage, with the loss beside it."""

    def __init__(self, description: str, max_iter: int):
        self.bar = terminal_bar(description, max_iter, "step")

    def write(self):
        storage = get_event_storage()
        if self.bar.n == 0:  # a resumed run starts where it was interrupted
            self.bar.initial = self.bar.n = storage.iter
        self.bar.update(min(storage.iter + 1, self.bar.total) - self.bar.n)
        if TOTAL_LOSS in storage.latest():
            self.bar.set_postfix(loss=f"{storage.latest()[TOTAL_LOSS][0]:.3f}")

    def close(self):
        self.bar.close()
