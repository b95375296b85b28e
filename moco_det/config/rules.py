"""What follows from the table's rows: refusals, ranges, the config hash, resume and the agreement of ranks."""

import copy
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_get_cfg

from moco_det.config.key import ALGORITHM, CLASSIFY, COUNTED, FINETUNE, HOST, METHOD, PRETRAIN, Key, Kind
from moco_det.config.keys import KEYS

IN_WORDS = {PRETRAIN: "pre-training", CLASSIFY: "training a classifier", FINETUNE: "fine-tuning"}
# Every row by its name; projects add theirs.
ROWS = {row.name: row for row in KEYS}


def add_keys(cfg: CfgNode, rows: Iterable[Key]) -> None:
    """Add keys with their defaults to a config, and their rows to what the program knows."""
    for row in rows:
        ROWS[row.name] = row
        if row.default is not HOST:
            *parents, name = row.name.split(".")
            node = cfg
            for parent in parents:
                node = node.setdefault(parent, CfgNode())
            node[name] = copy.deepcopy(row.default)


def known_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    """All full key names of a config, e.g. ``"MODEL.MOCO.DIM"``."""
    keys = []
    for name, value in cfg.items():
        full = f"{prefix}{name}"
        keys += known_keys(value, full + ".") if isinstance(value, CfgNode) else [full]
    return keys


def value_of(cfg: CfgNode, key: str) -> object:
    """The value of a key such as ``"SOLVER.BASE_LR"``."""
    return functools.reduce(lambda node, name: node[name], key.split("."), cfg)


def kind_of(key: str) -> Kind:
    """The kind of a key; one without a row is taken for part of the algorithm."""
    return ROWS[key].kind if key in ROWS else ALGORITHM


# ---- What a stage reads ----------------------------------------------------------------------------


@functools.cache
def _keys_of_detectron2() -> frozenset[str]:
    return frozenset(known_keys(detectron2_get_cfg()))


def applies(key: str, stage: str, uses: Sequence[str] = ()) -> bool:
    """Whether a stage reads a key.

    Args:
        uses: of a method of pre-training: keys of its own, or their beginnings up to a dot.
    """
    row = ROWS.get(key)
    if row is None:  # detectron2's are fine-tuning's; others are of a project that has no rows
        return stage == FINETUNE or key not in _keys_of_detectron2()
    if stage == PRETRAIN and METHOD in row.stages:
        return any(key == name or key.startswith(name + ".") for name in uses)
    return stage in row.stages


def has_effect(cfg: CfgNode, row: Key, stage: str, uses: Sequence[str] = ()) -> bool:
    """Whether a key does something with the other settings as they are."""
    return next(_unmet(cfg, row, stage, uses), None) is None


def _unmet(cfg: CfgNode, row: Key, stage: str, uses: Sequence[str]) -> Iterator[str]:
    """The settings that leave a key without effect, in words."""
    for condition in row.effect:
        other = ROWS[condition.key]
        if applies(other.name, stage, uses) and has_effect(cfg, other, stage, uses):
            value = value_of(cfg, other.name)
            if not condition.holds(value):
                yield f"an empty {other.name}" if value == "" else f"{other.name} {value}"


def refuse_keys(
    cfg: CfgNode, set_keys: Iterable[str], given: Iterable[str], stage: str, uses: Sequence[str] = ()
) -> None:
    """Refuse keys that would silently do nothing.

    Args:
        set_keys: what was set, by a recipe or the command line.
        given: those of them that the command line set; recipes hold settings for every case.

    Raises:
        ValueError: names the first such key and what to do.
    """
    method = f" with {cfg.MODEL.META_ARCHITECTURE}" if stage == PRETRAIN else ""
    for key in set_keys:
        if kind_of(key) is COUNTED:
            raise ValueError(f"config key {key} is not to be set, it is counted; leave it out")
        if not applies(key, stage, uses):
            other = ROWS[key].instead.get(stage) if key in ROWS else None
            fix = f"use {other}" if other else "remove it"
            raise ValueError(f"config key {key} does not apply to {IN_WORDS[stage]}{method}; {fix}")
    for row in (ROWS[key] for key in given if key in ROWS):
        because = next(_unmet(cfg, row, stage, uses), None)
        if because and not (row.strict and value_of(cfg, row.name) == row.default):
            raise ValueError(f"config key {row.name} has no effect with {because}; remove it, or change that")


