"""What a method of pre-training is to the loop: the base class of MoCo and of the methods in ``projects/``.

n: images on this rank (in this micro-batch), S: side of a view, D: features of an image.
"""

import functools
import types
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.config.key import PRETRAIN
from moco_det.config.rules import check_values
from moco_det.data.image_format import ImageFormat
from moco_det.engine.launch import check_batch, check_groups
from moco_det.engine.plan_text import PlanRow
from moco_det.modeling.encoder import build_resnet, pooled_features
from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm2d, bn_group_size
from moco_det.modeling.precision import encoder_precision
from moco_det.pretrain.recompute import RECOMPUTED_BLOCKS


class StepState(types.SimpleNamespace):
    """What the micro-batches of one step share: the loop makes an empty one for each step, the method fills it.

    It is an object and no dict, because DistributedDataParallel copies the dicts among its inputs.
    """


class PretrainMethod(nn.Module):
    """A meta-architecture that the pre-training loop can train; a subclass writes ``from_config`` and ``forward``.

    The loop calls, for each step: ``forward`` once for each micro-batch, with its backward pass, then
    ``after_backward``, the optimizer, and ``after_step``. Around a run it asks the class itself:
    ``check_config`` and ``check_num_images`` before the model is built, ``plan_rows`` for ``--plan``.

    A subclass keeps its trained encoder as ``encoder_q``, a torchvision ResNet whose ``fc`` is the projection
    head, and if it has a second one of the same kind, that as ``encoder_k``. Checkpoints then convert, and
    MODEL.WEIGHTS starts both. All other modules and buffers may have any name. What must survive a restart is a
    parameter or a persistent buffer; random numbers come from :mod:`moco_det.utils.seeding`.
    """

    # Keys of methods that this one reads, or their beginnings up to a dot: its own node, and others'.
    uses: ClassVar[tuple[str, ...]] = ()
    # The paper's SOLVER.OPTIMIZER and its learning rate for a batch of 256 images, in proportion for others.
    linear_rule: ClassVar[tuple[str, float] | None] = None
    # What else is known of that rate, to add after "… in proportion for others".
    linear_rule_note: ClassVar[str] = ""
    # Whether it takes the local crops of INPUT.VIEWS.SMALL_CROPS: ``batch["small"]``, uint8 (n, V, 3, s, s);
    # else that setting is refused.
    uses_small_crops: ClassVar[bool] = False
    # Which encoder is the result, whose features kNN evaluates and convert takes: "query" or "key".
    result: ClassVar[str] = "query"

    encoder_q: ResNet
    encoder_k: ResNet | None

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        precision: torch.dtype = torch.float32,
        channels_last: bool = True,
        accumulate: int = 1,
    ):
        """
        Args:
            pixel_mean: per channel, on the scale 0 to 255.
            pixel_std: likewise.
            precision: of the encoders' arithmetic; everything else is float32.
            channels_last: keep images and weights in the memory format that convolutions in reduced precision
                are fastest in; the subclass brings its encoders into ``memory_format``.
            accumulate: micro-batches in which a rank takes its images.
        """
        super().__init__()
        self.encoder_k = None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.precision = precision
        self.accumulate = accumulate
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    # ---- What a subclass writes, or leaves as it is ---------------------------------------------------

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer, or one micro-batch of it.

        Args:
            batch: ``query`` and ``key``, two views of the same images, uint8 (n, 3, S, S) in RGB (or with another
                number of channels, INPUT.CHANNELS, here and below); ``index``, int64
                (n,), which images of the data set they are; with local crops ``small``, uint8 (n, V, 3, s, s);
                ``epoch`` and ``iteration``, from 0 on; ``progress``, the fraction of the steps that are done,
                in [0, 1); ``micro_batch``, from 0 on (default: 0); ``step``, the :class:`StepState` of the step,
                the same for all of its micro-batches (default: an empty one, for a step of one micro-batch).

        Returns:
            named scalars: those that begin with ``loss`` are summed and minimized, the others, detached, are
            logged. The loss of a step is the mean over its micro-batches and over the ranks.
        """
        raise NotImplementedError

    @classmethod
    def check_config(cls, cfg, ranks: int) -> None:
        """Refuse settings that the method cannot have; a subclass calls this one first.

        Args:
            ranks: processes of the run, which may be others than those that are there now.

        Raises:
            ValueError: with the key, the value found, what was expected and the fix.
        """
        check_values(cfg, PRETRAIN, cls.uses)
        check_batch(cfg.SOLVER.IMS_PER_BATCH, ranks)
        ImageFormat.from_config(cfg)
        solver = cfg.SOLVER
        group = bn_group_size(cfg)
        check_groups("MODEL.ENCODER.BN_GROUP_SIZE", group, solver.IMS_PER_BATCH, ranks, solver.ACCUMULATE)
        small = cfg.INPUT.VIEWS.SMALL_CROPS
        if small and not cls.uses_small_crops:
            raise ValueError(
                f"INPUT.VIEWS.SMALL_CROPS is {small}, but {cfg.MODEL.META_ARCHITECTURE} uses no local crops; "
                "set it to 0, or take a method that does"
            )

    @classmethod
    def check_num_images(cls, cfg, num_images: int) -> None:
        """Refuse a set of images that the settings do not fit.

        Raises:
            ValueError: with the key, the value found, what was expected and the fix.
        """

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        """What ``--plan`` says of the method's own settings.

        Args:
            facts: a :class:`moco_det.pretrain.plan.facts.Facts`.
        """
        return []

    @classmethod
    def plan_rules(cls, cfg) -> Sequence[Callable]:
        """The method's own rules of advice on a planned run, the most important first.

        Returns:
            functions from Facts to an :class:`moco_det.pretrain.plan.advice.Advice` or None.
        """
        return ()

    def parameter_groups(self) -> list[dict]:
        """What the optimizer trains, as torch's optimizers take it.

        A group with a ``base_lr`` has a schedule that begins with it instead of SOLVER.BASE_LR; one with
        ``decay_lr`` False keeps it.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def after_backward(self, iteration: int, progress: float) -> None:
        """The gradients of a step are there, and not clipped yet; ``p.grad = None`` keeps p as it is."""

    def after_step(self, progress: float) -> None:
        """The optimizer has made its step. A momentum encoder is updated here, or first in the next ``forward``,
        as in MoCo's official code, which is the same.

        Args:
            progress: fraction of the run's steps that were done before this one, in [0, 1).
        """

    # ---- What a subclass calls ------------------------------------------------------------------------

    @property
    def encoders(self) -> list[ResNet]:
        """Those that start from MODEL.WEIGHTS."""
        return [encoder for encoder in (self.encoder_q, self.encoder_k) if encoder is not None]

    @property
    def resulting_encoder(self) -> ResNet:
        """The one that ``result`` names."""
        return self.encoder_q if self.result == "query" else self.encoder_k

    def micro_batch(self, images: Tensor, batch: dict) -> Tensor:
        """The part of a rank's images that belongs to this call of ``forward``."""
        return images.chunk(self.accumulate)[batch.get("micro_batch", 0)]

    def views(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Both views of this micro-batch, as the encoders want them: 2 x (n, 3, S, S)."""
        query, key = (self.normalized(self.micro_batch(batch[name], batch)) for name in ("query", "key"))
        return query, key

    def is_first(self, batch: dict) -> bool:
        """Whether this call of ``forward`` begins a step."""
        return batch.get("micro_batch", 0) == 0

    def is_last(self, batch: dict) -> bool:
        """Whether this call of ``forward`` ends the step; then comes ``update_running_statistics``."""
        return batch.get("micro_batch", 0) == self.accumulate - 1

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 images (n, 3, S, S) on any device -> float input of the encoders on the model's."""
        images = images.to(self.pixel_mean.device, non_blocking=True)
        images = (images - self.pixel_mean) / self.pixel_std
        return images.contiguous(memory_format=self.memory_format)

    def compute(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``module(x)`` in the precision of the encoders, returned in that of the loss."""
        with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
            result = module(x)
        return result.float() if self.precision != torch.float32 else result

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the resulting encoder before its head: uint8 (n, 3, S, S) -> (n, D)."""
        return self.compute(
            functools.partial(pooled_features, self.resulting_encoder), self.normalized(images)
        )

    def embeddings(self, images: Tensor) -> Tensor:
        """Unit-length outputs of the resulting encoder's head: uint8 (n, 3, S, S) -> (n, C)."""
        return F.normalize(self.compute(self.resulting_encoder, self.normalized(images)), dim=1)


def crops(batch: dict) -> list[Tensor]:
    """The crops of a step, the two global ones first: uint8 tensors (n, 3, side, side)."""
    return [batch["query"], batch["key"], *small_crops(batch)]


def small_crops(batch: dict) -> list[Tensor]:
    """The local crops of a step: V uint8 tensors (n, 3, s, s)."""
    return list(batch["small"].unbind(1)) if "small" in batch else []  # of n x V x 3 x s x s


def common_settings(cfg) -> dict:
    """What :class:`PretrainMethod` is built of, for a ``from_config``."""
    return {
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "precision": encoder_precision(cfg),
        "channels_last": cfg.SOLVER.CHANNELS_LAST,
        "accumulate": cfg.SOLVER.ACCUMULATE,
    }


def build_backbone(cfg, zero_init_residual: bool = False, num_classes: int = 1000) -> ResNet:
    """The ResNet of MODEL.ENCODER.ARCH; its ``fc`` is for the method to replace, or to take over.

    Args:
        num_classes: outputs of ``fc``.
        zero_init_residual: the last batch norm of each block starts at 0, so that a block starts as the identity
            (Goyal et al. 2017, section 5.1).
    """
    encoder = build_resnet(
        cfg.MODEL.ENCODER.ARCH,
        functools.partial(GroupedBatchNorm2d, group_size=bn_group_size(cfg)),
        num_classes=num_classes,
        stem=cfg.MODEL.ENCODER.STEM,
        in_channels=cfg.INPUT.CHANNELS,
        **({"blocks": RECOMPUTED_BLOCKS} if cfg.SOLVER.ACTIVATION_CHECKPOINTING else {}),
    )
    for block in encoder.modules() if zero_init_residual else ():
        last = getattr(block, "bn3", getattr(block, "bn2", None))
        if last is not None:
            nn.init.zeros_(last.weight)
    return encoder


def method_class(cfg) -> type[PretrainMethod]:
    """The class that MODEL.META_ARCHITECTURE names.

    Raises:
        ValueError: there is no such method of pre-training.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    known = {
        key: value
        for key, value in META_ARCH_REGISTRY
        if isinstance(value, type) and issubclass(value, PretrainMethod)
    }
    if name not in known:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {name!r}; expected one of {', '.join(sorted(known))}, or a method of a "
            "project, whose own script registers it (projects/README.md)"
        )
    return known[name]
