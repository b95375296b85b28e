"""What a study is, before anything runs: data, sizes, starts, shares, and a schedule that fits the hours."""

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from moco_det.benchmark.inits import TITLE as INIT_TITLE
from moco_det.benchmark.own.budget import Costs, Speed, fit, measure
from moco_det.benchmark.own.data import (
    OwnData,
    choose_shares,
    leak_notes,
    leaked_images,
    read_data,
    write_object_crops,
)
from moco_det.benchmark.own.plan import (
    COCO,
    COCO_OVERLAY,
    INITS,
    PRETRAINED,
    RANDOM,
    STUDY,
    OwnStart,
    Recipes,
    RunPlan,
    Study,
    given_keys,
    make_recipes,
    make_starts,
    pretraining_command,
    pretraining_digest,
)
from moco_det.benchmark.own.sizes import (
    SHORTEST,
    Choice,
    Device,
    base_of_detector,
    base_of_pretraining,
    depth_of,
    detector_choices,
    iterations_for,
    kind_of_images,
    pretraining_choices,
)
from moco_det.benchmark.plan import Planned
from moco_det.benchmark.steps import settle_places
from moco_det.config.overlays import overlay_text
from moco_det.data.datasets.own import OPTIONS, dataset_words
from moco_det.utils.machine import num_cores
from moco_det_cli.parsers.choices import SCHEDULES, SHARES

SETTLED = "own.json"
RATES = (1 / 3, 1.0, 3.0)  # of --tune-lr, as multiples of the rule's


@dataclasses.dataclass(frozen=True)
class Setting:
    """A study before its schedule is settled: data, recipes, starts, and where it runs."""

    args: argparse.Namespace
    output: Path
    data: OwnData
    leaks: list[str]
    device: Device
    depth: int
    given: dict[str, object]
    choices: tuple[list[Choice], list[Choice]]
    recipes: Recipes
    starts: list[OwnStart]
    shares: list[float]
    seeds: list[int]
    notes: list[str]
    jobs: int
    gpus: tuple[str, ...]

    def flags(self, *names: str) -> tuple[str, ...]:
        """Options that each stage has, with the data sets of these names."""
        rows = {kind: [row for row in getattr(self.args, kind) if row[0] in names] for kind in OPTIONS}
        words = dataset_words(argparse.Namespace(**rows, register=self.args.register))
        return "--num-gpus", str(self.args.num_gpus), *words

    def value(self, part: int, key: str) -> object:
        """A key of the recipe of fine-tuning (0) or pre-training (1), by the rules or as given."""
        given = (self.given, given_keys(self.args.pretrain_options))[part]
        return given.get(key) or next(c.keys[key] for c in self.choices[part] if key in c.keys)

    def pretrain_command(self, study: Study) -> tuple[str, ...]:
        flags = self.flags() if self.data.where else self.flags(self.data.train)
        words = pretraining_command(self.recipes, self.data, self.output, flags, bool(self.leaks))
        return *words, "SOLVER.EPOCHS", str(study.epochs)

    def starts_of(self, study: Study) -> list[OwnStart]:
        """The starts, those that are pre-trained known by the epochs too."""
        return [
            dataclasses.replace(start, digest=f"{start.digest}, {study.epochs} epochs")
            if start.name in PRETRAINED
            else start
            for start in self.starts
        ]

    def runs(self, output: Path, rates: Mapping[str, float]) -> RunPlan:
        return RunPlan(self.data, self.recipes, rates, self.flags(self.data.train, self.data.test), output)

    def planned(self, study: Study, rates: Mapping[str, float]) -> list[Planned]:
        """The runs of fine-tuning."""
        return self.runs(self.output / STUDY, rates).all(study, self.starts_of(study), self.seeds)


def _pretrains(args: argparse.Namespace) -> bool:
    """Whether a start is pre-trained in the study; else weights are compared that are there."""
    return bool({*args.inits} & {*PRETRAINED})


def read_without_leaks(args: argparse.Namespace) -> tuple[OwnData, list[str]]:
    """The data, and the images that pre-training leaves out because they show test images.

    Raises:
        ValueError: as :func:`read_data`; or there are such images, and nobody said to leave them out.
    """
    data = read_data(args)
    leaks = leaked_images(data)
    if not _pretrains(args):
        return data, leaks
    if leaks and not args.exclude_leaks:
        raise ValueError(
            f"{len(leaks):,} of the {len(data.unlabeled):,} images to pre-train on show what test images "
            f"of {data.test!r} show, e.g. {leaks[0]!r}, so pre-training would have seen the test: give "
            "--exclude-leaks, which leaves them out of pre-training, or other --images"
        )
    facts = dataclasses.replace(data.facts, unlabeled=len(data.unlabeled) - len(leaks))
    if not facts.unlabeled:
        raise ValueError(
            "no image is left to pre-train on: all show what test images show; give other --images"
        )
    return dataclasses.replace(data, facts=facts), leaks


