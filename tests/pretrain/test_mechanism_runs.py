"""Whole runs with each mechanism: what resumes, what a plan and a log say, what is refused."""

from unittest import mock

import pytest
import torch
from mechanism_examples import IMAGES, SETTINGS, make_batch, make_model, small_encoder, step

from moco_det.engine.hooks import LogWriter
from moco_det.engine.run_folder import check_continuation, prepare_run_folder
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.moco import model as moco
from moco_det.pretrain.moco.model import MoCo
from moco_det.pretrain.plan.advice import advise, save_memory
from moco_det.pretrain.plan.facts import Facts
from moco_det.pretrain.plan.plan import method_rows
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import set_keys, tiny_pretrain_config, write_random_images

# ---- Whole runs ------------------------------------------------------------------------------------


def run(images, output, setting, stop=6, resume=False):
    """Steps of the trainer up to ``stop``, 3 an epoch."""
    cfg = tiny_pretrain_config(output)
    set_keys(cfg, SETTINGS[setting])
    cfg.DATASETS.IMAGES = str(images)
    prepare_run_folder(cfg, resume)
    with mock.patch.object(moco, "build_encoder", small_encoder):
        trainer = PretrainTrainer(cfg)
    if resume:
        trainer.resume()
    trainer.max_iter = stop
    trainer.run()
    return trainer


@pytest.mark.parametrize("setting", ["shared encoder", "two encoders", "bank with nce"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, setting):
    """Bit for bit, interrupted in the middle of an epoch: the encoders, the optimizer, the bank and Z."""
    write_random_images(tmp_path / "images", 24)
    run(tmp_path / "images", tmp_path / "cut", setting, stop=4)
    ours = run(tmp_path / "images", tmp_path / "cut", setting, resume=True)
    theirs = run(tmp_path / "images", tmp_path / "whole", setting)
    for name, value in theirs.method.state_dict().items():
        assert torch.equal(value, ours.method.state_dict()[name]), name
    log = (tmp_path / "cut/metrics.json").read_text()
    assert ("bank_fill" in log) == (setting == "bank with nce") and "queue_fill" not in log
    if setting == "bank with nce":
        assert ours.method.dictionary.entries.dtype == torch.float16
        assert ours.method.dictionary.seen.all() and ours.method.dictionary.normalizer > 0


def test_a_run_from_before_a_key_continues_as_with_its_default(tmp_path):
    cfg = tiny_pretrain_config(tmp_path)
    old = cfg.clone()
    old.MODEL.MOCO.pop("LOSS")
    (tmp_path / "config.yaml").write_text(old.dump())
    assert check_continuation(cfg) == []
    cfg.MODEL.MOCO.LOSS = "nce"
    with pytest.raises(ValueError, match="MODEL.MOCO.LOSS was 'infonce', is 'nce'"):
        check_continuation(cfg)


# ---- The momentum table ----------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9999])
def test_the_ends_of_the_momentum_table(momentum):
    queue = {"DICTIONARY": "queue", "QUEUE_SIZE": 24, "MOMENTUM": momentum}
    with mock.patch.dict(SETTINGS, {"queue": queue}):
        model = make_model("queue")
    q, k = model.encoder_q.fc.weight, model.encoder_k.fc.weight
    q.data += 1
    before = k.clone()
    step(model, make_batch(0))
    torch.testing.assert_close(k, momentum * before + (1 - momentum) * q, atol=1e-12, rtol=0)
    assert k.grad is None and q.grad is not None


# ---- What a plan and a log say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, label, text",
    [
        (
            "two encoders",
            "end-to-end",
            "7 negatives, the other keys of the batch; an encoder for queries and one",
        ),
        (
            "shared encoder",
            "end-to-end",
            "7 negatives, the other keys of the batch; one encoder, all trained",
        ),
        (
            "bank with nce",
            "memory bank",
            "20 images, 0.00 GiB; 12 negatives a step, for 45.96% of queries their own",
        ),
    ],
)
def test_a_plan_tells_the_mechanism(setting, label, text):
    """The plan gives no advice on a queue that is not there."""
    cfg = tiny_pretrain_config()
    set_keys(cfg, SETTINGS[setting])
    facts = Facts(cfg, IMAGES)
    (row,) = method_rows(facts)[1:]
    assert row[0] == label and text in row[1]
    assert not [a for a in advise(facts) if "queue" in a.found or "momentum" in a.found]
    assert "SOLVER.ACCUMULATE 2" in save_memory(facts)


