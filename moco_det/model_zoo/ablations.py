"""The paper's ablations as data: what is varied, the runs at each scale, and the numbers that the papers print.

"imagenette" runs are those of ``configs/Imagenette``, minutes each on a CPU core; "paper" runs are the recipes of
``configs/Pretrain`` on ImageNet-1k. Beside what the papers vary stand the settings of our own recipe ("recipe", by
which it was chosen) and other methods at equal numbers of samples ("methods").
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from detectron2.config import CfgNode

from moco_det.config import get_cfg, load_yaml, merge_config, value_of
from moco_det.model_zoo.model_zoo import get_config_file

SCALES = ("imagenette", "paper")
# The linear protocol that evaluates the runs of a scale.
CLASSIFIERS = {"imagenette": "Imagenette/linear_R_18", "paper": "ImageNet-Classification/linear_R_50_100ep"}
PRETRAIN, CLASSIFY = "tools/pretrain_moco.py", "tools/train_classifier.py"
FAILS = None  # what stands for the paper's "fails"

X = float | str
_SMALL, _SMALL_V1 = "Imagenette/ablations/moco_v2_6ep_R_18", "Imagenette/ablations/moco_v1_6ep_R_18"
_V1, _V2 = "Pretrain/moco_v1_R_50_200ep", "Pretrain/moco_v2_R_50_200ep"
_PAPER, _PARTS = "Pretrain/ablations/moco_v1_R_50_", "Pretrain/ablations/moco_v2_parts_R_50_200ep"


@dataclass(frozen=True)
class Point:
    """One setting: where it stands in the figure, and how it is trained.

    Attributes:
        curve: the line that it belongs to.
        x: its place on that line; a word where the axis is not one of numbers.
        recipe: of pre-training.
        options: KEY VALUE pairs over the recipe.
        script: that trains it; a project's own knows its recipe, and takes no options here.
    """

    curve: str
    x: X
    recipe: str
    options: tuple[str, ...] = ()
    script: str = PRETRAIN


@dataclass(frozen=True)
class Ablation:
    """What one figure or table of a paper varies.

    Attributes:
        title: what it shows and where it is printed.
        x: the name of what is varied.
        points: the runs, by scale.
        paper: of each curve, the printed (x, linear accuracy on ImageNet-1k in percent); or where ``by_epoch``,
            the (epoch, kNN accuracy).
        by_epoch: the figure shows accuracies over the epochs of pre-training.
        log: the x axis is logarithmic.
    """

    title: str
    x: str
    points: dict[str, tuple[Point, ...]]
    paper: dict[str, tuple[tuple[X, float | None], ...]]
    by_epoch: bool = False
    log: bool = False


def _pairs(**values) -> tuple[str, ...]:
    """KEY VALUE pairs under MODEL.MOCO."""
    return tuple(word for name, value in values.items() for word in (f"MODEL.MOCO.{name}", str(value)))


def _end_to_end(recipe: str, batch: int, rate: float, groups: int = 8) -> Point:
    """K is the batch; the learning rate in proportion, and as many batch-norm groups as the recipe has."""
    options = ("MODEL.ENCODER.BN_GROUP_SIZE", str(batch // groups), *_pairs(DICTIONARY="end_to_end"))
    options += ("SOLVER.IMS_PER_BATCH", str(batch), "SOLVER.BASE_LR", f"{rate:g}")
    return Point("end-to-end", batch, recipe, options)


_DICTIONARY = Ablation(
    title="Linear accuracy by mechanism and number of negatives (MoCo v1, Figure 3)",
    x="K",
    points={
        "imagenette": (
            *(_end_to_end(_SMALL, batch, 0.015 * batch / 64, 4) for batch in (64, 256)),
            *(
                Point("memory bank", k, _SMALL, _pairs(DICTIONARY="memory_bank", QUEUE_SIZE=k))
                for k in (64, 256, 4096)
            ),
            *(Point("MoCo", k, _SMALL, _pairs(QUEUE_SIZE=k)) for k in (64, 256, 4096)),
        ),
        "paper": (
            *(_end_to_end(_PAPER + "end_to_end_200ep", b, 0.03 * b / 256) for b in (256, 512, 1024)),
            *(
                Point("memory bank", k, _PAPER + "memory_bank_200ep", _pairs(QUEUE_SIZE=k))
                for k in (256, 512, 1024, 4096, 16384, 65536)
            ),
            *(
                Point("MoCo", k, _PAPER + "queue_200ep", _pairs(QUEUE_SIZE=k))
                for k in (256, 512, 1024, 4096, 16384, 65536)
            ),
        ),
    },
    paper={
        "end-to-end": ((256, 54.9), (512, 56.3), (1024, 57.3)),
        "memory bank": ((256, 50.0), (512, 52.0), (1024, 54.1), (4096, 56.5), (16384, 57.8), (65536, 58.0)),
        "MoCo": ((256, 54.7), (512, 56.4), (1024, 57.5), (4096, 59.0), (16384, 60.4), (65536, 60.6)),
    },
    log=True,
)

_MOMENTA = (0.0, 0.9, 0.99, 0.999, 0.9999)
_MOMENTUM = Ablation(
    title="Linear accuracy by the momentum of the key encoder (MoCo v1, section 4.1; its K is 4096)",
    x="m",
    points={
        "imagenette": tuple(
            Point("MoCo", f"{m:g}", _SMALL, _pairs(MOMENTUM=m)) for m in (0.0, 0.9, 0.99, 0.996, 0.999)
        ),
        "paper": tuple(
            Point("MoCo", f"{m:g}", _PAPER + "queue_200ep", _pairs(MOMENTUM=m, QUEUE_SIZE=4096))
            for m in _MOMENTA
        ),
    },
    paper={"MoCo": (("0", FAILS), ("0.9", 55.2), ("0.99", 57.8), ("0.999", 59.0), ("0.9999", 58.9))},
)


def _shuffled_or_not(recipe: str) -> tuple[Point, ...]:
    """kNN is measured after each epoch, as the figure shows it."""
    return tuple(
        Point(curve, "", recipe, (*_pairs(SHUFFLE_BN=shuffle), "TEST.KNN.PERIOD_EPOCHS", "1"))
        for curve, shuffle in (("with shuffling", True), ("without shuffling", False))
    )


_SHUFFLE_BN = Ablation(
    title="Accuracy on the pretext task and of kNN, with and without shuffling BN (MoCo v1, Figure A.1)",
    x="epoch",
    points={"imagenette": _shuffled_or_not(_SMALL), "paper": _shuffled_or_not(_V1)},
    # Read off the plot, which has no numbers: to 1.5 points.
    paper={"with shuffling": ((80, 42.0),), "without shuffling": ((14, 28.0), (80, 23.0))},
    by_epoch=True,
)

_MLP, _AUG, _COS = _pairs(MLP=True, TEMPERATURE=0.2), ("INPUT.VIEWS.RECIPE", "v2"), "SOLVER.LR_SCHEDULER_NAME"
_LONG = ("SOLVER.EPOCHS", "24", "SOLVER.CHECKPOINT_EPOCHS", "24", "TEST.KNN.PERIOD_EPOCHS", "6")
_V2_TABLE = Ablation(
    title="Linear accuracy of MoCo v2's parts (MoCo v2, Table 1)",
    x="case",
    points={
        "imagenette": (
            Point("MoCo", "v1", _SMALL_V1),
            Point("MoCo", "(a) MLP", _SMALL_V1, _MLP),
            Point("MoCo", "(b) aug+", _SMALL_V1, _AUG),
            Point("MoCo", "(c) MLP, aug+", _SMALL_V1, (*_MLP, *_AUG)),
            Point("MoCo", "(d) MLP, aug+, cos", _SMALL, _pairs(TEMPERATURE=0.2)),
            Point("MoCo", "(e) as (d), 4 x epochs", _SMALL, (*_pairs(TEMPERATURE=0.2), *_LONG)),
        ),
        "paper": (
            Point("MoCo", "v1", _V1),
            Point("MoCo", "(a) MLP", _PARTS),
            Point("MoCo", "(b) aug+", _PARTS, (*_pairs(MLP=False, TEMPERATURE=0.07), *_AUG)),
            Point("MoCo", "(c) MLP, aug+", _PARTS, _AUG),
            Point("MoCo", "(d) MLP, aug+, cos", _V2),
            Point("MoCo", "(e) as (d), 4 x epochs", "Pretrain/moco_v2_R_50_800ep"),
        ),
    },
    paper={
        "MoCo": (
            *(("v1", 60.6), ("(a) MLP", 66.2), ("(b) aug+", 63.4), ("(c) MLP, aug+", 67.3)),
            *(("(d) MLP, aug+, cos", 67.5), ("(e) as (d), 4 x epochs", 71.1)),
        )
    },
)

_TEMPERATURE_RECIPE = "Pretrain/ablations/moco_v2_temperature_R_50_200ep"
_TEMPERATURES = (0.07, 0.1, 0.2, 0.3, 0.4, 0.5)


def _by_temperature(recipe: str, temperatures: Sequence[float]) -> tuple[Point, ...]:
    return tuple(
        Point(curve, str(t), recipe, _pairs(MLP=mlp, TEMPERATURE=t))
        for curve, mlp in (("without MLP", False), ("with MLP", True))
        for t in temperatures
    )


_TEMPERATURE = Ablation(
    title="Linear accuracy by temperature (MoCo v2, section 3)",
    x="temperature",
    points={
        "imagenette": _by_temperature(_SMALL_V1, (0.07, 0.1, 0.2, 0.4)),
        "paper": _by_temperature(_TEMPERATURE_RECIPE, _TEMPERATURES),
    },
    paper={
        "without MLP": tuple(zip(map(str, _TEMPERATURES), (60.6, 60.7, 59.0, 58.2, 57.2, 56.4), strict=True)),
        "with MLP": tuple(zip(map(str, _TEMPERATURES), (62.9, 64.9, 66.2, 65.7, 65.0, 64.3), strict=True)),
    },
)

_BASE = "Imagenette/moco_v2_R_18"
_METHODS = Ablation(
    title="Methods on Imagenette at equal numbers of samples",
    x="epoch",
    points={
        "imagenette": (
            Point("MoCo v2", "", _BASE),
            Point("MoCo v2 with multi-crop", "", "Imagenette/moco_v2_multi_crop_R_18"),
            *(
                Point(method, "", f"imagenette_{name}_R_18", script=f"projects/{project}/pretrain.py")
                for method, name, project in (
                    ("DenseCL", "densecl", "DenseCL"),
                    ("SimCLR", "simclr", "SimCLR"),
                    ("BYOL", "byol", "BYOL"),
                )
            ),
            Point("supervised", "", "Imagenette/supervised_R_18", script=CLASSIFY),
        ),
        "paper": (),
    },
    paper={},
    by_epoch=True,
)


def _changed(name: str, *options: str) -> Point:
    return Point("MoCo v2", name, "Imagenette/search/moco_v2_R_18", (*options, *_SHORT))


# A fifth of the run is enough to rank settings of which the best differ little.
_SHORT = ("SOLVER.EPOCHS", "4", "SOLVER.CHECKPOINT_EPOCHS", "4", "TEST.KNN.PERIOD_EPOCHS", "4")
_RECIPE = Ablation(
    title="MoCo v2 on Imagenette: the search for its recipe (by --held-out)",
    x="setting",
    points={
        "imagenette": (
            _changed("start of the search"),
            *(_changed(f"learning rate {lr}", "SOLVER.BASE_LR", lr) for lr in ("0.015", "0.06")),
            *(_changed(f"momentum {m}", "MODEL.MOCO.MOMENTUM", m) for m in ("0.99", "0.999")),
            *(_changed(f"queue {k}", "MODEL.MOCO.QUEUE_SIZE", k) for k in ("256", "2048")),
            *(_changed(f"temperature {t}", "MODEL.MOCO.TEMPERATURE", t) for t in ("0.07", "0.2")),
            _changed("weight decay 0.0005", "SOLVER.WEIGHT_DECAY", "0.0005"),
            *(
                _changed(f"batch {n}, learning rate {lr}", "SOLVER.IMS_PER_BATCH", n, "SOLVER.BASE_LR", lr)
                for n, lr in (("32", "0.015"), ("128", "0.06"))
            ),
            *(_changed(f"crops from {c}", "INPUT.VIEWS.CROP_SCALE", f"({c}, 1.0)") for c in ("0.2", "0.6")),
            *(  # the second round: what helped, together
                _changed(
                    f"learning rate 0.015, queue 256{more}",
                    *("SOLVER.BASE_LR", "0.015", "MODEL.MOCO.QUEUE_SIZE", "256", *options),
                )
                for more, options in (
                    ("", ()),
                    (", crops from 0.2", ("INPUT.VIEWS.CROP_SCALE", "(0.2, 1.0)")),
                    (", momentum 0.999", ("MODEL.MOCO.MOMENTUM", "0.999")),
                )
            ),
        ),
        "paper": (),
    },
    paper={},
)

ABLATIONS = {
    "dictionary": _DICTIONARY,
    "momentum": _MOMENTUM,
    "shuffle_bn": _SHUFFLE_BN,
    "v2": _V2_TABLE,
    "temperature": _TEMPERATURE,
    "methods": _METHODS,
    "recipe": _RECIPE,
}


def untrained_name(scale: str) -> str:
    """The name of the runs that evaluate random weights, against which a point has learned something or not."""
    return f"untrained_{Path(CLASSIFIERS[scale]).stem}"


@functools.lru_cache
def point_name(point: Point) -> str:
    """A name by what a point is made of: its recipe, and the options that say something else than the recipe.

    Points of several ablations with the same name are one and the same.
    """
    options = different_options(point.recipe, point.options) if point.options else ()
    words = [f"{key.split('.')[-1]}={value}" for key, value in zip(options[0::2], options[1::2], strict=True)]
    return re.sub(r"[^\w.=-]+", "-", "_".join([Path(point.recipe).stem, *words]))


def different_options(recipe: str, options: Sequence[str]) -> tuple[str, ...]:
    """Those KEY VALUE pairs that change what the recipe says, sorted by key."""
    base = resolved(recipe)
    changed = base.clone()
    changed.defrost()
    changed.merge_from_list(list(options))
    pairs = sorted(zip(options[0::2], options[1::2], strict=True))
    return tuple(
        word for pair in pairs if value_of(base, pair[0]) != value_of(changed, pair[0]) for word in pair
    )


def recipe_text(point: Point) -> str:
    """What a point's recipe and its bases say, without those of its options; to tell recipes apart."""
    if point.script.startswith("projects/"):  # its keys are known to the project alone
        return yaml.safe_dump(load_yaml(get_config_file(point.recipe)))
    return resolved(point.recipe).dump()


@functools.lru_cache
def resolved(recipe: str) -> CfgNode:
    """What a recipe and its bases say; not to be changed."""
    cfg = get_cfg()
    merge_config(cfg, get_config_file(recipe), [])
    cfg.freeze()
    return cfg
