"""``moco-det COMMAND …``: all commands under one name."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Name: module whose main() it is, what it does.
COMMANDS = {
    "doctor": ("moco_det_cli.doctor", "say what on this machine would stop a run, and the fix"),
    "pretrain": ("moco_det.pretrain.command", "pre-train a ResNet on unlabeled images"),
    "convert": ("moco_det.convert.command", "turn a checkpoint into detectron2 weights, with proof"),
    "inspect": ("moco_det.convert.inspect_weights", "say what a weight file is"),
    "classify": ("moco_det.classify.command", "evaluate features by a linear classifier and kNN"),
    "train": ("moco_det.finetune.command", "fine-tune a detector or segmenter"),
    "benchmark": (
        "moco_det.benchmark.command",
        "fine-tune tasks x inits x seeds; own: did it help my detector?",
    ),
    "ablation": ("moco_det.benchmark.ablation", "re-run the paper's ablations"),
    "report": ("moco_det.report.report", "tables, curves and pictures of runs on one page"),
    "check-datasets": ("moco_det.finetune.check_datasets", "say which data sets are complete"),
    "stats": ("moco_det.pretrain.stats", "mean and std of images unlike ImageNet's"),
    "pack": ("moco_det.data.pack", "make a packed copy of images, small JPEGs in tar shards"),
    "toyworld": ("moco_det.toyworld.make", "render the toy world's data sets"),
    "speed": ("moco_det.speed.command", "measure each part next to the published recipe"),
    "slurm": ("moco_det.engine.slurm", "a run as a SLURM job that is queued again when it is interrupted"),
    "demo": ("moco_det.benchmark.demo", "the whole way on the toy world"),
}
# These start the scripts of tools/, which a checkout has and a wheel has not.
OF_CHECKOUT = ("benchmark", "ablation", "demo", "slurm")
TOOLS = Path(__file__).resolve().parents[1] / "tools"


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    head = "usage: moco-det COMMAND …\n\n`moco-det COMMAND --help` tells more of each:"
    return "\n".join([head, *lines])


def refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; the module of a command is imported when it is called for."""
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
    try:
        module = importlib.import_module(COMMANDS[name][0])
    except Exception as error:  # whatever a broken environment raises, such as torchvision's RuntimeError
        if os.environ.get("MOCO_DET_TRACEBACK") == "1":
            raise
        refuse(f"{type(error).__name__}: {error}\n`moco-det doctor` says what is wrong and the fix")
    module.main(rest)  # sys.argv stays: a run's record has the command as it was typed
