import pytest
from checkpoint_examples import random_states

from moco_det.convert.verify import TOLERANCE, prove_equal_features
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing, write_backbone
from moco_det.weights.backbone_tensors import expected_shapes
from moco_det.weights.resnet_names import to_detectron2


@pytest.fixture(scope="module")
def backbone18(resnet18):
    return {name: resnet18[name] for name in expected_shapes("resnet18")}


@pytest.fixture(scope="module")
def backbone50(resnet50):
    return {name: resnet50[name] for name in expected_shapes("resnet50")}


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
        with pytest.raises(ValueError, match=f": 2 differ: {one}, {other}"):
            prove_equal_features(path, backbone18, "resnet18")
    else:
        with pytest.raises(ValueError, match="features differ"):
            prove_equal_features(path, backbone18, "resnet18")


def test_smallest_change_fails_the_proof(tmp_path, backbone18):
    changed = {**backbone18, "layer1.0.conv1.weight": backbone18["layer1.0.conv1.weight"] * (1 + 1e-6)}
    with pytest.raises(ValueError, match="features differ"):
        prove_equal_features(written(tmp_path, changed), backbone18, "resnet18")


def test_features_without_numbers_fail_the_proof(tmp_path, backbone18):
    """Weights may be finite and their features not: nothing can then be said of them."""
    huge = {name: value * 1e30 if value.ndim == 4 else value for name, value in backbone18.items()}
    with pytest.raises(ValueError, match="features differ.*'res5': 'nan'"):
        prove_equal_features(written(tmp_path, huge), huge, "resnet18")


def test_other_stride_convention_fails_the_proof(tmp_path, backbone50):
    wrong = Preprocessing("RGB", (0.0,) * 3, (1.0,) * 3, stride_in_1x1=True)
    with pytest.raises(ValueError, match="features differ .*'res3'") as error:
        prove_equal_features(written(tmp_path, backbone50, wrong), backbone50, "resnet50")
    assert "'res2'" not in str(error.value)  # res2 has stride 1


def test_skipped_rename_fails_the_proof(tmp_path, backbone18):
    path = written(tmp_path, backbone18, rename=lambda n: n if n == "bn1.bias" else to_detectron2(n))
    with pytest.raises(ValueError, match="2 differ: bn1.bias, stem.conv1.norm.bias"):
        prove_equal_features(path, backbone18, "resnet18")
