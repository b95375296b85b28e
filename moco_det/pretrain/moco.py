"""MoCo as a detectron2 meta-architecture: ``forward`` is Algorithm 1 of the paper.

n: images on this rank, N: images in the global batch, S: side of a view, C: embedding length, K: negatives of a
query. Who makes the keys, where negatives come from and where gradients go is the dictionary's part: the queue of
the paper, or one of the two mechanisms that the paper compares it with.
"""

import functools

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.encoder import build_resnet
from moco_det.grouped_batch_norm import (
    GroupedBatchNorm2d,
    local_block,
    unshuffle,
    update_running_statistics,
)
from moco_det.plan_text import Row
from moco_det.pretrain.diagnostics import alignment, mutual_information_bound, spread, uniformity
from moco_det.pretrain.dictionaries import Dictionary, build_dictionary
from moco_det.pretrain.method import PretrainMethod, bn_group_size, common_settings
from moco_det.pretrain.moco_checks import check_moco_config, check_queue_size
from moco_det.pretrain.moco_plan import DICTIONARY_ROWS
from moco_det.pretrain.multi_crop import small_crops
from moco_det.pretrain.orders import CachedOrder, Order, swapped
from moco_det.pretrain.recompute import RECOMPUTED_BLOCKS
from moco_det.pretrain.shuffling import deal_keys


