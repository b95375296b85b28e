"""DensePose R-CNN: detectron2's heads with dense pose beside the boxes."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads, select_foreground_proposals
from detectron2.structures import Instances
from detectron2.structures.boxes import matched_pairwise_iou
from torch import nn

from moco_densepose.head import COMMON_STRIDE, Decoder, build_head
from moco_densepose.losses import LossWeights, densepose_losses


@ROI_HEADS_REGISTRY.register()
class MoCoDensePoseROIHeads(StandardROIHeads):
    """``StandardROIHeads`` with a chart-based head; parameters are called as upstream's DensePoseROIHeads."""

    @configurable
    def __init__(
        self,
        *,
        densepose_pooler: ROIPooler,
        densepose_head: nn.Module,
        densepose_predictor: nn.Module,
        decoder: nn.Module | None,
        densepose_weights: LossWeights,
        densepose_iou: float,
        **kwargs,
    ):
        """
        Args:
            decoder: joins the levels to the one map that is pooled from; None: each box has its level.
            densepose_iou: a proposal trains the head when its IoU with its person is above this.
        """
        super().__init__(**kwargs)
        if decoder is not None:
            self.decoder = decoder
        self.use_decoder = decoder is not None
        self.densepose_pooler = densepose_pooler
        self.densepose_head = densepose_head
        self.densepose_predictor = densepose_predictor
        self.densepose_weights = densepose_weights
        self.densepose_iou = densepose_iou

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        ret.update(
            _densepose_parts(cfg, {name: input_shape[name] for name in cfg.MODEL.ROI_HEADS.IN_FEATURES})
        )
        return ret

    def forward(self, images, features, proposals, targets=None):
        instances, losses = super().forward(images, features, proposals, targets)
        if self.training:
            losses.update(self._densepose_losses(features, instances))
        return instances, losses

    def forward_with_given_boxes(self, features, instances):
        instances = super().forward_with_given_boxes(features, instances)
        output = self._densepose(features, [x.pred_boxes for x in instances])
        start = 0
        for of_image in instances:
            of_image.pred_densepose = output[start : start + len(of_image)]
            start += len(of_image)
        return instances

    def _densepose(self, features: dict[str, torch.Tensor], boxes: list):
        """Predictions for the boxes of all images, one after another."""
        if self.use_decoder:
            levels = [self.decoder(features)]
        else:
            levels = [features[name] for name in self.box_in_features]
        return self.densepose_predictor(self.densepose_head(self.densepose_pooler(levels, boxes)))

    def _densepose_losses(self, features: dict[str, torch.Tensor], proposals: list[Instances]):
        chosen = [self._trains(x) for x in select_foreground_proposals(proposals, self.num_classes)[0]]
        boxes = [x.proposal_boxes for x in chosen]
        people = [person for x in chosen if x.has("gt_densepose") for person in x.gt_densepose]
        joined = torch.cat([x.tensor for x in boxes])
        return densepose_losses(self._densepose(features, boxes), joined, people, self.densepose_weights)

    def _trains(self, proposals: Instances) -> Instances:
        """Those whose person has dense pose and whose box fits."""
        if not proposals.has("gt_densepose"):
            return proposals[:0]
        fits = matched_pairwise_iou(proposals.gt_boxes, proposals.proposal_boxes) > self.densepose_iou
        known = [person is not None for person in proposals.gt_densepose]
        return proposals[fits & torch.tensor(known, dtype=torch.bool, device=fits.device)]


def _densepose_parts(cfg: CfgNode, shapes: dict) -> dict:
    """Arguments of the heads for the FPN levels ``shapes``."""
    head = cfg.MODEL.ROI_DENSEPOSE_HEAD
    decoder, channels = None, next(iter(shapes.values())).channels
    strides = [shape.stride for shape in shapes.values()]
    if head.DECODER_ON:
        channels, strides = head.DECODER_NUM_CLASSES, [COMMON_STRIDE]
        decoder = Decoder(shapes, head.DECODER_CONV_DIMS, channels, head.DECODER_NORM)
    stack, predictor = build_head(cfg, channels)
    return {
        "densepose_pooler": ROIPooler(
            output_size=head.POOLER_RESOLUTION,
            scales=[1 / stride for stride in strides],
            sampling_ratio=head.POOLER_SAMPLING_RATIO,
            pooler_type=head.POOLER_TYPE,
        ),
        "densepose_head": stack,
        "densepose_predictor": predictor,
        "decoder": decoder,
        "densepose_weights": LossWeights(
            head.INDEX_WEIGHTS, head.PART_WEIGHTS, head.POINT_REGRESSION_WEIGHTS
        ),
        "densepose_iou": head.FG_IOU_THRESHOLD,
    }
