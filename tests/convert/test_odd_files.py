"""Odd checkpoints, thought up from what users save: each is converted, or refused for its true reason."""

import collections
import re

import numpy as np
import pytest
import torch
from family_examples import backbone, linear

from moco_det.convert.command import main
from moco_det.weights.backbone_file import read_backbone
from moco_det.weights.resnet_names import to_torchvision


def pruned(states):
    changed = dict(states)
    for name in [n for n in states if n.endswith(("conv1.weight", "conv2.weight"))]:
        changed[f"{name}_orig"] = changed.pop(name)
        changed[f"{name}_mask"] = torch.ones(states[name].shape)
    return changed


def halved(value):
    """The first half of a tensor's channels; those of the images stay three."""
    outputs = value[: len(value) // 2] if value.ndim else value
    return outputs[:, : value.shape[1] // 2] if value.ndim > 1 and value.shape[1] > 3 else outputs


def renamed(states, old, new):
    return {name.replace(old, new): value for name, value in states.items()}


# What it is: the file's content from two ResNet-18s, flags, and whether the first ("q") or second ("k") comes out,
# or what the message says.
ODD = {
    "reference training of torchvision, with its moving average": (
        lambda q, k: {
            "model": q,
            "model_ema": {"n_averaged": torch.tensor(5)} | backbone(k, "module."),
            "epoch": 1,
        },
        "",
        "q",
    ),
    "its moving average": (
        lambda q, k: {
            "model": q,
            "model_ema": {"n_averaged": torch.tensor(5)} | backbone(k, "module."),
            "epoch": 1,
        },
        "--encoder key",
        "k",
    ),
    "FixMatch: a moving average in an entry of another name": (
        lambda q, k: {"model": q, "ema_model": k, "it": 7},
        "",
        "q",
    ),
    "that entry by --prefix": (lambda q, k: {"model": q, "ema_model": k, "it": 7}, "--prefix ema_model", "k"),
    "ema-pytorch: two copies that differ": (
        lambda q, k: backbone(q, "online_model.") | backbone(k, "ema_model.") | {"step": torch.tensor(4)},
        "",
        "holds 2 ResNets, under 'online_model.', 'ema_model.'",
    ),
    "Lightning with hyperparameters, callbacks and loops": (
        lambda q, k: {
            "pytorch-lightning_version": "2.1",
            "hyper_parameters": {"lr": 0.1, "arch": "resnet18"},
            "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.3)}},
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
            "state_dict": backbone(q, "net.cnn.")
            | {"loss_fn.weight": torch.ones(3), "temperature": torch.tensor(0.07)},
        },
        "",
        "q",
    ),
    "RGB-D: two branches": (
        lambda q, k: {"state_dict": backbone(q, "rgb.") | backbone(k, "depth.") | linear("fuse")},
        "--prefix depth",
        "k",
    ),
    "a ResNet in a Sequential in a wrapper, compiled": (
        lambda q, k: {"net": backbone(q, "module._orig_mod.0.") | linear("module._orig_mod.1", 0, 2)},
        "",
        "q",
    ),
    "a head of two layers in place of fc": (
        lambda q, k: backbone(q, "cnn.") | linear("cnn.fc", 0, 3),
        "",
        "q",
    ),
    "a detector of one's own around it": (
        lambda q, k: {
            "model_state": backbone(q, "backbone.resnet.") | linear("backbone.fpn") | linear("cls.0")
        },
        "",
        "q",
    ),
    "parameters in place of tensors, in an OrderedDict": (
        lambda q, k: collections.OrderedDict(
            (n, torch.nn.Parameter(v) if v.is_floating_point() else v) for n, v in q.items()
        ),
        "",
        "q",
    ),
    "channels_last strides": (
        lambda q, k: {
            n: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in q.items()
        },
        "",
        "q",
    ),
    "no step counters (torch 0.3)": (
        lambda q, k: {n: v for n, v in q.items() if "num_batches" not in n},
        "",
        "q",
    ),
    "a mix of float64 and float32": (
        lambda q, k: {n: v.double() if "layer3" in n and v.is_floating_point() else v for n, v in q.items()},
        "",
        "q",
    ),
    "pruned with masks": (lambda q, k: pruned(q), "", "pruned layers whose masks are still apart"),
    "weight norm": (
        lambda q, k: {f"{n}_g" if n.endswith("conv1.weight") else n: v for n, v in q.items()},
        "",
        r"weights in a parametrization",
    ),
    "LoRA adapters alone": (
        lambda q, k: {
            "base.layer1.0.conv1.lora_A": torch.ones(4, 64),
            "base.layer1.0.conv1.lora_B": torch.ones(64, 4),
        },
        "",
        "low-rank adapters",
    ),
    "sparse tensors": (
        lambda q, k: q | {"layer1.0.conv1.weight": q["layer1.0.conv1.weight"].to_sparse()},
        "",
        "1 no floating-point tensors: layer1.0.conv1.weight",
    ),
    "tensors on the meta device": (
        lambda q, k: {n: torch.empty(v.shape, device="meta") for n, v in q.items()},
        "",
        "100 no floating-point tensors: conv1.weight",
    ),
    "quantized to int8": (
        lambda q, k: {n: (v * 100).to(torch.int8) if v.ndim == 4 else v for n, v in q.items()},
        "",
        "20 no floating-point tensors: conv1.weight",
    ),
    "a 3x3 stem of CIFAR under a prefix": (
        lambda q, k: {"net": q | {"conv1.weight": torch.ones(64, 3, 3, 3)}},
        "",
        r"a 3x3 stem \(for small images\)",
    ),
    "half the width of a ResNet-18": (
        lambda q, k: {name: halved(value) for name, value in q.items()},
        "",
        "layer1 has 32 channels; detectron2 builds basic blocks .* only with MODEL.RESNETS.RES2_OUT_CHANNELS 64",
    ),
    "a ResNet-10, one block a stage": (
        lambda q, k: {n: v for n, v in q.items() if ".1." not in n or "downsample" in n},
        "",
        r"have \(1, 1, 1, 1\) basic blocks; detectron2 builds .* 18: \(2, 2, 2, 2\)",
    ),
    "a ResNet of three stages": (
        lambda q, k: {n: v for n, v in q.items() if not n.startswith("layer4")},
        "",
        r"have \(2, 2, 2, 0\) basic blocks",
    ),
    "squeeze-and-excitation under a prefix": (
        lambda q, k: backbone(q, "model.enc.")
        | {"model.enc.layer1.0.se.fc1.weight": torch.ones(4, 64, 1, 1)},
        "",
        "squeeze-and-excitation",
    ),
    "slashes in place of dots": (
        lambda q, k: renamed(q, ".", "/"),
        "",
        "no known family .*first names are conv1/weight",
    ),
    "a list of state dict and optimizer": (
        lambda q, k: [q, {"lr": 1}],
        "",
        "the file holds a list; expected a dict",
    ),
    "only the optimizer's state": (
        lambda q, k: {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []},
        "",
        "no known family",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_file(tmp_path, name, resnet18, other_resnet18, capsys):
    make, flags, outcome = ODD[name]
    torch.save(make(resnet18, other_resnet18), tmp_path / "a.ckpt")
    command = [str(tmp_path / "a.ckpt"), str(tmp_path / "b.pkl"), *flags.split()]
    if outcome not in ("q", "k"):
        with pytest.raises(SystemExit, match="2"):
            main(command)
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "b.pkl").exists()
        assert re.search(outcome, error), error
        return
    main(command)
    states = resnet18 if outcome == "q" else other_resnet18
    tensors = {
        to_torchvision(name): array for name, array in read_backbone(tmp_path / "b.pkl").tensors.items()
    }
    assert len(tensors) == 100
    assert all(np.array_equal(array, states[name].float().numpy()) for name, array in tensors.items())


def test_another_network_beside_is_mentioned(tmp_path, resnet18, other_resnet18, capsys):
    torch.save({"model": resnet18, "ema_model": other_resnet18, "it": 7}, tmp_path / "a.ckpt")
    main([str(tmp_path / "a.ckpt"), str(tmp_path / "b.pkl")])
    out = capsys.readouterr().out
    assert "the entry 'ema_model' holds another network, which --prefix ema_model takes" in out
    assert "dropped  entries that are no weights: it\n" in out
