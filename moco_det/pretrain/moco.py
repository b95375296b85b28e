"""MoCo as a detectron2 meta-architecture: ``forward`` is Algorithm 1 of the paper.

n: images on this rank, N: images in the global batch, S: side of a view, C: embedding length, K: queue.
"""

import functools
import math

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.encoder import build_resnet, parse_arch, pooled_features
from moco_det.pretrain.dictionaries import Queue
from moco_det.pretrain.grouped_batch_norm import (
    GroupedBatchNorm2d,
    local_block,
    shuffle,
    unshuffle,
    update_running_statistics,
)
from moco_det.pretrain.losses import info_nce
from moco_det.pretrain.momentum import make_key_encoder, momentum_update
from moco_det.pretrain.recompute import RECOMPUTED_BLOCKS
from moco_det.seeding import torch_generator


def build_encoder(
    arch: str, dim: int, mlp: bool, bn_group_size: int, activation_checkpointing: bool = False
) -> nn.Module:
    """A ResNet ending in the projection head ``fc``; names as in the official checkpoints.

    Args:
        dim: length of the embedding.
        mlp: two layers with the encoder's width hidden (v2) instead of one (v1).
        bn_group_size: images that batch norm normalises together, a part of the global batch.
        activation_checkpointing: keep the input of each residual block only, and compute the rest anew in the
            backward pass.
    """
    encoder = build_resnet(
        arch,
        functools.partial(GroupedBatchNorm2d, group_size=bn_group_size),
        num_classes=dim,
        **({"blocks": RECOMPUTED_BLOCKS} if activation_checkpointing else {}),
    )
    if mlp:
        width = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
    return encoder


@META_ARCH_REGISTRY.register()
class MoCo(nn.Module):
    """Momentum Contrast with a queue (v1: He et al. 2019; v2: Chen et al. 2020)."""

    @configurable
    def __init__(
        self,
        *,
        encoder: nn.Module,
        dictionary: nn.Module,
        momentum: float,
        temperature: float,
        shuffle_bn: bool,
        pixel_mean: list[float],
        pixel_std: list[float],
        precision: torch.dtype = torch.float32,
        channels_last: bool = True,
        accumulate: int = 1,
        seed: int = 0,
    ):
        """
        Args:
            encoder: the query encoder; images to embeddings.
            dictionary: gives negatives and takes the keys, see :mod:`moco_det.pretrain.dictionaries`.
            momentum: m of the key encoder.
            temperature: tau of the loss.
            shuffle_bn: deal the keys anew over the global batch before the key encoder's batch norm.
            pixel_mean: per channel (RGB), on the scale 0 to 255.
            pixel_std: likewise.
            precision: of the encoders' arithmetic; everything else is float32.
            channels_last: keep images and weights in the memory format that convolutions in reduced precision
                are fastest in.
            accumulate: micro-batches in which a rank takes its images, see :meth:`forward`.
            seed: the run's seed, from which the shuffles are drawn.
        """
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = make_key_encoder(self.encoder_q)
        self.dictionary = dictionary
        self.momentum = momentum
        self.temperature = temperature
        self.shuffle_bn = shuffle_bn
        self.precision = precision
        self.accumulate = accumulate
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
                moco.ARCH, moco.DIM, moco.MLP, group, cfg.SOLVER.ACTIVATION_CHECKPOINTING
            ),
            "dictionary": Queue(moco.DIM, moco.QUEUE_SIZE, cfg.SEED),
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "precision": getattr(torch, cfg.SOLVER.PRECISION),
            "channels_last": cfg.SOLVER.CHANNELS_LAST,
            "accumulate": cfg.SOLVER.ACCUMULATE,
            "seed": cfg.SEED,
        }

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step of Algorithm 1 without the optimizer, or one micro-batch of it.

        The momentum update stands before the keys, as in the official code; the paper's listing has it after
        the optimizer's step, which is the same update of the same weights one line earlier. With accumulation
        a step is as many calls as there are micro-batches: the first one makes all keys, each compares its
        part of the queries with the same dictionary, the last one enqueues.

        Args:
            batch: ``query`` and ``key``, two views of the same images, uint8 (n, 3, S, S) in RGB; ``iteration``,
                the number of the step; ``micro_batch``, from 0 on (default: 0).

        Returns:
            ``loss_contrastive``, and detached statistics of the micro-batch.
        """
        part = batch.get("micro_batch", 0)
        if part == 0:
            with torch.no_grad():
                momentum_update(self.encoder_k, self.encoder_q, self.momentum)
                self.keys = self.embed_keys(batch["key"], batch["iteration"])  # NxC, the whole global batch
        keys = self.keys
        k = local_block(keys).chunk(self.accumulate)[part]  # nxC

        x_q = self.normalized(batch["query"].chunk(self.accumulate)[part])  # nx3xSxS
        q = self.embed(self.encoder_q, x_q)  # nxC

        positive = torch.einsum("nc,nc->n", q, k)  # n
        negatives = q @ self.dictionary.negatives()  # nxK
        loss = info_nce(positive, negatives, self.temperature)

        report = {"queue_real": self.dictionary.share_real, **statistics(q, keys, positive, negatives)}
        if part == self.accumulate - 1:
            self.dictionary.update(keys)
            update_running_statistics(self.encoder_q)
            del self.keys
        return {"loss_contrastive": loss, **report}

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

    def embed_keys(self, images: Tensor, iteration: int) -> Tensor:
        """Keys of the whole global batch: this rank's uint8 (n, 3, S, S) -> (N, C)."""
        images = images.to(self.pixel_mean.device, non_blocking=True)
        global_batch = images.shape[0] * comm.get_world_size()
        permutation = torch.arange(global_batch)
        if self.shuffle_bn:
            generator = torch_generator(self.seed, "shuffle", iteration)
            permutation = torch.randperm(global_batch, generator=generator)
        permutation = permutation.to(images.device)
        shuffled = shuffle(images, permutation)  # nx3xSxS
        parts = shuffled.chunk(self.accumulate)
        keys = torch.cat([self.embed(self.encoder_k, self.normalized(part)) for part in parts])  # nxC
        update_running_statistics(self.encoder_k)
        return unshuffle(keys, permutation)

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
        "accuracy": (positive > negatives.amax(dim=1)).float().mean(),  # (K+1)-way
        "similarity_positive": positive.mean(),
        "similarity_batch": others / (len(q) * max(len(keys) - 1, 1)),
        "similarity_negative": negatives.mean(),
        "similarity_negative_std": negatives.std(),
    }


