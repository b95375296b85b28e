import pytest

from moco_det.convert.verify import detectron2_resnet
from moco_det.weights.backbone_tensors import expected_shapes
from moco_det.weights.resnet_names import to_detectron2, to_torchvision


@pytest.mark.parametrize(
    "arch", ["resnet18", "resnet34", "resnet50", "resnet152", "resnext50_32x8d", "resnext50_1x128d"]
)
def test_table_covers_both_networks_and_is_invertible(arch):
    states = detectron2_resnet(arch, stride_in_1x1=False).state_dict()
    theirs = {name: value.shape for name, value in states.items() if "num_batches_tracked" not in name}
    ours = expected_shapes(arch)
    assert {to_detectron2(name): shape for name, shape in ours.items()} == theirs
    assert {to_torchvision(name): shape for name, shape in theirs.items()} == ours


def test_resnet50_has_265_tensors():
    """53 convolutions and 53 batch norms of four tensors each."""
    assert len(expected_shapes("resnet50")) == 53 + 53 * 4


@pytest.mark.parametrize(
    "torchvision, detectron2",
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer2.1.bn3.bias", "res3.1.conv3.norm.bias"),
        ("layer3.22.bn2.running_var", "res4.22.conv2.norm.running_var"),
        ("layer4.0.downsample.0.weight", "res5.0.shortcut.weight"),
        ("layer4.0.downsample.1.weight", "res5.0.shortcut.norm.weight"),
    ],
)
def test_values_by_hand(torchvision, detectron2):
    assert to_detectron2(torchvision) == detectron2
    assert to_torchvision(detectron2) == torchvision


@pytest.mark.parametrize(
    "name", ["fc.weight", "layer5.0.conv1.weight", "stem.conv1.weight", "weight", "conv2.weight"]
)
def test_unknown_torchvision_names_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is no tensor of torchvision's ResNet"):
        to_detectron2(name)


def test_unknown_detectron2_names_are_refused():
    with pytest.raises(ValueError, match="'conv1.weight' is no tensor of detectron2's ResNet"):
        to_torchvision("conv1.weight")
