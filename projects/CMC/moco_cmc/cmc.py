"""Contrastive Multiview Coding as a meta-architecture: lightness against color.

Tian et al. 2019, arXiv 1906.05849.
n: images on this rank (in this micro-batch), N: in the global batch, S: side of a view, C: embedding length.
"""

import copy
import functools

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_cmc.color import YDBDR, split_channels
from moco_det.modeling.collectives import local_block
from moco_det.modeling.encoder import pooled_features
from moco_det.modeling.grouped_batch_norm import update_running_statistics
from moco_det.modeling.momentum_encoder import make_key_encoder, momentum_update
from moco_det.pretrain.diagnostics import mutual_information_bound, spread
from moco_det.pretrain.method import PlanRow, StepState, build_backbone, common_settings
from moco_det.pretrain.moco.checks import check_moco_config, check_queue_size
from moco_det.pretrain.moco.dictionaries import Queue
from moco_det.pretrain.moco.losses import info_nce
from moco_det.pretrain.moco.plan import queue_rows
from moco_det.pretrain.moco.shuffled_keys import ShuffledKeys
from moco_det.utils.metric_names import EMBEDDING_STD


@META_ARCH_REGISTRY.register()
class CMC(ShuffledKeys):
    """Two encoders, each with a moving average and a queue: of lightness (``encoder_q``, the result), of color.

    In YDbDr, ``encoder_q`` sees luma as an RGB image: the part of the normalized channels along luma; and its
    first convolution has no weight across it. So it gives the same for the RGB image itself, and converts.
    """

    uses = (
        "MODEL.CMC",
        *(f"MODEL.MOCO.{key}" for key in ("DIM", "QUEUE_SIZE", "MOMENTUM", "TEMPERATURE", "SHUFFLE_BN")),
    )
    linear_rule = ("SGD", 0.03)  # the authors' code

    @configurable
    def __init__(
        self,
        *,
        encoder: ResNet,
        color_encoder: ResNet,
        dim: int,
        queue_size: int,
        momentum: float,
        temperature: float,
        space: str,
        two_crops: bool = False,
        **common,
    ):
        """
        Args:
            encoder, color_encoder: images of lightness and of color to embeddings of length ``dim``.
            queue_size: keys of either queue.
            momentum: m of the key encoders.
            temperature: tau of the losses.
            space: "lab" or "ydbdr".
            two_crops: keys are of another random view than queries.
            common: of :class:`ShuffledKeys`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.color_q = color_encoder.to(memory_format=self.memory_format)
        self.encoder_k, self.color_k = make_key_encoder(self.encoder_q), make_key_encoder(self.color_q)
        self.queue = Queue(dim, queue_size, self.seed)
        self.color_queue = copy.deepcopy(self.queue)
        self.momentum, self.temperature = momentum, temperature
        self.space, self.two_crops = space, two_crops
        # Luma less its mean is a scalar product with the normalized channels; of that vector, the direction.
        luma = torch.tensor(YDBDR[0]) * self.pixel_std.flatten()
        self.register_buffer("luma", F.normalize(luma, dim=0), persistent=False)
        if space == "ydbdr":
            self.keep_to_luma()

    @classmethod
    def from_config(cls, cfg):
        moco = cfg.MODEL.MOCO
        cls.check_config(cfg, comm.get_world_size())
        encoder, color_encoder = (build_backbone(cfg) for _ in range(2))
        for each, channels in ((encoder, 3 if cfg.MODEL.CMC.SPACE == "ydbdr" else 1), (color_encoder, 2)):
            each.fc = nn.Linear(each.fc.in_features, moco.DIM)
            if channels != 3:
                each.conv1 = first_convolution(channels)
        return {
            **common_settings(cfg),
            "encoder": encoder,
            "color_encoder": color_encoder,
            "dim": moco.DIM,
            "queue_size": moco.QUEUE_SIZE,
            "momentum": moco.MOMENTUM,
            "temperature": moco.TEMPERATURE,
            "shuffle_bn": moco.SHUFFLE_BN,
            "space": cfg.MODEL.CMC.SPACE,
            "two_crops": cfg.MODEL.CMC.TWO_CROPS,
            "seed": cfg.SEED,
        }

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        super().check_config(cfg, ranks)
        check_moco_config(cfg)
        if cfg.INPUT.CHANNELS != 3 or cfg.INPUT.FORMAT != "RGB":
            raise ValueError(
                f"INPUT.CHANNELS is {cfg.INPUT.CHANNELS} and INPUT.FORMAT {cfg.INPUT.FORMAT}, but CMC "
                "splits RGB images into lightness and color: take RGB images, or another method"
            )
        if cfg.MODEL.WEIGHTS:
            raise ValueError(
                f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS!r}, but the encoders of CMC see lightness or color alone, "
                "which no other checkpoint does: leave it empty"
            )

    @classmethod
    def check_num_images(cls, cfg, num_images: int) -> None:
        check_queue_size(cfg, num_images)

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        convert = "the first one converts" if facts.cfg.MODEL.CMC.SPACE == "ydbdr" else "neither converts"
        two = f"one of lightness and one of color ({facts.cfg.MODEL.CMC.SPACE}); {convert}"
        return [("encoders", two), *queue_rows(facts)]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer, or one micro-batch of it (equations 2 and 4, with queues).

        Args:
            batch: of :meth:`PretrainMethod.forward`.

        Returns:
            ``loss_lightness`` of lightness that looks for its color, ``loss_color`` the other way round, and
            detached statistics.
        """
        step = batch.get("step", StepState())
        if self.is_first(batch):
            if self.space == "ydbdr":
                self.keep_to_luma()
            momentum_update(self.encoder_k, self.encoder_q, self.momentum)
            momentum_update(self.color_k, self.color_q, self.momentum)
            step.keys = self.embed_keys(batch)  # twice NxC
        images = self.micro_batch(batch["query"], batch)
        lightness, color = self.embed((self.encoder_q, self.color_q), images)  # nxC
        keys, color_keys = step.keys  # NxC
        k, color_k = (self.micro_batch(local_block(every), batch) for every in step.keys)  # nxC
        outputs = {
            **self.compare("lightness", lightness, color_k, self.color_queue),
            **self.compare("color", color, k, self.queue),
            **self.queue.report(len(keys)),
            EMBEDDING_STD: spread(lightness.detach()),
        }
        if self.is_last(batch):
            self.queue.enqueue(keys)
            self.color_queue.enqueue(color_keys)
            update_running_statistics(self)
        return outputs

    def compare(self, name: str, q: Tensor, k: Tensor, queue: Queue) -> dict[str, Tensor]:
        """Loss and statistics of queries (n, C), their keys (n, C) and the queue, both of the other encoder."""
        positive, negatives = (q * k).sum(dim=1), q @ queue.negatives()  # n, nxK
        loss = info_nce(positive, negatives, self.temperature)
        with torch.no_grad():
            found = (positive > negatives.amax(dim=1)).float().mean()
        return {
            f"loss_{name}": loss,
            f"mutual_information_{name}": mutual_information_bound(loss, 1 + queue.size),
            f"accuracy_{name}": found,
        }

    def views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Lightness and color of uint8 (n, 3, S, S): floats (n, 3 or 1, S, S) and (n, 2, S, S)."""
        images = images.to(self.pixel_mean.device, non_blocking=True)
        lightness, color = split_channels(images, self.space, self.pixel_mean.dtype)
        if self.space == "ydbdr":
            luma = torch.einsum("c,nchw->nhw", self.luma, self.normalized(images))
            lightness = torch.einsum("c,nhw->nchw", self.luma, luma)
        return tuple(view.contiguous(memory_format=self.memory_format) for view in (lightness, color))

    def embed(self, encoders: tuple[ResNet, ResNet], images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (n, 3, S, S) -> unit-length (n, C) of lightness and of color."""
        pairs = zip(encoders, self.views(images), strict=True)
        lightness, color = (F.normalize(self.compute(encoder, view), dim=1) for encoder, view in pairs)
        return lightness, color

    @torch.no_grad()
    def embed_keys(self, batch: dict) -> tuple[Tensor, Tensor]:
        """The keys of the whole global batch, of lightness and of color: twice (N, C)."""
        embed = functools.partial(self.embed, (self.encoder_k, self.color_k))
        images = batch["key" if self.two_crops else "query"]
        lightness, color = self.embed_shuffled(embed, images, batch["iteration"])
        return lightness, color

    @torch.no_grad()
    def keep_to_luma(self) -> None:
        """Take from the first convolution what is across luma; gradients have no such part but for rounding."""
        weight = self.encoder_q.conv1.weight  # Dx3x7x7
        along = torch.einsum("c,dchw->dhw", self.luma, weight)
        weight.copy_(torch.einsum("c,dhw->dchw", self.luma, along))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of lightness, whose encoder is the result: uint8 (n, 3, S, S) -> (n, D).

        (The paper's linear probe has those of color beside them.)
        """
        return self.compute(lambda x: pooled_features(self.encoder_q, x), self.views(images)[0])

    def embeddings(self, images: Tensor) -> Tensor:
        """Unit-length embeddings of lightness: uint8 (n, 3, S, S) -> (n, C)."""
        return self.embed((self.encoder_q, self.color_q), images)[0]


def first_convolution(channels: int) -> nn.Conv2d:
    """A ResNet's first layer for images of other channels, initialized as torchvision does."""
    conv = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
