"""Fine-tuning recipes: the official values key by key, and every YAML builds its model."""

import pytest
import torch
from detectron2.modeling import build_model

import moco_det.finetune  # noqa: F401  registers heads and data sets
from moco_det.config import known_keys
from moco_det.model_zoo import get_config, list_configs, list_inits

# Official code (facebookresearch/moco at 3b42c2a, detection/configs), and the defaults of detectron2 that its
# runs had: PAPER "3.0", written out so that a changed default shows.
COMMON = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "naiveSyncBN",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.CROP.ENABLED": False,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.WARMUP_FACTOR": 1e-3,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "DATALOADER.ASPECT_RATIO_GROUPING": True,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "TEST.AUG.ENABLED": False,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
}
VOC_24K = COMMON | {
    "MODEL.MASK_ON": False,
    "MODEL.ROI_HEADS.NUM_CLASSES": 20,
    "INPUT.MIN_SIZE_TRAIN": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
    "DATASETS.TRAIN": ("voc_2007_trainval", "voc_2012_trainval"),
    "DATASETS.TEST": ("voc_2007_test",),
    "SOLVER.MAX_ITER": 24000,
    "SOLVER.STEPS": (18000, 22000),
    "SOLVER.WARMUP_ITERS": 100,
}
COCO_2X = COMMON | {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
    "SOLVER.MAX_ITER": 180000,
    "SOLVER.STEPS": (120000, 160000),
    "SOLVER.WARMUP_ITERS": 1000,
}
COCO_1X = COCO_2X | {"SOLVER.MAX_ITER": 90000, "SOLVER.STEPS": (60000, 80000)}
OFFICIAL = {
    "PascalVOC-Detection/faster_rcnn_R_50_C4_24k": VOC_24K,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": COCO_1X,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_2x": COCO_2X,
}
RECIPES = [
    n
    for n in list_configs()
    if get_config(n, init=None).MODEL.META_ARCHITECTURE not in ("MoCo", "Classifier")
]
INIT_KEYS = {
    *("MODEL.WEIGHTS", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT"),
    "MODEL.RESNETS.STRIDE_IN_1X1",
}


def value_of(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def values_of(cfg):
    return {key: value_of(cfg, key) for key in known_keys(cfg)}


@pytest.mark.parametrize("name", OFFICIAL)
def test_recipe_with_moco_has_the_official_values(name):
    cfg = get_config(name, "moco", "backbone.pkl")
    found = {key: value_of(cfg, key) for key in OFFICIAL[name]}
    assert found == OFFICIAL[name]


def test_supervised_differs_from_moco_in_the_official_keys_only():
    name = "PascalVOC-Detection/faster_rcnn_R_50_C4_24k"
    moco, supervised = (values_of(get_config(name, init)) for init in ("moco", "supervised_msra"))
    assert {key for key in moco if moco[key] != supervised[key]} == INIT_KEYS
    # These are detectron2's defaults, with which the official supervised config runs.
    assert supervised["MODEL.PIXEL_MEAN"] == [103.53, 116.28, 123.675]
    assert supervised["MODEL.PIXEL_STD"] == [1.0, 1.0, 1.0]
    assert (supervised["INPUT.FORMAT"], supervised["MODEL.RESNETS.STRIDE_IN_1X1"]) == ("BGR", True)
    assert supervised["MODEL.WEIGHTS"] == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"


def test_1x_differs_from_2x_in_the_schedule_only():
    one, two = (
        values_of(get_config(f"COCO-InstanceSegmentation/mask_rcnn_R_50_C4_{x}")) for x in ("1x", "2x")
    )
    assert {k for k in one if one[k] != two[k]} == {"SOLVER.MAX_ITER", "SOLVER.STEPS", "OUTPUT_DIR"}


def test_a_recipe_says_nothing_about_weights_and_their_input():
    default = values_of(get_config(RECIPES[0], init=None))
    for name in RECIPES:
        recipe = values_of(get_config(name, init=None))
        assert {key: recipe[key] for key in INIT_KEYS} == {key: default[key] for key in INIT_KEYS}
        assert recipe["MODEL.WEIGHTS"] == ""


@pytest.mark.parametrize("init", list_inits())
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_with_every_init(name, init):
    cfg = get_config(name, init)
    cfg.MODEL.DEVICE = "meta"  # shapes without numbers
    with torch.device("meta"):
        model = build_model(cfg)
    strides = [m.stride for n, m in model.named_modules() if n.endswith("res3.0.conv1")]
    bottleneck = cfg.MODEL.RESNETS.DEPTH >= 50
    assert strides == [(2, 2) if cfg.MODEL.RESNETS.STRIDE_IN_1X1 or not bottleneck else (1, 1)]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.pixel_mean.device.type == "meta"
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":  # the only one that keeps it
        assert model.input_format == cfg.INPUT.FORMAT
    norms = {type(m).__name__ for m in model.backbone.modules() if "Norm" in type(m).__name__}
    assert norms == {"FrozenBatchNorm2d" if name.endswith("_frozenBN") else "NaiveSyncBatchNorm"}
