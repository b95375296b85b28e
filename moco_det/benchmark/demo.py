"""The whole way in one command: toy world, pre-train, convert, fine-tune from two inits, report.

Each step is a command line of ``tools/``, skipped when its result is there: the stages meet only in files. Run
from a checkout by ``tools/run_demo.py``.
"""

import argparse
import datetime
import functools
import json
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.models import resnet18

from moco_det.benchmark.steps import REPOSITORY, Step, run_steps, schedule_options
from moco_det.modeling.precision import gains_by_bfloat16
from moco_det.utils.children import call
from moco_det.utils.errors import user_errors
from moco_det.utils.machine import num_cores
from moco_det_cli.cores import busy_cores
from moco_det_cli.parsers.studies import demo_parser


@dataclass(frozen=True)
class Scale:
    """How large a demonstration is.

    Attributes:
        world: options of ``tools/make_toyworld.py``.
        pretrain: recipe of pre-training.
        finetune: recipe of fine-tuning.
        schedules: iterations of fine-tuning; the learning rate drops at 3/4 and 11/12 of them.
        options: further KEY VALUE pairs of fine-tuning.
        seeds: of fine-tuning; each init runs with each seed and each schedule.
    """

    world: tuple[str, ...]
    pretrain: str
    finetune: str
    schedules: tuple[int, ...]
    options: tuple[str, ...]
    seeds: tuple[int, ...]


# Photographic cut-outs on photographs: scenes for pre-training, single objects for kNN, scenes for detection.
PHOTO_WORLD = (
    *("--num-unlabeled", "16000", "--num-per-class-train", "40", "--num-per-class-test", "100"),
    *("--num-train", "300", "--num-test", "150"),
)
# The toy demonstration on two quiet cores (AMD EPYC with AVX512): its minutes, and a step of step_seconds().
USUAL_MINUTES, USUAL_STEP = 11, 0.11
SCALES = {
    # Many images without labels, few with: the case in which people pre-train.
    "toy": Scale(
        world=(
            *("--num-unlabeled", "4000", "--num-per-class-train", "100", "--num-per-class-test", "50"),
            *("--num-train", "160", "--num-test", "300"),
        ),
        pretrain="configs/toy/pretrain_moco_v2_R_18.yaml",
        finetune="configs/toy/faster_rcnn_R_18_FPN.yaml",
        schedules=(340,),
        options=(),
        seeds=(1, 2, 3, 4, 5),
    ),
    # For two CPU cores.
    "photos": Scale(
        world=PHOTO_WORLD,
        pretrain="configs/toy/photos_pretrain_moco_v2_R_18.yaml",
        finetune="configs/toy/faster_rcnn_R_18_FPN.yaml",
        schedules=(180, 540),
        options=("MODEL.ROI_HEADS.NUM_CLASSES", "12"),
        seeds=(1, 2, 3),
    ),
    # Six million views, and schedules in which random init learns too: for a GPU.
    "photos_gpu": Scale(
        world=PHOTO_WORLD,
        pretrain="configs/toy/photos_gpu_pretrain_moco_v2_R_18.yaml",
        finetune="configs/toy/faster_rcnn_R_18_FPN.yaml",
        schedules=(1000, 3000),
        options=("MODEL.ROI_HEADS.NUM_CLASSES", "12", "DATALOADER.NUM_WORKERS", "2"),
        seeds=(1, 2, 3),
    ),
}


def plan(
    scale: Scale, output: Path, device: tuple[str, ...], art: tuple[str, ...] = (), seed: int = 0
) -> list[Step]:
    """The steps of a demonstration in their order; the report, which is always made again, comes last.

    Args:
        seed: of the toy world and of pre-training; another one also fine-tunes with seeds of its own.
        device: the option that chooses it, such as ``("--num-gpus", "0")``; empty: what the tools choose.
        art: options of ``tools/make_toyworld.py`` that name pictures to render with.
    """
    world, pretrain, backbone = output / "datasets/toyworld", output / "pretrain", output / "backbone.pkl"
    tool = str(REPOSITORY / "tools") + "/"
    steps = [
        Step(
            "render the toy world",
            (tool + "make_toyworld.py", "--output", str(world), "--seed", str(seed), *scale.world, *art),
            world / "toyworld.json",
            check=functools.partial(check_no_test_picture_in_pretraining, world),
        ),
        Step(
            "pre-train with MoCo on its unlabeled images",
            (
                tool + "pretrain_moco.py",
                "--config-file",
                scale.pretrain,
                "--images",
                str(world / "unlabeled"),
            )
            + (*device, "--resume", "TEST.KNN.IMAGES", str(world / "classes"), "SEED", str(seed))
            + ("OUTPUT_DIR", str(pretrain)),
            pretrain / "run.json",
        ),
        Step(
            "convert to detectron2",
            (tool + "convert_to_d2.py", str(pretrain / "model_final.pth"), str(backbone)),
            backbone,
        ),
    ]
    for iterations in scale.schedules:
        for number in scale.seeds:
            run_seed = number + seed * len(scale.seeds)
            for init in ("random", "moco"):
                folder = output / f"finetune/{iterations}_{init}_seed{run_seed}"
                steps.append(
                    Step(
                        f"fine-tune from {init}, {iterations} iterations, seed {run_seed}",
                        (tool + "train_net.py", "--config-file", scale.finetune, "--init", init, "--resume")
                        + (
                            *device,
                            *schedule_options(iterations, evaluations=2),
                            *scale.options,
                            "SEED",
                            str(run_seed),
                        )
                        + (("MODEL.WEIGHTS", str(backbone)) if init == "moco" else ())
                        + ("OUTPUT_DIR", str(folder)),
                        folder / "run.json",
                        alongside=True,
                        environment=(("DETECTRON2_DATASETS", str(output / "datasets")),),
                    )
                )
    return steps