# ---- What values may be ----------------------------------------------------------------------------


def check_value(key: str, value: object, stage: str) -> None:
    """Raises ValueError: a value is not one that the key may have in a stage."""
    allowed = ROWS[key].allowed_in(stage)
    if allowed is not None and not allowed.holds(value):
        raise ValueError(f"{key} is {value!r}; expected {allowed.words}")


def check_values(cfg: CfgNode, stage: str, uses: Sequence[str] = ()) -> None:
    """Refuse values out of their range, and settings that only another setting would read.

    Raises:
        ValueError: with the key, the value found, what was expected and the fix.
    """
    there = set(known_keys(cfg))
    for row in ROWS.values():
        if row.name not in there or not applies(row.name, stage, uses):
            continue
        value = value_of(cfg, row.name)
        check_value(row.name, value, stage)
        because = next(_unmet(cfg, row, stage, uses), None) if row.strict and value != row.default else None
        if because:
            raise ValueError(
                f"{row.name} is {value!r}, which has no effect with {because}; set {row.name} {row.default}, or "
                "change that"
            )


# ---- What a run is ---------------------------------------------------------------------------------


def config_hash(cfg: CfgNode, *, without: tuple[str, ...] = ()) -> str:
    """First 12 hex digits of the sha256 of ``cfg.dump()`` without keys that do not tell runs apart.

    Args:
        without: further keys to leave out.
    """
    cfg = cfg.clone()
    cfg.defrost()
    for key in known_keys(cfg):
        if key in without or not kind_of(key).in_hash:
            parent, _, name = key.rpartition(".")
            (value_of(cfg, parent) if parent else cfg).pop(name)
    return hashlib.sha256(cfg.dump().encode()).hexdigest()[:12]


def new_name(key: str) -> str:
    """What a key is called now, by its name of now or before."""
    return next((row.name for row in ROWS.values() if row.was == key), key)


def translated(saved: dict) -> dict:
    """A saved config, as nested dicts, with today's names of its keys."""
    for row in ROWS.values():
        if row.was:
            *parents, name = row.was.split(".")
            old = functools.reduce(lambda node, part: node.get(part, {}), parents, saved)
            if name in old:
                *parents, new = row.name.split(".")
                node = functools.reduce(lambda node, part: node.setdefault(part, {}), parents, saved)
                node.setdefault(new, old.pop(name))
    return saved


def changes_at_resume(cfg: CfgNode, saved: dict, defaults: CfgNode) -> tuple[list[str], list[str]]:
    """What is different in a config from that of the run that it resumes.

    Args:
        saved: the run's config as nested dicts.
        defaults: of keys that are younger than the run, which had the effect of their default.

    Returns:
        sentences on changes that are refused, and on those that the log should name.
    """
    saved = translated(saved)
    refused, named = [], []
    for key in known_keys(cfg):
        was, asked = _saved_value(saved, key, defaults), _plain(value_of(cfg, key))
        if was != asked and kind_of(key).resume != "free":
            (named if kind_of(key).resume == "named" else refused).append(f"{key} was {was!r}, is {asked!r}")
    return refused, named


def _saved_value(saved: dict, key: str, defaults: CfgNode) -> object:
    try:
        return value_of(saved, key)
    except KeyError:
        return _plain(value_of(defaults, key)) if key in known_keys(defaults) else None


def _plain(value: object) -> object:
    """A value as a YAML file gives it back, so that tuples compare with lists."""
    return yaml.safe_load(CfgNode({"value": value}).dump())["value"]
