"""What a config means on a set of images: the numbers of a plan, as functions of config, images and processes."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from detectron2.config import CfgNode
from PIL import Image

from moco_det.data.decoding import open_image
from moco_det.data.image_format import RGB, ImageFormat
from moco_det.data.sample_order import steps_per_epoch
from moco_det.modeling.grouped_batch_norm import bn_group_size
from moco_det.pretrain.method import PretrainMethod, method_class

LINEAR_BATCH = 256  # for which papers give the learning rate, in proportion for others
PAPER_STEPS = 1_000_800  # 200 epochs of ImageNet-1k in batches of 256


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a few steps of one process on this machine measured.

    Attributes:
        device: name of the GPU, or the CPU and its threads.
        steps: steps that were timed.
        seconds: of one step.
        data_wait: fraction of the time in which the step waited for images.
        peak_bytes: most memory in use: of the GPU, or on a CPU of the process.
        total_bytes: memory of the GPU; None on a CPU.
        cores: of this machine, for this process.
    """

    device: str
    steps: int
    seconds: float
    data_wait: float
    peak_bytes: int
    total_bytes: int | None
    cores: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """The numbers of a run that is not started yet.

    Attributes:
        cfg: its checked config.
        num_images: found.
        ranks: processes, over all machines.
        machines: on which they are.
        side: median of the images' shorter sides in pixels; None: unknown.
        start: steps done before (of a resumed run).
        trial: None: there was none.
    """

    cfg: CfgNode
    num_images: int
    ranks: int = 1
    machines: int = 1
    side: int | None = None
    start: int = 0
    trial: Trial | None = None

    @property
    def batch(self) -> int:
        return self.cfg.SOLVER.IMS_PER_BATCH

    @property
    def local(self) -> int:
        """Images of a rank in a step."""
        return self.batch // self.ranks

    @property
    def micro_batch(self) -> int:
        """Images of a rank in a forward pass."""
        return self.local // self.cfg.SOLVER.ACCUMULATE

    @property
    def group(self) -> int:
        """Images in a batch-norm group."""
        return bn_group_size(self.cfg)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.num_images, self.batch)

    @property
    def dropped(self) -> int:
        """Images that an epoch leaves out because they fill no batch; other ones in each epoch."""
        return self.num_images - self.steps_per_epoch * self.batch

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.cfg.SOLVER.EPOCHS

    @property
    def samples(self) -> int:
        """Samples seen in all; each gives a query view and a key view."""
        return self.steps * self.batch

    @property
    def method(self) -> type[PretrainMethod]:
        return method_class(self.cfg)

    @property
    def linear_lr(self) -> float | None:
        """What the linear rule of the paper gives for this batch size; None: it is not for this optimizer."""
        optimizer, rate = self.method.linear_rule or (None, None)
        return rate * self.batch / LINEAR_BATCH if optimizer == self.cfg.SOLVER.OPTIMIZER else None

    @property
    def seconds(self) -> float | None:
        """Seconds of the steps that are left, by the trial."""
        return None if self.trial is None else self.trial.seconds * max(self.steps - self.start, 0)

    def epochs_for(self, steps: float) -> int:
        """Epochs that give at least so many steps."""
        return math.ceil(steps / self.steps_per_epoch)


def typical_side(paths: Sequence[str], image_format: ImageFormat = RGB, sample: int = 64) -> int | None:
    """Median of the shorter sides of ``sample`` images spread over all, in pixels; None: none can be read."""
    sides = []
    for path in paths[:: max(len(paths) // sample, 1)][:sample]:
        try:
            if not image_format.is_plain:
                sides.append(min(image_format.decode(path).shape[1:]))
                continue
            with open_image(path) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # the run replaces it and counts it
    return int(statistics.median(sides)) if sides else None


def duration(seconds: float) -> str:
    """A time in words, in the unit that a person would take."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
