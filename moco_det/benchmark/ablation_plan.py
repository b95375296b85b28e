"""The runs of ablations: each point with each seed is pre-trained and then evaluated, and runs are never mixed."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moco_det.benchmark.plan import check_options
from moco_det.benchmark.steps import REPOSITORY, Step
from moco_det.data.shards import is_shard, shards_of
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import read_run_record, running_commit
from moco_det.model_zoo import CONFIGS, get_config_file
from moco_det.model_zoo.ablations import (
    ABLATIONS,
    CLASSIFIERS,
    CLASSIFY,
    PRETRAIN,
    different_options,
    point_name,
    recipe_text,
    resolved,
    untrained_name,
)
from moco_det.report.ablation_results import KNN, LINEAR, STAGE
from moco_det.report.runs import Curve, Incomplete, Run, read_curves, run_from_record
from moco_det.utils.metric_names import ACCURACY, KNN_ACCURACY, PRETEXT_ACCURACY

PLAN = "plan.json"
WEIGHTS = "model_final.pth"


@dataclass(frozen=True)
class AblationRun:
    """A point with a seed. Ablations that share a point share its runs.

    Attributes:
        name: of the point, see :func:`point_name`, or of random weights, see :func:`untrained_name`.
        recipe: of pre-training; empty: none, random weights are evaluated.
        script: that trains it.
        options: KEY VALUE pairs over the point's recipe.
        fingerprint: what it is made of; a run of another one is another run.
        measure: KEY VALUE pairs of the linear probe and of kNN.
    """

    name: str
    recipe: str
    options: tuple[str, ...]
    seed: int
    classifier: str
    fingerprint: dict[str, str]
    script: str = PRETRAIN
    measure: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Below the output; ``pretrain`` and ``classify`` are in it."""
        return f"runs/{self.name}/seed{self.seed}"


def plan_ablations(
    names: Sequence[str],
    scale: str,
    seeds: int,
    unlabeled: Path,
    classes: Path,
    options: Sequence[str] = (),
    held_out: float = 0.0,
) -> list[AblationRun]:
    """Every run, and random weights to compare with, seed by seed, so that what is interrupted has whole curves.

    Args:
        names: of ABLATIONS.
        seeds: how many; they are 1, 2, …
        unlabeled: images, a folder or a list file; classes: the labeled set to evaluate on.
        options: KEY VALUE pairs for every pre-training, over those of the points.
        held_out: fraction of the labeled training images to evaluate on instead of val/ (TEST.HELD_OUT).
    """
    check_options(options)
    classifier, measure = CLASSIFIERS[scale], ("TEST.HELD_OUT", f"{held_out:g}") if held_out else ()
    shown = {"images": fingerprint_images(unlabeled), "classes": fingerprint_images(classes)}
    points = [point for name in names for point in ABLATIONS[name].points[scale]]
    runs = {}
    for seed in range(1, seeds + 1):
        text = json.dumps([resolved(classifier).dump(), measure])
        fingerprint = {"recipe": _digest(text), "code": running_commit(), "classes": shown["classes"]}
        run = AblationRun(untrained_name(scale), "", (), seed, classifier, fingerprint, measure=measure)
        runs[run.folder] = run
        for point in points:
            own = different_options(point.recipe, point.options) if point.options else ()
            own = (*own, *options)
            text = json.dumps([recipe_text(point), resolved(classifier).dump(), own, measure])
            fingerprint = {"recipe": _digest(text), "code": running_commit(), **shown}
            name = point_name(point)
            run = AblationRun(name, point.recipe, own, seed, classifier, fingerprint, point.script, measure)
            runs.setdefault(run.folder, run)
    return list(runs.values())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def fingerprint_images(where: Path) -> str:
    """12 hex digits of the names and sizes of all files in a folder or of shards, or of the text of a list file.

    Raises:
        ValueError: there is no such folder or file.
    """
    if is_shard(where.name) and not where.is_dir():
        sizes = "".join(f"{Path(shard).name} {os.path.getsize(shard)}\n" for shard in shards_of(str(where)))
        return hashlib.sha256(sizes.encode()).hexdigest()[:12]
    if where.is_file():
        return hashlib.sha256(where.read_bytes()).hexdigest()[:12]
    if not where.is_dir():
        raise ValueError(f"{where} is no folder, no shards and no list file; give --images and --classes")
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(where):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            digest.update(f"{path.relative_to(where)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def chain_of(
    run: AblationRun, output: Path, unlabeled: Path, classes: Path, flags: Sequence[str]
) -> tuple[Step, ...]:
    """Pre-train, then evaluate by linear probe and kNN; then the weights go, since tens of runs would fill a disk.

    Args:
        flags: of both tools, such as ``("--num-gpus", "0")``.
    """
    folder = output / run.folder
    pretrained, evaluated = folder / "pretrain", folder / "classify"
    seed = ("SEED", str(run.seed))
    steps = []
    if run.recipe:
        supervised = run.script == CLASSIFY
        where = classes if supervised else unlabeled
        watched = () if supervised else ("TEST.KNN.IMAGES", str(classes))
        pairs = (*watched, *run.options, *run.measure, *seed, "OUTPUT_DIR", str(pretrained))
        words = (
            str(REPOSITORY / run.script),
            "--config-file",
            _from_here(run.recipe),
            "--images",
            str(where),
        )
        name = f"pre-train {run.name}, seed {run.seed}"
        steps = [Step(name, (*words, "--resume", *flags, *pairs), pretrained / RECORD, alongside=True)]
    weights = ("--weights", str(pretrained / WEIGHTS)) if run.recipe else ()
    classify = Step(
        f"evaluate {run.name}, seed {run.seed}",
        (str(REPOSITORY / CLASSIFY), "--config-file", _from_here(run.classifier), *weights)
        + ("--images", str(classes), *flags, "OUTPUT_DIR", str(evaluated), *run.measure, *seed),
        evaluated / RECORD,
        alongside=True,
        check=WeightsRemoval(folder),
    )
    return (*steps, classify)


