import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads import build_roi_heads

from moco_det.finetune.roi_heads import Res5ROIHeadsExtraNorm
from moco_det.model_zoo import get_config

SHAPE = {"res4": ShapeSpec(channels=64, stride=16)}


def test_the_norm_is_the_last_thing_res5_does(thin_c4_cfg):
    torch.manual_seed(0)
    heads = build_roi_heads(thin_c4_cfg, SHAPE).train()
    x = torch.randn(6, 64, 14, 14)
    plain = heads.res5[:3](x)
    mean, var = plain.mean((0, 2, 3), keepdim=True), plain.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(heads.res5(x), (plain - mean) / (var + 1e-5).sqrt(), atol=1e-4, rtol=1e-4)


def test_keys_are_those_of_the_official_code():
    cfg = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_2x", "random")
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        ours = build_model(cfg).state_dict()
        cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
        stock = build_model(cfg).state_dict()
    added = {f"roi_heads.res5.norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
    assert set(ours) - set(stock) == added | {"roi_heads.res5.norm.num_batches_tracked"}
    assert set(stock) <= set(ours)
    assert {tuple(ours[name].shape) for name in added} == {(2048,)}


def test_arguments_given_explicitly_win_over_the_config(thin_c4_cfg):
    heads = Res5ROIHeadsExtraNorm(thin_c4_cfg, SHAPE, num_classes=3)
    assert (thin_c4_cfg.MODEL.ROI_HEADS.NUM_CLASSES, heads.num_classes) == (20, 3)