def build_encoder(
    arch: str,
    dim: int,
    mlp: bool,
    bn_group_size: int,
    activation_checkpointing: bool = False,
    stem: str = "imagenet",
) -> nn.Module:
    """A ResNet ending in the projection head ``fc``; names as in the official checkpoints.

    Args:
        dim: length of the embedding.
        mlp: two layers with the encoder's width hidden (v2) instead of one (v1).
        bn_group_size: images that batch norm normalises together, a part of the global batch.
        activation_checkpointing: keep the input of each residual block only, and compute the rest anew in the
            backward pass.
        stem: its first layers, see :data:`moco_det.encoder.STEMS`.
    """
    encoder = build_resnet(
        arch,
        functools.partial(GroupedBatchNorm2d, group_size=bn_group_size),
        num_classes=dim,
        stem=stem,
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
        dictionary: Dictionary,
        momentum: float,
        temperature: float,
        shuffle_bn: bool,
        proximal: float = 0.0,
        symmetric: bool = False,
        seed: int = 0,
        **common,
    ):
        """
        Args:
            encoder: the query encoder; images to embeddings.
            dictionary: gives keys and negatives, see :mod:`moco_det.pretrain.dictionaries`.
            momentum: m of the key encoder.
            temperature: tau of the loss.
            shuffle_bn: deal the keys anew over the global batch before the key encoder's batch norm.
            proximal: weight of the squared distance between a query and its positive, added to the loss.
            symmetric: the loss is the mean over both orders of the two views.
            seed: the run's seed, from which the shuffles are drawn.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = dictionary.key_encoder(self.encoder_q)
        self.dictionary = dictionary
        self.momentum = momentum
        self.temperature = temperature
        self.shuffle_bn = shuffle_bn
        self.proximal = proximal
        self.symmetric = symmetric
        self.seed = seed

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
            ),
            "dictionary": build_dictionary(cfg),
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "proximal": moco.PROXIMAL,
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
        the optimizer's step, which is the same update of the same weights one line earlier. With accumulation
        a step is as many calls as there are micro-batches: the first one makes all keys, each compares its
        part of the queries with the same dictionary, the last one updates it.

        The symmetric form does all this for both orders of the views, with the same dictionary and weights. Small
        crops are further queries of the same key ("multi-crop", SwAV, section 3.3), of either key in that form.

        Args:
            batch: ``query`` and ``key``, two views of the same images, uint8 (n, 3, S, S) in RGB; ``small``, uint8
                (n, V, 3, s, s), where there are small crops; ``index``, int64 (n,), which images of the data set
                they are (a memory bank reads these, and no key); ``iteration``, the number of the step;
                ``micro_batch``, from 0 on (default: 0).

        Returns:
            ``loss_contrastive`` (and ``loss_proximal``), and detached statistics of the micro-batch.
        """
        part = batch.get("micro_batch", 0)
        if part == 0:
            self.dictionary.begin(self)
            orders = [batch, swapped(batch)] if self.symmetric else [batch]
            cached = self.dictionary.trains_keys and self.accumulate > 1
            self.orders = [(CachedOrder if cached else Order)(self, order) for order in orders]
        small = [self.embed_queries(self.micro_batch(crop, batch)) for crop in small_crops(batch)]
        outputs = [order.micro_batch(self, part, small) for order in self.orders]
        if part == self.accumulate - 1:
            # With both orders, the keys of the first view come first, as in the demo of MoCo's authors.
            last_first = self.orders[::-1]
            keys, queries = [order.keys for order in last_first], [order.queries for order in last_first]
            self.dictionary.update(torch.cat(keys), torch.cat(queries))
            update_running_statistics(self)  # of both encoders
            del self.orders
        return {name: sum(found[name] for found in outputs) / len(outputs) for name in outputs[0]}

    def compare(self, q: Tensor, keys: Tensor, part: int, parts: int) -> dict[str, Tensor]:
        """Losses and statistics of this rank's queries in a micro-batch.

        Args:
            q: (n, C) queries, those of micro-batch ``part`` of ``parts``; keys: (N, C) of the global batch.
        """
        places = local_block(torch.arange(len(keys), device=keys.device))  # of this rank in the batch
        own = places.chunk(parts)[part]  # n
        k = keys[own]  # nxC
        positive = torch.einsum("nc,nc->n", q, k)  # n
        negatives = self.dictionary.compare(q, keys, own)  # nxK
        losses = {"loss_contrastive": self.dictionary.loss(positive, negatives, self.temperature)}
        report = self.dictionary.report(len(keys) * (2 if self.symmetric else 1))
        if self.dictionary.is_info_nce:
            candidates = 1 + negatives.shape[1]
            report["mutual_information"] = mutual_information_bound(losses["loss_contrastive"], candidates)
        if self.proximal:
            losses["loss_proximal"] = self.proximal * (q - k).square().sum(dim=1).mean()
        return {**losses, **report, **statistics(q, keys, positive, negatives)}

    def embed(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """Unit-length embeddings: (n, 3, S, S) -> (n, C) in the precision of the loss."""
        return F.normalize(self.compute(encoder, images), dim=1)

    def embed_queries(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, S, S) -> (n, C)."""
        return self.embed(self.encoder_q, self.normalized(images))

    def embed_keys(self, batch: dict) -> Tensor:
        """Keys of the whole global batch, (N, C), from this rank's part of it."""
        images, permutation = self.shuffled_keys(batch)  # nx3xSxS
        keys = torch.cat([self.embed_shuffled(part) for part in images.chunk(self.accumulate)])  # nxC
        return unshuffle(keys, permutation)

    def embed_shuffled(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, S, S) by the encoder of the keys -> (n, C)."""
        return self.embed(
            self.encoder_q if self.encoder_k is None else self.encoder_k, self.normalized(images)
        )

    def shuffled_keys(self, batch: dict) -> tuple[Tensor, Tensor]:
        """The images whose keys this rank makes, uint8 (n, 3, S, S), and the permutation (N,) that dealt them."""
        images = batch["key"].to(self.pixel_mean.device, non_blocking=True)
        # Each order of the views is dealt out by itself.
        purpose = "shuffle swapped" if batch.get("swapped") else "shuffle"
        return deal_keys(images, self.shuffle_bn, self.seed, purpose, batch["iteration"])


@torch.no_grad()
def statistics(q: Tensor, keys: Tensor, positive: Tensor, negatives: Tensor) -> dict[str, Tensor]:
    """What the log shows of a step.

    Args:
        q: (n, C) queries; keys: (N, C) of the global batch.
        positive: (n,) similarity of each query with its own key; negatives: (n, K) with the dictionary.

    Returns:
        named scalars. ``similarity_batch``, with the other keys of the batch, should be near
        ``similarity_negative``: if it is well above, the age of a key gives it away.
    """
    others = (q @ keys.T).sum() - positive.sum()
    return {
        "alignment": alignment(positive),
        "uniformity": uniformity(q),
        "embedding_spread": spread(q),
        "accuracy": (positive > negatives.amax(dim=1)).float().mean(),  # (K+1)-way
        "similarity_positive": positive.mean(),
        "similarity_batch": others / (len(q) * max(len(keys) - 1, 1)),
        "similarity_negative": negatives.mean(),
        "similarity_negative_std": negatives.std(),
    }
