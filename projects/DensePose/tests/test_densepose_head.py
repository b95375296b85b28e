"""Names and shapes of upstream's published checkpoints, and what is read off the predicted maps."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import Boxes, Instances
from torch import nn

from moco_densepose.config import add_densepose_config
from moco_densepose.head import ChartPredictor, Decoder
from moco_densepose.output import ChartOutput
from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file

LEGACY, S1X = (f"COCO-DensePose/densepose_rcnn_R_50_FPN_s1x{suffix}" for suffix in ("_legacy", ""))
# Written by hand from upstream's modules, not from ours.
HEAD = {
    "densepose_head.body_conv_fcn1.weight": (512, 256, 3, 3),
    "densepose_head.body_conv_fcn1.bias": (512,),
}
for _number in range(2, 9):
    HEAD[f"densepose_head.body_conv_fcn{_number}.weight"] = (512, 512, 3, 3)
    HEAD[f"densepose_head.body_conv_fcn{_number}.bias"] = (512,)
for _name in ("index_uv_lowres", "u_lowres", "v_lowres"):
    HEAD[f"densepose_predictor.{_name}.weight"] = (512, 25, 4, 4)
    HEAD[f"densepose_predictor.{_name}.bias"] = (25,)
COARSE = "densepose_predictor.ann_index_lowres"
DECODER = {}
for _layer in ("p2.0", "p3.0", "p4.0", "p4.2", "p5.0", "p5.2", "p5.4"):
    DECODER[f"decoder.{_layer}.weight"], DECODER[f"decoder.{_layer}.bias"] = (256, 256, 3, 3), (256,)
DECODER |= {"decoder.predictor.weight": (256, 256, 1, 1), "decoder.predictor.bias": (256,)}
PUBLISHED = {
    LEGACY: HEAD | {f"{COARSE}.weight": (512, 15, 4, 4), f"{COARSE}.bias": (15,)},
    S1X: HEAD | DECODER | {f"{COARSE}.weight": (512, 2, 4, 4), f"{COARSE}.bias": (2,)},
}


def config(recipe) -> CfgNode:
    cfg = get_cfg()
    add_densepose_config(cfg)
    merge_config(cfg, get_config_file(recipe), [])
    return cfg


def heads(cfg, channels=256):
    shapes = {f"p{n}": ShapeSpec(channels=channels, stride=2**n) for n in range(2, 7)}
    return build_roi_heads(cfg, shapes)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_published_checkpoints_fit(recipe, tmp_path):
    model = nn.Module()
    model.roi_heads = heads(config(recipe))
    own = {
        n: tuple(v.shape)
        for n, v in model.roi_heads.state_dict().items()
        if n.startswith(("densepose", "decoder"))
    }
    assert own == PUBLISHED[recipe]
    path = tmp_path / "model_final.pkl"
    rng = np.random.default_rng(0)
    tensors = {
        f"roi_heads.{n}": rng.random(shape, dtype=np.float32)
        for n, shape in PUBLISHED[recipe].items()
        if "fcn" not in n
    }
    with open(path, "wb") as file:
        pickle.dump({"model": tensors, "__author__": "Detectron2 Model Zoo"}, file)
    DetectionCheckpointer(model).load(str(path))
    for name, value in tensors.items():
        assert torch.equal(model.state_dict()[name], torch.from_numpy(value)), name


@pytest.mark.parametrize(("recipe", "side"), [(LEGACY, 56), (S1X, 112)])
def test_maps_have_the_published_side(recipe, side):
    cfg = config(recipe)
    cfg.MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_DIM = 8
    cfg.MODEL.ROI_DENSEPOSE_HEAD.DECODER_CONV_DIMS = cfg.MODEL.ROI_DENSEPOSE_HEAD.DECODER_NUM_CLASSES = 8
    model = heads(cfg, channels=8).eval()
    features = {f"p{n}": torch.rand(2, 8, 64 >> n, 64 >> n) for n in range(2, 7)}
    instances = [
        Instances((64, 64), pred_boxes=Boxes(torch.rand(n, 4) * 20 + torch.tensor([0, 0, 25, 25])))
        for n in (2, 0)
    ]
    for of_image in instances:
        of_image.pred_classes = torch.zeros(len(of_image), dtype=torch.int64)
    with torch.no_grad():
        first, second = model.forward_with_given_boxes(features, instances)
    assert first.pred_densepose.u.shape == (2, 25, side, side) and len(second.pred_densepose) == 0
    assert first.pred_densepose.coarse.shape[1] == cfg.MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS
    assert len(first[torch.tensor([True, False])].pred_densepose) == 1


def test_the_recipes_are_those_of_the_papers_table():
    """MoCo v1, A.3 and Table 6; upstream's numbers for what the paper leaves open."""
    legacy, later = config(LEGACY), config(S1X)
    for cfg, rate, weights in ((legacy, 0.002, (2.0, 0.3, 0.1)), (later, 0.01, (5.0, 1.0, 0.01))):
        head = cfg.MODEL.ROI_DENSEPOSE_HEAD
        assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.IMS_PER_BATCH) == (
            130000,
            (100000, 120000),
            16,
        )
        assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_FACTOR) == (rate, 0.1)
        assert (head.INDEX_WEIGHTS, head.PART_WEIGHTS, head.POINT_REGRESSION_WEIGHTS) == weights
        assert (
            cfg.MODEL.RESNETS.NORM == cfg.MODEL.FPN.NORM == "naiveSyncBN"
            and cfg.MODEL.BACKBONE.FREEZE_AT == 0
        )
    assert (legacy.MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON, later.MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON) == (
        False,
        True,
    )


