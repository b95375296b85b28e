"""The recipes of semantic segmentation and of Cityscapes, key by key (PAPER: MoCo v1, A.5 and Table 6)."""

import pytest

from moco_det.model_zoo import get_config

COMMON = {
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "naiveSyncBN",
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.RANDOM_FLIP": "horizontal",
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.WARMUP_FACTOR": 1e-3,
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "TEST.AUG.ENABLED": False,
    "TEST.PRECISE_BN.ENABLED": True,
    "TEST.PRECISE_BN.NUM_ITER": 200,
}
FCN = COMMON | {
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res5"],
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.SEM_SEG_HEAD.NAME": "DilatedFCNHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.DILATION": 6,
    "MODEL.SEM_SEG_HEAD.NORM": "naiveSyncBN",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.0,
    "INPUT.RANDOM_SCALE": (0.5, 2.0),
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.MIN_SIZE_TEST": 0,
    "DATALOADER.ASPECT_RATIO_GROUPING": False,
    "SOLVER.IMS_PER_BATCH": 16,
}
CITYSCAPES_FCN = FCN | {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "INPUT.CROP.SIZE": [769, 769],
    "DATASETS.TRAIN": ("cityscapes_fine_sem_seg_train",),
    "DATASETS.TEST": ("cityscapes_fine_sem_seg_val",),
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.STEPS": (63000, 81000),
}
VOC_FCN = FCN | {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 21,
    "INPUT.CROP.SIZE": [513, 513],
    "DATASETS.TRAIN": ("voc_2012_sem_seg_train_aug",),
    "DATASETS.TEST": ("voc_2012_sem_seg_val",),
    "SOLVER.BASE_LR": 0.003,
    "SOLVER.MAX_ITER": 30000,
    "SOLVER.STEPS": (21000, 27000),
}
# detectron2's Cityscapes/mask_rcnn_R_50_FPN.yaml and its base, but for the norms, what is frozen and PreciseBN.
CITYSCAPES_MASK = COMMON | {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.NORM": "naiveSyncBN",
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "INPUT.MIN_SIZE_TRAIN": (800, 832, 864, 896, 928, 960, 992, 1024),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TRAIN": 2048,
    "INPUT.MAX_SIZE_TEST": 2048,
    "INPUT.CROP.ENABLED": False,
    "DATASETS.TRAIN": ("cityscapes_fine_instance_seg_train",),
    "DATASETS.TEST": ("cityscapes_fine_instance_seg_val",),
    "DATALOADER.ASPECT_RATIO_GROUPING": True,
    "SOLVER.IMS_PER_BATCH": 8,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.MAX_ITER": 24000,
    "SOLVER.STEPS": (18000,),
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
RECIPES = {
    "Cityscapes/fcn_R_50_dilated_90k": CITYSCAPES_FCN,
    "PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k": VOC_FCN,
    "Cityscapes/mask_rcnn_R_50_FPN": CITYSCAPES_MASK,
}


def value_of(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_the_papers_values(name):
    cfg = get_config(name, "moco", "backbone.pkl")
    assert {key: value_of(cfg, key) for key in RECIPES[name]} == RECIPES[name]


@pytest.mark.parametrize(
    "name", ["Cityscapes/fcn_R_50_dilated_90k", "PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k"]
)
def test_the_learning_rate_falls_at_70_and_90_percent(name):
    solver = get_config(name).SOLVER
    assert solver.STEPS == (solver.MAX_ITER * 7 // 10, solver.MAX_ITER * 9 // 10)
