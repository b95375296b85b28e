"""What a benchmark runs: suites of recipes, inits, seeds and shares of the labels, multiplied out as data."""

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from moco_det.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing, file_sha256, read_backbone
from moco_det.model_zoo import get_config_file, list_inits
from moco_det.overlay_file import PREPROCESSING_KEYS, overlay_text
from moco_det.report.runs import PLAN
from moco_det.run_record import COMMIT
from moco_det.steps import REPOSITORY, schedule_options
from moco_det.tasks import TASKS, task_name

# ---- Suites --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A recipe in a suite.

    Attributes:
        tasks: the names by which ``--tasks`` finds it.
        recipe: its name.
        tool: the script that trains it.
        options: KEY VALUE pairs of the suite.
    """

    tasks: tuple[str, ...]
    recipe: str
    tool: str
    options: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The recipe's YAML; a project has its own ``configs/``, with names of the same form."""
        if self.tool.startswith("projects/"):
            return REPOSITORY / Path(self.tool).parent / "configs" / f"{self.recipe}.yaml"
        return Path(get_config_file(self.recipe))


@dataclass(frozen=True)
class Suite:
    """Recipes that are run together.

    Attributes:
        entries: what it runs.
        world: options of ``tools/make_toyworld.py`` for the scenes that it renders; empty: it has real data sets.
    """

    entries: tuple[Entry, ...]
    world: tuple[str, ...] = ()


def _toy_entries() -> tuple[Entry, ...]:
    """Each toy recipe once: tasks that differ in their data alone share one."""
    sharing: dict[tuple[str, str], list[str]] = {}
    for task in TASKS:
        if task.toy:
            sharing.setdefault((task.toy, task.tool), []).append(task.name)
    return tuple(
        Entry(tuple(names), recipe, tool, (*_toy_schedule(recipe), "TEST.EVAL_AT_START", "True"))
        for (recipe, tool), names in sharing.items()
    )


def _toy_schedule(recipe: str) -> tuple[str, ...]:
    # So that all of them take half an hour on two cores: a step of the R50 recipes takes longer.
    return schedule_options(60 if "R_50" in recipe else 100, evaluations=2)


def _photo_entries() -> tuple[Entry, ...]:
    detector, segmenter = ("MODEL.ROI_HEADS.NUM_CLASSES", "12"), ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "13")
    return tuple(
        Entry((name,), recipe, "tools/train_net.py", (*schedule_options(180), *classes))
        for name, recipe, classes in (
            ("voc-detection", "toy/faster_rcnn_R_18_FPN", detector),
            ("coco-instances", "toy/mask_rcnn_R_18_FPN", detector),
            ("voc-semantic", "toy/semantic_fpn_R_18", segmenter),
        )
    )


SUITES = {
    "paper": Suite(
        tuple(Entry((task.name,), recipe, task.tool) for task in TASKS for recipe in task.recipes)
    ),
    "toy": Suite(
        _toy_entries(),
        world=(
            *("--num-unlabelled", "16", "--num-per-class-train", "2", "--num-per-class-test", "2"),
            *("--num-train", "120", "--num-test", "40"),
        ),
    ),
    "photos": Suite(
        _photo_entries(),
        world=(
            *("--num-unlabelled", "16000", "--num-per-class-train", "40", "--num-per-class-test", "100"),
            *("--num-train", "300", "--num-test", "150"),
        ),
    ),
}


def choose(suite: str, tasks: Sequence[str], recipes: Sequence[str] = ("*",)) -> list[Entry]:
    """The entries of a suite that are asked for.

    Args:
        tasks: names of tasks, or ``["all"]``.
        recipes: patterns as of a shell, of which the recipe's name must match one.

    Raises:
        ValueError: a task is not in the suite, or nothing matches.
    """
    entries = SUITES[suite].entries
    known = list(dict.fromkeys(name for entry in entries for name in entry.tasks))
    for name in tasks:
        if name not in ("all", *known):
            raise ValueError(f"--tasks: the suite {suite} has no task {name!r}; it has: {', '.join(known)}")
    chosen = [
        entry
        for entry in entries
        if {"all", *entry.tasks} & {*tasks}
        and any(fnmatch.fnmatch(entry.recipe, pattern) for pattern in recipes)
    ]
    if not chosen:
        raise ValueError(
            f"--recipes {' '.join(recipes)} matches no recipe of the tasks; there are: "
            f"{', '.join(entry.recipe for entry in entries)}"
        )
    return chosen


