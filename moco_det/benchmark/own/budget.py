"""How long a study takes, from a trial on this machine, and what it gives up to fit into a number of hours."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from moco_det.benchmark.own.plan import EVALUATIONS, Study
from moco_det.benchmark.own.sizes import SHORTEST
from moco_det.benchmark.steps import REPOSITORY, Step, run_steps
from moco_det.data.sample_order import steps_per_epoch
from moco_det.engine.record import read_run_record

TRIAL_ITERATIONS = 24
SHORTER = (0.85, 0.7, 0.5)  # what is left of schedules and pre-training; less would be another question
LENGTH = "length: "
START_SECONDS = 15.0  # imports and checks of a process


@dataclasses.dataclass(frozen=True)
class Speed:
    """What the trial measured, in seconds: an iteration of fine-tuning, an evaluation, a step of pre-training."""

    iteration: float
    evaluation: float
    pretraining_step: float


def measure(
    command: Sequence[str], pretraining: Sequence[str], jobs: int, gpus: Sequence[str], folder: Path
) -> Speed:
    """Carry out a few steps as the study would, as many runs at a time.

    Args:
        command: a run of fine-tuning from random weights; pretraining: of pre-training.
        folder: where they write.

    Raises:
        ValueError: one of them cannot run.
    """
    short = ("SOLVER.MAX_ITER", str(TRIAL_ITERATIONS), "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", "0")
    places = [folder / f"trial{number}" for number in range(jobs)]
    steps = [
        Step(
            "trial of fine-tuning",
            (*command, *short, "OUTPUT_DIR", str(p)),
            p / "run.json",
            alongside=True,
        )
        for p in places
    ]
    run_steps(steps, folder / "logs", jobs, gpus)
    each = [_iteration_seconds(place) for place in places]
    rest = [
        read_run_record(place)["seconds"] - TRIAL_ITERATIONS * seconds
        for place, seconds in zip(places, each, strict=True)
    ]
    step = _pretraining_step_seconds([*pretraining, "OUTPUT_DIR", str(folder / "pretraining")])
    return Speed(max(each), max(0.0, *rest), step)


def _iteration_seconds(folder: Path) -> float:
    """The median of the last twenty iterations."""
    times = [json.loads(line).get("time") for line in (folder / "metrics.json").read_text().splitlines()]
    return [seconds for seconds in times if seconds is not None][-1]


def _pretraining_step_seconds(command: Sequence[str]) -> float:
    print("trial of pre-training", flush=True)
    words = [sys.executable, "-W", "ignore", command[0], "--plan", *command[1:]]  # flags go before pairs
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
    found = re.search(r"([\d.e+-]+) s a step", done.stdout)
    if done.returncode or not found:
        end = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ValueError(f"pre-training cannot start: {' '.join(end)}")
    return float(found[1])


@dataclasses.dataclass(frozen=True)
class Costs:
    """What the hours of a study follow from, beside the study itself.

    Attributes:
        pretrainings: how many; batch: of each; unlabeled: images.
        starts, seeds: how many; tuning: runs of the shortest schedule; jobs: runs at a time.
    """

    speed: Speed
    pretrainings: int
    batch: int
    unlabeled: int
    starts: int
    seeds: int
    tuning: int
    jobs: int

    def run_hours(self, iterations: int) -> float:
        """Of one run of fine-tuning."""
        speed = self.speed
        return (START_SECONDS + iterations * speed.iteration + EVALUATIONS * speed.evaluation) / 3600

    def pretraining_hours(self, study: Study) -> float:
        steps = study.epochs * steps_per_epoch(self.unlabeled, self.batch)
        return self.pretrainings * (START_SECONDS + steps * self.speed.pretraining_step) / 3600

    def hours(self, study: Study) -> float:
        """Of all."""
        runs = sum(self.run_hours(iterations) for _, _, iterations in study.schedules)
        tuning = self.tuning * self.run_hours(min(study.short))
        return self.pretraining_hours(study) + (self.starts * self.seeds * runs + tuning) / self.jobs


def fit(study: Study, costs: Costs, hours: float, fixed: frozenset[str]) -> tuple[Study, list[str]]:
    """The study that fits, and a sentence on each thing that it gives up: as few as it takes, in a fixed order.

    First the long schedule, then the smallest shares (two stay), then the length of schedules and
    pre-training, down to half. Never seeds or starts: without them there is no answer.

    Args:
        fixed: what the user has asked for: of "schedules", "shares", "iterations", "epochs".

    Raises:
        ValueError: even the smallest study takes longer.
    """
    given_up: list[str] = []
    for smaller, sentence in _concessions(study, fixed):
        if costs.hours(study) <= hours:
            break
        # Each step of lengths replaces the one before.
        given_up = [s for s in given_up if not (s.startswith(LENGTH) and sentence.startswith(LENGTH))]
        given_up.append(sentence)
        study = smaller
    if costs.hours(study) > hours:
        raise ValueError(
            f"--hours {hours:g}: the smallest study that answers takes {costs.hours(study):.1f} hours here "
            f"({len(study.shares)} shares, {costs.starts} starts, {costs.seeds} seeds); give --hours "
            f"{math.ceil(costs.hours(study))}, fewer --inits, or smaller images (at the end of the line: "
            "-- INPUT.MIN_SIZE_TRAIN '(128,)' INPUT.MIN_SIZE_TEST 128)"
        )
    return study, given_up


def _concessions(study: Study, fixed: frozenset[str]) -> Iterator[tuple[Study, str]]:
    """Studies that are smaller and smaller, each with what was given up last."""
    change = dataclasses.replace
    if len(study.lengths) > 1 and "schedules" not in fixed:
        study = change(study, lengths=study.lengths[:1])
        yield study, "the long schedule"
    while len(study.shares) > 2 and "shares" not in fixed:
        dropped = study.shares[0]
        study = change(study, shares=study.shares[1:], short=study.short[1:])
        yield study, f"{dropped:.0%} of the labels"
    names = {"iterations": "schedules", "epochs": "pre-training"}
    shortened = [names[key] for key in names if key not in fixed]
    for part in SHORTER if shortened else ():
        short = tuple(max(SHORTEST, round(part * iterations / 4) * 4) for iterations in study.short)
        epochs = max(1, round(part * study.epochs))
        smaller = change(
            study,
            short=short if "iterations" not in fixed else study.short,
            epochs=epochs if "epochs" not in fixed else study.epochs,
        )
        yield smaller, f"{LENGTH}{' and '.join(shortened)} are {part:.0%} as long"