def test_a_log_line_names_the_bank():
    names = ("epoch", "total_loss", "similarity_positive", "similarity_batch", "similarity_negative", "lr")
    latest = dict.fromkeys((*names, "images_per_second", "data_wait", "seconds_per_step"), 0.5)

    def line(values):
        return LogWriter(PretrainTrainer.describe_outputs, 2, 1).line(values, 1)

    assert "bank fill 25% (" in line({**latest, "bank_fill": 0.25})
    assert "0.50 batch, 0.50 negatives  lr" in line(latest)


# ---- Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (("DICTIONARY", "queue", "LOSS", "nce"), r"LOSS is 'nce', .* no effect with .*DICTIONARY queue"),
        (
            ("DICTIONARY", "end_to_end", "PROXIMAL", 1.0),
            r"PROXIMAL is 1.0, .* no effect with .*end_to_end",
        ),
        (
            ("DICTIONARY", "memory_bank", "SHARED_ENCODER", True),
            r"SHARED_ENCODER is True, .* no effect with .*memory_bank",
        ),
        (
            ("DICTIONARY", "memory_bank", "BANK_MOMENTUM", 1.0),
            r"BANK_MOMENTUM is 1.0; expected 0 or more, below 1",
        ),
        (("DICTIONARY", "memory_bank", "PROXIMAL", -1.0), r"PROXIMAL is -1.0; expected 0"),
        (("DICTIONARY", "memory_bank", "QUEUE_SIZE", 0), r"QUEUE_SIZE is 0; expected 1 or more"),
        (
            ("DICTIONARY", "memory_bank"),
            r"DATASETS.NUM_IMAGES is 0; a memory bank has an entry for each image",
        ),
        (
            ("DICTIONARY", "memory_bank", "SYMMETRIC", True),
            r"SYMMETRIC is True, .* no effect with .*memory_bank",
        ),
        (
            ("DICTIONARY", "queue", "SYMMETRIC", True, "QUEUE_SIZE", 8),
            r"QUEUE_SIZE is 8, smaller than SOLVER.IMS_PER_BATCH 8, twice with .* set it to 16 or more",
        ),
        (("LOSS", "triplet"), r"LOSS is 'triplet'; expected one of infonce, nce"),
    ],
)
def test_refuses_what_a_dictionary_cannot_have(options, message):
    cfg = tiny_pretrain_config()
    set_keys(cfg, dict(zip(options[::2], options[1::2], strict=True)))
    with pytest.raises(ValueError, match=message):
        MoCo(cfg)


def test_end_to_end_refuses_single_images():
    cfg = tiny_pretrain_config()
    cfg.MODEL.MOCO.DICTIONARY = "end_to_end"
    cfg.SOLVER.IMS_PER_BATCH = cfg.MODEL.ENCODER.BN_GROUP_SIZE = 1
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 1 with .* expected 2 or more"):
        MoCo(cfg)


@pytest.mark.parametrize(
    "kind, key, value",
    [
        ("end_to_end", "QUEUE_SIZE", "64"),
        ("end_to_end", "MOMENTUM", "0.9"),
        ("memory_bank", "MOMENTUM", "0.9"),
        ("memory_bank", "SHUFFLE_BN", "False"),
        ("queue", "BANK_MOMENTUM", "0.9"),
        ("queue", "SHARED_ENCODER", "True"),
        ("memory_bank", "SYMMETRIC", "True"),
    ],
)
def test_a_key_that_the_dictionary_does_not_read_is_refused(kind, key, value):
    args = argument_parser().parse_args(
        ["--config-file", "configs/Pretrain/moco_v2_R_50_200ep.yaml", "--images", "x", "--num-gpus", "0"]
        + ["MODEL.MOCO.DICTIONARY", kind, f"MODEL.MOCO.{key}", value]
    )
    with pytest.raises(
        ValueError, match=f"MODEL.MOCO.{key} .*has no effect with MODEL.MOCO.DICTIONARY {kind}"
    ):
        build_config(args)