def check_moco_config(cfg, ranks: int) -> None:
    """Refuse settings that the method cannot have.

    Args:
        ranks: processes of the run.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    moco, batch = cfg.MODEL.MOCO, cfg.SOLVER.IMS_PER_BATCH
    parse_arch(moco.ARCH)
    for key, value, choices in (
        ("MODEL.MOCO.DICTIONARY", moco.DICTIONARY, ("queue",)),
        ("MODEL.MOCO.NORM", moco.NORM, ("BN", "SyncBN")),
        ("SOLVER.PRECISION", cfg.SOLVER.PRECISION, ("float32", "bfloat16", "float16")),
        ("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB",)),
    ):
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; expected one of {', '.join(choices)}")
    if not 0 <= moco.MOMENTUM < 1:
        raise ValueError(f"MODEL.MOCO.MOMENTUM is {moco.MOMENTUM}; expected 0 <= m < 1 (the paper: 0.999)")
    if moco.TEMPERATURE <= 0:
        raise ValueError(f"MODEL.MOCO.TEMPERATURE is {moco.TEMPERATURE}; expected > 0 (v1: 0.07, v2: 0.2)")
    if batch < 1 or batch % ranks:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch}; expected a multiple of the {ranks} processes, since it counts "
            f"the images of all of them: for example {max(batch // ranks, 1) * ranks}"
        )
    check_groups(cfg, batch // ranks, ranks)
    if moco.QUEUE_SIZE < batch:
        raise ValueError(
            f"MODEL.MOCO.QUEUE_SIZE is {moco.QUEUE_SIZE}, smaller than SOLVER.IMS_PER_BATCH {batch}: a batch "
            f"of keys does not fit; set it to {batch} or more"
        )


def check_groups(cfg, local: int, ranks: int) -> None:
    """Refuse batch-norm groups and micro-batches that do not divide the images of a rank, or these them.

    Args:
        local: images on each rank.

    Raises:
        ValueError: with the numbers and what would fit.
    """
    moco, parts = cfg.MODEL.MOCO, cfg.SOLVER.ACCUMULATE
    group = local * ranks if moco.NORM == "SyncBN" else moco.BN_GROUP_SIZE
    found = (
        f"SOLVER.IMS_PER_BATCH is {local * ranks}, that is {local} images on each of {ranks} processes, "
        f"in SOLVER.ACCUMULATE {parts} micro-batches"
    )
    if parts < 1 or local % parts:
        raise ValueError(
            f"{found}; expected a divisor of {local}, for example {math.gcd(local, max(parts, 1))}"
        )
    if group < 1 or (local // parts) % group and (group % local or (local * ranks) % group):
        raise ValueError(
            f"{found}, and MODEL.MOCO.BN_GROUP_SIZE is {group}; expected a divisor of the {local // parts} images "
            f"of a micro-batch, for example {math.gcd(local // parts, max(group, 1))}, or a multiple of {local} "
            f"that divides {local * ranks}"
        )
    if group > local and parts > 1:
        raise ValueError(
            f"{found}, and a batch-norm group of {group} images spans {group // local} processes: a micro-batch "
            "would be a part of a group; set SOLVER.ACCUMULATE 1 (SOLVER.ACTIVATION_CHECKPOINTING True saves "
            "memory as well), or MODEL.MOCO.BN_GROUP_SIZE lower"
        )
