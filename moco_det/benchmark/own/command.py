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
    PRETRAINED,
    STUDY,
    Study,
    given_keys,
    run_step_of,
    start_steps,
)
from moco_det.benchmark.own.settle import Setting, costs_of, settle, settle_study
from moco_det.benchmark.own.sizes import (
    depth_of,
    kind_of_images,
    schedule_reason,
)
from moco_det.engine.run_folder import check_writable
from moco_det.utils.errors import user_errors
from moco_det_cli.parsers.studies import own_parser


def run(args: argparse.Namespace, add_configs: Sequence = ()) -> None:
    """Carry out a parsed command line (``add_configs``: the same signature as every stage; unused here).

    Raises:
        ValueError: data or a setting that cannot work; or runs that failed, after the others ran and were
            reported.
    """
    if len(args.schedules) > 2:
        raise ValueError(
            f"--schedules takes one or two multiples of the short schedule; found {args.schedules}"
        )
    if args.hours and args.no_trial:
        raise ValueError("--hours needs the trial that --no-trial leaves out; give one of the two")
    check_writable(args.output, "--output")
    setting = settle(args)
    print(describe(setting), flush=True)
    speed, study, given_up = settle_study(setting)
    if args.dry_run:  # the commands first: what decides stays in sight
        steps = start_steps(setting.starts, setting.pretrain_command(study), setting.output)
        steps += [run_step_of(one, setting.output / STUDY) for one in setting.planned(study, {})]
        print("\n".join(step.shell for step in steps))
    print(describe_study(setting, study, speed, given_up), flush=True)
    if args.dry_run:
        return
    carry_out(setting, study)


def pretrains(setting: Setting) -> bool:
    """Whether a start is pre-trained in the study; else it compares weights that are there."""
    return any(start.name in PRETRAINED for start in setting.starts)


def describe(setting: Setting) -> str:
    """The data, the choices with their reasons, the starts, and what is left out."""
    data, facts, args = setting.data, setting.data.facts, setting.args
    (_, size_reason), (kind, kind_reason) = depth_of(setting.device), kind_of_images(facts)
    kind, kind_reason = (args.images_show, "given") if args.images_show else (kind, kind_reason)
    excluded = f", {len(setting.leaks):,} that show test images left out" if setting.leaks else ""
    lines = [
        f"labels: {data.train}, {facts.num_images:,} images, {facts.boxes:.1f} boxes each, "
        f"{len(facts.classes)} classes; tested on {data.test}",
        f"device: {setting.device.name}, {setting.jobs} runs at a time",
        f"detector: Faster R-CNN R{setting.depth}-FPN ({'given' if args.depth else size_reason})",
        f"images show {kind} ({kind_reason})",
    ]
    if pretrains(setting):
        lines.insert(1, f"pre-training: {facts.unlabeled:,} images in {data.where or data.train}{excluded}")
    given = {*setting.given, *given_keys(args.pretrain_options)}
    parts = ("fine-tuning", "pre-training") if pretrains(setting) else ("fine-tuning",)
    for part, chosen in zip(parts, setting.choices, strict=False):
        for choice in chosen:
            over = sorted(given & {*choice.keys})
            lines.append(
                f"{part}: {choice.what} ({choice.reason})" + (f"; given: {', '.join(over)}" if over else "")
            )
    lines += [f"start {start.name}: {INITS.get(start.name, start.source)}" for start in setting.starts]
    return "\n".join([*lines, *(f"note: {note}" for note in setting.notes)])


def describe_study(setting: Setting, study: Study, speed: Speed | None, given_up: Sequence[str]) -> str:
    """Shares, schedules, number of runs and hours."""
    num_images, epochs = setting.data.facts.num_images, study.epochs
    lines = [
        f"{share:.0%} of the labels, {round(share * num_images):,} images: {iterations:,} iterations "
        f"({schedule} schedule)"
        for share, schedule, iterations in study.schedules
    ]
    reason = "given" if setting.args.iterations else schedule_reason(setting.device.is_gpu)
    lines.append(f"schedules: {reason}")
    planned = setting.planned(study, {})
    seeds = ", ".join(map(str, setting.seeds))
    epochs_too = f"; {epochs} epochs of pre-training" if pretrains(setting) else ""
    lines.append(f"{len(planned)} runs: {len(setting.starts)} starts, seeds {seeds}{epochs_too}")
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


@user_errors
def main(argv: Sequence[str]) -> None:
    """Entry point; what stands after ``--`` are KEY VALUE pairs."""
    run(own_parser().parse_args(argv))
