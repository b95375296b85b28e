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

from moco_det.encoder import build_resnet, pooled_features
from moco_det.grouped_batch_norm import (
    GroupedBatchNorm2d,
    local_block,
    shuffle,
    unshuffle,
    update_running_statistics,
)
from moco_det.pretrain.diagnostics import alignment, spread, uniformity
from moco_det.pretrain.dictionaries import Dictionary, build_dictionary
from moco_det.pretrain.moco_checks import check_moco_config
from moco_det.pretrain.orders import CachedOrder, Order, swapped
from moco_det.pretrain.recompute import RECOMPUTED_BLOCKS
from moco_det.seeding import torch_generator


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
class MoCo(nn.Module):
    """Momentum Contrast (v1: He et al. 2019; v2: Chen et al. 2020) with any of the dictionaries.

    ``encoder_k`` is None where the dictionary needs none: a memory bank, or end-to-end with a shared encoder.
    """

    @configurable
    def __init__(
        self,
        *,
        encoder: nn.Module,
        dictionary: Dictionary,
        momentum: float,
        temperature: float,
        shuffle_bn: bool,
        pixel_mean: list[float],
        pixel_std: list[float],
        precision: torch.dtype = torch.float32,
        channels_last: bool = True,
        accumulate: int = 1,
        proximal: float = 0.0,
        symmetric: bool = False,
        seed: int = 0,
    ):
        """
        Args:
            encoder: the query encoder; images to embeddings.
            dictionary: gives keys and negatives, see :mod:`moco_det.pretrain.dictionaries`.
            momentum: m of the key encoder.
            temperature: tau of the loss.
            shuffle_bn: deal the keys anew over the global batch before the key encoder's batch norm.
            pixel_mean: per channel (RGB), on the scale 0 to 255.
            pixel_std: likewise.
            precision: of the encoders' arithmetic; everything else is float32.
            channels_last: keep images and weights in the memory format that convolutions in reduced precision
                are fastest in.
            accumulate: micro-batches in which a rank takes its images, see :meth:`forward`.
            proximal: weight of the squared distance between a query and its positive, added to the loss.
            symmetric: the loss is the mean over both orders of the two views.
            seed: the run's seed, from which the shuffles are drawn.
        """
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = dictionary.key_encoder(self.encoder_q)
        self.dictionary = dictionary
        self.momentum = momentum
        self.temperature = temperature
        self.shuffle_bn = shuffle_bn
        self.precision = precision
        self.accumulate = accumulate
        self.proximal = proximal
        self.symmetric = symmetric
        self.seed = seed
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg):
        moco = cfg.MODEL.MOCO
        check_moco_config(cfg, comm.get_world_size())
        # SyncBN is one group of the whole global batch.
        group = cfg.SOLVER.IMS_PER_BATCH if moco.NORM == "SyncBN" else moco.BN_GROUP_SIZE
        return {
            "encoder": build_encoder(
                moco.ARCH, moco.DIM, moco.MLP, group, cfg.SOLVER.ACTIVATION_CHECKPOINTING, moco.STEM
            ),
            "dictionary": build_dictionary(cfg),
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "precision": getattr(torch, cfg.SOLVER.PRECISION),
            "channels_last": cfg.SOLVER.CHANNELS_LAST,
            "accumulate": cfg.SOLVER.ACCUMULATE,
            "proximal": moco.PROXIMAL,
            "symmetric": moco.SYMMETRIC,
            "seed": cfg.SEED,
        }

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step of Algorithm 1 without the optimizer, or one micro-batch of it.

        The momentum update stands before the keys, as in the official code; the paper's listing has it after
        the optimizer's step, which is the same update of the same weights one line earlier. With accumulation
        a step is as many calls as there are micro-batches: the first one makes all keys, each compares its
        part of the queries with the same dictionary, the last one updates it.

        The symmetric form does all this for both orders of the views, with the same dictionary and weights.

        Args:
            batch: ``query`` and ``key``, two views of the same images, uint8 (n, 3, S, S) in RGB; ``index``, int64
                (n,), which images of the data set they are (a memory bank reads these, and no key); ``iteration``,
                the number of the step; ``micro_batch``, from 0 on (default: 0).

        Returns:
            ``loss_contrastive`` (and ``loss_proximal``), and detached statistics of the micro-batch.
        """
        part = batch.get("micro_batch", 0)
        if part == 0:
            self.dictionary.begin(self)
            orders = [batch, swapped(batch)] if self.symmetric else [batch]
            cached = self.dictionary.trains_keys and self.accumulate > 1
            self.orders = [(CachedOrder if cached else Order)(self, order) for order in orders]
        outputs = [order.micro_batch(self, part) for order in self.orders]
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
        if self.proximal:
            losses["loss_proximal"] = self.proximal * (q - k).square().sum(dim=1).mean()
        report = self.dictionary.report(len(keys) * (2 if self.symmetric else 1))
        return {**losses, **report, **statistics(q, keys, positive, negatives)}

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 images (n, 3, S, S) on any device -> float input of the encoders on the model's."""
        images = images.to(self.pixel_mean.device, non_blocking=True)
        images = (images - self.pixel_mean) / self.pixel_std
        return images.contiguous(memory_format=self.memory_format)

    def embed(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """Unit-length embeddings: (n, 3, S, S) -> (n, C) in the precision of the loss."""
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            embeddings = encoder(images)
        if self.precision != torch.float32:
            embeddings = embeddings.float()
        return F.normalize(embeddings, dim=1)

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
        global_batch = images.shape[0] * comm.get_world_size()
        permutation = torch.arange(global_batch)
        if self.shuffle_bn:
            # Each order of the views is dealt out by itself.
            purpose = "shuffle swapped" if batch.get("swapped") else "shuffle"
            generator = torch_generator(self.seed, purpose, batch["iteration"])
            permutation = torch.randperm(global_batch, generator=generator)
        permutation = permutation.to(images.device)
        return shuffle(images, permutation), permutation

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the query encoder before the head: uint8 (n, 3, S, S) -> (n, D)."""
        with torch.autocast(
            self.pixel_mean.device.type, self.precision, enabled=self.precision != torch.float32
        ):
            return pooled_features(self.encoder_q, self.normalized(images)).float()


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
