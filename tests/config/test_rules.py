"""What is derived from the table: refusals, ranges, the config hash, resume, and the agreement of processes."""

import shutil
from pathlib import Path

import pytest
import yaml

from moco_det.config import get_cfg, known_keys, merge_config, value_of
from moco_det.config.key import ALGORITHM, BY_EPOCHS, CLASSIFY, EVERY_STAGE, FINETUNE, PRETRAIN
from moco_det.config.keys import KEYS
from moco_det.config.rules import (
    applies,
    changes_at_resume,
    check_values,
    config_hash,
    kind_of,
    refuse_keys,
    translated,
)
from moco_det.engine.agreement import settings_and_code
from moco_det.engine.checkpoint import describe_changes
from moco_det.engine.run_folder import check_continuation
from moco_det.testing.core import tiny_pretrain_config

USES = ("MODEL.MOCO",)
OLD_CONFIG = (
    Path(__file__).parent / "data/config_of_c586ef8.yaml"
)  # tiny_pretrain_config("out"), dumped there


def changed(key, value):
    cfg = get_cfg()
    *parents, name = key.split(".")
    node = value_of(cfg, ".".join(parents)) if parents else cfg
    node[name] = value
    return cfg


def another(value):
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return value + "x" if isinstance(value, str) else type(value)([*value, 7])


# ---- Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", EVERY_STAGE)
@pytest.mark.parametrize("row", KEYS, ids=lambda row: row.name)
def test_a_stage_refuses_what_it_does_not_read(row, stage):
    cfg = get_cfg()
    if applies(row.name, stage, USES):
        refuse_keys(cfg, [row.name], (), stage, USES)
        return
    with pytest.raises(ValueError, match=row.name) as error:
        refuse_keys(cfg, ["OUTPUT_DIR", row.name], (), stage, USES)
    assert row.instead.get(stage, "") in str(error.value)


def test_keys_of_detectron2_without_a_row_are_for_fine_tuning():
    refuse_keys(get_cfg(), ["MODEL.RPN.NMS_THRESH"], ["MODEL.RPN.NMS_THRESH"], FINETUNE)
    for stage in BY_EPOCHS:
        with pytest.raises(ValueError, match="MODEL.RPN.NMS_THRESH"):
            refuse_keys(get_cfg(), ["MODEL.RPN.NMS_THRESH"], (), stage, USES)


def test_a_method_reads_the_keys_that_it_names():
    given = ["MODEL.MOCO.DIM", "MODEL.MOCO.TEMPERATURE", "MODEL.ENCODER.ARCH"]
    refuse_keys(get_cfg(), given, (), PRETRAIN, ["MODEL.MOCO.DIM", "MODEL.MOCO.TEMPERATURE"])
    with pytest.raises(ValueError, match="MODEL.MOCO.TEMPERATURE"):
        refuse_keys(get_cfg(), given, (), PRETRAIN, ["MODEL.MOCO.DIM"])
    # A beginning ends at a dot.
    assert applies("MODEL.MOCO.BANK_MOMENTUM", PRETRAIN, ["MODEL.MOCO"])
    assert not applies("MODEL.MOCO.BANK_MOMENTUM", PRETRAIN, ["MODEL.MOCO.BANK"])


@pytest.mark.parametrize(
    "stage, settings, key, reason",
    [
        (
            PRETRAIN,
            "MODEL.MOCO.DICTIONARY end_to_end",
            "MODEL.MOCO.QUEUE_SIZE",
            "MODEL.MOCO.DICTIONARY end_to_end",
        ),
        (PRETRAIN, "MODEL.MOCO.DICTIONARY queue", "MODEL.MOCO.BANK_MOMENTUM", "MODEL.MOCO.DICTIONARY queue"),
        (PRETRAIN, "MODEL.ENCODER.NORM SyncBN", "MODEL.ENCODER.BN_GROUP_SIZE", "MODEL.ENCODER.NORM SyncBN"),
        (PRETRAIN, "SOLVER.LR_SCHEDULER_NAME CosineLR", "SOLVER.GAMMA", "CosineLR"),
        (CLASSIFY, "SOLVER.LR_SCHEDULER_NAME CosineLR", "SOLVER.GAMMA", "CosineLR"),
        (FINETUNE, "SOLVER.LR_SCHEDULER_NAME WarmupCosineLR", "SOLVER.STEPS", "WarmupCosineLR"),
        (PRETRAIN, "DATALOADER.NUM_WORKERS 0", "DATALOADER.PREFETCH", "DATALOADER.NUM_WORKERS 0"),
        (PRETRAIN, "INPUT.VIEWS.RECIPE v1", "INPUT.VIEWS.BLUR_SIGMA", "INPUT.VIEWS.RECIPE v1"),
        (PRETRAIN, "OUTPUT_DIR x", "TEST.KNN.K", "an empty TEST.KNN.IMAGES"),
        (CLASSIFY, "CLASSIFY.FREEZE False", "TEST.KNN.K", "CLASSIFY.FREEZE False"),
        (CLASSIFY, "TEST.KNN.K 0", "TEST.KNN.TEMPERATURE", "TEST.KNN.K 0"),
        (CLASSIFY, "CLASSIFY.FEATURES cached", "INPUT.VIEWS.RECIPE", "CLASSIFY.FEATURES cached"),
        (PRETRAIN, "OUTPUT_DIR x", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "SOLVER.CLIP_GRADIENTS.ENABLED False"),
        (PRETRAIN, "OUTPUT_DIR x", "INPUT.VIEWS.SMALL_SIZE", "INPUT.VIEWS.SMALL_CROPS 0"),
        (PRETRAIN, "SOLVER.OPTIMIZER SGD", "SOLVER.LARS_TRUST", "SOLVER.OPTIMIZER SGD"),
    ],
)
def test_a_key_that_other_settings_leave_useless_is_refused_on_the_command_line(stage, settings, key, reason):
    cfg = get_cfg()
    merge_config(cfg, "", settings.split())
    with pytest.raises(ValueError, match=f"{key} .*{reason}"):
        refuse_keys(cfg, [key], [key], stage, USES)
    refuse_keys(cfg, [key], [], stage, USES)  # a recipe may hold it


