"""How large the measured work is: the paper's sizes on a GPU, smaller ones on a CPU, tiny ones to try it out."""

import dataclasses

from moco_det.modeling.precision import gains_by_bfloat16


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes and repetitions.

    Attributes:
        device: "cuda" or "cpu".
        paths: of JPEG files.
        rounds: how often each pair is measured.
        seconds: least time of each in a round.
        arch: encoder.
        batch: images in a step.
        size: side of a view in pixels.
        queries, queue: N and K of the loss.
        coco_images: images of the COCO evaluation.
        detectors: recipes of fine-tuning.
        queues: values of K to which the loss grows.
        batches: images of a step to which it grows, in fractions of ``batch``.
        sizes: sides of a view to which it grows, in pixels.
        loops: encoder, side of a view and images in a step of whole loops.
    """

    device: str
    paths: tuple[str, ...] = ()
    rounds: int = 5
    seconds: float = 2.0
    arch: str = "resnet50"
    batch: int = 256
    size: int = 224
    queries: int = 256
    queue: int = 65536
    coco_images: int = 5000
    detectors: tuple[str, ...] = ("toy/faster_rcnn_R_50_C4", "toy/mask_rcnn_R_18_FPN")
    queues: tuple[int, ...] = (4096, 16384, 65536, 262144, 1048576)
    batches: tuple[float, ...] = (0.25, 0.5, 1, 2)
    sizes: tuple[int, ...] = (96, 160, 224)
    loops: tuple[tuple[str, int, int], ...] = (("resnet18", 64, 64), ("resnet50", 224, 16))

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that a step is timed in, the fastest last."""
        return ("float32", "bfloat16") if gains_by_bfloat16(self.device) else ("float32",)


def cpu_options(**changes) -> Options:
    """A step of ResNet-50 takes a CPU seconds, so a batch is 16."""
    return Options(**{"device": "cpu", "batch": 16, **changes})


def smoke_options(device: str, **changes) -> Options:
    """Everything runs and is compared; no number means anything."""
    tiny = {
        **{"rounds": 2, "seconds": 0.0, "arch": "resnet18", "batch": 8, "size": 32},
        **{"queries": 8, "queue": 64, "coco_images": 20, "detectors": ("toy/mask_rcnn_R_18_FPN",)},
        **{"queues": (64,), "batches": (1,), "sizes": (32,), "loops": (("resnet18", 32, 8),)},
    }
    return Options(device, **{**tiny, **changes})
