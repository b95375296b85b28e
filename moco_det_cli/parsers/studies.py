"""Options of the commands that start other commands, measure, and report."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from moco_det_cli.parsers.choices import (
    ABLATION_SCALES,
    ABLATIONS,
    DEMO_SCALES,
    OBJECTS,
    OWN_INITS,
    SCENES,
    SCHEDULES,
    SHARES,
    SPEED_JSON,
    SPEED_MARKDOWN,
    SPEED_PARTS,
    SUITES,
)
from moco_det_cli.parsers.stages import add_dataset_options

RESULTS = Path(__file__).resolve().parents[2] / "results"
_BENCHMARK = (
    "Fine-tune tasks x inits x seeds, skip what is finished, resume what was interrupted, and report."
)
_OWN = (
    "Does pre-training on your own images help your detector? Trains it from several starts on shares of "
    "your labels, with several seeds, and answers with a page. Everything that is not given follows from "
    "the data, and is printed with its reason. Give the same command again after an interruption."
)
_OWN_EPILOG = (
    "Example: moco-det benchmark own --voc train FOLDER trainval --voc test FOLDER test --output "
    "output/own --dry-run. What stands after -- are KEY VALUE pairs of fine-tuning, over what the rules "
    "choose."
)
_ABLATION = (
    "Pre-train each point of an ablation with several seeds, evaluate it by linear probe and kNN, and draw the "
    "result beside the paper's. What is finished is skipped, what was interrupted is continued."
)


class SplitParser(argparse.ArgumentParser):
    """A parser that leaves the words after ``--`` alone, as ``options``.

    argparse cannot tell several lists apart, and would take a second ``--`` away.
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        words = list(sys.argv[1:] if args is None else args)
        split = words.index("--") if "--" in words else len(words)
        parsed = super().parse_args(words[:split], namespace)
        parsed.options = words[split + 1 :]
        return parsed


class _BenchmarkParser(argparse.ArgumentParser):
    """A parser of two commands: ``own``, or ``--suite own``, has options of its own."""

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        words = list(sys.argv[1:] if args is None else args)
        rest = _words_of_own(words)
        if rest is None:
            return super().parse_args(words, namespace)
        parsed = own_parser(f"{self.prog} own").parse_args(rest)
        parsed.suite = "own"
        return parsed


def _words_of_own(words: list[str]) -> list[str] | None:
    """What follows ``own``, or is beside ``--suite own``; None for another suite."""
    if words[:1] == ["own"]:
        return words[1:]
    for number, pair in enumerate(itertools.pairwise(words)):
        if pair == ("--suite", "own"):
            return words[:number] + words[number + 2 :]
    return None


def at_least_one(word: str) -> int:
    """A word of the command line as a number of runs."""
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {word!r}")
    return int(word)


def _percent(word: str) -> float:
    try:
        value = float(word.rstrip("%"))
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"expected a percentage above 0, up to 100, found {word!r}")
    return value


