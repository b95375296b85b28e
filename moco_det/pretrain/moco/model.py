"""MoCo as a detectron2 meta-architecture: ``forward`` is Algorithm 1 of the paper.

n: images on this rank (in this micro-batch), N: images in the global batch, S: side of a view, C: embedding
length, K: negatives of a query.
"""

import functools

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.engine.plan_text import Row
from moco_det.modeling.encoder import build_resnet
from moco_det.modeling.grouped_batch_norm import (
    GroupedBatchNorm2d,
    draw_permutation,
    local_block,
    shuffle,
    unshuffle,
    update_running_statistics,
)
from moco_det.pretrain.diagnostics import contrast_statistics
from moco_det.pretrain.method import (
    PretrainMethod,
    StepState,
    bn_group_size,
    common_settings,
    momentum_update,
    small_crops,
)
from moco_det.pretrain.moco.checks import check_moco_config, check_queue_size
from moco_det.pretrain.moco.dictionaries import EndToEnd, MemoryBank, Queue, build_dictionary
from moco_det.pretrain.moco.plan import DICTIONARY_ROWS
from moco_det.pretrain.recompute import RECOMPUTED_BLOCKS


def build_encoder(
    arch: str,
    dim: int,
    mlp: bool,
    bn_group_size: int,
    activation_checkpointing: bool = False,
    stem: str = "imagenet",
    in_channels: int = 3,
) -> nn.Module:
    """A ResNet ending in the projection head ``fc``; names as in the official checkpoints.

    Args:
        dim: length of the embedding.
        mlp: two layers with the encoder's width hidden (v2) instead of one (v1).
        bn_group_size: images that batch norm normalizes together, a part of the global batch.
        activation_checkpointing: keep the input of each residual block only, and compute the rest again in the
            backward pass.
        stem: its first layers, see :data:`moco_det.modeling.encoder.STEMS`.
        in_channels: of the images.
    """
    encoder = build_resnet(
        arch,
        functools.partial(GroupedBatchNorm2d, group_size=bn_group_size),
        num_classes=dim,
        stem=stem,
        in_channels=in_channels,
        **({"blocks": RECOMPUTED_BLOCKS} if activation_checkpointing else {}),
    )
    if mlp:
        width = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
    return encoder