@pytest.mark.parametrize(
    "stage, settings, key",
    [
        (
            CLASSIFY,
            "CLASSIFY.FREEZE False CLASSIFY.FEATURES cached",
            "INPUT.VIEWS.RECIPE",
        ),  # cached says nothing then
        (CLASSIFY, "CLASSIFY.FREEZE True", "TEST.KNN.K"),  # TEST.KNN.IMAGES is none of its keys
        (PRETRAIN, "TEST.KNN.IMAGES x CLASSIFY.FREEZE False", "TEST.KNN.K"),
        (FINETUNE, "SOLVER.LR_SCHEDULER_NAME WarmupCosineLR", "SOLVER.BASE_LR_END"),
        (PRETRAIN, "MODEL.MOCO.DICTIONARY queue", "MODEL.MOCO.LOSS"),  # its default says that it is not used
    ],
)
def test_conditions_that_do_not_matter_are_passed_over(stage, settings, key):
    cfg = get_cfg()
    merge_config(cfg, "", settings.split())
    refuse_keys(cfg, [key], [key], stage, USES)


@pytest.mark.parametrize(
    "stage, key, value, reason",
    [
        (PRETRAIN, "MODEL.MOCO.LOSS", "nce", "MODEL.MOCO.DICTIONARY queue.*MODEL.MOCO.LOSS infonce"),
        (PRETRAIN, "MODEL.MOCO.PROXIMAL", 0.5, "MODEL.MOCO.DICTIONARY queue"),
        (PRETRAIN, "SOLVER.WARMUP_EPOCHS", 3, "SOLVER.LR_SCHEDULER_NAME"),
        (CLASSIFY, "SOLVER.WARMUP_EPOCHS", 3, "SOLVER.LR_SCHEDULER_NAME"),
    ],
)
def test_some_settings_are_refused_without_effect_even_in_a_recipe(stage, key, value, reason):
    cfg = changed(key, value)
    cfg.INPUT.FORMAT, cfg.SOLVER.LR_SCHEDULER_NAME = "RGB", "EpochCosineLR"
    with pytest.raises(ValueError, match=f"{key} is {value!r}.*{reason}"):
        check_values(cfg, stage, USES)


def test_ranges_are_those_of_the_stage():
    cfg = changed("TEST.KNN.K", 0)
    cfg.INPUT.FORMAT, cfg.SOLVER.LR_SCHEDULER_NAME = "RGB", "CosineLR"
    check_values(cfg, CLASSIFY)
    with pytest.raises(ValueError, match="TEST.KNN.K is 0"):
        check_values(cfg, PRETRAIN, USES)
    check_values(changed("MODEL.MOCO.DIM", -1), FINETUNE)  # not read there


# ---- Kinds: hash, resume, agreement ----------------------------------------------------------------

