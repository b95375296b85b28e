"""DenseCL as a meta-architecture (Wang et al. 2020, arXiv 2011.09157): MoCo v2 for images and for their positions.

n: images on this rank (in this micro-batch), N: images in the global batch, S: side of a view, D: channels of the
encoder's map, C: embedding length, P: positions of the dense grid, K: keys in a queue.
"""

import copy
import functools
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_densecl.losses import correspondence, dense_loss, dense_similarities
from moco_det.modeling.collectives import local_block
from moco_det.modeling.encoder import feature_map
from moco_det.modeling.grouped_batch_norm import update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.modeling.momentum_encoder import make_key_encoder, momentum_update
from moco_det.pretrain.diagnostics import contrast_statistics, mutual_information_bound
from moco_det.pretrain.method import PlanRow, StepState, build_backbone, common_settings
from moco_det.pretrain.moco.checks import check_moco_config, check_queue_size
from moco_det.pretrain.moco.dictionaries import Queue
from moco_det.pretrain.moco.losses import info_nce
from moco_det.pretrain.moco.plan import queue_rows
from moco_det.pretrain.moco.shuffled_keys import ShuffledKeys


class Embedded(NamedTuple):
    """What an encoder and its two heads make of images.

    Attributes:
        map: (n, D, P) of the encoder, on the dense grid.
        image: (n, C) unit-length, of the global head.
        dense: (n, C, P) unit-length, of the dense head.
        pooled: (n, C) unit-length mean of the dense head's vectors.
    """

    map: Tensor
    image: Tensor
    dense: Tensor
    pooled: Tensor


def dense_head(in_dim: int, dim: int) -> nn.Sequential:
    """The global head with 1x1 convolutions for linear layers (section 3.2): (n, D, P, 1) -> (n, C, P, 1)."""
    return nn.Sequential(nn.Conv2d(in_dim, in_dim, 1), nn.ReLU(), nn.Conv2d(in_dim, dim, 1))


