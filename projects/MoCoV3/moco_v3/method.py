"""MoCo v3 for ResNets (Chen, Xie & He 2021, "An Empirical Study of Training Self-Supervised Vision Transformers").

n: images on this rank (in this micro-batch), N: images in the global batch, C: length of an embedding.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.engine.schedule import cosine_momentum
from moco_det.modeling.collectives import gather, local_block
from moco_det.modeling.grouped_batch_norm import bn_group_size, update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.modeling.momentum_encoder import make_key_encoder, momentum_update
from moco_det.pretrain.checks import check_vector_norm
from moco_det.pretrain.diagnostics import mutual_information_bound, pair_statistics, spread
from moco_det.pretrain.method import PlanRow, PretrainMethod, StepState, build_backbone, common_settings
from moco_det.utils.metric_names import ACCURACY, EMBEDDING_STD


@META_ARCH_REGISTRY.register()
class MoCoV3(PretrainMethod):
    """The keys of the batch itself, of a moving-average encoder, for the queries of a predictor; no queue."""

    uses = ("MODEL.MOCO_V3",)
    linear_rule = ("LARS", 0.6)  # official code, ResNet-50 for 100 epochs; 0.3 for longer runs

    @configurable
    def __init__(
        self, *, encoder: ResNet, predictor: nn.Module, temperature: float, momentum: float, **common
    ):
        """
        Args:
            encoder: backbone and projector of f_q; f_k is a copy of it.
            predictor: the rest of f_q.
            temperature: tau.
            momentum: m at the beginning.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = make_key_encoder(self.encoder_q)
        self.predictor = predictor
        self.temperature = temperature
        self.momentum = momentum

    @classmethod
    def from_config(cls, cfg):
        cls.check_config(cfg, comm.get_world_size())
        v3, group = cfg.MODEL.MOCO_V3, bn_group_size(cfg)
        encoder = build_backbone(cfg, v3.ZERO_INIT_RESIDUAL)
        hidden = (v3.HIDDEN_DIM,) * (v3.PROJECTOR_LAYERS - 1)
        # Batch norm in all layers of both, the last one without scale and shift (section 4.2; official code).
        norms = {"bn_group_size": group, "last_norm": True, "last_affine": False}
        encoder.fc = mlp((encoder.fc.in_features, *hidden, v3.DIM), **norms)
        return {
            **common_settings(cfg),
            "encoder": encoder,
            "predictor": mlp((v3.DIM, v3.HIDDEN_DIM, v3.DIM), **norms),
            "temperature": v3.TEMPERATURE,
            "momentum": v3.MOMENTUM,
        }

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        if cfg.SOLVER.IMS_PER_BATCH < 2:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; expected 2 or more, for negatives"
            )
        check_vector_norm(cfg)

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        m = facts.cfg.MODEL.MOCO_V3.MOMENTUM
        return [
            ("negatives", f"{facts.batch - 1:,}, the other keys of the batch"),
            ("momentum", f"{m:g}, rising to 1: keys follow over {1 / max(1 - m, 1e-9):,.0f} steps at first"),
        ]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """Algorithm 1 without the optimizer; arguments and result as :class:`PretrainMethod` says.

        With micro-batches, the first one makes all keys, as its queries are compared with those of all images.
        """
        step = batch.get("step", StepState())
        if self.is_first(batch):
            step.keys = [self.embed_keys(batch[name]) for name in ("query", "key")]  # NxC
        q_1, q_2 = (self.embed(self.micro_batch(batch[name], batch)) for name in ("query", "key"))  # nxC
        k_1, k_2 = step.keys
        own = self.micro_batch(local_block(torch.arange(len(k_1), device=k_1.device)), batch)  # n
        logits = torch.cat([q_1 @ k_2.T, q_2 @ k_1.T]) / self.temperature  # 2n x N
        positive = own.repeat(2)  # 2n
        info_nce = F.cross_entropy(logits, positive)  # equation 1, the mean of both orders
        if self.is_last(batch):
            update_running_statistics(self)
        return {
            # The sum of both orders, each 2 tau times its log loss (Algorithm 1, ctr).
            "loss_contrastive": 2 * (2 * self.temperature * info_nce),
            ACCURACY: (logits.detach().argmax(dim=1) == positive).float().mean(),
            "mutual_information": mutual_information_bound(info_nce, candidates=len(k_1)),
            **pair_statistics(q_1.detach(), k_2[own]),
            EMBEDDING_STD: spread(k_2),  # the predictor's batch norm spreads also what has collapsed
        }

    def embed(self, images: Tensor) -> Tensor:
        """Queries: uint8 (n, 3, S, S) -> unit-length (n, C)."""
        projections = self.compute(self.encoder_q, self.normalized(images))
        return F.normalize(self.compute(self.predictor, projections), dim=1)

    @torch.no_grad()
    def embed_keys(self, images: Tensor) -> Tensor:
        """Keys of the whole global batch from all of this rank's images: uint8 -> unit-length (N, C)."""
        parts = images.chunk(self.accumulate)
        keys = [self.compute(self.encoder_k, self.normalized(part)) for part in parts]
        return gather(F.normalize(torch.cat(keys), dim=1))

    def after_step(self, progress: float) -> None:
        """The key encoder follows backbone and projector, not the predictor."""
        momentum_update(self.encoder_k, self.encoder_q, cosine_momentum(self.momentum, progress))
