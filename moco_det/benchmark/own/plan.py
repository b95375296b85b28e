"""The steps of a study of the user's own data: starts of the backbone, pre-training, runs of fine-tuning."""

import ast
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torchvision.models import get_model_weights

from moco_det.benchmark.inits import Start, read_starts
from moco_det.benchmark.own.data import OwnData
from moco_det.benchmark.own.sizes import Choice
from moco_det.benchmark.plan import Planned
from moco_det.benchmark.steps import REPOSITORY, Step, schedule_options
from moco_det.config.overlays import overlay_text
from moco_det.data.image_files import names_digest
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import running_commit
from moco_det.model_zoo import CONFIGS
from moco_det.model_zoo.tasks import task_name
from moco_det.report.own import LONG, SHORT
from moco_det.weights.backbone_file import file_sha256
from moco_det_cli.parsers.choices import OWN_INITS as INITS

RANDOM, OWN, SUPERVISED, FROM_SUPERVISED, COCO = INITS
PRETRAINED = (OWN, FROM_SUPERVISED)
COCO_RECIPE = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"
# How that detector wants its input (detectron2's MSRA weights), and that its FPN is without norms.
COCO_OVERLAY = {
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "INPUT.FORMAT": "BGR",
}
COCO_PAIRS = ("MODEL.FPN.NORM", "")
TITLE = "Written by moco-det benchmark own"
STUDY = "study"  # the folder of all that the report shows
EVALUATIONS = 4  # of a run


@dataclass(frozen=True)
class Study:
    """What is run; the part of it that a budget of hours can change.

    Attributes:
        shares: of the labels, smallest first.
        lengths: of the schedules, as multiples of the short one.
        short: iterations of the short schedule for each share.
        epochs: of pre-training.
    """

    shares: tuple[float, ...]
    lengths: tuple[int, ...]
    short: tuple[int, ...]
    epochs: int

    @property
    def schedules(self) -> list[tuple[float, str, int]]:
        """(share, name of the schedule, iterations), the longest last."""
        return [
            (share, SHORT if length == self.lengths[0] else LONG, length * iterations)
            for length in self.lengths
            for share, iterations in zip(self.shares, self.short, strict=True)
        ]


@dataclass(frozen=True)
class OwnStart:
    """How a detector starts in a study.

    Attributes:
        name: what tables call it.
        init: what ``--init`` of fine-tuning is given.
        digest: of the weights, or of what makes them.
        source: the file that it is made of, where there is one before the study.
        pairs: KEY VALUE pairs that this start needs.
    """

    name: str
    init: str
    digest: str = ""
    source: str = ""
    pairs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipes:
    """The YAML files of a study: of fine-tuning and of pre-training, with their content and its digests."""

    detector: Path
    pretraining: Path
    texts: dict[Path, str] = field(default_factory=dict)

    def at(self, output: Path) -> "Recipes":
        """The same recipes in another folder."""
        texts = {output / "own" / path.name: text for path, text in self.texts.items()}
        return Recipes(*texts, texts)

    def write(self) -> None:
        for path, text in self.texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def make_recipes(
    output: Path,
    data: OwnData,
    bases: tuple[str, str],
    choices: tuple[Sequence[Choice], Sequence[Choice]],
    given: tuple[Mapping[str, object], Mapping[str, object]],
) -> Recipes:
    """The two recipes.

    Args:
        bases: files below configs/, the detector's first; so in the others.
        choices: those of the rules.
        given: keys of the user, over those.
    """
    detector, pretraining = (
        output / f"own/{data.facts.name}{ending}.yaml" for ending in ("", "_pretraining")
    )
    texts = {}
    for path, base, chosen, over in zip((detector, pretraining), bases, choices, given, strict=True):
        values = {key: value for choice in chosen for key, value in choice.keys.items()} | {**over}
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
        if path == detector:
            sets = {"DATASETS.TRAIN": [data.train], "DATASETS.TEST": [data.test]}
            values = {"MODEL.MASK_ON": False, **sets, **values}
        notes = [f"{choice.what}: {choice.reason}." for choice in chosen]
        head, *rest = overlay_text(TITLE, notes, values).split("\n")
        texts[path] = "\n".join([head, f'_BASE_: "{CONFIGS / base}"', *rest])
    return Recipes(detector, pretraining, texts)


def given_keys(words: Sequence[str]) -> dict[str, object]:
    """KEY VALUE pairs of a command line with their values read as Python's, where they are that."""
    if len(words) % 2:
        raise ValueError(f"options must be KEY VALUE pairs; found {len(words)} words: {' '.join(words)}")
    found = {}
    for key, word in zip(words[0::2], words[1::2], strict=True):
        try:
            found[key] = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            found[key] = word
    return found


