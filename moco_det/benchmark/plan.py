"""The runs of a benchmark: recipes x inits x seeds x fractions of the labels, and what is never mixed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detectron2.config import CfgNode

from moco_det.benchmark.inits import INITS, Start
from moco_det.benchmark.steps import REPOSITORY
from moco_det.benchmark.suites import Entry
from moco_det.config import get_cfg, merge_config
from moco_det.config.rules import ROWS
from moco_det.engine.record import running_commit
from moco_det.model_zoo.tasks import task_name
from moco_det.report.runs import PLAN


@dataclass(frozen=True)
class Planned:
    """One run of the matrix.

    Attributes:
        folder: its OUTPUT_DIR below the benchmark's.
        task: what its run.json calls it.
        fingerprint: what it is made of, beyond its command; a run of another one is another run.
        extra: what the report is to know of it, beyond its record.
    """

    folder: str
    task: str
    init: str
    seed: int
    iterations: int
    command: tuple[str, ...]
    fingerprint: dict[str, str]
    extra: dict[str, object] = field(default_factory=dict)


def check_options(options: Sequence[str]) -> None:
    """Refuse now what each run would refuse of the KEY VALUE pairs that are handed to all of them.

    Raises:
        ValueError: a key is unknown, a value of another kind, or it is one that differs from run to run.
    """
    for key in options[0::2]:
        if key in ROWS and ROWS[key].each_run:
            raise ValueError(f"{key} cannot be given after --: it is another one for each run; leave it out")
    merge_config(get_cfg(), "", list(options))


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
    """Every run, seed by seed, so that an interrupted benchmark has whole comparisons.

    Args:
        seeds: how many; they are 1, 2, …
        fractions: fractions of the labels.
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
        "code": running_commit(),
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
    """The weights of each init that fit the recipe's depth."""
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
    """Write what is run into ``output``, or refuse to continue runs as others.

    Raises:
        ValueError: a run that was started there has another recipe, code, weights or scenes; both are named.
    """
    entries = {
        run.folder: {
            **{
                name: getattr(run, name)
                for name in ("task", "iterations", "init", "seed", "fingerprint", "extra")
            },
            "command": list(run.command),
        }
        for run in planned
    }
    settle_runs(entries, output / PLAN)


def settle_runs(entries: Mapping[str, dict], path: Path) -> None:
    """Write what the folders beside the file ``path`` are made of, or refuse to continue one as another run.

    Runs that are planned no longer stay in the plan: what was started is part of the table.

    Args:
        entries: of each run's folder, what is known of it; ``"fingerprint"`` is what it is made of.

    Raises:
        ValueError: a run that was started has another fingerprint; both are named.
    """
    known = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name, entry in entries.items():
        folder, new = path.parent / name, entry["fingerprint"]
        old = known.get(name, {}).get("fingerprint", new)
        if old != new and folder.exists():
            differing = [
                f"{key} {old.get(key)!r} then, {value!r} now"
                for key, value in new.items()
                if old.get(key) != value
            ]
            raise ValueError(
                f"{folder} was started as another run ({'; '.join(differing)}); results of different "
                "runs are never mixed: give another --output, or remove that folder"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": known | {**entries}}, indent=1) + "\n")
