"""ONNX graphs of ResNets: read by their nodes, whatever the names, and proven by computing the graph itself."""

import builtins
import warnings

import numpy as np
import pytest
import torch

from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.finetune.loaded_weights import read_weights
from moco_det.finetune.weights_check import check_loaded_backbone
from moco_det.model_zoo import get_config
from moco_det.modeling.encoder import build_resnet
from moco_det.weights.backbone_file import read_backbone
from moco_det.weights.backbone_tensors import expected_shapes
from moco_det.weights.sources import onnx_graph, read_checkpoint
from moco_det.weights.sources.families import MSRA
from moco_det.weights.sources.layouts import FUSED_NOTE
from moco_det.weights.sources.onnx_graph import read_onnx

onnx = pytest.importorskip("onnx")


def export(path, states, arch="resnet18", fused=False, stride_in_1x1=False, channels=3, wrap=lambda m: m):
    model = build_resnet(arch, num_classes=16, stride_in_1x1=stride_in_1x1, in_channels=channels)
    model.load_state_dict(states)
    keep = {} if fused else {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called legacy
        torch.onnx.export(
            wrap(model.eval()), torch.randn(1, channels, 64, 64), str(path), dynamo=False, **keep
        )
    return onnx.load(path)


def without_names(model):
    """The same graph with every tensor and node called by a number."""
    numbers: dict[str, str] = {"": ""}
    for node in model.graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [numbers.setdefault(name, f"t{len(numbers)}") for name in names]
    for value in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        value.name = numbers.setdefault(value.name, f"t{len(numbers)}")
    return model


@pytest.mark.parametrize(
    "arch, stride, channels",
    [("resnet18", False, 3), ("resnet50", False, 3), ("resnet50", True, 3), ("resnet18", False, 4)],
)
def test_a_graph_without_names_gives_the_tensors(tmp_path, resnet18, resnet50, arch, stride, channels):
    states = dict(resnet18 if arch == "resnet18" else resnet50)
    states["conv1.weight"] = torch.randn(64, channels, 7, 7) / 10
    model = export(tmp_path / "a.onnx", states, arch, stride_in_1x1=stride, channels=channels)
    onnx.save(without_names(model), tmp_path / "a.onnx")
    done = convert(tmp_path / "a.onnx", tmp_path / "b.pkl")
    assert done.provenance["source"] == "onnx" and done.provenance["arch"] == arch
    assert done.preprocessing.stride_in_1x1 is stride and len(done.preprocessing.pixel_mean) == channels
    told = convert(tmp_path / "a.onnx", tmp_path / "b.pkl", preprocessing=MSRA)
    assert told.preprocessing.stride_in_1x1 is stride and told.preprocessing.pixel_std == (1.0,) * channels
    content = read_checkpoint(tmp_path / "a.onnx")["state_dict"]
    assert content.keys() == set(expected_shapes(arch))
    assert all(torch.equal(value, states[name]) for name, value in content.items())
    assert len(read_backbone(tmp_path / "b.pkl").tensors) == len(content)


def test_multiplied_norms_give_the_features(tmp_path, resnet18):
    """torch exports so in evaluation mode: no name and no norm is left."""
    export(tmp_path / "a.onnx", resnet18, fused=True)
    states = read_onnx(tmp_path / "a.onnx")["state_dict"]
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    pooled = []
    for tensors in (states, {n: v for n, v in resnet18.items() if not n.startswith("fc.")}):
        model = build_resnet("resnet18").double()
        model.load_state_dict(tensors, strict=False)
        model.fc = torch.nn.Identity()
        pooled.append(model.eval()(images))
    assert torch.allclose(*pooled, rtol=1e-5, atol=1e-6)
    assert FUSED_NOTE in convert(tmp_path / "a.onnx", tmp_path / "b.pkl").notes
    file = read_weights(str(tmp_path / "b.pkl"))
    with pytest.raises(ValueError, match="NORM must be FrozenBN, not naiveSyncBN"):
        check_loaded_backbone(get_config("toy/faster_rcnn_R_18_FPN", "moco"), torch.nn.Identity(), file)


def test_other_epsilons_go_into_the_variance(tmp_path, resnet18):
    model = export(tmp_path / "a.onnx", resnet18)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1e-3
    onnx.save(model, tmp_path / "a.onnx")
    found = read_onnx(tmp_path / "a.onnx")["state_dict"]["bn1.running_var"]
    assert torch.allclose(found, resnet18["bn1.running_var"] + (1e-3 - 1e-5))


class Normalized(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images - 0.5) / 0.25)


