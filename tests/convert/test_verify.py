import numpy as np
import pytest
import torch
import torchvision
from convert_examples import random_states

from moco_det.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing, write_backbone
from moco_det.convert.rename import to_detectron2
from moco_det.convert.verify import (
    TOLERANCE,
    check_backbone,
    expected_shapes,
    find_arch,
    prove_equal_features,
)
from moco_det.encoder import build_resnet


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
    with pytest.raises(ValueError, match=r"have \(2, 2, 2, 0\) basic blocks; expected"):
        find_arch({name: value for name, value in backbone18.items() if "layer4" not in name})


@pytest.mark.parametrize("shape", [(), (64, 64), (0, 0, 3, 3), (100, 64, 3, 3)])
def test_strange_first_convolution_is_left_to_the_check(backbone50, shape):
    broken = {**backbone50, "layer1.0.conv2.weight": torch.ones(shape)}
    assert find_arch(broken) == "resnet50"
    with pytest.raises(ValueError, match="1 of another shape: layer1.0.conv2.weight"):
        check_backbone(broken, "resnet50")


def test_doubled_width_is_refused(backbone18):
    """The paper's R50w2x widens every channel; torchvision's wide ResNets and detectron2's do not."""
    wide = {n: torch.zeros(()).expand([2 * size for size in v.shape]) for n, v in backbone18.items()}
    with pytest.raises(
        ValueError, match=r"100 of another shape: conv1.weight \(128, .* instead of \(64, 3, 7, 7\)"
    ):
        check_backbone(wide, find_arch(wide))


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


# ---- Equal features --------------------------------------------------------------------------------------


def written(folder, tensors, preprocessing=TORCHVISION_PREPROCESSING, rename=to_detectron2):
    write_backbone(folder / "b.pkl", {rename(n): v.numpy() for n, v in tensors.items()}, preprocessing, {})
    return folder / "b.pkl"


@pytest.mark.parametrize("arch", ["resnet18", "resnext50_32x4d"])
def test_equal_features(tmp_path, arch):
    states = random_states(arch)
    tensors = {name: states[name] for name in expected_shapes(arch)}
    differences = prove_equal_features(written(tmp_path, tensors), tensors, arch)
    assert list(differences) == ["res2", "res3", "res4", "res5"]
    assert max(differences.values()) <= TOLERANCE


def swapped(tensors, one, other):
    return {**tensors, one: tensors[other], other: tensors[one]}


@pytest.mark.parametrize(
    "one, other",
    [
        ("layer4.1.conv1.weight", "layer4.1.conv2.weight"),
        ("bn1.weight", "bn1.running_var"),
        ("layer3.0.bn2.bias", "layer3.0.downsample.1.bias"),
        ("layer4.0.bn1.running_mean", "layer4.0.bn2.running_mean"),
    ],
)
def test_swapped_tensors_fail_the_proof(tmp_path, backbone18, one, other):
    path = written(tmp_path, swapped(backbone18, one, other))
    if one == "layer3.0.bn2.bias":  # both are added to the same sum: only the values tell
        with pytest.raises(ValueError, match=f"values are not the source's: 2 differ: {one}, {other}"):
            prove_equal_features(path, backbone18, "resnet18")
    else:
        with pytest.raises(ValueError, match="features differ from the source's"):
            prove_equal_features(path, backbone18, "resnet18")


def test_smallest_change_fails_the_proof(tmp_path, backbone18):
    changed = {**backbone18, "layer1.0.conv1.weight": backbone18["layer1.0.conv1.weight"] * (1 + 1e-6)}
    with pytest.raises(ValueError, match="features differ"):
        prove_equal_features(written(tmp_path, changed), backbone18, "resnet18")


def test_other_stride_convention_fails_the_proof(tmp_path, backbone50):
    wrong = Preprocessing("RGB", (0.0,) * 3, (1.0,) * 3, stride_in_1x1=True)
    with pytest.raises(ValueError, match="features differ .*'res3'") as error:
        prove_equal_features(written(tmp_path, backbone50, wrong), backbone50, "resnet50")
    assert "'res2'" not in str(error.value)  # res2 has stride 1


def test_skipped_rename_fails_the_proof(tmp_path, backbone18):
    path = written(tmp_path, backbone18, rename=lambda n: n if n == "bn1.bias" else to_detectron2(n))
    with pytest.raises(ValueError, match="written names .*2 differ: bn1.bias, stem.conv1.norm.bias"):
        prove_equal_features(path, backbone18, "resnet18")
