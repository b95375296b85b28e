"""Did it help my detector? ``moco-det benchmark own``: labels and images in, an answer with its page out.

The same detector is trained from several starts on shares of the labels, each with several seeds; among the
starts is pre-training on the user's own images, which is done here too. Resumable; its runs are kept in
``results/``.
"""

import argparse
from collections.abc import Sequence

from moco_det.benchmark.own.budget import Speed
from moco_det.benchmark.own.carry_out import carry_out
from moco_det.benchmark.own.plan import (
    INITS,
    STUDY,
    Study,
    given_keys,
    run_step_of,
    start_steps,
)
from moco_det.benchmark.own.settle import SCHEDULES, SHARES, Setting, costs_of, settle, settle_study
from moco_det.benchmark.own.sizes import (
    OBJECTS,
    SCENES,
    depth_of,
    kind_of_images,
    schedule_reason,
)
from moco_det.benchmark.plan import at_least_one
from moco_det.benchmark.steps import REPOSITORY
from moco_det.data.datasets.own import add_dataset_options
from moco_det.engine.run_folder import check_writable
from moco_det.utils.errors import user_errors

DESCRIPTION = (
    "Does pre-training on your own images help your detector? Trains it from several starts on shares of "
    "your labels, with several seeds, and answers with a page. Everything that is not given follows from "
    "the data, and is printed with its reason. Give the same command again after an interruption."
)
EPILOG = (
    "Example: moco-det benchmark own --voc train FOLDER trainval --voc test FOLDER test --output "
    "output/own --dry-run. What stands after -- are KEY VALUE pairs of fine-tuning, over what the rules "
    "choose."
)


def run(args: argparse.Namespace, add_configs: Sequence = ()) -> None:
    """Carry out a parsed command line (``add_configs``: the same signature as every stage; unused here).

    Raises:
        ValueError: data or a setting that cannot work; or runs that failed, after the others ran and were
        reported.
    """
    check_writable(args.output, "--output")
    setting = settle(args)
    print(describe(setting), flush=True)
    speed, study, given_up = settle_study(setting)
    print(describe_study(setting, study, speed, given_up), flush=True)
    if args.dry_run:
        steps = start_steps(setting.starts, setting.pretrain_command(study), setting.output)
        steps += [run_step_of(one, setting.output / STUDY) for one in setting.planned(study, {})]
        print("\n".join(step.shell for step in steps))
        return
    carry_out(setting, study)


def describe(setting: Setting) -> str:
    """The data, the choices with their reasons, the starts, and what is left out."""
    data, facts, args = setting.data, setting.data.facts, setting.args
    (_, size_reason), (kind, kind_reason) = depth_of(setting.device), kind_of_images(facts)
    kind, kind_reason = (args.images_show, "given") if args.images_show else (kind, kind_reason)
    excluded = f", {len(setting.leaks):,} that show test images left out" if setting.leaks else ""
    lines = [
        f"labels: {data.train}, {facts.images:,} images, {facts.boxes:.1f} boxes each, "
        f"{len(facts.classes)} classes; tested on {data.test}",
        f"pre-training: {facts.unlabeled:,} images in {data.where or data.train}{excluded}",
        f"device: {setting.device.name}, {setting.jobs} runs at a time",
        f"detector: Faster R-CNN R{setting.depth}-FPN ({'given' if args.depth else size_reason})",
        f"images show {kind} ({kind_reason})",
    ]
    given = {*setting.given, *given_keys(args.pretrain_options)}
    for part, chosen in zip(("fine-tuning", "pre-training"), setting.choices, strict=True):
        for choice in chosen:
            over = sorted(given & {*choice.keys})
            lines.append(
                f"{part}: {choice.what} ({choice.reason})" + (f"; given: {', '.join(over)}" if over else "")
            )
    lines += [f"start {start.name}: {INITS.get(start.name, start.source)}" for start in setting.starts]
    return "\n".join([*lines, *(f"note: {note}" for note in setting.notes)])


def describe_study(setting: Setting, study: Study, speed: Speed | None, given_up: Sequence[str]) -> str:
    """Shares, schedules, number of runs and hours."""
    images, epochs = setting.data.facts.images, study.epochs
    lines = [
        f"{share:.0%} of the labels, {round(share * images):,} images: {iterations:,} iterations "
        f"({schedule} schedule)"
        for share, schedule, iterations in study.schedules
    ]
    reason = "given" if setting.args.iterations else schedule_reason(setting.device.is_gpu)
    lines.append(f"schedules: {reason}")
    planned = setting.planned(study, {})
    seeds = ", ".join(map(str, setting.seeds))
    lines.append(
        f"{len(planned)} runs: {len(setting.starts)} starts, seeds {seeds}; {epochs} epochs of pre-training"
    )
    if speed:
        costs = costs_of(setting, speed)
        longest = max(iterations for _, _, iterations in study.schedules)
        lines.append(
            f"time, from a trial: {speed.iteration:.2f} s an iteration, {speed.evaluation:.0f} s an "
            f"evaluation, {speed.pretraining_step:.2f} s a step of pre-training: "
            f"{costs.pretraining_hours(study):.1f} hours of pre-training, "
            f"{60 * costs.run_hours(longest):.0f} min the longest run, {costs.hours(study):.1f} hours in "
            "all"
        )
    return "\n".join([*lines, *(f"given up for --hours: {sentence}" for sentence in given_up)])


def parser() -> argparse.ArgumentParser:
    """The command line of ``moco-det benchmark own``."""
    parser = argparse.ArgumentParser(prog="moco-det benchmark own", description=DESCRIPTION, epilog=EPILOG)
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
        default=list(INITS),
        metavar="NAME[=FILE]",
        help="; ".join(f"{k}: {v}" for k, v in INITS.items()),
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
        help="first try three learning rates for each start on the shortest schedule",
    )
    add(
        "--hours",
        type=float,
        metavar="H",
        help="give up parts of the study until it takes at most so long; says which",
    )
    add("--no-trial", action="store_true", help="start without measuring the hours")
    add("--num-gpus", type=int, help="of each run, 0: the CPU; default: one where there is one")
    add("--jobs", type=at_least_one, help="runs at a time; default: one a GPU, or one a core, at most 4")
    add("--dry-run", action="store_true", help="check the data, print choices, plan, hours and commands")
    add(
        "--results",
        default=str(REPOSITORY / "results"),
        help="folder of kept records: runs in it are not run again",
    )
    add("--name", default="", help="of the study in RESULTS; default: the training set's")
    return parser


def _percent(word: str) -> float:
    try:
        value = float(word.rstrip("%"))
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"expected a percentage above 0, up to 100, found {word!r}")
    return value


@user_errors
def main(argv: Sequence[str]) -> None:
    """Entry point; what stands after ``--`` are KEY VALUE pairs."""
    words = list(argv)
    split = words.index("--") if "--" in words else len(words)
    args = parser().parse_args(words[:split])
    args.options = words[split + 1 :]
    if args.schedules and len(args.schedules) > 2:
        raise ValueError(
            f"--schedules takes one or two multiples of the short schedule; found {args.schedules}"
        )
    run(args)
