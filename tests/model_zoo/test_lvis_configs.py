"""The LVIS recipes, value by value: the paper's A.4 and detectron2's LVIS configs on its Base-RCNN-FPN."""

import pytest
from detectron2.data import MetadataCatalog

from moco_det.config import known_keys
from moco_det.model_zoo import get_config

V05_1X = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "naiveSyncBN",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.NORM": "naiveSyncBN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 1230,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 1e-4,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MAX_SIZE_TEST": 1333,
    "DATASETS.TRAIN": ("moco_lvis_v0.5_train",),
    "DATASETS.TEST": ("moco_lvis_v0.5_val",),
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": 0.001,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.STEPS": (60000, 80000),
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.WARMUP_FACTOR": 1e-3,
    "TEST.DETECTIONS_PER_IMAGE": 300,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
}
TWICE = {"SOLVER.MAX_ITER": 180000, "SOLVER.STEPS": (120000, 160000)}
FROZEN = {"MODEL.RESNETS.NORM": "FrozenBN", "MODEL.FPN.NORM": "", "TEST.PRECISE_BN.ENABLED": False}
V1 = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 1203,
    "DATASETS.TRAIN": ("moco_lvis_v1_train",),
    "DATASETS.TEST": ("moco_lvis_v1_val",),
}
CHANGES = {
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": {},
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_2x": TWICE,
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_frozenBN": FROZEN,
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_2x_frozenBN": FROZEN | TWICE,
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": V1,
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_2x": V1 | TWICE,
}


def values_of(name):
    cfg = get_config(name, "moco", "backbone.pkl")
    values = {}
    for key in known_keys(cfg):
        node = cfg
        for part in key.split("."):
            node = node[part]
        values[key] = node
    return values


@pytest.mark.parametrize("name", CHANGES)
def test_the_recipe_has_the_official_values(name):
    official, found = V05_1X | CHANGES[name], values_of(name)
    assert {key: found[key] for key in official} == official
    classes = MetadataCatalog.get(found["DATASETS.TEST"][0]).thing_classes
    assert len(classes) == found["MODEL.ROI_HEADS.NUM_CLASSES"]


@pytest.mark.parametrize("name", list(CHANGES)[1:])
def test_the_recipe_differs_in_what_its_name_says_only(name):
    first, found = values_of(next(iter(CHANGES))), values_of(name)
    assert {key for key in found if found[key] != first[key]} == {*CHANGES[name], "OUTPUT_DIR"}
