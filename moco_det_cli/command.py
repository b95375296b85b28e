"""``moco-det COMMAND …``: all commands under one name, and how each starts.

Options are parsed, and files that they name looked for, before torch and detectron2 are imported: that takes some
3 s, and a wrong word is answered at once.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from moco_det_cli import doctor
from moco_det_cli.parsers import data, stages, studies, weights
from moco_det_cli.parsers.choices import OFFICIAL
from moco_det_cli.places import get_config_file, get_init_file


class Command(NamedTuple):
    """The module whose ``main()`` it is, its parser for a ``prog``, and what it does."""

    module: str
    parser: Callable[[str], argparse.ArgumentParser]
    what: str


COMMANDS = {
    "doctor": Command(
        "moco_det_cli.doctor", doctor.make_parser, "say what on this machine would stop a run, and the fix"
    ),
    "pretrain": Command(
        "moco_det.pretrain.command", stages.pretrain_parser, "pre-train a ResNet on unlabeled images"
    ),
    "convert": Command(
        "moco_det.convert.command",
        weights.convert_parser,
        "turn a checkpoint into detectron2 weights, with proof",
    ),
    "inspect": Command(
        "moco_det.convert.inspect_weights", weights.inspect_parser, "say what a weight file is"
    ),
    "classify": Command(
        "moco_det.classify.command",
        stages.classify_parser,
        "evaluate features by a linear classifier and kNN",
    ),
    "train": Command("moco_det.finetune.command", stages.train_parser, "fine-tune a detector or segmenter"),
    "benchmark": Command(
        "moco_det.benchmark.command",
        studies.benchmark_parser,
        "fine-tune tasks x inits x seeds; own: did it help my detector?",
    ),
    "ablation": Command(
        "moco_det.benchmark.ablation", studies.ablation_parser, "re-run the paper's ablations"
    ),
    "report": Command(
        "moco_det.report.report", studies.report_parser, "tables, curves and pictures of runs on one page"
    ),
    "check-datasets": Command(
        "moco_det.finetune.check_datasets", data.check_datasets_parser, "say which data sets are complete"
    ),
    "stats": Command(
        "moco_det.pretrain.stats", data.stats_parser, "mean and std of images unlike ImageNet's"
    ),
    "split": Command(
        "moco_det.data.split", data.split_parser, "split a label file of a labeling tool to train and to test"
    ),
    "pack": Command(
        "moco_det.data.pack", data.pack_parser, "make a packed copy of images, small JPEGs in tar shards"
    ),
    "toyworld": Command("moco_det.toyworld.make", data.toyworld_parser, "render the toy world's data sets"),
    "speed": Command(
        "moco_det.speed.command", studies.speed_parser, "measure each part next to the published recipe"
    ),
    "slurm": Command(
        "moco_det.engine.slurm",
        studies.slurm_parser,
        "a run as a SLURM job that is queued again when it is interrupted",
    ),
    "demo": Command("moco_det.benchmark.demo", studies.demo_parser, "the whole way on the toy world"),
}
# These start the scripts of tools/, which a checkout has and a wheel has not.
OF_CHECKOUT = ("benchmark", "ablation", "demo", "slurm")
TOOLS = Path(__file__).resolve().parents[1] / "tools"


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, _, what) in COMMANDS.items()]
    head = "usage: moco-det COMMAND …\n\n`moco-det COMMAND --help` tells more of each:"
    return "\n".join([head, *lines])


def refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def check_files(args: argparse.Namespace) -> None:
    """Refuse files and recipes that are not there; the package itself knows the rest.

    Raises:
        ValueError: which, where it was looked for, and for a recipe the closest match.
    """
    if getattr(args, "config_file", None):
        get_config_file(args.config_file)
    init = getattr(args, "init", None)
    if init and not os.path.splitext(init)[1]:
        get_init_file(init)
    options = {"--overlay": "overlay", "--exclude": "exclude", "IN": "source", "FILE": "file"}
    for name, attribute in options.items():
        path = getattr(args, attribute, None)
        if path and not os.path.exists(path) and not (name == "IN" and path in OFFICIAL):
            raise ValueError(f"{name} {path!r} does not exist (looked in {os.getcwd()!r})")


def run(name: str, words: Sequence[str] | None = None) -> None:
    """Carry out a command; its module is imported only when its words are right.

    Args:
        words: those after its name; default: of this process.
    """
    command = COMMANDS[name]
    words = sys.argv[1:] if words is None else words
    args = command.parser(f"moco-det {name}").parse_args(words)  # ends here for --help or a wrong word
    try:
        check_files(args)
    except ValueError as error:
        refuse(str(error))
    try:
        module = importlib.import_module(command.module)
    except KeyboardInterrupt:
        print("interrupted: nothing was done yet", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # whatever a broken environment raises, such as torchvision's RuntimeError
        if os.environ.get("MOCO_DET_TRACEBACK") == "1":
            raise
        refuse(f"{type(error).__name__}: {error}\n`moco-det doctor` says what is wrong and the fix")
    module.main(words)  # sys.argv stays: a run's record has the command as it was typed


def run_by_script() -> None:
    """The console scripts ``moco-det-COMMAND``."""
    run(Path(sys.argv[0]).stem.removeprefix("moco-det-"))


def main(argv: Sequence[str] | None = None) -> None:
    """The console script ``moco-det``."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        refuse(f"{name!r} is no command of moco-det; expected one of: {', '.join(COMMANDS)}")
    if name in OF_CHECKOUT and not (TOOLS / "run_benchmark.py").is_file():
        refuse(
            f"`moco-det {name}` runs scripts of a checkout (looked in {TOOLS}); INSTALL.md says how to get one"
        )
    run(name, rest)
