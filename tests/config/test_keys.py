"""The table of config keys agrees with the configs, with itself and with the code that it speaks of."""

import importlib.util
import math
import re

import pytest
from detectron2.config import get_cfg as detectron2_get_cfg

from moco_det.config import get_cfg, known_keys, value_of
from moco_det.config.architectures import STEMS, parse_arch
from moco_det.config.key import (
    EVERY_STAGE,
    HOST,
    METHOD,
    PRETRAIN,
    Kind,
    each,
    pair,
    per_channel,
    rising,
    within,
)
from moco_det.config.keys import KEYS
from moco_det.config.page import PAGE, config_page
from moco_det.config.rules import ROWS, applies
from moco_det.data.views import RECIPES, ViewSettings
from moco_det.testing.core import REPOSITORY

USES = ("MODEL.MOCO",)


def row_of(name):
    return next(row for row in KEYS if row.name == name)


def test_every_key_of_ours_has_one_row_and_every_row_is_a_key():
    names, ours, theirs = [row.name for row in KEYS], known_keys(get_cfg()), known_keys(detectron2_get_cfg())
    assert len(set(names)) == len(names) and set(names) <= set(ours)
    assert {row.name for row in KEYS if row.default is HOST} == set(names) & set(theirs)
    assert set(ours) - set(theirs) == {row.name for row in KEYS if row.default is not HOST}


@pytest.mark.parametrize("row", KEYS, ids=lambda row: row.name)
def test_a_row_is_whole(row):
    assert row.meaning.endswith(".") and isinstance(row.kind, Kind)
    assert set(row.stages) <= {*EVERY_STAGE, METHOD}
    for stage in EVERY_STAGE:
        allowed = row.allowed_in(stage)
        if row.default is not HOST and allowed and applies(row.name, stage, USES):
            assert allowed.holds(row.default), (stage, allowed.words)
    for stage, other in row.instead.items():
        assert not applies(row.name, stage, USES), "it is read there, so nothing stands for it"
        assert other.startswith("--") or applies(other, stage, USES)
    for condition in row.effect:
        assert condition.key in ROWS and condition.values
        choices = ROWS[condition.key].allowed_in(PRETRAIN)
        if choices and choices.words.startswith("one of") and condition.key != "SOLVER.LR_SCHEDULER_NAME":
            assert all(map(choices.holds, condition.values))
    assert not row.strict or (row.effect and row.default is not HOST)
    assert not row.was or row.was not in known_keys(get_cfg())


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("projects/*/moco_*/config.py")), ids=lambda p: p.parts[-3]
)
def test_every_key_of_a_project_has_a_row(path):
    spec = importlib.util.spec_from_file_location(f"config_of_{path.parts[-2]}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (add_config,) = (value for name, value in vars(module).items() if re.fullmatch(r"add_\w+_config", name))
    cfg, before = get_cfg(), set(known_keys(get_cfg()))
    add_config(cfg)
    assert set(known_keys(cfg)) - before == {row.name for row in module.ROWS}
    for row in module.ROWS:
        test_a_row_is_whole(row)
        assert value_of(cfg, row.name) == row.default
    add_config(again := get_cfg())
    assert again == cfg


def test_the_page_is_of_this_table():
    """The page is generated from the table: python -m moco_det.config.page writes it."""
    assert (REPOSITORY / PAGE).read_text() == config_page()
    assert config_page(KEYS[1:]) != config_page()


# ---- What the rows say of other code ---------------------------------------------------------------


def test_choices_are_those_of_the_code():
    assert row_of("INPUT.VIEWS.RECIPE").allowed.words == f"one of {', '.join(RECIPES)}"
    assert row_of("MODEL.ENCODER.STEM").allowed.words == f"one of {', '.join(STEMS)}"
    (condition,) = row_of("INPUT.VIEWS.BLUR_SIGMA").effect
    assert {r for r in RECIPES if ViewSettings(r, 8, (0.2, 1.0)).blurs} == set(condition.values)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet152",
        "resnext50_32x8d",
        "resnext18_32x8d",
        "resnet20",
        "resnet",
        "xresnet50",
        "resnet50x",
        "resnext50_1x32d_stem32_out128",
        "resnet50_stem64_out30",
    ],
)
def test_architectures_are_those_that_can_be_built(name):
    try:
        parse_arch(name)
    except ValueError:
        assert not row_of("MODEL.ENCODER.ARCH").allowed.holds(name)
    else:
        assert row_of("MODEL.ENCODER.ARCH").allowed.holds(name) and row_of("CLASSIFY.ARCH").allowed.holds(
            name
        )


# ---- Ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "allowed, right, wrong",
    [
        (within("[0, 1)"), [0, 0.5, 0.999], [-0.001, 1, 2, math.nan, math.inf]),
        (within("(0, 1]"), [1, 0.001], [0, -1, 1.001]),
        (within("(0, inf)"), [1e-9, 1e9], [0, math.inf, math.nan]),
        (within("[1, inf)"), [1, 7], [0, 0.5, -3]),
        (within("(-inf, inf)"), [-1e9, 0, 3], [math.inf, -math.inf, math.nan]),
        (each("[1, inf)"), [1, (1, 5), [2], ()], [0, (1, 0)]),
        (pair("(0, 1]"), [(0.2, 1.0), [0.5, 0.5]], [(0, 1), (0.5, 0.4), (0.2,), (0.1, 0.2, 0.3), (0.5, 1.1)]),
        (per_channel("(0, inf)"), [[1, 2, 3.5], [1]], [[], [0, 1, 1], [1, 1, math.nan]]),
        (rising("[1, inf)"), [(), (1,), (3, 9)], [(0, 3), (9, 3), (3, 3)]),
    ],
)
def test_ranges_hold_what_they_say(allowed, right, wrong):
    assert all(map(allowed.holds, right)) and not any(map(allowed.holds, wrong))


def test_ranges_are_told_in_words():
    words = {interval: within(interval).words for interval in ("[0, 1)", "(0, inf)", "(0, 1]", "(-inf, inf)")}
    assert words == {
        "[0, 1)": "0 or more, below 1",
        "(0, inf)": "above 0",
        "(0, 1]": "above 0, at most 1",
        "(-inf, inf)": "any number",
    }
