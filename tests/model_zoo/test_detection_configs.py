"""The detection recipes that the authors did not publish: the values of their sources, key by key."""

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.modeling import build_model
from test_configs import COMMON, VOC_24K, value_of, values_of

import moco_det.finetune  # noqa: F401  registers backbones and heads
from moco_det.model_zoo import get_config

VOC_9K = VOC_24K | {  # PAPER: Table 4; the steps are 18,000 and 22,000 of 24,000 in proportion
    "DATASETS.TRAIN": ("voc_2007_trainval",),
    "SOLVER.MAX_ITER": 9000,
    "SOLVER.STEPS": (6750, 8250),
}
VOC_DC5 = VOC_24K | {  # PAPER: A.1; the rest is detectron2's Base-RCNN-DilatedC5
    "MODEL.BACKBONE.NAME": "build_resnet_dilated_c5_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res5"],
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RPN.IN_FEATURES": ["dilated_c5"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["dilated_c5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
}
# detectron2's Base-RCNN-FPN; norms by the authors' answer in facebookresearch/moco issue 34.
FPN = COMMON | {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.FPN.NORM": "naiveSyncBN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
    "SOLVER.WARMUP_ITERS": 1000,
}
COCO_FPN_1X = FPN | {
    "MODEL.MASK_ON": True,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.STEPS": (60000, 80000),
}
# detectron2's Base-Keypoint-RCNN-FPN, OpenSelfSup's 2x schedule.
KEYPOINTS_2X = FPN | {
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": True,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "KRCNNConvDeconvUpsampleHead",
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 17,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (512,) * 8,
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": 1,
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT": 1.0,
    "MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "TEST.KEYPOINT_OKS_SIGMAS": [],  # COCO's
    "DATASETS.TRAIN": ("keypoints_coco_2017_train",),
    "DATASETS.TEST": ("keypoints_coco_2017_val",),
    "SOLVER.MAX_ITER": 180000,
    "SOLVER.STEPS": (120000, 160000),
}
VALUES = {
    "PascalVOC-Detection/faster_rcnn_R_50_C4_9k": VOC_9K,
    "PascalVOC-Detection/faster_rcnn_R_50_DC5_24k": VOC_DC5,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": COCO_FPN_1X,
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_2x": COCO_FPN_1X
    | {"SOLVER.MAX_ITER": 180000, "SOLVER.STEPS": (120000, 160000)},
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_6x": COCO_FPN_1X
    | {"SOLVER.MAX_ITER": 540000, "SOLVER.STEPS": (480000, 520000)},
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_4conv1fc_1x": COCO_FPN_1X
    | {
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
        "MODEL.ROI_BOX_HEAD.NORM": "naiveSyncBN",
        "MODEL.ROI_MASK_HEAD.NORM": "naiveSyncBN",
    },
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_2x": KEYPOINTS_2X,
}


@pytest.mark.parametrize("name", VALUES)
def test_recipe_has_the_values_of_its_source(name):
    cfg = get_config(name, "moco", "backbone.pkl")
    assert {key: value_of(cfg, key) for key in VALUES[name]} == VALUES[name]


@pytest.mark.parametrize(
    ("one", "other", "keys"),
    [
        ("mask_rcnn_R_50_FPN_2x", "mask_rcnn_R_50_FPN_1x", {"SOLVER.MAX_ITER", "SOLVER.STEPS"}),
        ("mask_rcnn_R_50_FPN_6x", "mask_rcnn_R_50_FPN_1x", {"SOLVER.MAX_ITER", "SOLVER.STEPS"}),
        (
            *("mask_rcnn_R_50_FPN_4conv1fc_1x", "mask_rcnn_R_50_FPN_1x"),
            {
                f"MODEL.ROI_{k}"
                for k in ("BOX_HEAD.NUM_CONV", "BOX_HEAD.NUM_FC", "BOX_HEAD.NORM", "MASK_HEAD.NORM")
            },
        ),
    ],
)
def test_recipes_differ_in_what_their_names_say(one, other, keys):
    one, other = (values_of(get_config(f"COCO-InstanceSegmentation/{name}")) for name in (one, other))
    assert {key for key in one if one[key] != other[key]} == keys | {"OUTPUT_DIR"}


def test_dc5_differs_from_c4_in_the_model_only():
    c4, dc5 = (values_of(get_config(f"PascalVOC-Detection/faster_rcnn_R_50_{x}_24k")) for x in ("C4", "DC5"))
    changed = {key for key in c4 if c4[key] != dc5[key]}
    assert changed == {key for key in VOC_DC5 if VOC_24K.get(key, VOC_DC5[key]) != VOC_DC5[key]} | {
        *("OUTPUT_DIR", "MODEL.ROI_BOX_HEAD.NAME", "MODEL.ROI_BOX_HEAD.NUM_FC")
    }


@pytest.mark.parametrize(
    ("name", "normed"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", set()),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_4conv1fc_1x", {"box_head", "mask_head"}),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_2x", set()),
        ("PascalVOC-Detection/faster_rcnn_R_50_DC5_24k", set()),
    ],
)
def test_norms_stand_in_the_backbone_and_in_the_heads_that_are_named(name, normed):
    cfg = get_config(name)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    norms = [n for n, m in model.named_modules() if isinstance(m, NaiveSyncBatchNorm)]
    assert {n.split(".")[1] for n in norms if n.startswith("roi_heads.")} == normed
    assert not [n for n in norms if n.startswith("proposal_generator.")]
    new = [n for n in norms if n.startswith("backbone.") and not n.startswith("backbone.bottom_up.")]
    assert len(new) == (1 if "DC5" in name else 8)  # the FPN has two convolutions a level
