"""BYOL (Grill et al. 2020, "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning").

n: images on this rank (in this micro-batch), C: length of a projection.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.engine.schedule import cosine_momentum
from moco_det.modeling.grouped_batch_norm import bn_group_size, update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.modeling.momentum_encoder import make_key_encoder, momentum_update
from moco_det.pretrain.checks import check_vector_norm
from moco_det.pretrain.diagnostics import pair_statistics
from moco_det.pretrain.method import PlanRow, PretrainMethod, build_backbone, common_settings


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, 2 - 2 cos (equation 2), the mean over the images: a scalar.

    Args:
        prediction, target: (n, C), any length.
    """
    return 2 - 2 * F.cosine_similarity(prediction, target, dim=1).mean()


@META_ARCH_REGISTRY.register()
class BYOL(PretrainMethod):
    """The online network predicts what the target network, its moving average, makes of the other view."""

    uses = ("MODEL.BYOL",)
    linear_rule = ("LARS", 0.2)  # section 3.3

    @configurable
    def __init__(self, *, encoder: ResNet, predictor: nn.Module, momentum: float, **common):
        """
        Args:
            encoder: f, with the projector g as its ``fc``; the target network is a copy of it.
            predictor: q, of the online network alone.
            momentum: tau_base.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = make_key_encoder(self.encoder_q)
        self.predictor = predictor
        self.momentum = momentum

    @classmethod
    def from_config(cls, cfg):
        cls.check_config(cfg, comm.get_world_size())
        byol, group = cfg.MODEL.BYOL, bn_group_size(cfg)
        encoder = build_backbone(cfg)
        # Linear, batch norm, ReLU, linear, for both; the output is not normalized (section 3.3).
        encoder.fc = mlp((encoder.fc.in_features, byol.HIDDEN_DIM, byol.DIM), group)
        return {
            **common_settings(cfg),
            "encoder": encoder,
            "predictor": mlp((byol.DIM, byol.HIDDEN_DIM, byol.DIM), group),
            "momentum": byol.MOMENTUM,
        }

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        check_vector_norm(cfg)

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        tau = facts.cfg.MODEL.BYOL.MOMENTUM
        steps = 1 / max(1 - tau, 1e-9)
        return [("target", f"momentum {tau:g}, rising to 1: it follows over {steps:,.0f} steps at first")]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """Both orders of the two views (section 3.2); arguments and result as :class:`PretrainMethod` says."""
        views = self.views(batch)  # nx3xSxS
        projections = [self.compute(self.encoder_q, view) for view in views]  # nxC
        predictions = [self.compute(self.predictor, projection) for projection in projections]  # nxC
        with torch.no_grad():
            targets = [self.compute(self.encoder_k, view) for view in views]  # nxC
        loss = regression_loss(predictions[0], targets[1]) + regression_loss(predictions[1], targets[0])
        if self.is_last(batch):
            update_running_statistics(self)
        units = [F.normalize(projection.detach(), dim=1) for projection in projections]
        return {"loss_regression": loss, **pair_statistics(*units)}

    def after_step(self, progress: float) -> None:
        """xi <- tau xi + (1 - tau) theta (equation 1); the predictor is not part of the target."""
        momentum_update(self.encoder_k, self.encoder_q, cosine_momentum(self.momentum, progress))
