"""Fine-tuning: detectors and segmenters that start from ``backbone.pkl``, on detectron2's own trainer.

Importing it registers the backbones, the heads and the data sets with detectron2.
"""

from moco_det.data.datasets import toy as _toy  # noqa: F401
from moco_det.finetune import dilated_c5 as _dilated_c5  # noqa: F401
from moco_det.finetune import roi_heads as _roi_heads  # noqa: F401
from moco_det.finetune import semantic_fcn as _semantic_fcn  # noqa: F401
