"""Advice on a planned run: rules that look at its numbers and say what was found, what to set, and why.

Each rule returns a sentence or nothing. What it rests on stands in its last part: the paper, the official
code's authors, a trial of this project, or no more than a rule of thumb.
"""

import dataclasses
from collections.abc import Callable

from moco_det.data.views import ViewSettings
from moco_det.pretrain.feeding import WAITS, fixes_of_waiting
from moco_det.pretrain.plan.facts import LINEAR_BATCH, Facts, duration
from moco_det.utils.files import gib

SMALL, VERY_SMALL = 100_000, 10_000  # images
LEARNS_LITTLE, KNOWN_TO_WORK = 100_000, 10_000_000  # samples seen, see few_samples
BLUR_AT_224 = 2.0
FULL = 0.9  # fraction of the memory


@dataclasses.dataclass(frozen=True)
class Advice:
    """Attributes: what was found; the keys and values to give, or what else to do; why."""

    found: str
    fix: str
    why: str


Rule = Callable[[Facts], Advice | None]


def advise(facts: Facts) -> list[Advice]:
    """What the rules have to say, the most important first."""
    rules = (*FIRST_RULES, *facts.method.plan_rules(facts.cfg), *OTHER_RULES)
    return [advice for rule in rules if (advice := rule(facts))]


def learning_rate_off(facts: Facts) -> Advice | None:
    found, linear = facts.cfg.SOLVER.BASE_LR, facts.linear_lr
    if linear is None or 0.5 <= found / linear <= 2:
        return None
    why = f"the paper's rule is {facts.method.linear_rule[1]} for {LINEAR_BATCH} images, in proportion for others"
    return Advice(
        f"the learning rate {found:g} is {found / linear:.2g} times what the linear rule gives for batches of "
        f"{facts.batch}",
        f"SOLVER.BASE_LR {linear:.4g}",
        f"{why}{facts.method.linear_rule_note}.",
    )


def learning_rate_never_lowered(facts: Facts) -> Advice | None:
    solver = facts.cfg.SOLVER
    late = [epoch for epoch in solver.STEP_EPOCHS if epoch >= solver.EPOCHS]
    if solver.LR_SCHEDULER_NAME != "EpochMultiStepLR" or not late:
        return None
    steps = tuple(max(round(part * solver.EPOCHS), 1) for part in (0.6, 0.8))
    return Advice(
        f"the learning rate is to be lowered after epochs {', '.join(map(str, late))}, but the run ends after "
        f"{solver.EPOCHS}",
        f"SOLVER.STEP_EPOCHS '{steps}'",
        "the paper lowers it at 60% and 80% of the run (epochs 120 and 160 of 200).",
    )


def few_samples(facts: Facts) -> Advice | None:
    # From weights that know images already, less is enough; how much less is not known.
    too_few = facts.samples < LEARNS_LITTLE
    few = facts.num_images < SMALL and facts.samples < KNOWN_TO_WORK / 2
    if facts.cfg.MODEL.WEIGHTS or not (too_few or few):
        return None
    epochs = facts.epochs_for((LEARNS_LITTLE if too_few else KNOWN_TO_WORK) / facts.batch)
    takes = ""
    if facts.trial:
        seconds = facts.trial.seconds * facts.steps_per_epoch * epochs
        takes = f" These epochs take {duration(seconds)} at this speed."
    return Advice(
        f"{facts.samples:,} samples are seen in all ({facts.cfg.SOLVER.EPOCHS} epochs): "
        + ("too few to learn much from random weights" if too_few else "enough for a beginning"),
        f"SOLVER.EPOCHS {epochs}" + (" or more" if too_few else ""),
        "measured in this project (ResNet-18, 64 px, one run, results/photos): kNN rose from 15.9 to 20.7% within "
        "96,000 samples, and no further up to 384,000. The CIFAR-10 demo of MoCo's authors sees 10 million "
        f"(82.6%), the paper 256 million.{takes}",
    )


def start_from_weights(facts: Facts) -> Advice | None:
    if facts.cfg.MODEL.WEIGHTS or facts.num_images >= SMALL:
        return None
    much = (
        " For so few it mostly decides more than any other setting." if facts.num_images < VERY_SMALL else ""
    )
    return Advice(
        f"{facts.num_images:,} images are a small set, and the encoder starts from random weights",
        "MODEL.WEIGHTS FILE (supervised or self-supervised weights of the same ResNet)",
        f"pre-training that starts from good weights usually beats a random start on small sets.{much} A rule of "
        "thumb: compare both on your detector, and with the weights alone.",
    )


