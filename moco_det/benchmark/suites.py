"""What a benchmark can run: the paper's recipes, toy recipes of the same tasks, and scenes of photographs."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moco_det.benchmark.steps import schedule_options
from moco_det.model_zoo import get_config_file
from moco_det.model_zoo.tasks import TASKS, Task


@dataclass(frozen=True)
class Entry:
    """A recipe in a suite.

    Attributes:
        tasks: the names by which ``--tasks`` finds it.
        recipe: its name.
        tool: the script that trains it.
        options: KEY VALUE pairs of the suite.
        maker: see :class:`moco_det.model_zoo.tasks.Task`'s ``toy_maker``.
    """

    tasks: tuple[str, ...]
    recipe: str
    tool: str
    options: tuple[str, ...] = ()
    maker: tuple[str, str] | None = None

    @property
    def file(self) -> Path:
        """The recipe's YAML."""
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
    sharing: dict[str, list[Task]] = {}
    for task in TASKS:
        sharing.setdefault(task.toy, []).append(task)
    return tuple(
        Entry(
            tuple(task.name for task in tasks),
            recipe,
            tasks[0].tool,
            (*_toy_schedule(recipe), "TEST.EVAL_AT_START", "True"),
            tasks[0].toy_maker,
        )
        for recipe, tasks in sharing.items()
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
            *("--num-unlabeled", "16", "--num-per-class-train", "2", "--num-per-class-test", "2"),
            *("--num-train", "120", "--num-test", "40"),
        ),
    ),
    "photos": Suite(
        _photo_entries(),
        world=(
            *("--num-unlabeled", "16000", "--num-per-class-train", "40", "--num-per-class-test", "100"),
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
