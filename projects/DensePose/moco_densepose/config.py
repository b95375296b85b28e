"""Every config key of this project.

Names and defaults are those of detectron2's projects/DensePose where it has the key, so that configs can be
compared line by line.
"""

from detectron2.config import CfgNode

from moco_det.config import add_keys
from moco_det.config.key import FINETUNE, Key, one_of, within

ROWS = (
    Key(
        "MODEL.DENSEPOSE_ON",
        True,
        "Whether the model has a dense pose head and its data the annotations.",
        (FINETUNE,),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.NUM_STACKED_CONVS",
        8,
        "Convolutions of the stack.",
        (FINETUNE,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_DIM",
        512,
        "Their channels.",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_KERNEL",
        3,
        "Their kernel size (odd).",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.DECONV_KERNEL",
        4,
        "Kernel size (even) of the transposed convolutions that predict, which double the side.",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.UP_SCALE",
        2,
        "Factor by which their maps are then enlarged, bilinearly. The side of the output is "
        "POOLER_RESOLUTION * 2 * UP_SCALE.",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS",
        2,
        "Channels of the coarse segmentation: 2 (background, person) or 15 (background, 14 body parts).",
        (FINETUNE,),
        one_of(2, 15),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.POOLER_TYPE",
        "ROIAlignV2",
        "As of the other heads.",
        (FINETUNE,),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.POOLER_RESOLUTION",
        28,
        "As of the other heads.",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.POOLER_SAMPLING_RATIO",
        2,
        "As of the other heads.",
        (FINETUNE,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.FG_IOU_THRESHOLD",
        0.7,
        "A proposal trains the head when its IoU with a person's box is above this.",
        (FINETUNE,),
        within("[0, 1)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.INDEX_WEIGHTS",
        5.0,
        "Weight of the loss of the coarse segmentation.",
        (FINETUNE,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.PART_WEIGHTS",
        1.0,
        "Weight of the loss of chart I.",
        (FINETUNE,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.POINT_REGRESSION_WEIGHTS",
        0.01,
        "Weight of the losses of the coordinates U and V.",
        (FINETUNE,),
        within("[0, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON",
        True,
        "Whether the levels of the FPN are first joined to one map.",
        (FINETUNE,),
        source="Panoptic FPN (Kirillov et al. 2019)",
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.DECODER_NUM_CLASSES",
        256,
        "Channels of the joined map.",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.DECODER_CONV_DIMS",
        256,
        "Channels on the way there.",
        (FINETUNE,),
        within("[1, inf)"),
    ),
    Key(
        "MODEL.ROI_DENSEPOSE_HEAD.DECODER_NORM",
        "",
        "Norm of the decoder by detectron2's name; empty: none.",
        (FINETUNE,),
    ),
    Key(
        "TEST.DENSEPOSE_MEAN_DISTANCES",
        [],
        "Of GPS: nine numbers, a 0 and the mean distance on a torso, hand, foot, upper leg, lower leg, upper "
        "arm, lower arm and head, in the unit of the table of distances. Empty: computed from that table.",
        (FINETUNE,),
    ),
)


def add_densepose_config(cfg: CfgNode) -> None:
    """Add the keys of DensePose R-CNN to a config."""
    add_keys(cfg, ROWS)
