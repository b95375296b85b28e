"""Which ResNet a set of tensors is, and what is wrong with one that is not whole."""

import numpy as np
import pytest
import torch
import torchvision

from moco_det.config.architectures import parse_arch
from moco_det.modeling.encoder import build_resnet
from moco_det.weights.backbone_tensors import check_backbone, expected_shapes, find_arch


@pytest.fixture(scope="module")
def backbone18(resnet18):
    return {name: resnet18[name] for name in expected_shapes("resnet18")}


@pytest.fixture(scope="module")
def backbone50(resnet50):
    return {name: resnet50[name] for name in expected_shapes("resnet50")}


# ---- Architecture ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arch",
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x8d", "resnext101_64x4d"],
)
def test_arch_from_shapes(arch):
    with torch.device("meta"):
        assert find_arch(build_resnet(arch).state_dict()) == arch


@pytest.mark.parametrize("model, arch", [("resnext50_32x4d",) * 2, ("wide_resnet50_2", "resnext50_1x128d")])
def test_arch_of_torchvision_models(model, arch):
    with torch.device("meta"):
        states = torchvision.models.get_model(model).state_dict()
    assert find_arch(states) == arch
    assert expected_shapes(arch) == {n: states[n].shape for n in expected_shapes(arch)}


def test_lost_stage_is_refused(backbone18):
    with pytest.raises(ValueError, match=r"have \(2, 2, 2, 0\) basic blocks; detectron2 builds"):
        find_arch({name: value for name, value in backbone18.items() if "layer4" not in name})


@pytest.mark.parametrize("shape", [(), (64, 64), (0, 0, 3, 3), (100, 64, 3, 3)])
def test_strange_first_convolution_is_left_to_the_check(backbone50, shape):
    broken = {**backbone50, "layer1.0.conv2.weight": torch.ones(shape)}
    assert find_arch(broken) == "resnet50"
    with pytest.raises(ValueError, match="1 of another shape: layer1.0.conv2.weight"):
        check_backbone(broken, "resnet50")


def test_doubled_width_is_refused(backbone18):
    """detectron2 builds basic blocks of one width."""
    wide = {n: torch.zeros(()).expand([2 * size for size in v.shape]) for n, v in backbone18.items()}
    with pytest.raises(ValueError, match=r"layer1 has 128 channels; .*RES2_OUT_CHANNELS 64"):
        find_arch(wide)


WIDTHS = {"resnext50_1x32d_stem32_out128": (32, 128, 32), "resnext50_1x128d_stem128_out512": (128, 512, 128)}


@pytest.mark.parametrize("arch", [*WIDTHS, "resnext50_32x4d_stem48_out192", "resnet18_stem32_out64"])
def test_arch_of_other_widths(arch):
    shapes = expected_shapes(arch)
    assert find_arch({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}) == arch
    assert parse_arch(arch).name == arch
    if arch in WIDTHS:  # by hand
        stem, out, width = WIDTHS[arch]
        assert shapes["conv1.weight"] == (stem, 3, 7, 7)
        assert shapes["layer1.0.downsample.0.weight"] == (out, stem, 1, 1)
        assert shapes["layer3.5.conv2.weight"] == (4 * width, 4 * width, 3, 3)
        assert shapes["layer4.0.conv1.weight"] == (8 * width, 4 * out, 1, 1)


@pytest.mark.parametrize("arch", ["resnet18_stem64_out32", "resnet50_stem64_out30", "resnet50_stem0_out256"])
def test_what_detectron2_or_torchvision_cannot_build_is_no_arch(arch):
    with pytest.raises(ValueError, match=f"ARCH is '{arch}'"):
        parse_arch(arch)


def test_widths_that_do_not_double_are_refused(backbone50):
    same = {
        name: torch.zeros(()).expand([min(size, 256) for size in v.shape]) for name, v in backbone50.items()
    }
    with pytest.raises(ValueError, match=r"have \[256, 256, 256, 256\] channels; detectron2 doubles them"):
        find_arch(same)


def test_one_damaged_tensor_is_not_taken_for_another_width(backbone50):
    for name in ("conv1.weight", "bn1.weight", "layer1.0.conv3.weight", "layer4.0.bn3.weight"):
        broken = {
            **backbone50,
            name: torch.ones([2 * size for size in backbone50[name].shape[:1]] + [1, 1, 1]),
        }
        assert find_arch(broken) == "resnet50"


# ---- Every tensor accounted for ------------------------------------------------------------------------


def test_intact_backbone_passes_unchanged(backbone18):
    shuffled = dict(reversed(backbone18.items()))
    tensors, notes = check_backbone(shuffled, "resnet18")
    assert notes == [] and list(tensors) == list(backbone18)
    assert all(torch.equal(tensors[name], value) for name, value in backbone18.items())


def without(backbone, *names):
    return {name: value for name, value in backbone.items() if name not in names}


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda b: without(b, "layer2.0.bn1.bias"), "intact resnet18: 1 missing: layer2.0.bn1.bias"),
        (
            lambda b: without(b, *[n for n in b if n.startswith("layer2.0.bn1")], "conv1.weight"),
            "5 missing: conv1.weight, layer2.0.bn1.weight, layer2.0.bn1.bias and 2 more",
        ),
        (lambda b: b | {"layer1.0.extra.weight": torch.ones(1)}, "1 left over: layer1.0.extra.weight"),
        (
            lambda b: b | {"bn1.running_var": torch.ones(512)},
            r"1 of another shape: bn1.running_var \(512,\) instead of \(64,\)",
        ),
        (
            lambda b: b | {"bn1.bias": torch.ones(64, dtype=torch.int8)},
            "1 no floating-point tensors: bn1.bias",
        ),
        (
            lambda b: b | {"bn1.bias": torch.ones(64, dtype=torch.complex64)},
            "no floating-point tensors: bn1.bias",
        ),
        (lambda b: b | {"bn1.bias": "text"}, "no floating-point tensors: bn1.bias"),
        (lambda b: b | {"bn1.bias": np.ones(64, ">f4")}, "no floating-point tensors: bn1.bias"),
        (lambda b: b | {"bn1.bias": torch.full((64,), torch.nan)}, "1 not finite .*: bn1.bias"),
        (lambda b: b | {"bn1.bias": torch.full((64,), -torch.inf)}, "1 not finite .*: bn1.bias"),
        (
            lambda b: b | {"bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)},
            "1 not finite .*: bn1.bias",
        ),
        (
            lambda b: without(b, "bn1.bias") | {"bn1.beta": torch.ones(64)},
            "1 missing: bn1.bias; 1 left over: bn1.beta",
        ),
    ],
)
def test_damage_is_named(backbone18, damage, message):
    with pytest.raises(ValueError, match=message):
        check_backbone(damage(dict(backbone18)), "resnet18")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_are_converted_with_a_note(backbone18, dtype):
    halved = {**backbone18, "conv1.weight": backbone18["conv1.weight"].to(getattr(torch, dtype))}
    tensors, notes = check_backbone(halved, "resnet18")
    assert notes == [f"1 tensors were {dtype} and are now float32"]
    assert torch.equal(tensors["conv1.weight"], halved["conv1.weight"].float())
    assert {value.dtype for value in tensors.values()} == {torch.float32}


def test_arrays_are_taken(backbone18):
    tensors, _ = check_backbone({name: value.numpy() for name, value in backbone18.items()}, "resnet18")
    assert torch.equal(tensors["conv1.weight"], backbone18["conv1.weight"])