@META_ARCH_REGISTRY.register()
class DenseCL(ShuffledKeys):
    """A global and a dense contrast, each with a queue of its own."""

    uses = (
        "MODEL.DENSECL",
        *(f"MODEL.MOCO.{key}" for key in ("DIM", "QUEUE_SIZE", "MOMENTUM", "TEMPERATURE", "SHUFFLE_BN")),
    )
    linear_rule = ("SGD", 0.03)  # section 4.1, for ImageNet

    @configurable
    def __init__(
        self,
        *,
        encoder: ResNet,
        dim: int,
        queue_size: int,
        momentum: float,
        temperature: float,
        dense_share: float,
        grid: int,
        warmup_steps: int,
        **common,
    ):
        """
        Args:
            encoder: ends in the global head, ``fc``.
            dim: C.
            queue_size: K of either queue.
            momentum: m of the key encoder and its heads.
            temperature: tau of both losses.
            dense_share: lambda.
            grid: positions on a side of the dense grid; 0: the encoder's own.
            warmup_steps: steps without the dense loss.
            common: of :class:`ShuffledKeys`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.dense_q = dense_head(encoder.fc[0].in_features, dim)
        self.encoder_k, self.dense_k = make_key_encoder(self.encoder_q), make_key_encoder(self.dense_q)
        self.queue = Queue(dim, queue_size, self.seed)
        self.dense_queue = copy.deepcopy(self.queue)
        self.momentum, self.temperature = momentum, temperature
        self.dense_share, self.grid, self.warmup_steps = dense_share, grid, warmup_steps

    @classmethod
    def from_config(cls, cfg):
        moco, densecl = cfg.MODEL.MOCO, cfg.MODEL.DENSECL
        cls.check_config(cfg, comm.get_world_size())
        encoder = build_backbone(cfg)
        width = encoder.fc.in_features
        encoder.fc = mlp((width, width, moco.DIM), bn_group_size=None)
        return {
            **common_settings(cfg),
            "encoder": encoder,
            "dim": moco.DIM,
            "queue_size": moco.QUEUE_SIZE,
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "dense_share": densecl.LAMBDA,
            "grid": densecl.GRID,
            "warmup_steps": densecl.WARMUP_STEPS,
            "seed": cfg.SEED,
        }

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        check_moco_config(cfg)

    @classmethod
    def check_num_images(cls, cfg, num_images: int) -> None:
        check_queue_size(cfg, num_images)

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        densecl = facts.cfg.MODEL.DENSECL
        weight = f"{densecl.LAMBDA:g} of the loss, from step {densecl.WARMUP_STEPS:,} on"
        return [*queue_rows(facts), ("dense contrast", f"{weight}; a second queue of the same size")]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer, or one micro-batch of it; as MoCo's, for images and for positions.

        Args:
            batch: of :meth:`PretrainMethod.forward`.

        Returns:
            ``loss_contrastive`` and ``loss_dense``, which are equation 3 together, and detached statistics.
        """
        step = batch.get("step", StepState())
        if self.is_first(batch):
            momentum_update(self.encoder_k, self.encoder_q, self.momentum)
            momentum_update(self.dense_k, self.dense_q, self.momentum)
            step.keys = self.embed_keys(batch)  # of N images
        q = self.embed(self.encoder_q, self.dense_q, self.micro_batch(batch["query"], batch))
        k = Embedded(*(self.micro_batch(local_block(every), batch) for every in step.keys))
        outputs = self.compare(q, k, step.keys.image, batch["iteration"])
        if self.is_last(batch):
            self.queue.enqueue(step.keys.image)
            self.dense_queue.enqueue(step.keys.pooled)
            update_running_statistics(self)
        return outputs

    def compare(self, q: Embedded, k: Embedded, keys: Tensor, iteration: int) -> dict[str, Tensor]:
        """Losses and statistics of queries.

        Args:
            q, k: the queries and their positive keys; keys: (N, C) of the images of the global batch.
        """
        positive = (q.image * k.image).sum(dim=1)  # n
        negatives = q.image @ self.queue.negatives()  # nxK
        image_loss = info_nce(positive, negatives, self.temperature)

        positions = correspondence(q.map, k.map)  # nxP
        dense = dense_similarities(q.dense, k.dense, positions, self.dense_queue.negatives())
        position_loss = dense_loss(*dense, self.temperature)

        weight = self.dense_share if iteration >= self.warmup_steps else 0.0
        return {
            "loss_contrastive": (1 - weight) * image_loss,
            "loss_dense": weight * position_loss,
            "mutual_information_dense": mutual_information_bound(position_loss, 1 + self.queue.size),
            "similarity_positive_dense": dense[0].detach().mean(),
            **self.queue.report(len(keys)),
            **contrast_statistics(q.image, keys, positive, negatives, image_loss),
        }

    def embed(self, encoder: ResNet, dense: nn.Module, images: Tensor) -> Embedded:
        """uint8 (n, 3, S, S) -> what the heads make of them."""
        images = self.normalized(images)
        full = self.compute(lambda x: feature_map(encoder, x), images)  # nxDxhxw
        image = self.compute(encoder.fc, full.mean(dim=(2, 3)))  # nxC
        # The grid is made before the head: a head of 1x1 convolutions makes a vector from each vector.
        grid = F.adaptive_avg_pool2d(full, self.grid) if self.grid else full
        grid = grid.flatten(2)  # nxDxP
        vectors = self.compute(dense, grid[..., None])[..., 0]  # nxCxP
        return Embedded(
            grid.detach(),
            F.normalize(image, dim=1),
            F.normalize(vectors, dim=1),
            F.normalize(vectors.mean(dim=2), dim=1),
        )

    @torch.no_grad()
    def embed_keys(self, batch: dict) -> Embedded:
        """The keys of the whole global batch, from this rank's part of it."""
        embed = functools.partial(self.embed, self.encoder_k, self.dense_k)
        return Embedded(*self.embed_shuffled(embed, batch["key"], batch["iteration"]))
