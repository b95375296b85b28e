"""SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations").

n: images on this rank, N: images in the global batch, S: side of a view, C: length of an embedding.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.modeling.collectives import gather_with_gradient, local_block
from moco_det.modeling.grouped_batch_norm import update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.pretrain.diagnostics import mutual_information_bound, pair_statistics
from moco_det.pretrain.method import PlanRow, PretrainMethod, build_backbone, common_settings
from moco_det.utils.metric_names import ACCURACY


def nt_xent_logits(anchors: Tensor, others: Tensor, same: Tensor, own: Tensor, temperature: float) -> Tensor:
    """The similarities of equation 1: anchors of one view with all 2N - 1 other embeddings, over tau.

    Args:
        anchors: (n, C) unit-length embeddings of one view.
        others: (N, C) of the other view; same: (N, C) of the anchors' own view.
        own: (n,) which rows of ``same`` the anchors are, and where in ``others`` their positives stand.

    Returns:
        (n, 2N): N similarities with ``others``, N with ``same``, where an anchor with itself has -inf.
    """
    itself = torch.zeros(len(own), len(same), dtype=torch.bool, device=own.device)
    itself.scatter_(1, own[:, None], True)  # nxN
    with_same = (anchors @ same.T).masked_fill(itself, -torch.inf)  # nxN
    return torch.cat([anchors @ others.T, with_same], dim=1) / temperature


@META_ARCH_REGISTRY.register()
class SimCLR(PretrainMethod):
    """Each view is told apart from the 2N - 2 views of the other images of the global batch, with NT-Xent."""

    uses = ("MODEL.SIMCLR",)
    linear_rule = ("LARS", 0.3)  # section 2.2

    @configurable
    def __init__(self, *, encoder: ResNet, temperature: float, **common):
        """
        Args:
            encoder: f, with the projection head g as its ``fc``.
            temperature: tau.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.temperature = temperature

    @classmethod
    def from_config(cls, cfg):
        cls.check_config(cfg, comm.get_world_size())
        simclr = cfg.MODEL.SIMCLR
        encoder = build_backbone(cfg)
        # Linear, ReLU, linear (section 4.2): the paper's text has no batch norm in the head.
        encoder.fc = mlp((encoder.fc.in_features, simclr.HIDDEN_DIM, simclr.DIM), bn_group_size=None)
        return {**common_settings(cfg), "encoder": encoder, "temperature": simclr.TEMPERATURE}

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        solver = cfg.SOLVER
        if solver.IMS_PER_BATCH < 2:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}; expected 2 or more, for negatives"
            )
        if solver.ACCUMULATE > 1:
            raise ValueError(
                f"SOLVER.ACCUMULATE is {solver.ACCUMULATE}; expected 1 with SimCLR, whose loss compares all "
                "images of a step: SOLVER.ACTIVATION_CHECKPOINTING True saves memory as well"
            )

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        return [("negatives", f"{2 * (facts.batch - 1):,}, both views of the other images of the batch")]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step of Algorithm 1 without the optimizer; arguments and result as :class:`PretrainMethod` says."""
        z_1, z_2 = (self.embed(batch[name]) for name in ("query", "key"))  # nxC
        all_1, all_2 = gather_with_gradient(z_1), gather_with_gradient(z_2)  # NxC
        own = local_block(torch.arange(len(all_1), device=z_1.device))  # n
        logits = torch.cat(  # 2n x 2N
            [
                nt_xent_logits(z_1, all_2, all_1, own, self.temperature),
                nt_xent_logits(z_2, all_1, all_2, own, self.temperature),
            ]
        )
        positive = own.repeat(2)  # 2n
        loss = F.cross_entropy(logits, positive)  # the mean of equation 1 over both views of all images
        update_running_statistics(self)
        return {
            "loss_nt_xent": loss,
            ACCURACY: (logits.detach().argmax(dim=1) == positive).float().mean(),
            "mutual_information": mutual_information_bound(loss, candidates=2 * len(all_1) - 1),
            **pair_statistics(z_1.detach(), z_2.detach()),
        }

    def embed(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, S, S) -> unit-length (n, C)."""
        return F.normalize(self.compute(self.encoder_q, self.normalized(images)), dim=1)