@META_ARCH_REGISTRY.register()
class MoCo(PretrainMethod):
    """Momentum Contrast (v1: He et al. 2019; v2: Chen et al. 2020) with any of the dictionaries.

    ``encoder_k`` is None where the dictionary needs none: a memory bank, or end-to-end with a shared encoder.
    """

    uses = ("MODEL.MOCO",)
    uses_small_crops = True
    linear_rule = ("SGD", 0.03)  # MoCo v1, section 4

    @configurable
    def __init__(
        self,
        *,
        encoder: nn.Module,
        dictionary: Queue | MemoryBank | EndToEnd,
        momentum: float,
        temperature: float,
        shuffle_bn: bool,
        symmetric: bool = False,
        seed: int = 0,
        **common,
    ):
        """
        Args:
            encoder: the query encoder; images to embeddings.
            dictionary: the queue, or a mechanism that the paper compares it with, which then has its own step.
            momentum: m of the key encoder.
            temperature: tau of the loss.
            shuffle_bn: shuffle the keys' images over the global batch before the key encoder's batch norm.
            symmetric: the loss is the mean over both orders of the two views.
            seed: the run's seed, from which the shuffles are sampled.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = dictionary.key_encoder(self.encoder_q)
        self.dictionary = dictionary
        self.momentum = momentum
        self.temperature = temperature
        self.shuffle_bn = shuffle_bn
        self.seed = seed
        # Of each order of the views, which one has the queries, which one the keys, and the name of its shuffle.
        self.query_views = ("query", "key")[: 1 + symmetric]
        self.key_views = (("key", "shuffle"), ("query", "shuffle swapped"))[: 1 + symmetric]

    @classmethod
    def from_config(cls, cfg):
        encoder, moco = cfg.MODEL.ENCODER, cfg.MODEL.MOCO
        cls.check_config(cfg, comm.get_world_size())
        return {
            **common_settings(cfg),
            "encoder": build_encoder(
                encoder.ARCH,
                moco.DIM,
                moco.MLP,
                bn_group_size(cfg),
                cfg.SOLVER.ACTIVATION_CHECKPOINTING,
                encoder.STEM,
                cfg.INPUT.CHANNELS,
            ),
            "dictionary": build_dictionary(cfg),
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "symmetric": moco.SYMMETRIC,
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
    def plan_rows(cls, facts) -> list[Row]:
        return DICTIONARY_ROWS[facts.cfg.MODEL.MOCO.DICTIONARY](facts)

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step of Algorithm 1 without the optimizer, or one micro-batch of it.

        The momentum update stands before the keys, as in the official code; the paper's listing has it after
        the optimizer's step, which is the same update of the same weights one line earlier. A step of several
        micro-batches makes all keys at its first one, and enqueues them at its last one.

        An image has one query and one key. The symmetric form has two of each, for both orders of the views; small
        crops are further queries of the same keys ("multi-crop", SwAV, section 3.3).

        Args:
            batch: as in :meth:`PretrainMethod.forward`; a memory bank reads ``index``, and no ``key``.

        Returns:
            ``loss_contrastive`` (and ``loss_proximal``), and detached statistics of the micro-batch.
        """
        if not isinstance(self.dictionary, Queue):  # what the paper compares with, see dictionaries.py
            return self.dictionary.step(self, batch)
        step = batch.get("step", StepState())

        if self.is_first(batch):
            momentum_update(self.encoder_k, self.encoder_q, self.momentum)
            with torch.no_grad():
                step.keys = self.embed_keys(self.encoder_k, batch)  # of each order of the views, NxC
        queue = self.dictionary.negatives()  # CxK; a copy, because the backward pass comes after the enqueue

        outputs = []
        for q, keys in self.positive_pairs(self.embed_queries(batch), step.keys):  # nxC, NxC
            k = self.micro_batch(local_block(keys), batch)  # nxC
            l_pos = torch.einsum("nc,nc->n", q, k)  # n
            l_neg = torch.einsum("nc,ck->nk", q, queue)  # nxK
            logits = torch.cat([l_pos[:, None], l_neg], dim=1)  # nx(1+K)
            logits /= self.temperature  # in place, since it is large
            labels = torch.zeros(len(q), dtype=torch.long, device=q.device)  # the positive is number 0
            loss = F.cross_entropy(logits, labels)
            outputs.append({"loss_contrastive": loss, **contrast_statistics(q, keys, l_pos, l_neg, loss)})
        outputs = self.mean_of_pairs(outputs) | self.dictionary.report(sum(map(len, step.keys)))

        if self.is_last(batch):
            # The keys of the first view come first, as in the demo of MoCo's authors.
            self.dictionary.enqueue(torch.cat(step.keys[::-1]))
            update_running_statistics(self)  # of both encoders
        return outputs

    def embed_keys(self, encoder: nn.Module, batch: dict) -> list[Tensor]:
        """Keys of the whole global batch from this rank's part of it, for each order of the views: (N, C)."""
        keys = []
        for view, purpose in self.key_views:
            images, permutation = self.shuffled(batch, view, purpose)  # nx3xSxS
            k = torch.cat([self.embed(encoder, part) for part in images.chunk(self.accumulate)])  # nxC
            keys.append(unshuffle(k, permutation))  # NxC
        return keys

    def shuffled(self, batch: dict, view: str, purpose: str) -> tuple[Tensor, Tensor]:
        """Shuffling BN: the images whose keys this rank makes, uint8 (n, 3, S, S), and the permutation (N,)."""
        images = batch[view].to(self.pixel_mean.device, non_blocking=True)
        permutation = draw_permutation(len(images), self.shuffle_bn, self.seed, purpose, batch["iteration"])
        return shuffle(images, permutation), permutation

    def embed_queries(self, batch: dict) -> list[Tensor]:
        """Queries of this micro-batch, (n, C): one for each order of the views, then one for each local crop."""
        crops = [batch[view] for view in self.query_views] + small_crops(batch)
        return [self.embed(self.encoder_q, self.micro_batch(images, batch)) for images in crops]

    def embed(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """uint8 (n, 3, S, S) -> unit-length embeddings (n, C) in the precision of the loss."""
        return F.normalize(self.compute(encoder, self.normalized(images)), dim=1)

    def positive_pairs(self, queries: list[Tensor], keys: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Which queries have which keys: a global crop those of the other one, a local crop all."""
        small = queries[len(keys) :]
        return [*zip(queries, keys, strict=False), *((q, k) for k in keys for q in small)]

    def mean_of_pairs(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Mean losses over all pairs of a query and its keys; mean statistics over those of global crops."""
        large = outputs[: len(self.query_views)]
        chosen = {name: outputs if name.startswith("loss") else large for name in outputs[0]}
        return {name: sum(pair[name] for pair in pairs) / len(pairs) for name, pairs in chosen.items()}
