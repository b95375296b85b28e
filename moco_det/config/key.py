"""What a row of the table of config keys is."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

PRETRAIN, CLASSIFY, FINETUNE = "pretrain", "classify", "finetune"
# Pre-training by those methods whose ``uses`` names the key.
METHOD = "method"
BY_EPOCHS = (PRETRAIN, CLASSIFY)
EVERY_STAGE = (PRETRAIN, CLASSIFY, FINETUNE)

# Stands for a default that is detectron2's own.
HOST = object()


class Kind(NamedTuple):
    """What a change of a key means for a run.

    Attributes:
        in_hash: the key enters the config hash, which keeps results of different runs apart.
        resume: "same": a resumed run must have the value that it had; "named": it may have another one, which the
            log names; "free": it may have another one.
        ranks_agree: all processes of a run must have the same value.
    """

    name: str
    meaning: str
    in_hash: bool
    resume: str
    ranks_agree: bool = True


ALGORITHM = Kind("algorithm", "what is computed", True, "same")
LENGTH = Kind("length", "how long the run is", True, "named")
MEASURE = Kind("measure", "how the result is measured", True, "named")
IDENTITY = Kind(
    "identity",
    "what a result's record names by itself: the seed, and the sha256 of the weights",
    False,
    "same",
)
MACHINE = Kind("machine", "how a machine computes the same", False, "free")
PLACE = Kind("place", "where each machine has its files, and how many workers it bears", False, "free", False)
WATCHING = Kind("watching", "what is logged and saved, and when", False, "free")
COUNTED = Kind("counted", "set by the program, never by the user", True, "same")
KINDS = (ALGORITHM, LENGTH, MEASURE, IDENTITY, MACHINE, PLACE, WATCHING, COUNTED)


class Allowed(NamedTuple):
    """The values that a key may have, in words and as a test."""

    words: str
    holds: Callable[[object], bool]


def one_of(*choices: object) -> Allowed:
    """One of a few values."""
    return Allowed(f"one of {', '.join(map(str, choices))}", lambda value: value in choices)


def matches(pattern: str, words: str) -> Allowed:
    """A word of a form."""
    return Allowed(words, lambda value: re.fullmatch(pattern, value) is not None)


def within(interval: str) -> Allowed:
    """A finite number of an interval such as ``"[0, 1)"`` or ``"(0, inf)"``."""
    return Allowed(_interval_words(interval), lambda value: _is_within(value, interval))


def each(interval: str) -> Allowed:
    """A number of an interval, or several of them."""
    words, holds = within(interval)
    return Allowed(
        words, lambda value: all(map(holds, value if isinstance(value, tuple | list) else [value]))
    )


def pair(interval: str) -> Allowed:
    """A smallest and a largest value, both of an interval."""
    words, holds = within(interval)
    return Allowed(
        f"(min, max) with min <= max, each {words}",
        lambda value: len(value) == 2 and all(map(holds, value)) and value[0] <= value[1],
    )


def per_channel(interval: str) -> Allowed:
    """Numbers of an interval, one for each channel."""
    words, holds = within(interval)
    return Allowed(
        "one number for each channel" + (f", each {words}" if words != "any number" else ""),
        lambda value: len(value) > 0 and all(map(holds, value)),
    )


def rising(interval: str) -> Allowed:
    """Numbers of an interval, each above the one before."""
    words, holds = within(interval)
    return Allowed(
        f"numbers in rising order, each {words}",
        lambda value: all(map(holds, value)) and list(value) == sorted(set(value)),
    )


def _bounds(interval: str) -> tuple[str, float, float, str]:
    opening, low, high, closing = re.fullmatch(r"([\[(])(.+), (.+)([\])])", interval).groups()
    return opening, float(low), float(high), closing


def _is_within(value: float, interval: str) -> bool:
    opening, low, high, closing = _bounds(interval)
    above = low <= value if opening == "[" else low < value
    below = value <= high if closing == "]" else value < high
    return math.isfinite(value) and above and below


def _interval_words(interval: str) -> str:
    opening, low, high, closing = _bounds(interval)
    words = []
    if low > -math.inf:
        words.append(f"{low:g} or more" if opening == "[" else f"above {low:g}")
    if high < math.inf:
        words.append(f"at most {high:g}" if closing == "]" else f"below {high:g}")
    return ", ".join(words) or "any number"


class When(NamedTuple):
    """A condition on another key: it has one of the values, or with ``negated`` none of them."""

    key: str
    values: tuple
    negated: bool = False

    def holds(self, value: object) -> bool:
        return (value in self.values) != self.negated


def when(key: str, *values: object) -> When:
    return When(key, values)


def unless(key: str, *values: object) -> When:
    return When(key, values, negated=True)


@dataclasses.dataclass(frozen=True)
class Key:
    """A row of the table: everything that the program knows about a config key.

    Attributes:
        name: its full name.
        default: its value where nothing sets it; HOST: detectron2's.
        meaning: what it does, with its unit.
        stages: those that read it.
        allowed: the values that it may have, in all stages or by stage; None: any of the default's type.
        source: section of a paper or official code that the default or the choice comes from.
        kind: what a change of it means for a run.
        effect: conditions, all of which must hold for the key to do something. A condition on a key that the stage
            does not read, or that does nothing itself, is passed over. On the command line a key without effect
            is refused.
        strict: a value other than the default is refused without effect wherever it was set.
        instead: by stage that does not read it, what to set there.
        was: its name in former versions.
        each_run: every run of a benchmark has a value of its own, which the program gives.
        shown: a plan shows it in a row of its own, not among the changed settings.
    """

    name: str
    default: object
    meaning: str
    stages: tuple[str, ...]
    allowed: Allowed | Mapping[str, Allowed] | None = None
    source: str = ""
    kind: Kind = ALGORITHM
    effect: tuple[When, ...] = ()
    strict: bool = False
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)
    was: str = ""
    each_run: bool = False
    shown: bool = False

    def allowed_in(self, stage: str) -> Allowed | None:
        """The values that it may have in a stage."""
        return self.allowed.get(stage) if isinstance(self.allowed, Mapping) else self.allowed
