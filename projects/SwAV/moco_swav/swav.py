"""SwAV as a meta-architecture (Caron et al. 2020, arXiv 2006.09882): predict the code of one view from another.

n: images on this rank, V: crops of an image, C: embedding length, J: prototypes.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.modeling.collectives import gather
from moco_det.modeling.grouped_batch_norm import bn_group_size, update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.pretrain.diagnostics import spread
from moco_det.pretrain.method import PlanRow, PretrainMethod, build_backbone, common_settings, crops
from moco_det.pretrain.moco.dictionaries import Queue
from moco_det.utils.metric_names import EMBEDDING_STD
from moco_swav.losses import sinkhorn, swapped_prediction


@META_ARCH_REGISTRY.register()
class SwAV(PretrainMethod):
    """Swapped assignments between views, with local crops and a queue where they are asked for."""

    uses = ("MODEL.SWAV",)
    uses_small_crops = True
    linear_rule = ("LARS", 0.3)  # 4.8 for 4096 (appendix A); with batches of 256 the paper has 0.6

    @configurable
    def __init__(
        self,
        *,
        encoder: ResNet,
        dim: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
        sinkhorn_iterations: int,
        freeze_prototypes_epochs: int,
        queue_size: int = 0,
        queue_start_epoch: int = 0,
        seed: int = 0,
        **common,
    ):
        """
        Args:
            encoder: images to embeddings of length ``dim``.
            prototypes: J.
            temperature: of the prediction.
            epsilon, sinkhorn_iterations: of the codes.
            freeze_prototypes_epochs: epochs in which the prototypes keep their random start.
            queue_size: embeddings of each global crop that share the assignment; 0: none.
            queue_start_epoch: the first epoch whose embeddings are kept.
            seed: of the run.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.temperature, self.epsilon = temperature, epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.freeze_prototypes_epochs = freeze_prototypes_epochs
        self.queue_start_epoch = queue_start_epoch
        # One for each global crop.
        self.queues = nn.ModuleList(Queue(dim, queue_size, seed) for _ in range(2 if queue_size else 0))

    @classmethod
    def from_config(cls, cfg):
        swav = cfg.MODEL.SWAV
        cls.check_config(cfg, comm.get_world_size())
        encoder = build_backbone(cfg)
        encoder.fc = mlp((encoder.fc.in_features, swav.HIDDEN_DIM, swav.DIM), bn_group_size(cfg))
        return {
            **common_settings(cfg),
            "encoder": encoder,
            "dim": swav.DIM,
            "prototypes": swav.PROTOTYPES,
            "temperature": swav.TEMPERATURE,
            "epsilon": swav.EPSILON,
            "sinkhorn_iterations": swav.SINKHORN_ITERATIONS,
            "freeze_prototypes_epochs": swav.FREEZE_PROTOTYPES_EPOCHS,
            "queue_size": swav.QUEUE_SIZE,
            "queue_start_epoch": swav.QUEUE_START_EPOCH,
            "seed": cfg.SEED,
        }

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        swav, batch = cfg.MODEL.SWAV, cfg.SOLVER.IMS_PER_BATCH
        if swav.QUEUE_SIZE and swav.QUEUE_SIZE < batch:
            raise ValueError(
                f"MODEL.SWAV.QUEUE_SIZE is {swav.QUEUE_SIZE}, smaller than SOLVER.IMS_PER_BATCH {batch}: the "
                f"embeddings of a step do not fit; set it to 0 (none), or to {batch} or more"
            )
        if cfg.SOLVER.ACCUMULATE > 1:
            raise ValueError(
                f"SOLVER.ACCUMULATE is {cfg.SOLVER.ACCUMULATE}, but the codes of a step are assigned over its "
                "whole batch at once; set it to 1 (SOLVER.ACTIVATION_CHECKPOINTING True saves memory, and "
                "MODEL.SWAV.QUEUE_SIZE is for small batches)"
            )

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        swav = facts.cfg.MODEL.SWAV
        rows = facts.batch + swav.QUEUE_SIZE
        return [
            (
                "prototypes",
                f"{swav.PROTOTYPES:,}, over which the codes of {rows:,} embeddings are spread evenly",
            )
        ]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer.

        Args:
            batch: of :meth:`PretrainMethod.forward`; with ``small``, uint8 (n, V - 2, 3, s, s), these crops
                predict the codes of the global ones too.

        Returns:
            ``loss_swapped`` and detached statistics.
        """
        self.epoch = batch["epoch"]
        with torch.no_grad():  # onto the sphere
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        embeddings = [self.embed(crop) for crop in crops(batch)]  # V of nxC
        scores = [self.prototypes(z) for z in embeddings]  # V of nxJ
        codes = [self.codes(view, scores[view].detach()) for view in range(2)]  # nxJ
        self.keep(embeddings)
        update_running_statistics(self)
        loss = swapped_prediction(scores, codes, self.temperature)
        return {"loss_swapped": loss, **statistics(embeddings[0], codes[0], scores[1])}

    @torch.no_grad()
    def codes(self, view: int, scores: Tensor) -> Tensor:
        """The codes of a global crop's embeddings, assigned together with those of its queue: (n, J)."""
        rows = [scores]
        if self.queues and self.queues[view].num_real == self.queues[view].size:
            # The queue is the same on all ranks; each brings its own part of it.
            kept = self.queues[view].keys.T.tensor_split(comm.get_world_size())[comm.get_rank()]
            rows.append(self.prototypes(kept))
        return sinkhorn(torch.cat(rows), self.epsilon, self.sinkhorn_iterations)[: len(scores)]

    @torch.no_grad()
    def keep(self, embeddings: list[Tensor]) -> None:
        """Put the global crops' embeddings of the global batch into the queues."""
        if self.epoch >= self.queue_start_epoch:
            for queue, z in zip(self.queues, embeddings[:2], strict=False):
                queue.enqueue(gather(z.detach()))

    def embed(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, S, S) -> unit-length (n, C)."""
        return F.normalize(self.compute(self.encoder_q, self.normalized(images)), dim=1)

    def after_backward(self, iteration: int, progress: float) -> None:
        if self.epoch < self.freeze_prototypes_epochs:
            self.prototypes.weight.grad = None


@torch.no_grad()
def statistics(z: Tensor, codes: Tensor, scores: Tensor) -> dict[str, Tensor]:
    """What the log shows of a step.

    Args:
        z: (n, C) embeddings; codes: (n, J) of the first view; scores: (n, J) of the second.

    Returns:
        ``code_agreement``: fraction of images whose nearest prototype in one view is the likeliest of the other's
        code;
        ``prototypes_used``: of the J, those that are some image's likeliest.
    """
    likeliest = codes.argmax(dim=1)
    return {
        EMBEDDING_STD: spread(z),
        "code_agreement": (likeliest == scores.argmax(dim=1)).float().mean(),
        "prototypes_used": torch.zeros_like(codes[0]).index_fill_(0, likeliest, 1).sum(),
    }
