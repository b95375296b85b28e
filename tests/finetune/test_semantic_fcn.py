import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from torch import nn

from moco_det.finetune.semantic_fcn import DilatedFCNHead, upsample
from moco_det.model_zoo import get_config


@pytest.fixture(scope="module")
def model():
    """The FCN of the VOC recipe with a sixteenth of the backbone's channels and an eighth of the head's."""
    cfg = get_config("PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k", "random")
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    return build_model(cfg)


def make_head(num_classes=3, dilation=6, **kwargs):
    arguments = {"norm": "", "ignore_value": 255, "loss_weight": 1.0} | kwargs
    shape = ShapeSpec(channels=2, stride=16)
    return DilatedFCNHead(
        in_feature="res5", in_shape=shape, num_classes=num_classes, conv_dim=4, dilation=dilation, **arguments
    )


def test_the_backbone_is_dilated_in_conv5_and_has_stride_16(model):
    for name, stride, dilation in (("res4", 2, 1), ("res5", 1, 2)):
        blocks = list(getattr(model.backbone, name))
        assert [b.conv2.stride for b in blocks] == [(stride, stride)] + [(1, 1)] * (len(blocks) - 1)
        assert {b.conv2.dilation for b in blocks} == {(dilation, dilation)}
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 513, 65))["res5"]
    assert features.shape[-2:] == (33, 5)  # 513 = 32 * 16 + 1
    assert model.backbone.output_shape()["res5"].stride == model.sem_seg_head.stride == 16


def test_the_head_is_two_dilated_convolutions_with_norm_and_one_to_the_classes(model):
    first, second = model.sem_seg_head.convs
    assert [(c.kernel_size, c.dilation, c.stride) for c in (first, second)] == [((3, 3), (6, 6), (1, 1))] * 2
    assert [type(c.norm).__name__ for c in (first, second)] == ["NaiveSyncBatchNorm"] * 2
    assert [c.activation for c in (first, second)] == [nn.functional.relu] * 2
    assert (model.sem_seg_head.predictor.kernel_size, model.sem_seg_head.predictor.out_channels) == (
        (1, 1),
        21,
    )
    assert first.bias is None and model.sem_seg_head.predictor.bias is not None


def test_a_position_of_the_head_sees_steps_of_six():
    """Two 3x3 convolutions with dilation 6 reach 0, 6 and 12 positions in each direction, and nothing between."""
    head = make_head()
    nn.init.ones_(head.predictor.weight)
    for conv in head.convs:
        nn.init.ones_(conv.weight)
    features = torch.zeros(1, 2, 31, 31)
    features[..., 15, 15] = 1
    with torch.no_grad():
        scores = head.predictor(head.convs(features))
    rows, columns = np.nonzero(scores[0, 0].numpy())
    reached = [15 + step for step in (-12, -6, 0, 6, 12)]
    assert sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))) == [
        (row, column) for row in reached for column in reached
    ]


@pytest.mark.parametrize("positions", [1, 5])
def test_a_position_stands_for_its_pixel(positions):
    """Scores that are the pixel's coordinate at each position are it everywhere between."""
    ramp = 16 * torch.arange(positions, dtype=torch.float64)
    found = upsample(ramp.view(1, 1, 1, -1).expand(1, 1, positions, -1), 16)[0, 0]
    assert found.shape == (16 * positions + 1, 16 * positions + 1)
    pixels = torch.arange(16 * positions + 1, dtype=torch.float64).clamp(max=16 * (positions - 1))
    assert torch.allclose(found, pixels.expand_as(found), atol=1e-9)


def test_a_pixel_of_the_image_moves_its_own_score(model):
    """Through the whole network: a bright patch answers where it is, not a stride beside it."""
    model.eval()
    images = [torch.full((3, 129, 129), 120, dtype=torch.uint8) for _ in range(2)]
    images[1][:, 62:67, 62:67] = 255
    with torch.no_grad():
        plain, patch = (output["sem_seg"] for output in model([{"image": i} for i in images]))
    change = (patch - plain).abs().sum(0)
    assert change.shape == (129, 129)
    rows, columns = torch.meshgrid(torch.arange(129.0), torch.arange(129.0), indexing="ij")
    center = [float((change * axis).sum() / change.sum()) for axis in (rows, columns)]
    assert center == pytest.approx([64, 64], abs=6)


def test_the_loss_is_the_mean_over_labeled_pixels():
    torch.manual_seed(0)
    head = make_head(loss_weight=0.5).double()
    features = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 33, 33))
    targets[0, :20] = 255
    _, losses = head({"res5": features}, targets)
    head.eval()
    scores, nothing = head({"res5": features})
    assert nothing == {}
    probabilities = torch.softmax(scores[..., :33, :33], 1)
    known = targets != 255
    chosen = probabilities.permute(0, 2, 3, 1)[known].gather(1, targets[known][:, None])
    expected = -0.5 * torch.log(chosen).mean()
    assert torch.isclose(losses["loss_sem_seg"], expected.to(losses["loss_sem_seg"].dtype), atol=1e-6)


def test_scores_come_at_the_size_of_the_original_image(model):
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.zeros(3, 50, 70, dtype=torch.uint8), "height": 100, "width": 140}])
    assert output["sem_seg"].shape == (21, 100, 140)


def test_one_feature_is_read():
    cfg = get_config("PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k", "random")
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res4", "res5"]
    with pytest.raises(ValueError, match="too many values"):
        DilatedFCNHead.from_config(cfg, {})