def test_the_decoder_joins_the_levels():
    shapes = {"p2": ShapeSpec(channels=3, stride=4), "p4": ShapeSpec(channels=3, stride=16)}
    decoder = Decoder(shapes, 4, 5, "").eval()
    features = {"p2": torch.rand(1, 3, 16, 16), "p4": torch.rand(1, 3, 4, 4)}
    both = decoder(features)
    assert both.shape == (1, 5, 16, 16)
    for name in features:
        changed = features | {name: features[name] + 1}
        assert not torch.allclose(decoder(changed), both)


def test_each_map_comes_from_the_layer_of_its_name():
    predictor = ChartPredictor(3, 2, 4, up_scale=2)
    names = ("ann_index_lowres", "index_uv_lowres", "u_lowres", "v_lowres")
    for value, name in enumerate(names):
        nn.init.zeros_(getattr(predictor, name).weight)
        nn.init.constant_(getattr(predictor, name).bias, value)
    output = predictor(torch.rand(1, 3, 5, 5))
    for value, maps in enumerate((output.coarse, output.fine, output.u, output.v)):
        assert maps.shape[-2:] == (20, 20) and (maps == value).all()


def test_pixels_are_read_off_the_maps():
    """Two charts side by side, coordinates of each its own, and a background below."""
    maps = ChartOutput(torch.zeros(1, 2, 4, 4), torch.zeros(1, 25, 4, 4), *torch.zeros(2, 1, 25, 4, 4))
    maps.coarse[0, 1, :2], maps.coarse[0, 0, 2:] = 1, 1
    maps.fine[0, 5, :, :2], maps.fine[0, 9, :, 2:] = 1, 1
    maps.u[0, 5], maps.v[0, 5], maps.u[0, 9], maps.v[0, 9] = 0.2, 0.4, 1.7, -3
    iuv = maps.resampled(0, (3.2, 4.5, 8.9, 4.2))
    assert iuv.shape == (3, 4, 8)
    assert iuv[0].tolist() == [[5] * 4 + [9] * 4] * 2 + [[0] * 8] * 2
    assert iuv[:, 0, 0].tolist() == [5, 51, 102] and iuv[:, 0, 7].tolist() == [9, 255, 0]
    assert not iuv[:, 2:].any() and maps.resampled(0, (0, 0, 0.3, 0.2)).shape == (3, 1, 1)


def test_what_no_head_has_is_refused():
    cfg = config(LEGACY)
    cfg.MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS = 14
    with pytest.raises(ValueError, match="NUM_COARSE_SEGM_CHANNELS is 14; give 2 or 15"):
        heads(cfg)
