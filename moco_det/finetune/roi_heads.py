"""The paper's C4 head: batch norm once more after res5 (MoCo v1, A.1)."""

from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """detectron2's ``Res5ROIHeads`` with a norm on the map that res5 gives, (R, 2048, 7, 7) for R regions.

    Supervised weights come with batch norms in balance with each other, others need not: this norm makes what
    the box predictor sees alike for all. It stands before the pooling, so the mask branch sees it too. The name
    and the keys (``roi_heads.res5.norm.*``) are the official code's.
    """

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        res5 = ret["res5"]
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, res5[-1].out_channels))
        return ret