def recipe_digest(text: str) -> str:
    """12 hex digits of what a recipe and its bases say, wherever they lie."""
    values = CfgNode.load_cfg(text)
    base = values.pop("_BASE_")
    content = [CfgNode.load_yaml_with_base(str(base)), values]
    return _digest(content)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


# ---- how detectors start ---------------------------------------------------------------------------------------


def make_starts(
    words: Sequence[str], depth: int, output: Path, pretraining: str
) -> tuple[list[OwnStart], list[str]]:
    """The starts of a study, and a sentence on each one that is left out.

    Args:
        words: names of ``INITS``, each alone or with ``=FILE``, and further ``name=FILE``.
        pretraining: digest of pre-training's recipe and images.

    Raises:
        ValueError: a file that was given is not there, a name is unknown, or random weights are not among them.
    """
    asked = dict(word.partition("=")[::2] for word in words)
    if RANDOM not in asked or len(asked) < 2:
        raise ValueError(
            f"--inits {' '.join(words)}: expected {RANDOM}, against which all is compared, and one or more "
            f"others of {', '.join(INITS)} or NAME=FILE"
        )
    starts, left_out = [], []
    supervised = ""
    if {SUPERVISED, FROM_SUPERVISED} & {*asked}:
        supervised, reason = _found(asked.get(SUPERVISED, ""), SUPERVISED, lambda: _torchvision_file(depth))
        left_out += [
            f"{name} is left out: {reason}"
            for name in (SUPERVISED, FROM_SUPERVISED)
            if name in asked and reason
        ]
    digest = file_sha256(supervised)[:12] if supervised else ""
    for name in asked:
        file = str(output / f"inits/{name}.pkl")
        if name == RANDOM:
            starts.append(OwnStart(name, name))
        elif name == OWN:
            starts.append(OwnStart(name, file, pretraining))
        elif name == SUPERVISED and supervised:
            starts.append(OwnStart(name, file, digest, supervised))
        elif name == FROM_SUPERVISED and supervised:
            starts.append(OwnStart(name, file, f"{pretraining} from {digest}", supervised))
        elif name == COCO:
            detector, reason = _found(asked[COCO], COCO, lambda: _coco_file(depth))
            left_out += [f"{name} is left out: {reason}"] if reason else []
            overlay = str(output / f"inits/{name}.yaml")
            if detector:
                digest = file_sha256(detector)[:12]
                starts.append(OwnStart(name, overlay, digest, detector, COCO_PAIRS))
        elif name not in INITS:
            start = read_starts([f"{name}={asked[name]}"])[0] if asked[name] else None
            starts.append(_further(start, name, file, depth))
    return starts, left_out


def _found(given: str, name: str, fetch) -> tuple[str, str]:
    """The file that was given or fetched, or why there is none."""
    if given:
        if not os.path.isfile(given):
            raise ValueError(f"--inits {name}={given}: there is no such file (looked in {os.getcwd()!r})")
        return os.path.abspath(given), ""
    try:
        return fetch(), ""
    except (OSError, ValueError) as error:
        return "", f"{error}; give the file, {name}=FILE"


def _torchvision_file(depth: int) -> str:
    url = get_model_weights(f"resnet{depth}").IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise ValueError(f"{url} could not be fetched ({error})") from error
    return str(path)


def _coco_file(depth: int) -> str:
    if depth != 50:
        raise ValueError(f"detectron2 has no COCO detector with ResNet-{depth}-FPN")
    url = detectron2_zoo.get_checkpoint_url(COCO_RECIPE)
    try:
        return PathManager.get_local_path(url)
    except OSError as error:
        raise ValueError(f"{url} could not be fetched ({error})") from error


def _further(start: Start | None, name: str, file: str, depth: int) -> OwnStart:
    if start is None:
        raise ValueError(
            f"--inits: {name!r} needs a weight file, {name}=backbone.pkl; without one there are: "
            f"{', '.join(INITS)}"
        )
    if start.depth != depth:
        raise ValueError(
            f"--inits: {name} has weights for ResNet-{start.depth}, but the detector has ResNet-{depth}; "
            f"give --depth {start.depth}, or another file"
        )
    # The file's stem would be the name in the tables: it is copied under its own.
    return OwnStart(name, file, start.sha256[:12], str(start.file))


def pretraining_digest(recipes: Recipes, data: OwnData, leaks: Sequence[str]) -> str:
    """12 hex digits of what pre-training is made of, wherever the images lie."""
    left_out = set(leaks)
    kept = [path for path in data.unlabeled if os.path.abspath(path) not in left_out]
    recipe = recipe_digest(recipes.texts[recipes.pretraining])
    return _digest([recipe, names_digest(kept, os.path.commonpath(kept)), running_commit()])


# ---- steps -----------------------------------------------------------------------------------------------------


def tool(name: str) -> str:
    """The path of a script of tools/."""
    return str(REPOSITORY / "tools" / name)