def _from_here(recipe: str) -> str:
    """The path of a recipe below the checkout, from which the tools are started."""
    return os.path.relpath(get_config_file(recipe), CONFIGS.parent)


@dataclass(frozen=True)
class WeightsRemoval:
    """Removes the weights and cached features below a run's folder; its records, curves and logs stay."""

    folder: Path

    def __call__(self) -> None:
        for path in self.folder.rglob("*.pth"):
            path.unlink()
        shutil.rmtree(self.folder / "classify/features", ignore_errors=True)
        for path in self.folder.rglob("last_checkpoint"):
            path.unlink()


def read_ablation_run(planned: AblationRun, output: Path) -> Run:
    """The pre-training, if there is one, and its evaluation as one run; its task is the name of the point.

    Raises:
        ValueError: one of the two is not finished.
    """
    folder = output / planned.folder
    evaluated = read_run_record(folder / "classify")
    measured = {name: evaluated["metrics"].get(name) for name in (LINEAR, KNN)}
    if not planned.recipe:
        extra = {**evaluated["extra"], "task": planned.name}
        return run_from_record({**evaluated, "stage": STAGE, "metrics": measured, "extra": extra}, {}, folder)
    pretrain = read_run_record(folder / "pretrain")
    curves, notes = read_curves(folder / "pretrain/metrics.json")
    record = {
        **pretrain,
        "stage": STAGE,
        "command": f"{pretrain['command']}\n{evaluated['command']}",
        "seconds": pretrain["seconds"] + evaluated["seconds"],
        "metrics": {**pretrain["metrics"], **measured},
        "extra": {
            **pretrain["extra"],
            "task": planned.name,
            "recipe": planned.recipe,
            "options": list(planned.options),
            "classify": {
                name: evaluated[name] for name in ("commit", "config_hash", "recipe_hash", "seconds")
            },
        },
    }
    return run_from_record(record, epoch_curves(curves), folder, tuple(notes))


def epoch_curves(curves: dict[str, Curve]) -> dict[str, Curve]:
    """kNN accuracy, and that of the pretext task as its mean since the kNN measurement before; both in percent."""
    knn = curves.get(KNN_ACCURACY, [])
    pretext, since = [], -1
    for iteration, _ in knn:
        values = [value for at, value in curves.get(ACCURACY, []) if since < at <= iteration]
        if values:
            pretext.append((iteration, 100 * sum(values) / len(values)))
        since = iteration
    found = {KNN_ACCURACY: knn, PRETEXT_ACCURACY: pretext}
    return {name: curve for name, curve in found.items() if curve}  # supervised training has neither


def read_ablation_runs(planned: Sequence[AblationRun], output: Path) -> tuple[list[Run], list[Incomplete]]:
    """Finished runs, and those that are not."""
    runs, incomplete = [], []
    for one in planned:
        try:
            runs.append(read_ablation_run(one, output))
        except ValueError as error:
            incomplete.append(Incomplete(output / one.folder, str(error), (one.name, 0, "none")))
    return runs, incomplete
