"""What a study of the user's own data is made of: rules from data and device to settings, each with its reason.

A :class:`Choice` is config keys with their values and why. What the user gives (``given``) replaces what a rule
says, and rules that build on it follow.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from moco_det_cli.parsers.choices import OBJECTS, SCENES

# Images shown in a schedule of n labeled images are SHOWN x sqrt(n). detectron2's schedules lie on this curve
# within a factor of 1.6: COCO 1x 4,200 (90,000 x 16 of 117,266 images), Cityscapes 3,500 (24,000 x 8 of
# 2,975), VOC07+12 2,250 (18,000 x 16 of 16,551).
SHOWN = 3500
# On a CPU: half an hour a run with a small detector, 1,200 iterations of 8 for 4,500 images.
SHOWN_ON_CPU = 145
# With few labels a schedule stays at least this part of that with all: works on few labels train them for more
# epochs.
LEAST_PART = 0.5
# Images drawn in pre-training. GPU: the CIFAR-10 demo of MoCo's authors draws 10 million. CPU: the better part
# of an hour.
DRAWN, DRAWN_ON_CPU = 10_000_000, 300_000
SHORTEST = 8  # iterations: below, the two drops of the learning rate would be one
MAX_EPOCHS = 800  # the longest pre-training of the papers
SMALLEST_BOX = 8  # pixels: two positions of the finest level
GIB_PER_MEGAPIXEL = 3.0  # of training R50-FPN, all layers, float32
LEAST_GIB_FOR_R50 = 10.0


@dataclass(frozen=True)
class DataFacts:
    """The numbers of the user's data that the rules look at.

    Attributes:
        name: of the training set.
        num_images: labeled ones to train on (without those that hold no box).
        unlabeled: images to pre-train on.
        classes: their names.
        boxes: mean number in an image.
        side: median of the images' shorter sides, in pixels.
        box_sides: 10, 50 and 90 % quantiles of the square root of a box's area, as parts of its image's
            shorter side.
    """

    name: str
    num_images: int
    unlabeled: int
    classes: tuple[str, ...]
    boxes: float
    side: int
    box_sides: tuple[float, float, float]


@dataclass(frozen=True)
class Device:
    """What runs are carried out on; ``gib``: memory of a GPU, 0 for the CPU."""

    name: str
    gib: float = 0.0

    @property
    def is_gpu(self) -> bool:
        return self.gib > 0


@dataclass(frozen=True)
class Choice:
    """Attributes: what is chosen, in words with its value; the config keys; why."""

    what: str
    keys: Mapping[str, object]
    reason: str


def rounded(value: float, step: int) -> int:
    """The multiple of ``step`` nearest to ``value``, at least one."""
    return max(step, round(value / step) * step)


def kind_of_images(facts: DataFacts) -> tuple[str, str]:
    """Whether a picture shows one object or a scene of several, and the reason."""
    kind = OBJECTS if facts.boxes <= 1.5 else SCENES
    return kind, f"{facts.boxes:.1f} boxes an image; one object a picture up to 1.5"


def depth_of(device: Device) -> tuple[int, str]:
    """Layers of the backbone, and the reason."""
    if not device.is_gpu:
        return 18, "on a CPU a ResNet-50 takes several times as long"
    if device.gib < LEAST_GIB_FOR_R50:
        return 18, f"the GPU has {device.gib:.0f} GiB; R50-FPN is for {LEAST_GIB_FOR_R50:.0f} and more"
    return 50, f"the GPU has {device.gib:.0f} GiB"


def base_of_detector(depth: int) -> str:
    """The file below configs/ that a detector's recipe stands on."""
    return "Base-RCNN-FPN-tuned.yaml" if depth == 50 else "toy/Base-RCNN-R18-FPN.yaml"