# In the benchmark's folder, where overlays of inits are written; and their first line.
INITS = "inits"
TITLE = "Init overlay written by tools/run_benchmark.py"

# ---- Inits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """A way for a backbone to start.

    Attributes:
        name: what tables call it.
        file: its weights; None for those that need none or that detectron2 downloads.
        depth: of the ResNet in the file; None without a file.
        sha256: the file's.
        preprocessing: what the weights want; None without a file.
    """

    name: str
    file: Path | None = None
    depth: int | None = None
    sha256: str = ""
    preprocessing: Preprocessing | None = None

    def words(self, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The flags and the KEY VALUE pairs that start a run so, with overlays in ``folder``."""
        if self.file is None:
            return ("--init", self.name), ()
        if not self.needs_overlay:
            return ("--init", "moco"), ("MODEL.WEIGHTS", str(self.file))
        return ("--init", str(self.overlay(folder))), ()

    @property
    def needs_overlay(self) -> bool:
        """Whether no overlay of configs/init says what its file wants."""
        return bool(self.file) and (self.name, self.preprocessing) != ("moco", TORCHVISION_PREPROCESSING)

    def overlay(self, folder: Path) -> Path:
        return folder / f"resnet{self.depth}" / f"{self.name}.yaml"


def read_starts(words: Sequence[str]) -> list[Start]:
    """What ``--inits`` names: ``random``, ``supervised_torchvision``, ``moco=FILE``, ``mine=R18.pkl,R50.pkl`` …

    Raises:
        ValueError: an unknown name without a file, a name twice, or a file that convert did not write.
    """
    starts = []
    for word in words:
        name, given, files = word.partition("=")
        if not re.fullmatch(r"[\w.-]+", name) or name in {start.name for start in starts}:
            raise ValueError(
                f"--inits: {word!r}; expected different names of letters, digits, '-', '_' and '.', each alone or "
                "with =FILE"
            )
        if not given and (name == "moco" or name not in list_inits()):
            known = ", ".join(known for known in list_inits() if known != "moco")
            raise ValueError(
                f"--inits: {name!r} needs a weight file: {name}=backbone.pkl; without one there are: {known}"
            )
        starts += [_read_start(name, Path(file)) for file in files.split(",")] if given else [Start(name)]
    return starts


def _read_start(name: str, file: Path) -> Start:
    if not file.is_file():
        raise ValueError(f"--inits: {name}={file}: there is no such file (looked in {os.getcwd()!r})")
    found = read_backbone(file)
    depth = re.fullmatch(r"\D*(\d+)\D*", str(found.provenance.get("arch", "")))
    if found.preprocessing is None or depth is None:
        raise ValueError(
            f"--inits: {file} does not say what it is; write it with tools/convert_to_d2.py, which takes "
            "checkpoints of many kinds"
        )
    return Start(name, file.resolve(), int(depth[1]), file_sha256(file), found.preprocessing)


