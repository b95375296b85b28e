"""MoCo as a detectron2 meta-architecture: ``forward`` is Algorithm 1 of the paper.

n: images on this rank, N: images in the global batch, S: side of a view, C: embedding length, K: queue.
"""

import functools
import math

import torch
from detectron2.config import configurable
from detectron2.layers import get_norm
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.encoder import build_resnet, parse_arch, pooled_features
from moco_det.pretrain.dictionaries import Queue
from moco_det.pretrain.grouped_batch_norm import GroupedBatchNorm2d, local_block, shuffle, unshuffle
from moco_det.pretrain.losses import info_nce
from moco_det.pretrain.momentum import make_key_encoder, momentum_update
from moco_det.seeding import torch_generator


def build_encoder(arch: str, dim: int, mlp: bool, norm: str, bn_group_size: int) -> nn.Module:
    """A ResNet ending in the projection head ``fc``; names as in the official checkpoints.

    Args:
        dim: length of the embedding.
        mlp: two layers with the encoder's width hidden (v2) instead of one (v1).
        norm: ``"BN"`` over groups of ``bn_group_size`` images, or ``"SyncBN"`` over the global batch.
    """
    if norm == "BN":
        norm_layer = functools.partial(GroupedBatchNorm2d, group_size=bn_group_size)
    else:
        # detectron2's own, because nn.SyncBatchNorm refuses the CPU; plain batch norm on one process.
        norm_layer = functools.partial(get_norm, "naiveSyncBN")
    encoder = build_resnet(arch, norm_layer, num_classes=dim)
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
            seed: the run's seed, from which the shuffles are drawn.
        """
        super().__init__()
        self.encoder_q = encoder.to(memory_format=torch.channels_last)
        self.encoder_k = make_key_encoder(self.encoder_q)
        self.dictionary = dictionary
        self.momentum = momentum
        self.temperature = temperature
        self.shuffle_bn = shuffle_bn
        self.precision = precision
        self.seed = seed
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg):
        moco = cfg.MODEL.MOCO
        check_moco_config(cfg)
        return {
            "encoder": build_encoder(moco.ARCH, moco.DIM, moco.MLP, moco.NORM, moco.BN_GROUP_SIZE),
            "dictionary": Queue(moco.DIM, moco.QUEUE_SIZE, cfg.SEED),
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "precision": getattr(torch, cfg.SOLVER.PRECISION),
            "seed": cfg.SEED,
        }

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step of Algorithm 1, without the optimizer.

        The momentum update stands before the keys, as in the official code; the paper's listing has it after
        the optimizer's step, which is the same update of the same weights one line earlier.

        Args:
            batch: ``query`` and ``key``, two views of the same images, uint8 (n, 3, S, S) in RGB, and
                ``iteration``, the number of the step.

        Returns:
            ``loss_contrastive``, and detached statistics of the step.
        """
        x_q, x_k = self.normalized(batch["query"]), self.normalized(batch["key"])  # nx3xSxS

        q = self.embed(self.encoder_q, x_q)  # nxC
        with torch.no_grad():
            momentum_update(self.encoder_k, self.encoder_q, self.momentum)
            keys = self.embed_keys(x_k, batch["iteration"])  # NxC, the whole global batch
            k = local_block(keys)  # nxC

        positive = torch.einsum("nc,nc->n", q, k)  # n
        negatives = q @ self.dictionary.negatives()  # nxK
        loss = info_nce(positive, negatives, self.temperature)

        share_real = self.dictionary.share_real
        self.dictionary.update(keys)
        return {"loss_contrastive": loss, "queue_real": share_real, **statistics(positive, negatives)}

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 images (n, 3, S, S) on any device -> float input of the encoders on the model's."""
        images = images.to(self.pixel_mean.device, non_blocking=True)
        images = (images - self.pixel_mean) / self.pixel_std
        return images.contiguous(memory_format=torch.channels_last)

    def embed(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """Unit-length embeddings: (n, 3, S, S) -> (n, C) in the precision of the loss."""
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            embeddings = encoder(images)
        if self.precision != torch.float32:
            embeddings = embeddings.float()
        return F.normalize(embeddings, dim=1)

    def embed_keys(self, images: Tensor, iteration: int) -> Tensor:
        """Keys of the whole global batch: this rank's (n, 3, S, S) -> (N, C)."""
        global_batch = images.shape[0] * comm.get_world_size()
        permutation = torch.arange(global_batch)
        if self.shuffle_bn:
            generator = torch_generator(self.seed, "shuffle", iteration)
            permutation = torch.randperm(global_batch, generator=generator)
        permutation = permutation.to(images.device)
        return unshuffle(self.embed(self.encoder_k, shuffle(images, permutation)), permutation)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the query encoder before the head: uint8 (n, 3, S, S) -> (n, D)."""
        with torch.autocast(
            self.pixel_mean.device.type, self.precision, enabled=self.precision != torch.float32
        ):
            return pooled_features(self.encoder_q, self.normalized(images)).float()


@torch.no_grad()
def statistics(positive: Tensor, negatives: Tensor) -> dict[str, Tensor]:
    """What the log shows of a step: (n,) and (n, K) similarities -> named scalars."""
    return {
        "accuracy": (positive > negatives.amax(dim=1)).float().mean(),  # (K+1)-way
        "similarity_positive": positive.mean(),
        "similarity_negative": negatives.mean(),
        "similarity_negative_std": negatives.std(),
    }


def check_moco_config(cfg) -> None:
    """Refuse settings that the method cannot have.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    moco, batch, ranks = cfg.MODEL.MOCO, cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    parse_arch(moco.ARCH)
    for key, value, choices in (
        ("MODEL.MOCO.DICTIONARY", moco.DICTIONARY, ("queue",)),
        ("MODEL.MOCO.NORM", moco.NORM, ("BN", "SyncBN")),
        ("SOLVER.PRECISION", cfg.SOLVER.PRECISION, ("float32", "bfloat16")),
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
    local = batch // ranks
    if moco.NORM == "BN" and (moco.BN_GROUP_SIZE < 1 or local % moco.BN_GROUP_SIZE):
        raise ValueError(
            f"MODEL.MOCO.BN_GROUP_SIZE is {moco.BN_GROUP_SIZE}, but each of the {ranks} processes has {local} "
            f"images (SOLVER.IMS_PER_BATCH {batch}); expected a divisor of {local}, for example "
            f"{math.gcd(local, max(moco.BN_GROUP_SIZE, 1))}"
        )
    if moco.NORM == "SyncBN" and cfg.SOLVER.PRECISION != "float32":
        raise ValueError(
            f"MODEL.MOCO.NORM is SyncBN and SOLVER.PRECISION {cfg.SOLVER.PRECISION}: its variances would be "
            "computed in that precision and be wrong; use SOLVER.PRECISION float32, or MODEL.MOCO.NORM BN"
        )
    if moco.QUEUE_SIZE < batch:
        raise ValueError(
            f"MODEL.MOCO.QUEUE_SIZE is {moco.QUEUE_SIZE}, smaller than SOLVER.IMS_PER_BATCH {batch}: a batch "
            f"of keys does not fit; set it to {batch} or more"
        )
