"""Which arithmetic the encoders get: the config's, but none that a processor is slower in."""

import pytest
import torch

from moco_det.modeling.precision import describe_precision, encoder_precision, gains_by_bfloat16
from moco_det.speed.options import Options
from moco_det.testing.core import tiny_pretrain_config


def config(precision, device="cpu"):
    cfg = tiny_pretrain_config(PRECISION=precision)
    cfg.MODEL.DEVICE = device
    return cfg


@pytest.mark.parametrize(
    "capability, gains", [("AVX512", True), ("SVE256", True), ("AVX2", False), ("DEFAULT", False)]
)
def test_bfloat16_is_for_processors_that_gain_by_it(monkeypatch, capability, gains):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert gains_by_bfloat16("cpu") == gains
    assert encoder_precision(config("bfloat16")) == (torch.bfloat16 if gains else torch.float32)
    assert Options("cpu").precisions == ("float32", "bfloat16")[: 1 + gains]


@pytest.mark.parametrize("precision, device", [("float32", "cpu"), ("float16", "cpu"), ("bfloat16", "cuda")])
def test_nothing_else_is_changed(monkeypatch, precision, device):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    cfg = config(precision, device)
    assert encoder_precision(cfg) == getattr(torch, precision)
    assert describe_precision(cfg) == precision


def test_the_log_says_why_it_is_another(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert describe_precision(config("bfloat16")) == "float32, since this processor is slower in bfloat16"


def test_torch_tells_the_capability():
    assert torch.backends.cpu.get_cpu_capability().isupper()