def benchmark_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``benchmark``; those of ``benchmark own`` where it says so."""
    parser = _BenchmarkParser(prog=prog, description=_BENCHMARK)
    add = parser.add_argument
    add(
        "--suite",
        choices=sorted(SUITES),
        metavar="{own,paper,photos,toy}",
        required=True,
        help="the paper's recipes, small ones on scenes; or own, whose options are others: own --help",
    )
    add(
        "--tasks", nargs="+", default=["all"], metavar="TASK", help="names of the suite's tasks; default: all"
    )
    add("--recipes", nargs="+", default=["*"], metavar="PATTERN", help="only these, e.g. '*_1x' '*_24k'")
    add("--inits", nargs="+", required=True, metavar="NAME[=FILE,…]", help="e.g. random moco=backbone.pkl")
    add("--seeds", type=at_least_one, default=5, metavar="N", help="runs with the seeds 1 to N; default: 5")
    add(
        "--label-fraction", nargs="+", type=float, default=[1.0], metavar="FRACTION", help="e.g. 0.01 0.1 1.0"
    )
    add("--output", required=True, help="folder of all runs and of the report")
    add(
        "--datasets",
        help="instead of DETECTRON2_DATASETS; scenes are rendered into OUTPUT/datasets by default",
    )
    add("--cutouts", help="{train,test}/<class>/*.png with alpha, for the suite photos")
    add("--backgrounds", help="{train,test}/*.jpg, for the suite photos")
    add("--num-gpus", type=int, help="of each run, 0: the CPU; default: one where there is one")
    add(
        "--jobs",
        type=at_least_one,
        help="runs at a time; default: as the GPUs allow, or one per core, at most 4",
    )
    add("--dry-run", action="store_true", help="print the plan, its hours as far as known, and its commands")
    add("--slurm", metavar="DIR", help="write a job array for SLURM into DIR instead of running")
    add("--results", default=str(RESULTS), help="kept records, for the estimate of the hours")
    add_dataset_options(parser)
    add("options", nargs="*", metavar="KEY VALUE", help="for every run, after --, over the suite's own")
    return parser


def own_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``benchmark own``."""
    parser = SplitParser(prog=prog, description=_OWN, epilog=_OWN_EPILOG)
    add = parser.add_argument
    add_dataset_options(parser)
    add(
        "--train",
        default="",
        metavar="NAME",
        help="the labeled set; default: the first of two that are named below",
    )
    add("--test", default="", metavar="NAME", help="the set that AP is measured on; default: the second")
    add(
        "--images",
        default="",
        help="images to pre-train on (folder, tar shards, list); default: the training images",
    )
    add("--exclude-leaks", action="store_true", help="leave images that show test images out of pre-training")
    add("--output", required=True, help="folder of all runs and of the report")
    add(
        "--inits",
        nargs="+",
        default=list(OWN_INITS),
        metavar="NAME[=FILE]",
        help="; ".join(f"{k}: {v}" for k, v in OWN_INITS.items()),
    )
    add(
        "--shares",
        nargs="+",
        type=_percent,
        default=list(SHARES),
        metavar="PERCENT",
        help="of the labels; default: 1 5 20 100",
    )
    add(
        "--seeds",
        type=at_least_one,
        default=3,
        metavar="N",
        help="runs of each; default: 3, the fewest that are tested",
    )
    add(
        "--schedules",
        nargs="+",
        type=at_least_one,
        default=list(SCHEDULES),
        metavar="N",
        help="multiples of the short schedule, one or two; default: 1 3",
    )
    add(
        "--iterations",
        nargs="+",
        type=at_least_one,
        default=[],
        metavar="N",
        help="of the short schedule, instead of the rule's: one number, or one for each share",
    )
    add("--pretrain-epochs", type=at_least_one, metavar="N", help="instead of the rule's")
    add(
        "--pretrain-options",
        nargs="+",
        default=[],
        metavar="KEY VALUE",
        help="for pre-training, over what the rules choose",
    )
    add(
        "--images-show",
        choices=(OBJECTS, SCENES),
        help="one object a picture, or several; default: by the boxes",
    )
    add("--depth", type=int, choices=(18, 50), help="of the ResNet; default: by the device")
    add(
        "--tune-lr",
        action="store_true",
        help="first try three learning rates for each start on the shortest schedule, on held-out training images",
    )
    add(
        "--hours",
        type=float,
        metavar="H",
        help="give up parts of the study until it takes at most so long; says which",
    )
    add("--no-trial", action="store_true", help="start without measuring the hours (not with --hours)")
    add("--num-gpus", type=int, help="of each run, 0: the CPU; default: one where there is one")
    add("--jobs", type=at_least_one, help="runs at a time; default: one a GPU, or one a core, at most 4")
    add("--dry-run", action="store_true", help="check the data, print choices, plan, hours and commands")
    add(
        "--results",
        default=str(RESULTS),
        help="folder of kept records: runs in it are not run again",
    )
    add("--name", default="", help="of the study in RESULTS; default: the training set's")
    return parser


