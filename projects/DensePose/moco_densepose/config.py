"""Every config key of this project.

Names and defaults are those of detectron2's projects/DensePose where it has the key, so that configs can be
compared line by line.
"""

from detectron2.config import CfgNode as CN


def add_densepose_config(cfg: CN) -> None:
    """Add the keys of DensePose R-CNN to a config."""
    # Whether the model has a dense pose head and its data the annotations.
    cfg.MODEL.DENSEPOSE_ON = True
    cfg.MODEL.ROI_DENSEPOSE_HEAD = head = CN()
    # The stack of convolutions: how many, their channels and kernel size (odd).
    head.NUM_STACKED_CONVS = 8
    head.CONV_HEAD_DIM = 512
    head.CONV_HEAD_KERNEL = 3
    # Kernel size (even) of the transposed convolutions that predict, which double the side.
    head.DECONV_KERNEL = 4
    # Factor by which their maps are then enlarged, bilinearly. The side of the output is
    # POOLER_RESOLUTION * 2 * UP_SCALE.
    head.UP_SCALE = 2
    # Channels of the coarse segmentation: 2 (background, person) or 15 (background, 14 body parts).
    head.NUM_COARSE_SEGM_CHANNELS = 2
    # As of the other heads.
    head.POOLER_TYPE = "ROIAlignV2"
    head.POOLER_RESOLUTION = 28
    head.POOLER_SAMPLING_RATIO = 2
    # A proposal trains the head when its IoU with a person's box is above this, in [0, 1).
    head.FG_IOU_THRESHOLD = 0.7
    # Weights of the losses: coarse segmentation, chart I, coordinates U and V.
    head.INDEX_WEIGHTS = 5.0
    head.PART_WEIGHTS = 1.0
    head.POINT_REGRESSION_WEIGHTS = 0.01
    # Whether the levels of the FPN are first joined to one map, as in Panoptic FPN (Kirillov et al. 2019), with
    # DECODER_CONV_DIMS channels on the way and DECODER_NUM_CLASSES in the end.
    head.DECODER_ON = True
    head.DECODER_NUM_CLASSES = 256
    head.DECODER_CONV_DIMS = 256
    # By detectron2's name; empty: none.
    head.DECODER_NORM = ""
    # Of GPS: nine numbers, a 0 and the mean distance on a torso, hand, foot, upper leg, lower leg, upper arm,
    # lower arm and head, in the unit of the table of distances. Empty: computed from that table.
    cfg.TEST.DENSEPOSE_MEAN_DISTANCES = []
