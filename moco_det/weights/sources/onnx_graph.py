"""Reads a ResNet from an ONNX file: follows its graph, whatever its tensors are called, and proves the reading.

Exported networks often have lost the names of their tensors, and their norms are multiplied into the convolutions.
So the blocks are found by their additions. The graph is then computed by onnx's own reference implementation in
float64 and compared with torchvision's network on the tensors that were found.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from moco_det.modeling.encoder import build_resnet, difference, stage_features
from moco_det.weights.backbone_tensors import check_backbone, find_arch, in_channels
from moco_det.weights.sources.layouts import IDENTITY_VAR

# Largest relative difference to the graph's own features: of rounding in float64; and where a norm's scale or
# epsilon was multiplied into float32 tensors.
TOLERANCE, ROUNDED_TOLERANCE = 1e-10, 1e-5
EPSILON = 1e-5  # of torch's and detectron2's norms
_ADDITIONS = ("Add", "Sum")
_NO_WORK = ("Identity", "Dropout")


class _Layer(NamedTuple):
    """A convolution and the norm behind it, None where it is multiplied into the convolution."""

    conv: Any
    norm: Any


def read_onnx(path: Path) -> dict[str, Any]:
    """A state dict under torchvision's names, and what the graph shows besides.

    Returns:
        ``{"state_dict": tensors, "onnx": {"stride_in_1x1": bool, "before": the operators before conv1, "fused":
        whether a norm was multiplied into its convolution}}``.

    Raises:
        ValueError: no package onnx, or the graph is no ResNet, or not the one that was read from it.
    """
    try:
        import onnx  # here, since only users of such files need the package
    except ImportError as error:
        raise ValueError(
            f"{path}: is an ONNX file; to read it install the package onnx (pip install 'moco_det[onnx]'), or "
            "take the PyTorch checkpoint of this model instead"
        ) from error
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises its own errors
        raise ValueError(
            f"{path}: is an ONNX file that is damaged ({' '.join(str(error).split())})"
        ) from error
    graph = _Graph(model, path)
    stem, blocks = graph.stem_and_blocks()
    states, rounded, fused = graph.tensors(stem, blocks)
    strides = {graph.attributes(main[0].conv)["strides"][0] for main, _, _ in blocks if len(main) == 3}
    record = {"stride_in_1x1": 2 in strides, "before": graph.before(stem.conv), "fused": fused}
    _prove(
        graph,
        stem,
        blocks,
        states,
        record["stride_in_1x1"],
        ROUNDED_TOLERANCE if rounded or fused else TOLERANCE,
    )
    return {"state_dict": states, "onnx": record}


class _Graph:
    """The nodes of a model by what they produce."""

    def __init__(self, model: Any, path: Path):
        from onnx import helper, numpy_helper

        self.model, self.path, self._helper = model, path, helper
        nodes = model.graph.node
        self.producer = {output: node for node in nodes for output in node.output}
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for node in nodes:
            if node.op_type == "Constant" and (value := self.attributes(node).get("value")) is not None:
                self.values[node.output[0]] = numpy_helper.to_array(value)
            elif node.op_type == "Identity" and node.input[0] in self.values:
                self.values[node.output[0]] = self.values[node.input[0]]

    def refuse(self, why: str) -> None:
        raise ValueError(f"{self.path}: is an ONNX file, but no ResNet that could be read: {why}")

    def attributes(self, node: Any) -> dict[str, Any]:
        found = {a.name: self._helper.get_attribute_value(a) for a in node.attribute}
        return {"strides": [1, 1], **found} if node.op_type == "Conv" else found

    def tensor(self, node: Any, place: int) -> torch.Tensor:
        name = node.input[place] if place < len(node.input) else ""
        if name not in self.values:
            made = self.producer[name].op_type if name in self.producer else "nothing"
            self.refuse(
                f"a weight of {node.op_type} {node.name!r} is made by {made} (is the network quantized?)"
            )
        return torch.from_numpy(self.values[name].copy())

    def stem_and_blocks(self) -> tuple[_Layer, list[tuple[list[_Layer], list[_Layer], str]]]:
        """The first convolution, and each block's main branch, its shortcut and its output's name."""
        blocks = []
        start = ""
        relus = {n.input[0]: n.output[0] for n in self.model.graph.node if n.op_type == "Relu"}
        for node in self.model.graph.node:
            if node.op_type not in _ADDITIONS or any(name in self.values for name in node.input):
                continue
            if len(node.input) != 2 or node.output[0] not in relus:
                self.refuse(f"its addition {node.name!r} is not of two branches with a ReLU behind them")
            branches = [self._branch(name) for name in node.input]
            if branches[0][1] != branches[1][1] or (start and branches[0][1] != blocks[-1][2]):
                self.refuse(
                    f"the branches of its addition {node.name!r} do not begin where the block before ends"
                )
            start = start or branches[0][1]
            shortcut, main = sorted((layers for layers, _ in branches), key=len)
            blocks.append((main, shortcut, relus[node.output[0]]))
        if not blocks:
            self.refuse("no addition of two branches is in it")
        pooling = self.producer.get(start)
        if pooling is None or pooling.op_type != "MaxPool":
            self.refuse(
                f"before its first block stands {pooling.op_type if pooling else start}, not max-pooling"
            )
        stem, _ = self._branch(pooling.input[0], until_input=True)
        if len(stem) != 1:
            self.refuse(f"{len(stem)} convolutions stand before its first block (a deep stem?)")
        return stem[0], blocks

    def _branch(self, name: str, until_input: bool = False) -> tuple[list[_Layer], str]:
        """The layers back to where a block begins, in the order of computing, and that place."""
        layers, norm = [], None
        while node := self.producer.get(name):
            if node.op_type == "MaxPool" or (node.op_type == "Relu" and self._adds(node.input[0])):
                break
            if node.op_type == "Conv":
                self._check(node)
                layers.insert(0, _Layer(node, norm))
                norm = None
            elif node.op_type == "BatchNormalization" and norm is None:
                norm = node
            elif until_input and layers and node.op_type not in (*_NO_WORK, "Relu"):
                break  # what is done to the images
            elif node.op_type not in (*_NO_WORK, "Relu") or norm is not None:
                self.refuse(
                    f"{node.op_type} {node.name!r} stands where a ResNet has a convolution, norm or ReLU"
                )
            name = node.input[0]
        return layers, name

    def _adds(self, name: str) -> bool:
        return name in self.producer and self.producer[name].op_type in _ADDITIONS

    def _check(self, conv: Any) -> None:
        attributes = self.attributes(conv)
        pads, dilations = attributes.get("pads", [0] * 4), attributes.get("dilations", [1, 1])
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or pads[:2] != pads[2:]:
            self.refuse(f"convolution {conv.name!r} pads on one side ('SAME'), as TensorFlow's do")
        if set(dilations) != {1}:
            self.refuse(f"convolution {conv.name!r} is dilated {dilations}, which detectron2's ResNet is not")

    def before(self, conv: Any) -> list[str]:
        """The operators between the images and the first convolution."""
        idle = (*_NO_WORK, "Constant")
        return [node.op_type for node in self._ancestors([conv.input[0]], "") if node.op_type not in idle]

    def tensors(self, stem: _Layer, blocks: list) -> tuple[dict[str, torch.Tensor], bool, bool]:
        """All tensors by torchvision's names; whether rounding changed any; whether norms had to be made."""
        states: dict[str, torch.Tensor] = {}
        rounded = fused = False
        for conv_name, norm_name, layer in self._named(stem, blocks):
            conv, norm = layer
            states[f"{conv_name}.weight"] = self.tensor(conv, 1)
            bias = self.tensor(conv, 2) if len(conv.input) > 2 and conv.input[2] else None
            if norm is None and bias is None:
                self.refuse(f"convolution {conv.name!r} has neither a norm nor a bias")
            if norm is None:  # multiplied into the convolution
                fused, one = True, torch.ones(len(bias))
                tensors = [one, bias, torch.zeros(len(bias)), torch.full_like(one, IDENTITY_VAR)]
            else:
                tensors = [self.tensor(norm, place) for place in range(1, 5)]
                epsilon = self.attributes(norm).get("epsilon", EPSILON)
                if abs(epsilon - EPSILON) > 1e-9:
                    tensors[3], rounded = tensors[3] + (epsilon - EPSILON), True
                if bias is not None:
                    tensors[2], rounded = tensors[2] - bias, True
            kinds = ("weight", "bias", "running_mean", "running_var")
            states |= {f"{norm_name}.{kind}": value for kind, value in zip(kinds, tensors, strict=True)}
        return states, rounded, fused

    def _named(self, stem: _Layer, blocks: list) -> Iterator[tuple[str, str, _Layer]]:
        """torchvision's names of each layer's convolution and norm. A projection begins a stage."""
        yield "conv1", "bn1", stem
        stage, number = 0, 0
        for main, shortcut, _ in blocks:
            stage, number = (stage + 1, 0) if shortcut or not stage else (stage, number + 1)
            here = f"layer{stage}.{number}"
            for place, layer in enumerate(main, 1):
                yield f"{here}.conv{place}", f"{here}.bn{place}", layer
            for place, layer in enumerate(shortcut):
                yield f"{here}.downsample.{2 * place}", f"{here}.downsample.{2 * place + 1}", layer

    def _ancestors(self, outputs: list[str], stop: str) -> list[Any]:
        """The nodes that outputs need, in the graph's order, back to the tensor ``stop``."""
        wanted, found = list(outputs), set()
        while wanted:
            name = wanted.pop()
            if name in found or name == stop:
                continue
            found.add(name)
            if name in self.producer:
                wanted += self.producer[name].input
        return [node for node in self.model.graph.node if found & set(node.output)]

    def features(self, stem: _Layer, outputs: list[str], images: np.ndarray) -> list[np.ndarray]:
        """Compute the graph from the first convolution's input, in float64, by onnx's reference implementation."""
        from onnx import TensorProto, numpy_helper
        from onnx.reference import ReferenceEvaluator

        start = stem.conv.input[0]
        nodes = [n for n in self._ancestors(outputs, start) if not set(n.output) & set(self.values)]
        constants = {
            name: value.astype(np.float64) if value.dtype.kind == "f" else value
            for name, value in self.values.items()
            if any(name in node.input for node in nodes)
        }
        double = [self._helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in (start, *outputs)]
        graph = self._helper.make_graph(
            nodes,
            "backbone",
            double[:1],
            double[1:],
            initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = self._helper.make_model(graph, opset_imports=self.model.opset_import)
        return ReferenceEvaluator(model).run(None, {start: images})


def _prove(
    graph: _Graph, stem: _Layer, blocks: list, states: Mapping, stride_in_1x1: bool, tolerance: float
) -> None:
    """Refuse a reading of the graph that does not give the graph's own features."""
    arch, channels = find_arch(states), in_channels(states)
    tensors, _ = check_backbone(states, arch, channels)
    with torch.device("meta"):
        model = build_resnet(arch, stride_in_1x1=stride_in_1x1, in_channels=channels)
    model.load_state_dict({n: v.double() for n, v in tensors.items()}, assign=True, strict=False)
    images = torch.randn(1, channels, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        found = stage_features(model.eval(), images)
    firsts = [number for number, (_, shortcut, _) in enumerate(blocks) if shortcut and number]
    outputs = [blocks[number - 1][2] for number in (*firsts, len(blocks))]
    if len(outputs) != len(found):
        graph.refuse(f"it has {len(outputs)} stages")
    theirs = graph.features(stem, outputs, images.numpy())
    for (stage, features), expected in zip(found.items(), theirs, strict=True):
        off = (
            difference(features, torch.from_numpy(expected))
            if expected.shape == features.shape
            else float("inf")
        )
        if not off <= tolerance:
            graph.refuse(
                f"its {stage} differs by {off:.1e} from a ResNet's with its tensors (at most {tolerance:.0e})"
            )