def detector_choices(
    facts: DataFacts, device: Device, depth: int, given: Mapping[str, object]
) -> list[Choice]:
    """Image size, anchors, batch and learning rate of fine-tuning."""
    size = _image_size(facts, device)
    side = int(given.get("INPUT.MIN_SIZE_TEST", size.keys["INPUT.MIN_SIZE_TEST"]))
    batch = _batch(side, depth, device)
    per_batch = int(given.get("SOLVER.IMS_PER_BATCH", batch.keys["SOLVER.IMS_PER_BATCH"]))
    rate = 0.02 * per_batch / 16 if depth == 50 else 0.02 * per_batch / 8
    workers = 4 if device.is_gpu else 0
    return [
        size,
        _anchors(facts, side),
        batch,
        Choice(
            f"learning rate {rate:g}",
            {"SOLVER.BASE_LR": rate},
            f"0.02 for a batch of {16 if depth == 50 else 8} ("
            + ("detectron2's" if depth == 50 else "the small recipes'")
            + "), in proportion for others",
        ),
        Choice(
            "100 detections an image, evaluated four times",
            {
                "TEST.DETECTIONS_PER_IMAGE": 100,
                "TEST.PRECISE_BN.NUM_ITER": 50 if device.is_gpu else 10,
                "DATALOADER.NUM_WORKERS": workers,
            },
            "as COCO's evaluation; batch norm's statistics are measured anew before each",
        ),
    ]


def _image_size(facts: DataFacts, device: Device) -> Choice:
    if device.is_gpu:
        size = min(800, rounded(2 * facts.side, 32))
        reason = (
            f"the images' shorter side is {facts.side} px; twice that, as detectron2 shows VOC's, at most 800"
        )
    else:
        size = min(192, rounded(facts.side, 16))
        reason = f"the images' shorter side is {facts.side} px; at most 192 on a CPU"
    shown = tuple(sorted({rounded(part * size, 8) for part in (0.8, 0.85, 0.9, 0.95, 1.0)}))
    longest = rounded(size * 5 / 3, 8)
    return Choice(
        f"shorter side {size} px, in training {shown[0]} to {shown[-1]}",
        {
            "INPUT.MIN_SIZE_TRAIN": shown,
            "INPUT.MAX_SIZE_TRAIN": longest,
            "INPUT.MIN_SIZE_TEST": size,
            "INPUT.MAX_SIZE_TEST": longest,
        },
        reason,
    )


def anchor_sizes(low: float, high: float) -> list[int]:
    """One anchor a level of the FPN, from p2 on: from ``low`` to ``high`` pixels in equal ratios.

    A level of stride s has anchors of 3 s and more, so that each box has one that overlaps it well: the more
    the boxes differ, the more levels there are, at most five.
    """
    low, high = max(low, SMALLEST_BOX), max(high, 12, low)
    levels = min(5, 1 + int(math.log2(high / 12)))
    if levels == 1:
        return [round(math.sqrt(low * high))]
    return [round(low * (high / low) ** (level / (levels - 1))) for level in range(levels)]


def _anchors(facts: DataFacts, side: int) -> Choice:
    low, _, high = (part * side for part in facts.box_sides)
    sizes = anchor_sizes(low, high)
    return Choice(
        f"anchors {', '.join(map(str, sizes))} px on p2 to p{len(sizes) + 1}",
        {
            "MODEL.ANCHOR_GENERATOR.SIZES": [[size] for size in sizes],
            "MODEL.RPN.IN_FEATURES": [f"p{level + 2}" for level in range(len(sizes))],
        },
        f"eight of ten boxes are {low:.0f} to {high:.0f} px large at this size (square root of the area)",
    )


def _batch(side: int, depth: int, device: Device) -> Choice:
    if not device.is_gpu:
        return Choice(
            "batch of 8", {"SOLVER.IMS_PER_BATCH": 8}, "on a CPU a larger one means fewer steps an hour"
        )
    each = side * side * 5 / 3 / 1e6 * GIB_PER_MEGAPIXEL * (1.0 if depth == 50 else 0.4)
    fitting = 1 << int(math.log2(max(2.0, 0.7 * device.gib / each)))
    batch = min(16, fitting)
    reason = f"about {each:.1f} GiB an image, in 70 % of {device.gib:.0f} GiB; at most detectron2's 16"
    return Choice(f"batch of {batch}", {"SOLVER.IMS_PER_BATCH": batch}, reason)


def iterations_for(num_images: int, num_all: int, batch: int, is_gpu: bool) -> int:
    """Length of the short schedule for a share of ``num_images`` of ``num_all`` labeled ones."""
    constant = SHOWN if is_gpu else SHOWN_ON_CPU
    shown = constant * max(math.sqrt(num_images), LEAST_PART * math.sqrt(num_all))
    return max(SHORTEST, round(shown / batch / 4) * 4)  # evaluated four times, at whole iterations


SCHEDULE_REASON = (
    "{constant:,} x sqrt(n) images are shown for n labeled ones ({source}), with few labels at least half "
    "as many as with all"
)


