import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.modeling import build_backbone, build_model

from moco_det.finetune.dilated_c5 import FEATURE
from moco_det.finetune.loaded_weights import read_weights
from moco_det.finetune.weights_check import check_loaded_backbone
from moco_det.model_zoo import get_config
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, write_backbone


@pytest.fixture
def cfg():
    """The VOC recipe with a sixteenth of the channels, on the CPU."""
    cfg = get_config("PascalVOC-Detection/faster_rcnn_R_50_DC5_24k", "random")
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def test_res5_keeps_the_resolution_of_res4_and_is_narrowed_to_512(cfg):
    backbone = build_backbone(cfg)
    features = backbone(torch.rand(2, 3, 64, 96))
    shape = backbone.output_shape()[FEATURE]
    assert (shape.channels, shape.stride) == (512, 16)
    assert {name: tuple(map.shape) for name, map in features.items()} == {FEATURE: (2, 512, 4, 6)}
    assert features[FEATURE].min() == 0  # after the ReLU


@pytest.mark.parametrize("init", ["random", "supervised_msra"])
def test_every_3x3_of_res5_is_dilated_and_none_strides(cfg, init):
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = init == "supervised_msra"
    res5 = build_backbone(cfg).bottom_up.res5
    convs = [m for m in res5.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {(m.dilation, m.stride) for m in convs if m.kernel_size == (3, 3)} == {((2, 2), (1, 1))}
    assert {m.stride for m in convs} == {(1, 1)}


def test_the_convolution_has_a_norm_and_no_bias(cfg):
    reduce = build_backbone(cfg).reduce
    assert (reduce.kernel_size, reduce.stride, reduce.padding) == ((3, 3), (1, 1), (1, 1))
    assert reduce.bias is None and isinstance(reduce.norm, NaiveSyncBatchNorm)


@pytest.mark.parametrize(
    ("key", "value"), [("RES5_DILATION", 1), ("OUT_FEATURES", ["res4"]), ("OUT_FEATURES", ["res4", "res5"])]
)
def test_a_resnet_that_does_not_end_in_a_dilated_res5_is_refused(cfg, key, value):
    cfg.MODEL.RESNETS[key] = value
    with pytest.raises(ValueError, match=r"needs MODEL.RESNETS \{.*'RES5_DILATION': 2\}, found"):
        build_backbone(cfg)


def test_a_backbone_file_fills_all_of_the_resnet_and_fused_norms_are_refused(tmp_path, cfg):
    path = str(tmp_path / "backbone.pkl")
    state = build_model(cfg).backbone.bottom_up.state_dict()
    tensors = {n: t.numpy() + 0.01 for n, t in state.items() if not n.endswith("num_batches_tracked")}
    fused = {name: value for name, value in tensors.items() if ".running_" not in name}
    for content, match in ((tensors, None), (fused, "its norms are fused: .* must be FrozenBN")):
        write_backbone(path, content, TORCHVISION_PREPROCESSING, {})
        model = build_model(cfg)
        DetectionCheckpointer(model).load(path)
        if match is None:
            check_loaded_backbone(cfg, model, read_weights(path))
        else:
            with pytest.raises(ValueError, match=match):
                check_loaded_backbone(cfg, model, read_weights(path))
    assert len(tensors) == 265