def check_no_test_picture_in_pretraining(world: Path) -> None:
    """Refuse a world that pre-trains on pictures (cut-outs, backgrounds) which its test images show.

    Raises:
        ValueError: names such a picture.
    """
    used = json.loads((world / "toyworld.json").read_text())["pictures_used"]
    test = set(used["test"])
    for picture in used["train"]:
        if picture in test or not picture.startswith("train/"):
            raise ValueError(
                f"{world}: the picture {picture} is shown in pre-training and belongs to the test"
            )


def settle_plan(scale: Scale, steps: list[Step], output: Path) -> None:
    """Write what the results in ``output`` are made by, or refuse to mix them with those of another plan.

    Raises:
        ValueError: ``output`` was made by other commands or recipes.
    """
    recipes = {name: (REPOSITORY / name).read_text() for name in (scale.pretrain, scale.finetune)}
    content = {"commands": [list(step.command) for step in steps], "recipes": recipes}
    path = output / "plan.json"
    if path.exists() and json.loads(path.read_text()) != content:
        raise ValueError(
            f"{output} holds the results of another plan (options or recipes differ from its plan.json); "
            "name another --output, or remove it"
        )
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def step_seconds() -> float:
    """Seconds of a step of ResNet-18 as in pre-training, on this machine at this moment: the median of five."""
    model, images, seconds = resnet18(), torch.rand(64, 3, 48, 48), []
    for _ in range(7):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=gains_by_bfloat16("cpu")):
            loss = model(images).square().mean()
        loss.backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def expectation(seconds: float, busy: float | None) -> str:
    """How long the toy demonstration will take, in words.

    Args:
        seconds: of a step, see :func:`step_seconds`.
        busy: cores that other programs use; None where this is not known.
    """
    words = f"This will take about {USUAL_MINUTES * seconds / USUAL_STEP:.0f} minutes on this machine as it is now"
    words += (
        f" (a step of ResNet-18 takes {seconds:.2f} s; {USUAL_STEP:.2f} s where it takes {USUAL_MINUTES})."
    )
    if busy is not None and busy > 0.3:
        words += f"\nOther programs use {busy:.1f} of {num_cores()} cores: close them, they slow each step."
    return words


def run(args: argparse.Namespace) -> None:
    """Do all steps of ``args.scale`` under ``args.output`` and end with the table of results.

    Raises:
        ValueError: a step failed.
    """
    start = time.perf_counter()
    output = Path(args.output).resolve()
    device = () if args.num_gpus is None else ("--num-gpus", str(args.num_gpus))
    art = ()
    if args.cutouts or args.backgrounds:
        art = tuple(
            word
            for flag, folder in (("--cutouts", args.cutouts), ("--backgrounds", args.backgrounds))
            if folder
            for word in (flag, str(Path(folder).resolve()))
        )
    elif args.scale != "toy":
        raise ValueError(
            f"--scale {args.scale} needs --cutouts DIR and --backgrounds DIR (see docs/TOY_RESULTS.md)"
        )
    steps = plan(SCALES[args.scale], output, device, art, args.seed)
    settle_plan(SCALES[args.scale], steps, output)
    if args.scale == "toy" and not (steps[1].result.exists() or torch.cuda.is_available()):
        print(expectation(step_seconds(), busy_cores()), flush=True)
    run_steps(steps, output / "logs", args.jobs or min(4, num_cores()), total=len(steps) + 1)
    print(f"[{len(steps) + 1}/{len(steps) + 1}] report", flush=True)
    report = [str(REPOSITORY / "tools/make_report.py"), str(output), "--output", str(output / "report")]
    if call([sys.executable, "-W", "ignore", *report], cwd=REPOSITORY):
        raise ValueError(f"the report failed; try it alone: {shlex.join(report)}")
    print(f"all steps took {datetime.timedelta(seconds=round(time.perf_counter() - start))}")


@user_errors
def main(argv: list[str] | None = None) -> None:
    """``tools/run_demo.py``."""
    run(demo_parser().parse_args(argv))