def ablation_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``ablation``."""
    usage = "%(prog)s ABLATION [ABLATION ...] --images DIR --classes DIR --output DIR [options] [-- KEY VALUE ...]"
    epilog = "What stands after -- is for every pre-training, over the recipes."
    parser = SplitParser(prog=prog, description=_ABLATION, usage=usage, epilog=epilog)
    add = parser.add_argument
    add("ablations", nargs="+", choices=sorted(ABLATIONS), metavar="ABLATION", help=", ".join(ABLATIONS))
    add(
        "--images",
        required=True,
        help="unlabeled images to pre-train on: a folder, tar shards or a list file",
    )
    add("--classes", required=True, help="labeled images to evaluate on: train/<class>/, val/<class>/")
    add(
        "--scale",
        choices=ABLATION_SCALES,
        default="imagenette",
        help="small recipes, or the paper's on ImageNet-1k; default: imagenette",
    )
    add("--seeds", type=at_least_one, default=3, metavar="N", help="runs with the seeds 1 to N; default: 3")
    add(
        "--held-out",
        type=float,
        default=0.0,
        metavar="F",
        help="evaluate on this fraction of the labeled training images instead of val/: to choose settings",
    )
    add("--output", required=True, help="folder of all runs, tables and figures")
    add("--num-gpus", type=int, help="of each run, 0: the CPU; default: one where there is one")
    add(
        "--jobs",
        type=at_least_one,
        help="runs at a time; default: as the GPUs allow, or one per core, at most 4",
    )
    add("--dry-run", action="store_true", help="print the commands and start nothing")
    add("--results", default="", metavar="DIR", help="also keep each run's record in DIR/ablations")
    return parser


def demo_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``demo``."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Toy world, pre-train, convert, fine-tune, report."
    )
    parser.add_argument("--output", default="output/demo", help="folder of everything that is made")
    parser.add_argument("--scale", choices=sorted(DEMO_SCALES), default="toy")
    parser.add_argument("--seed", type=int, default=0, help="of world, pre-training and fine-tuning")
    parser.add_argument("--num-gpus", type=int, help="0: the CPU; default: one GPU where there is one")
    parser.add_argument(
        "--jobs", type=int, help="fine-tuning runs at a time; default: one per core, at most 4"
    )
    parser.add_argument("--cutouts", help="{train,test}/<class>/*.png with alpha, for --scale photos")
    parser.add_argument("--backgrounds", help="{train,test}/*.jpg, for --scale photos")
    return parser


def report_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``report``."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Tables and figures of finished runs, on one page."
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder, or a folder above several")
    parser.add_argument("--output", default="output/report", help="folder for report.html, .md, .csv")
    parser.add_argument("--suite", help="also keep each run's record in RESULTS/SUITE/")
    parser.add_argument(
        "--from-results",
        metavar="SUITE",
        help="also the kept records of RESULTS/SUITE/: tables and curves, no pictures",
    )
    parser.add_argument("--results", default="results", help="folder of the kept records")
    parser.add_argument(
        "--update-tables",
        nargs="+",
        default=[],
        metavar="FILE",
        help="write the tables between markers again",
    )
    return parser


def speed_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``speed``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Measure each part next to a plain version of the published recipe, alternating in one run.",
        epilog="Example: tools/benchmark_speed.py --part loader step --images DIR --output output/speed",
    )
    parser.add_argument(
        "--part", nargs="+", choices=(*SPEED_PARTS, "all"), default=["all"], help="what to measure"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
    parser.add_argument(
        "--images", help="JPEG files to load, a folder or a list; default: made-up ones of 500 px"
    )
    parser.add_argument("--batch", type=int, help="images in a step; default: 256 on a GPU, 16 on a CPU")
    parser.add_argument("--rounds", type=int, help="how often each pair is measured; default: 5")
    parser.add_argument("--threads", type=int, help="of the arithmetic on a CPU; default: torch's")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: all of it runs, no number counts")
    parser.add_argument(
        "--output", help=f"folder for {SPEED_JSON} and {SPEED_MARKDOWN}; default: they are only printed"
    )
    return parser


def slurm_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options of the job; what comes after ``--`` is the command."""
    parser = SplitParser(
        prog=prog,
        description="Queue a run with SLURM; it is queued again, and resumes, when it is stopped.",
        epilog="Example: tools/launch_slurm.py --nodes 2 --gpus 8 --time 24:00:00 -- tools/pretrain_moco.py "
        "--config-file configs/Pretrain/moco_v2_R_50_200ep.yaml --images DIR OUTPUT_DIR output/pretrain",
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: %(default)s)")
    parser.add_argument(
        "--gpus", type=int, default=8, help="GPUs of each machine; 0: CPUs (default: %(default)s)"
    )
    parser.add_argument("--cpus", type=int, default=64, help="cores of each machine (default: %(default)s)")
    parser.add_argument(
        "--time", default="24:00:00", help="longest time of one queueing (default: %(default)s)"
    )
    parser.add_argument("--partition", default="", help="where to queue (default: the cluster's)")
    parser.add_argument("--name", default="moco_det", help="name of the job (default: %(default)s)")
    parser.add_argument("--log", default="slurm-%j.log", help="output of the job (default: %(default)s)")
    parser.add_argument(
        "--warning",
        type=int,
        default=180,
        help="seconds before the end at which it saves (default: %(default)s)",
    )
    parser.add_argument(
        "--requeues",
        type=int,
        default=100,
        help="how often it is queued again at most (default: %(default)s)",
    )
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="a further option, as --sbatch=--qos=low",
    )
    parser.add_argument("--script", default="slurm_job.sh", help="where to write it (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="write the script, queue nothing")
    parser.add_argument("command", nargs="*", help="after --: a tool and its arguments")
    return parser