def views_larger_than_images(facts: Facts) -> Advice | None:
    size = facts.cfg.INPUT.VIEWS.SIZE
    if facts.side is None or size <= facts.side:
        return None
    fitting = max(facts.side // 32 * 32, 32)
    if fitting >= size:
        return None
    blur = f" INPUT.VIEWS.BLUR_SIGMA '(0.1, {BLUR_AT_224 * fitting / 224:.2g})'"
    return Advice(
        f"views are {size} px, but the shorter side of the images is {facts.side} px: every crop is enlarged",
        f"INPUT.VIEWS.SIZE {fitting}" + (blur if ViewSettings.from_config(facts.cfg).blurs else ""),
        "an enlarged crop shows nothing new and costs time, which grows with the square of the size. A rule of "
        "thumb; stay with the larger size where the detector's objects fill larger crops.",
    )


def blur_too_strong(facts: Facts) -> Advice | None:
    views = ViewSettings.from_config(facts.cfg)
    fitting = BLUR_AT_224 * views.size / 224
    if not views.blurs or views_larger_than_images(facts) or views.blur_sigma[1] <= 1.5 * fitting:
        return None
    return Advice(
        f"blur of up to {views.blur_sigma[1]:g} px wipes out much of a view of {views.size} px",
        f"INPUT.VIEWS.BLUR_SIGMA '({min(views.blur_sigma[0], 0.1):g}, {fitting:.2g})'",
        "MoCo v2 blurs by up to 2 px at 224 px; in proportion it is this. A rule of thumb (the CIFAR-10 demo of "
        "MoCo's authors, at 32 px, does not blur at all).",
    )


def waits_for_images(facts: Facts) -> Advice | None:
    if facts.trial is None or facts.trial.data_wait <= WAITS:
        return None
    here = facts.ranks // facts.machines
    first, *others = fixes_of_waiting(facts.cfg, facts.trial.cores, here)
    size = ""
    if facts.side and facts.side > 2 * facts.cfg.INPUT.VIEWS.SIZE:
        size = f" The images' shorter side is {facts.side} px, views have {facts.cfg.INPUT.VIEWS.SIZE}."
    return Advice(
        f"a step waits for images {facts.trial.data_wait:.0%} of its time, with "
        f"{facts.cfg.DATALOADER.NUM_WORKERS} workers a process",
        first,
        f"measured just now; {facts.trial.cores} cores are shared by {here} processes. If that is not enough: "
        f"{'; '.join(others)}.{size}",
    )


def more_workers_than_cores(facts: Facts) -> Advice | None:
    if facts.trial is None:
        return None
    here, workers = facts.ranks // facts.machines, facts.cfg.DATALOADER.NUM_WORKERS
    fitting = max(facts.trial.cores // here, 1)
    if here * workers <= facts.trial.cores or workers <= fitting:
        return None
    return Advice(
        f"{here} processes with {workers} workers each share {facts.trial.cores} cores",
        f"DATALOADER.NUM_WORKERS {fitting}",
        "the trial had the workers of one process only: with all of them, the steps may wait for images.",
    )


def memory_nearly_full(facts: Facts) -> Advice | None:
    trial = facts.trial
    if trial is None or trial.total_bytes is None or trial.peak_bytes <= FULL * trial.total_bytes:
        return None
    return Advice(
        f"a step takes {gib(trial.peak_bytes)} of the GPU's {gib(trial.total_bytes)}",
        save_memory(facts),
        "measured just now; communication between processes and kNN come on top. It changes no result.",
    )


def save_memory(facts: Facts) -> str:
    """What lowers the memory of a step, without another algorithm where that is possible."""
    found, solver = [], facts.cfg.SOLVER
    parts = [
        count
        for count in range(solver.ACCUMULATE + 1, facts.local + 1)
        if facts.local % count == 0 and facts.local // count % facts.group == 0
    ]
    if parts:
        found.append(
            f"SOLVER.ACCUMULATE {parts[0]} (micro-batches of {facts.local // parts[0]} images instead of "
            f"{facts.micro_batch}; {parts[-1]} at most)"
        )
    if not solver.ACTIVATION_CHECKPOINTING:
        found.append("SOLVER.ACTIVATION_CHECKPOINTING True")
    half = facts.batch // 2
    smaller = f"SOLVER.IMS_PER_BATCH {half} SOLVER.BASE_LR {solver.BASE_LR / 2:g}"
    return ", or ".join(found) or f"more processes, or {smaller}, which is another recipe"


# The most important first; those of the method are asked between them.
FIRST_RULES: tuple[Rule, ...] = (
    learning_rate_off,
    learning_rate_never_lowered,
    start_from_weights,
    few_samples,
)
OTHER_RULES: tuple[Rule, ...] = (
    views_larger_than_images,
    blur_too_strong,
    waits_for_images,
    more_workers_than_cores,
    memory_nearly_full,
)