def schedule_reason(is_gpu: bool) -> str:
    """Where the lengths of the schedules come from."""
    source = "detectron2's for COCO, VOC and Cityscapes lie on this curve within a factor of 1.6"
    if not is_gpu:
        source = f"a GPU's {SHOWN:,} / {SHOWN // SHOWN_ON_CPU}, for a CPU"
    return SCHEDULE_REASON.format(constant=SHOWN if is_gpu else SHOWN_ON_CPU, source=source)


def base_of_pretraining(kind: str) -> str:
    """The file below configs/ that pre-training's recipe stands on."""
    return f"Pretrain/moco_v2_{'' if kind == OBJECTS else 'scenes_'}R_50_200ep.yaml"


def pretraining_choices(
    facts: DataFacts, device: Device, depth: int, kind: str, given: Mapping[str, object]
) -> list[Choice]:
    """Views, batch, queue and length of pre-training."""
    view = min(224, rounded(facts.side, 32)) if device.is_gpu else min(64, rounded(facts.side, 16))
    view = int(given.get("INPUT.VIEWS.SIZE", view))
    small = {"INPUT.VIEWS.SMALL_SIZE": rounded(view * 96 / 224, 8)} if kind == SCENES else {}
    if kind == SCENES and not device.is_gpu:
        small["INPUT.VIEWS.SMALL_CROPS"] = 2
    batch = 256 if device.is_gpu else 64
    while batch > 8 and batch * 4 > facts.unlabeled:
        batch //= 2
    batch = int(given.get("SOLVER.IMS_PER_BATCH", batch))
    drawn = DRAWN if device.is_gpu else DRAWN_ON_CPU
    epochs = min(MAX_EPOCHS, math.ceil(drawn / facts.unlabeled))
    epochs = int(given.get("SOLVER.EPOCHS", epochs))
    return [
        Choice(
            f"ResNet-{depth}, views of {view} px" + (", and local crops" if small else ""),
            {
                "MODEL.ENCODER.ARCH": f"resnet{depth}",
                "INPUT.VIEWS.SIZE": view,
                "INPUT.VIEWS.BLUR_SIGMA": (0.1, round(2.0 * view / 224, 2)),
                **small,
            },
            "as the detector's; views not above the images' size, "
            + ("nor the paper's 224 px" if device.is_gpu else "and at most 64 px on a CPU"),
        ),
        _contrast(facts, batch, device),
        Choice(
            f"{epochs} epochs",
            {
                "SOLVER.EPOCHS": epochs,
                "SOLVER.CHECKPOINT_EPOCHS": max(1, epochs // 10),
                "SOLVER.CHECKPOINT_KEEP": 1,
                "TEST.KNN.K": 20,
                "TEST.KNN.PERIOD_EPOCHS": max(1, epochs // 4),
            },
            f"{drawn:,} images drawn, at most {MAX_EPOCHS} epochs",
        ),
        Choice(
            "bfloat16",
            {"SOLVER.PRECISION": "bfloat16", "DATALOADER.NUM_WORKERS": 8 if device.is_gpu else 1},
            "where the processor has it; the loss stays in float32",
        ),
    ]


def _contrast(facts: DataFacts, batch: int, device: Device) -> Choice:
    quarter = 1 << int(math.log2(max(facts.unlabeled // 4, batch)))
    if device.is_gpu:
        queue, momentum, temperature, decay = min(65536, quarter), 0.999, 0.2, 1e-4
        reason = "MoCo v2's"
    else:
        queue, momentum, temperature, decay = min(2048, quarter), 0.99, 0.1, 5e-4
        reason = "the CIFAR-10 demo's of MoCo's authors for short runs, with a smaller batch"
    queue = max(batch, queue // batch * batch)
    return Choice(
        f"batches of {batch}, {queue:,} keys, momentum {momentum}, temperature {temperature}",
        {
            "SOLVER.IMS_PER_BATCH": batch,
            "MODEL.ENCODER.BN_GROUP_SIZE": min(32, batch // 2),
            # Four times the linear rule learns in short runs of small batches (docs/DEMO.md).
            "SOLVER.BASE_LR": round(0.03 * batch / (256 if device.is_gpu else 64), 5),
            "MODEL.MOCO.QUEUE_SIZE": queue,
            "MODEL.MOCO.MOMENTUM": momentum,
            "MODEL.MOCO.TEMPERATURE": temperature,
            "SOLVER.WEIGHT_DECAY": decay,
        },
        f"{reason}; keys: at most a quarter of the images",
    )