def test_images_that_the_graph_normalizes_need_the_users_word(tmp_path, resnet18, capsys):
    export(tmp_path / "a.onnx", resnet18, wrap=Normalized)
    assert read_onnx(tmp_path / "a.onnx")["onnx"]["before"] == ["Sub", "Div"]
    command = [str(tmp_path / "a.onnx"), str(tmp_path / "b.pkl")]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "--preprocessing" in capsys.readouterr().err
    main([*command, "--pixel-mean", "127.5", "127.5", "127.5", "--pixel-std", "63.75", "63.75", "63.75"])


# ---- Graphs that are something else, and a wrong reading ------------------------------------------------


def convolution(model, number):
    return [node for node in model.graph.node if node.op_type == "Conv"][number]


def set_attribute(node, name, value):
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def one_sided(model):
    set_attribute(convolution(model, 0), "pads", [2, 2, 4, 4])


def dilated(model):
    set_attribute(convolution(model, -1), "pads", [2, 2, 2, 2])
    set_attribute(convolution(model, -1), "dilations", [2, 2])


def other_stride(model):
    for node in model.graph.node:
        if node.op_type == "Conv" and any(a.name == "strides" and a.ints == [2, 2] for a in node.attribute):
            set_attribute(node, "strides", [1, 1])


def other_pooling(model):
    pooling = next(node for node in model.graph.node if node.op_type == "MaxPool")
    set_attribute(pooling, "ceil_mode", 1)
    set_attribute(pooling, "pads", [0, 0, 0, 0])


def other_activation(model):
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softplus"


def average_pooling(model):
    next(node for node in model.graph.node if node.op_type == "MaxPool").op_type = "AveragePool"


def quantized(model):
    name = convolution(model, 3).input[1]
    number = next(n for n, tensor in enumerate(model.graph.initializer) if tensor.name == name)
    del model.graph.initializer[number]
    model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["x", "y"], [name]))


def no_additions(model):
    for node in model.graph.node:
        if node.op_type == "Add":
            node.op_type = "Mul"


@pytest.mark.parametrize(
    "change, why",
    [
        (one_sided, "pads on one side"),
        (dilated, r"is dilated \[2, 2\]"),
        (other_stride, "its res2 differs by .* from a ResNet's"),
        (other_pooling, "its res2 differs by"),
        (other_activation, "Softplus '.*' stands where a ResNet has"),
        (average_pooling, "Relu, not max-pooling|not max-pooling|AveragePool"),
        (quantized, r"made by DequantizeLinear \(is the network quantized\?\)"),
        (no_additions, "no addition of two branches"),
    ],
)
def test_other_graphs_are_refused_for_the_true_reason(tmp_path, resnet18, change, why):
    model = export(tmp_path / "a.onnx", resnet18)
    change(model)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=f"no ResNet .*({why})"):
        convert(tmp_path / "a.onnx", tmp_path / "b.pkl")
    assert not (tmp_path / "b.pkl").exists()


def test_a_wrong_reading_fails_the_proof(tmp_path, resnet18, monkeypatch):
    """The negative control: the second block's convolutions change names; every shape still fits."""
    export(tmp_path / "a.onnx", resnet18)
    named = onnx_graph._Graph._named

    def wrong(self, stem, blocks):
        exchange = {"layer1.1.conv1": "layer1.1.conv2", "layer1.1.conv2": "layer1.1.conv1"}
        for conv, norm, layer in named(self, stem, blocks):
            yield exchange.get(conv, conv), norm, layer

    monkeypatch.setattr(onnx_graph._Graph, "_named", wrong)
    with pytest.raises(ValueError, match="its res2 differs by"):
        read_onnx(tmp_path / "a.onnx")


def test_the_smallest_change_fails_the_proof(tmp_path, resnet18, monkeypatch):
    export(tmp_path / "a.onnx", resnet18)
    tensor = onnx_graph._Graph.tensor
    monkeypatch.setattr(onnx_graph._Graph, "tensor", lambda *args: tensor(*args) * np.float32(1 + 1e-6))
    with pytest.raises(ValueError, match="its res2 differs by"):
        read_onnx(tmp_path / "a.onnx")


def test_damaged_and_without_the_package(tmp_path, resnet18, monkeypatch):
    export(tmp_path / "a.onnx", resnet18)
    whole = (tmp_path / "a.onnx").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.pth: .*ONNX.*damaged"):
        read_checkpoint(tmp_path / "cut.pth")
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ValueError, match=r"is an ONNX file; .*pip install 'moco_det\[onnx\]'"):
        read_checkpoint(tmp_path / "a.onnx")