# By hand, of the promises of docs/RELIABILITY.md and docs/REPRODUCIBILITY.md: does the hash change, what does
# --resume do, may processes differ?
PROMISES = {
    "SOLVER.BASE_LR": (True, "refused", False),
    "MODEL.ENCODER.ARCH": (True, "refused", False),
    "SOLVER.EPOCHS": (True, "named", False),
    "SOLVER.MAX_ITER": (True, "named", False),
    "SOLVER.STEPS": (True, "named", False),
    "TEST.EVAL_PERIOD": (True, "named", False),
    "DATASETS.TEST": (True, "named", False),
    "TEST.KNN.K": (True, "named", False),
    "SEED": (False, "refused", False),
    "MODEL.WEIGHTS": (False, "refused", False),
    "SOLVER.ACCUMULATE": (False, "", False),
    "INPUT.VIEWS.AUGMENT_ON": (False, "", False),
    "MODEL.DEVICE": (False, "", False),
    "DATALOADER.NUM_WORKERS": (False, "", True),
    "DATALOADER.PREFETCH": (False, "", True),
    "DATASETS.IMAGES": (False, "", True),
    "DATASETS.COCO": (False, "", True),
    "DATASETS.REGISTER": (False, "", True),
    "DATASETS.EXCLUDE": (True, "refused", False),
    "OUTPUT_DIR": (False, "", True),
    "SOLVER.LOG_PERIOD": (False, "", False),
    "MODEL.RPN.NMS_THRESH": (True, "refused", False),
}


@pytest.mark.parametrize("key", PROMISES)
def test_a_change_of_a_key_means_what_is_promised(key):
    before, now = get_cfg(), changed(key, another(value_of(get_cfg(), key)))
    in_hash, at_resume, may_differ = PROMISES[key]
    assert (config_hash(before) != config_hash(now)) == in_hash
    refused, named = changes_at_resume(now, yaml.safe_load(before.dump()), get_cfg())
    assert (bool(refused), bool(named)) == (at_resume == "refused", at_resume == "named")
    assert all(sentence.startswith(f"{key} was ") for sentence in (*refused, *named))
    assert (key not in settings_and_code(now)) == may_differ


def test_every_other_key_follows_its_kind():
    before = get_cfg()
    saved, digest = yaml.safe_load(before.dump()), config_hash(before)
    for key in known_keys(before):
        now, kind = (
            changed(key, another(value_of(before, key)) if value_of(before, key) is not None else 1),
            kind_of(key),
        )
        refused, named = changes_at_resume(now, saved, before)
        assert (config_hash(now) != digest) == kind.in_hash, key
        assert (bool(refused), bool(named)) == (kind.resume == "same", kind.resume == "named"), key


def test_the_hash_leaves_out_what_it_is_told_to():
    one, other = get_cfg(), get_cfg()
    other.SOLVER.BASE_LR = 2 * one.SOLVER.BASE_LR
    assert config_hash(one) != config_hash(other)
    key = ("SOLVER.BASE_LR",)
    assert config_hash(one, without=key) == config_hash(other, without=key) != config_hash(one)


def test_a_key_that_nobody_described_is_part_of_the_algorithm():
    assert kind_of("MODEL.SOMEBODY.KEY") is ALGORITHM


# ---- Names of former versions ----------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in KEYS if row.was], ids=lambda row: row.was)
def test_a_renamed_key_is_refused_with_its_new_name(row, tmp_path):
    value = str(row.default)
    with pytest.raises(ValueError, match=f"{row.was}'.*'{row.name}'"):
        merge_config(get_cfg(), "", [row.was, value])
    *parents, name = row.was.split(".")
    text = {name: row.default}
    for parent in reversed(parents):
        text = {parent: text}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ValueError, match=f"{row.was}' .*recipe.yaml.*'{row.name}'"):
        merge_config(get_cfg(), str(tmp_path / "recipe.yaml"), [])


def test_of_an_old_and_a_new_name_the_new_one_counts():
    saved = {"MODEL": {"MOCO": {"ARCH": "resnet18", "DIM": 8}, "ENCODER": {"ARCH": "resnet50"}}}
    assert translated(saved) == {"MODEL": {"MOCO": {"DIM": 8}, "ENCODER": {"ARCH": "resnet50"}}}
    saved = {"MODEL": {"MOCO": {"ARCH": "resnet18"}}}
    assert translated(saved) == {"MODEL": {"MOCO": {}, "ENCODER": {"ARCH": "resnet18"}}}


def test_a_run_of_a_former_version_is_resumed(tmp_path):
    shutil.copy(OLD_CONFIG, tmp_path / "config.yaml")
    cfg = tiny_pretrain_config(tmp_path)
    assert "COLOUR_ON" in OLD_CONFIG.read_text() and check_continuation(cfg) == []
    cfg.MODEL.ENCODER.NORM, cfg.INPUT.VIEWS.AUGMENT_ON = "SyncBN", "workers"
    with pytest.raises(ValueError, match="MODEL.ENCODER.NORM was 'BN', is 'SyncBN'"):
        check_continuation(cfg)
    assert describe_changes({"INPUT.VIEWS.COLOUR_ON": "auto"}, {"INPUT.VIEWS.AUGMENT_ON": "auto"}) == []
    (saying,) = describe_changes({"INPUT.VIEWS.COLOUR_ON": "auto"}, {"INPUT.VIEWS.AUGMENT_ON": "device"})
    assert saying == "INPUT.VIEWS.AUGMENT_ON auto -> device"