def write_overlays(starts: Sequence[Start], folder: Path) -> None:
    """Write the overlays of the inits that need one."""
    for start in starts:
        if start.needs_overlay:
            path, record = start.overlay(folder), start.preprocessing.to_dict()
            values = {key: record[field] for field, key in PREPROCESSING_KEYS.items()}
            weights = {"MODEL.WEIGHTS": os.path.relpath(start.file, path.parent)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(overlay_text(TITLE, (), weights | values), encoding="utf-8")


# ---- The runs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """One run of the matrix.

    Attributes:
        folder: its OUTPUT_DIR below the benchmark's.
        task: what its run.json calls it.
        fingerprint: what it is made of, beyond its command; a run of another one is another run.
    """

    folder: str
    task: str
    init: str
    seed: int
    iterations: int
    command: tuple[str, ...]
    fingerprint: dict[str, str]


def make_plan(
    entries: Sequence[Entry],
    starts: Sequence[Start],
    seeds: int,
    fractions: Sequence[float],
    output: Path,
    flags: Sequence[str] = (),
    options: Sequence[str] = (),
    world: Path | None = None,
) -> list[Planned]:
    """Every run, seed by seed, so that a benchmark that is cut has whole comparisons.

    Args:
        seeds: how many; they are 1, 2, …
        fractions: shares of the labels.
        flags: of the script, such as ``("--num-gpus", "1")``.
        options: KEY VALUE pairs for all runs, over those of the suite.
        world: toyworld.json of the scenes that are trained on, if any.

    Raises:
        ValueError: an init has no weights for the depth of a recipe.
    """
    shown = hashlib.sha256(world.read_bytes()).hexdigest() if world and world.exists() else ""
    planned = []
    for seed in range(1, seeds + 1):
        for entry in entries:
            recipe = _resolve(entry.file)
            for fraction in fractions:
                for start in _starts_of(entry, recipe, starts):
                    pairs = (*entry.options, *options, *_share(fraction), "SEED", str(seed))
                    planned.append(
                        _plan_run(entry, recipe, start, seed, fraction, output, flags, pairs, shown)
                    )
    return planned


def _plan_run(entry, recipe, start, seed, fraction, output, flags, pairs, world) -> Planned:
    name = entry.recipe + ("" if fraction == 1 else f"_labels{fraction:g}")
    folder = f"{name}/{start.name}_seed{seed}"
    init, weights = start.words(output / INITS)
    command = (
        *(str(REPOSITORY / entry.tool), "--config-file", str(entry.file), *init, "--resume", *flags),
        *(*pairs, *weights, "OUTPUT_DIR", str(output / folder)),
    )
    settings = dict(zip(pairs[0::2], pairs[1::2], strict=True))
    iterations = int(settings.get("SOLVER.MAX_ITER") or recipe["SOLVER"]["MAX_ITER"])
    text = json.dumps([recipe, settings], sort_keys=True, default=str)
    fingerprint = {
        "recipe": hashlib.sha256(text.encode()).hexdigest()[:12],
        "code": COMMIT,
        "weights": start.sha256[:12],
        "scenes": world[:12],
    }
    return Planned(
        folder, task_name(entry.recipe, fraction), start.name, seed, iterations, command, fingerprint
    )


def _resolve(file: Path) -> dict:
    """What a recipe and its bases say, detectron2's defaults left out."""
    if not file.is_file():
        raise ValueError(f"the recipe {file} does not exist")
    return CfgNode.load_yaml_with_base(str(file), allow_unsafe=False)


def _share(fraction: float) -> tuple[str, ...]:
    return () if fraction == 1 else ("DATASETS.LABEL_FRACTION", f"{fraction:g}")


def _starts_of(entry: Entry, recipe: dict, starts: Sequence[Start]) -> list[Start]:
    """Of each init the weights that fit the recipe's depth."""
    resnets = recipe.get("MODEL", {}).get("RESNETS", {})
    depth, frozen = resnets.get("DEPTH", 50), resnets.get("NORM") == "FrozenBN"
    fitting = []
    for name in dict.fromkeys(start.name for start in starts):
        if frozen and not name.startswith("supervised"):
            continue  # the paper's own comparison: frozen statistics are those of labels
        own = [start for start in starts if start.name == name]
        found = [s for s in own if s.depth == depth or (s.file is None and (name == "random" or depth == 50))]
        if not found:
            there = ", ".join(f"ResNet-{s.depth or 50}" for s in own)
            raise ValueError(
                f"--inits: {name} has weights for {there}, but {entry.recipe} (--tasks {entry.tasks[0]}) is a "
                f"ResNet-{depth}; give both files, {name}=FILE,FILE, or other --tasks"
            )
        fitting.append(found[0])
    return fitting


def settle_plan(planned: Sequence[Planned], output: Path) -> None:
    """Write what is run into ``output``, or refuse to go on with runs as others.

    Runs that are planned no longer stay in the plan: what was begun is part of the table.

    Raises:
        ValueError: a run that was begun there has another recipe, code, weights or scenes; both are named.
    """
    path = output / PLAN
    known = json.loads(path.read_text())["runs"] if path.exists() else {}
    for run in planned:
        old = known.get(run.folder, {}).get("fingerprint", run.fingerprint)
        if old != run.fingerprint and (output / run.folder).exists():
            differing = [
                f"{key} {old.get(key)!r} then, {value!r} now"
                for key, value in run.fingerprint.items()
                if old.get(key) != value
            ]
            raise ValueError(
                f"{output / run.folder} was begun as another run ({'; '.join(differing)}); results of different "
                "runs are never mixed: give another --output, or remove that folder"
            )
    entries = {
        run.folder: {
            **{name: getattr(run, name) for name in ("task", "iterations", "init", "seed", "fingerprint")},
            "command": list(run.command),
        }
        for run in planned
    }
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": known | entries}, indent=1) + "\n")