def pretraining_command(
    recipes: Recipes, data: OwnData, output: Path, flags: Sequence[str], leaks: bool
) -> tuple[str, ...]:
    """Pre-training from random weights, without where it writes."""
    where = ("--images", os.path.abspath(data.where)) if data.where else ()
    pairs = () if data.where else ("DATASETS.TRAIN", f"('{data.train}',)")
    exclude = ("--exclude", str(output / "leaks.txt")) if leaks else ()
    return (
        *(tool("pretrain_moco.py"), "--config-file", str(recipes.pretraining), *where, *exclude, *flags),
        *(*pairs, "TEST.KNN.IMAGES", str(output / "knn"), "SEED", "0"),
    )


def start_steps(starts: Sequence[OwnStart], command: Sequence[str], output: Path) -> list[Step]:
    """Pre-training where a start needs it, and the conversion of weights: one after the other.

    Args:
        command: of :func:`pretraining_command`.
    """
    steps = []
    for start in starts:
        source = start.source
        if start.name in PRETRAINED:
            folder = output / STUDY / "pretrain" / start.name
            weights = ("MODEL.WEIGHTS", source) if source else ()
            words = (command[0], "--resume", *command[1:], *weights, "OUTPUT_DIR", str(folder))
            steps.append(Step(f"pre-train: {INITS[start.name]}", words, folder / RECORD))
            source = str(folder / "model_final.pth")
        if start.name in (*PRETRAINED, SUPERVISED):
            words = (tool("convert_to_d2.py"), source, start.init)
            steps.append(Step(f"convert the weights of {start.name}", words, Path(start.init)))
    return steps


@dataclass(frozen=True)
class RunPlan:
    """What all runs of fine-tuning have in common.

    Attributes:
        rates: a learning rate for each start that was tuned.
        flags: options of ``tools/train_net.py``.
        output: folder of the runs.
    """

    data: OwnData
    recipes: Recipes
    rates: Mapping[str, float]
    flags: Sequence[str]
    output: Path

    @functools.cached_property
    def digest(self) -> str:
        return recipe_digest(self.recipes.texts[self.recipes.detector])

    def all(self, study: Study, starts: Sequence[OwnStart], seeds: Sequence[int]) -> list[Planned]:
        """Schedule by schedule and seed by seed, so that what is cut has whole comparisons."""
        names = dict.fromkeys(name for _, name, _ in study.schedules)
        return [
            self.run(share, name, iterations, start, seed)
            for schedule in names
            for seed in seeds
            for share, name, iterations in study.schedules
            if name == schedule
            for start in starts
        ]

    def run(self, share: float, schedule: str, iterations: int, start: OwnStart, seed: int) -> Planned:
        """One of them."""
        folder = f"labels{100 * share:g}/{iterations}_{start.name}_seed{seed}"
        rate = self.rates.get(start.name)
        pairs = (
            *schedule_options(iterations, EVALUATIONS),
            *("SOLVER.WARMUP_ITERS", str(max(1, min(1000, iterations // 20)))),
            *("SOLVER.CHECKPOINT_PERIOD", str(max(1, iterations // 4))),
            *(("DATASETS.LABEL_FRACTION", f"{share:g}") if share != 1 else ()),
            *start.pairs,
            *(("SOLVER.BASE_LR", f"{rate:g}") if rate else ()),
        )
        command = (
            *(tool("train_net.py"), "--config-file", str(self.recipes.detector), "--init", start.init),
            *("--resume", *self.flags, *pairs, "SEED", str(seed), "OUTPUT_DIR", str(self.output / folder)),
        )
        # What all starts of a comparison share; and what is this run's alone.
        common = {
            "recipe": _digest([self.digest, share, iterations]),
            "code": running_commit(),
            "data": self.data.digest,
        }
        fingerprint = {**common, "weights": start.digest, "options": _digest([start.pairs, rate])}
        extra = {
            "study": _digest(common),
            "labeled_images": max(1, round(share * self.data.facts.num_images)),
            "schedule": schedule,
            "fingerprint": _digest([fingerprint, start.name, seed]),
            **({"learning_rate": rate} if rate else {}),
        }
        task = task_name(f"own/{self.data.facts.name}", share)
        return Planned(folder, task, start.name, seed, iterations, command, fingerprint, extra)


def run_step_of(planned: Planned, output: Path) -> Step:
    """The step of a planned run; when it is done its checkpoints go, but for the last."""
    folder = output / planned.folder
    title = f"{planned.task} from {planned.init}, {planned.iterations:,} iterations, seed {planned.seed}"

    def remove_checkpoints() -> None:
        for path in folder.glob("model_0*.pth"):
            path.unlink()

    return Step(title, planned.command, folder / RECORD, alongside=True, check=remove_checkpoints)
