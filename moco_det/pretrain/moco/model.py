"""MoCo as a detectron2 meta-architecture: ``forward`` is Algorithm 1 of the paper.

n: images on this rank (in this micro-batch), N: images in the global batch, S: side of a view, C: embedding
length, K: negatives of a query.
"""

from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.engine.plan_text import PlanRow
from moco_det.modeling.collectives import local_block
from moco_det.modeling.grouped_batch_norm import update_running_statistics
from moco_det.modeling.momentum_encoder import momentum_update
from moco_det.pretrain.diagnostics import contrast_statistics
from moco_det.pretrain.method import StepState, build_backbone, common_settings, small_crops
from moco_det.pretrain.moco.checks import check_moco_config, check_queue_size
from moco_det.pretrain.moco.dictionaries import EndToEnd, MemoryBank, Queue, build_dictionary
from moco_det.pretrain.moco.plan import DICTIONARY_ROWS
from moco_det.pretrain.moco.shuffled_keys import ShuffledKeys


class Direction(NamedTuple):
    """One direction of the contrast of two views: which gives the queries, which the keys.

    Attributes:
        queries, keys: the names in the batch of the views that these are made of.
        shuffle: a name from which, with the seed, the permutations of shuffling BN are sampled; each direction has
            its own.
    """

    queries: str
    keys: str
    shuffle: str


DIRECTIONS = (Direction("query", "key", "shuffle"), Direction("key", "query", "shuffle swapped"))


def build_encoder(cfg) -> ResNet:
    """The query encoder, which ends in the projection head ``fc``; drawn and named as in the official code."""
    encoder = build_backbone(cfg, num_classes=cfg.MODEL.MOCO.DIM)  # with the head of v1
    if cfg.MODEL.MOCO.MLP:  # that of v2 has a layer more, with the encoder's width hidden
        width = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
    return encoder


@META_ARCH_REGISTRY.register()
class MoCo(ShuffledKeys):
    """Momentum Contrast (v1: He et al. 2019; v2: Chen et al. 2020) with any of the dictionaries.

    ``encoder_k`` is None where the dictionary needs none: a memory bank, or end-to-end with a shared encoder.
    """

    uses = ("MODEL.MOCO",)
    uses_small_crops = True
    linear_rule = ("SGD", 0.03)  # MoCo v1, section 4
    linear_rule_note = (
        " (0.015 for 128 gave similar results: official README; 0.12 for 1024: the paper). In this project "
        "four times the rule learned with batches of 32 and did not with 64; eight times never did"
    )

    @configurable
    def __init__(
        self,
        *,
        encoder: ResNet,
        dictionary: Queue | MemoryBank | EndToEnd,
        momentum: float,
        temperature: float,
        symmetric: bool = False,
        **common,
    ):
        """
        Args:
            encoder: the query encoder; images to embeddings.
            dictionary: the queue, or a mechanism that the paper compares it with, which then has its own step.
            momentum: m of the key encoder.
            temperature: tau of the loss.
            symmetric: the loss is the mean over both directions.
            common: of :class:`ShuffledKeys`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = dictionary.key_encoder(self.encoder_q)
        self.dictionary = dictionary
        self.momentum = momentum
        self.temperature = temperature
        self.directions = DIRECTIONS[: 1 + symmetric]

    @classmethod
    def from_config(cls, cfg):
        moco = cfg.MODEL.MOCO
        cls.check_config(cfg, comm.get_world_size())
        return {
            **common_settings(cfg),
            "encoder": build_encoder(cfg),
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
    def plan_rows(cls, facts) -> list[PlanRow]:
        return DICTIONARY_ROWS[facts.cfg.MODEL.MOCO.DICTIONARY](facts)

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step of Algorithm 1 without the optimizer, or one micro-batch of it.

        The momentum update is the first line of a step, as in the official code. The paper's listing has it last,
        after the optimizer: the same update of the same weights, as the line after it is the next step's first. A
        step of several micro-batches makes all keys at its first one, and enqueues them at its last one; between
        them they are kept in the :class:`StepState` that the trainer makes for each step, ``batch["step"]``.

        An image has one query and one key. The symmetric form has two of each, for both directions; small
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
            # Shuffling BN is in embed_keys. It has no no_grad of its own: end-to-end needs gradients of keys.
            with torch.no_grad():
                step.keys = self.embed_keys(self.encoder_k, batch)  # of each direction, NxC
        queue = self.dictionary.negatives()  # CxK; a copy, because the backward pass comes after the enqueue

        outputs = []
        for q, keys in self.positive_pairs(self.embed_queries(batch), step.keys):  # nxC, NxC
            k = self.micro_batch(local_block(keys), batch)  # nxC: of this rank's images, in this micro-batch
            l_pos = torch.einsum("nc,nc->n", q, k)  # n
            l_neg = torch.einsum("nc,ck->nk", q, queue)  # nxK
            logits = torch.cat([l_pos[:, None], l_neg], dim=1)  # nx(1+K)
            logits /= self.temperature  # in place, since it is large
            labels = torch.zeros(len(q), dtype=torch.long, device=q.device)  # the positive is number 0
            loss = F.cross_entropy(logits, labels)
            outputs.append({"loss_contrastive": loss, **contrast_statistics(q, keys, l_pos, l_neg, loss)})
        outputs = self.mean_of_pairs(outputs) | self.dictionary.report(sum(map(len, step.keys)))

        if self.is_last(batch):
            # The oldest keys make place. In the symmetric form, where step.keys[1] are those of the first view,
            # these come first, as in the demo of MoCo's authors.
            self.dictionary.enqueue(torch.cat(step.keys[::-1]))
            update_running_statistics(self)  # of both encoders
        return outputs

    def embed_keys(self, encoder: nn.Module, batch: dict) -> list[Tensor]:
        """Keys of the whole global batch from this rank's part of it, for each direction: (N, C).

        With shuffling BN (MoCo v1, section 3.3) a rank embeds images of all ranks, in a random order of the global
        batch that each step samples anew, and the keys are put back into the order of the queries.
        """

        def embed(images: Tensor) -> list[Tensor]:
            return [self.embed(encoder, images)]

        keys = []
        for direction in self.directions:
            keys += self.embed_shuffled(embed, batch[direction.keys], batch["iteration"], direction.shuffle)
        return keys

    def embed_queries(self, batch: dict) -> list[Tensor]:
        """Queries of this micro-batch, (n, C): one for each direction, then one for each local crop."""
        crops = [batch[direction.queries] for direction in self.directions] + small_crops(batch)
        return [self.embed(self.encoder_q, self.micro_batch(images, batch)) for images in crops]

    def embed(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """uint8 (n, 3, S, S) -> unit-length embeddings (n, C) in the precision of the loss."""
        return F.normalize(self.compute(encoder, self.normalized(images)), dim=1)

    def positive_pairs(self, queries: list[Tensor], keys: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Which queries have which keys: a global crop has those of the other one, a local crop those of both."""
        small = queries[len(keys) :]
        return [*zip(queries, keys, strict=False), *((q, k) for k in keys for q in small)]

    def mean_of_pairs(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Mean losses over all pairs of a query and its keys; mean statistics over those of global crops."""
        large = outputs[: len(self.directions)]
        chosen = {name: outputs if name.startswith("loss") else large for name in outputs[0]}
        return {name: sum(pair[name] for pair in pairs) / len(pairs) for name, pairs in chosen.items()}