def settle(args: argparse.Namespace) -> Setting:
    """Read the data, choose sizes and starts; writes nothing."""
    output = Path(args.output).resolve()
    data, leaks = read_without_leaks(args)
    args.num_gpus, gpus, jobs = settle_places(args.num_gpus, args.jobs)
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30 if args.num_gpus else 0.0
    device = Device(torch.cuda.get_device_name() if gib else f"CPU, {num_cores()} cores", gib)
    facts, depth = data.facts, args.depth or depth_of(device)[0]
    kind = args.images_show or kind_of_images(facts)[0]
    given, given_pretraining = given_keys(args.options), given_keys(args.pretrain_options)
    if args.pretrain_epochs:
        given_pretraining["SOLVER.EPOCHS"] = args.pretrain_epochs
    choices = (
        detector_choices(facts, device, depth, given),
        pretraining_choices(facts, device, depth, kind, given_pretraining),
    )
    bases = base_of_detector(depth), base_of_pretraining(kind)
    recipes = make_recipes(output, data, bases, choices, (given, given_pretraining))
    digest = pretraining_digest(recipes, data, leaks) if _pretrains(args) else ""
    starts, notes = make_starts(args.inits, depth, output, digest)
    if len(starts) < 2:
        raise ValueError(f"there is no start to compare with random weights: {'; '.join(notes)}")
    shares, seeds, left_out = choose_shares(data.records, [share / 100 for share in args.shares], args.seeds)
    if len(facts.classes) == 1:
        left_out.append(
            f"there is one class only ({facts.classes[0]}), so kNN is always right and the effective rank "
            "alone watches pre-training"
        )
    notes += [*left_out, *leak_notes(data, leaks)]
    return Setting(
        args,
        output,
        data,
        leaks,
        device,
        depth,
        given,
        choices,
        recipes,
        starts,
        shares,
        seeds,
        notes,
        jobs,
        gpus,
    )


def first_study(setting: Setting) -> Study:
    """The whole study, before a budget."""
    args = setting.args
    batch, num_images = int(setting.value(0, "SOLVER.IMS_PER_BATCH")), setting.data.facts.num_images
    if args.iterations and len(args.iterations) not in (1, len(setting.shares)):
        raise ValueError(
            f"--iterations takes one number, or one for each of the {len(setting.shares)} shares of the "
            f"labels; found {len(args.iterations)}"
        )
    if min(args.iterations, default=SHORTEST) < SHORTEST:
        raise ValueError(f"--iterations {min(args.iterations)}: a schedule has {SHORTEST} iterations or more")
    short = tuple(args.iterations) * (len(setting.shares) if len(args.iterations) == 1 else 1) or tuple(
        iterations_for(round(share * num_images), num_images, batch, setting.device.is_gpu)
        for share in setting.shares
    )
    epochs = args.pretrain_epochs or int(setting.value(1, "SOLVER.EPOCHS"))
    return Study(tuple(setting.shares), tuple(sorted(args.schedules)), short, epochs)


def settle_study(setting: Setting) -> tuple[Speed | None, Study, list[str]]:
    """The speed by a trial, the study that fits ``--hours``, and what it gives up.

    Once settled it stays so, in ``own.json``, while the same is asked: a trial never measures the same twice.
    """
    asked = json.loads(
        json.dumps({k: v for k, v in vars(setting.args).items() if k not in ("dry_run", "no_trial")})
    )
    path = setting.output / SETTLED
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("asked") == asked:
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in kept["study"].items()}
        return kept["speed"] and Speed(**kept["speed"]), Study(**fields), kept["given_up"]
    study, given_up, speed = first_study(setting), [], None
    if setting.args.hours or not setting.args.no_trial:
        speed = trial(setting, study)
    if setting.args.hours:
        asked_for = {
            "shares": tuple(setting.args.shares) != SHARES,
            "schedules": tuple(setting.args.schedules) != SCHEDULES,
            "iterations": bool(setting.args.iterations),
            "epochs": bool(setting.args.pretrain_epochs),
        }
        fixed = frozenset(name for name, asked_it in asked_for.items() if asked_it)
        study, given_up = fit(study, costs_of(setting, speed), setting.args.hours, fixed)
    if not setting.args.dry_run:
        setting.output.mkdir(parents=True, exist_ok=True)
        content = {
            "asked": asked,
            "speed": speed and dataclasses.asdict(speed),
            "study": dataclasses.asdict(study),
            "given_up": given_up,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
    return speed, study, given_up


def costs_of(setting: Setting, speed: Speed) -> Costs:
    """What the hours follow from."""
    return Costs(
        speed=speed,
        pretrainings=sum(start.name in PRETRAINED for start in setting.starts),
        batch=int(setting.value(1, "SOLVER.IMS_PER_BATCH")),
        unlabeled=setting.data.facts.unlabeled,
        starts=len(setting.starts),
        seeds=len(setting.seeds),
        tuning=len(RATES) * len(setting.starts) if setting.args.tune_lr else 0,
        jobs=setting.jobs,
    )


def trial(setting: Setting, study: Study) -> Speed:
    """A few steps of what a study does, in a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="moco_det_trial_") as folder:
        there = dataclasses.replace(setting, output=Path(folder), recipes=setting.recipes.at(Path(folder)))
        write_inputs(dataclasses.replace(there, starts=[]))
        random = next(one for one in there.planned(study, {}) if one.init == RANDOM)
        command = [word for word in random.command if word != "--resume"]
        return measure(command, there.pretrain_command(study), setting.jobs, setting.gpus, Path(folder))


def write_inputs(setting: Setting) -> None:
    """Recipes, the list of images that are left out, kNN's crops, overlays and weight files that were given."""
    output = setting.output
    setting.recipes.write()
    if setting.leaks:
        (output / "leaks.txt").write_text(
            "".join(f"{path}\n" for path in setting.leaks), errors="surrogateescape"
        )
    if not (output / "knn").exists():
        write_object_crops(setting.data, output / "knn")
    (output / "inits").mkdir(parents=True, exist_ok=True)
    for start in setting.starts:
        if start.name == COCO:
            values = {"MODEL.WEIGHTS": start.source, **COCO_OVERLAY}
            Path(start.init).write_text(overlay_text(INIT_TITLE, (), values))
        elif start.name not in INITS:
            shutil.copyfile(start.source, start.init)
