"""SimSiam (Chen & He 2020, "Exploring Simple Siamese Representation Learning").

n: images on this rank (in this micro-batch), C: length of a projection.
"""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.modeling.grouped_batch_norm import bn_group_size, update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.pretrain.checks import check_vector_norm
from moco_det.pretrain.diagnostics import pair_statistics
from moco_det.pretrain.method import PlanRow, PretrainMethod, build_backbone, common_settings


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, stopgrad(z)), the mean over the images: a scalar in [-1, 1] (equations 1 and 3).

    Args:
        p, z: (n, C), any length.
    """
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()


@META_ARCH_REGISTRY.register()
class SimSiam(PretrainMethod):
    """One encoder and a predictor, neither negatives nor momentum; a stopped gradient prevents the collapse."""

    uses = ("MODEL.SIMSIAM",)
    linear_rule = ("SGD", 0.05)  # section 3

    @configurable
    def __init__(
        self,
        *,
        encoder: ResNet,
        predictor: nn.Module,
        predictor_lr: float,
        fix_predictor_lr: bool = True,
        **common,
    ):
        """
        Args:
            encoder: f, backbone with the projection MLP as its ``fc``.
            predictor: h.
            predictor_lr: its learning rate at the beginning.
            fix_predictor_lr: it does not decay.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.predictor = predictor
        self.predictor_lr, self.fix_predictor_lr = predictor_lr, fix_predictor_lr

    @classmethod
    def from_config(cls, cfg):
        cls.check_config(cfg, comm.get_world_size())
        simsiam, group = cfg.MODEL.SIMSIAM, bn_group_size(cfg)
        encoder = build_backbone(cfg, simsiam.ZERO_INIT_RESIDUAL)
        # Three layers, the last one with batch norm too (section 3, "Projection MLP"), without scale and shift
        # (official code).
        widths = (encoder.fc.in_features, simsiam.DIM, simsiam.DIM, simsiam.DIM)
        encoder.fc = mlp(widths, group, last_norm=True, last_affine=False)
        return {
            **common_settings(cfg),
            "encoder": encoder,
            # Two layers, the last one plain (section 3, "Prediction MLP").
            "predictor": mlp((simsiam.DIM, simsiam.PREDICTOR_DIM, simsiam.DIM), group),
            "predictor_lr": cfg.SOLVER.BASE_LR * simsiam.PREDICTOR_LR_FACTOR,
            "fix_predictor_lr": simsiam.FIX_PREDICTOR_LR,
        }

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        check_vector_norm(cfg)

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        simsiam, lr = facts.cfg.MODEL.SIMSIAM, facts.cfg.SOLVER.BASE_LR
        falls = "stays" if simsiam.FIX_PREDICTOR_LR else "falls as that of the encoder"
        return [("predictor", f"its learning rate {lr * simsiam.PREDICTOR_LR_FACTOR:g} {falls}")]

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": list(self.encoder_q.parameters())},
            {
                "params": list(self.predictor.parameters()),
                "base_lr": self.predictor_lr,
                "decay_lr": not self.fix_predictor_lr,
            },
        ]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """Algorithm 1 without the optimizer; arguments and result as :class:`PretrainMethod` says."""
        views = self.views(batch)  # nx3xSxS
        z_1, z_2 = (self.compute(self.encoder_q, view) for view in views)  # nxC
        p_1, p_2 = self.compute(self.predictor, z_1), self.compute(self.predictor, z_2)  # nxC
        loss = negative_cosine(p_1, z_2) / 2 + negative_cosine(p_2, z_1) / 2  # equation 4
        if self.is_last(batch):
            update_running_statistics(self)
        units = [F.normalize(z.detach(), dim=1) for z in (z_1, z_2)]
        return {"loss_similarity": loss, **pair_statistics(*units)}
