"""DINO for ResNets as a meta-architecture: ``forward`` is Algorithm 1 of the paper, with local crops.

Caron et al. 2021, arXiv 2104.14294. n: images on this rank (in this micro-batch), V: crops of an image, B: length
before the last layer, J: outputs.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from moco_det.engine.schedule import cosine_momentum
from moco_det.modeling.grouped_batch_norm import bn_group_size, update_running_statistics
from moco_det.modeling.momentum_encoder import make_key_encoder, momentum_update
from moco_det.pretrain.diagnostics import spread
from moco_det.pretrain.method import (
    PlanRow,
    PretrainMethod,
    StepState,
    build_backbone,
    common_settings,
    crops,
)
from moco_det.utils.metric_names import EMBEDDING_STD
from moco_dino.head import DINOHead
from moco_dino.losses import distillation, moved_center, teacher_temperature_at


@META_ARCH_REGISTRY.register()
class DINO(PretrainMethod):
    """Self-distillation without labels: ``encoder_q`` is the student, ``encoder_k`` the teacher and the result."""

    uses = ("MODEL.DINO",)
    uses_small_crops = True
    result = "key"
    linear_rule = ("SGD", 0.03)  # the authors' command for ResNet-50

    @configurable
    def __init__(
        self,
        *,
        encoder: ResNet,
        out_dim: int,
        momentum: float,
        center_momentum: float,
        student_temperature: float,
        teacher_temperature: tuple[float, float],
        teacher_warmup_epochs: int,
        freeze_last_layer_epochs: int,
        **common,
    ):
        """
        Args:
            encoder: ends in a :class:`DINOHead` with ``out_dim`` outputs.
            momentum: of the teacher, at the beginning.
            center_momentum: m of the center.
            student_temperature: of the student.
            teacher_temperature: of the teacher, in the first epoch and after ``teacher_warmup_epochs``.
            freeze_last_layer_epochs: epochs in which the last layer keeps its random start.
            common: of :class:`PretrainMethod`.
        """
        super().__init__(**common)
        self.encoder_q = encoder.to(memory_format=self.memory_format)
        self.encoder_k = make_key_encoder(self.encoder_q)
        self.register_buffer("center", torch.zeros(out_dim))
        self.momentum, self.center_momentum = momentum, center_momentum
        self.student_temperature = student_temperature
        self.teacher_temperature, self.teacher_warmup_epochs = teacher_temperature, teacher_warmup_epochs
        self.freeze_last_layer_epochs = freeze_last_layer_epochs

    @classmethod
    def from_config(cls, cfg):
        dino = cfg.MODEL.DINO
        cls.check_config(cfg, comm.get_world_size())
        encoder = build_backbone(cfg)
        encoder.fc = DINOHead(
            encoder.fc.in_features,
            dino.HIDDEN_DIM,
            dino.BOTTLENECK_DIM,
            dino.OUT_DIM,
            bn_group_size(cfg) if dino.HEAD_NORM else None,
        )
        return {
            **common_settings(cfg),
            "encoder": encoder,
            "out_dim": dino.OUT_DIM,
            "momentum": dino.MOMENTUM,
            "center_momentum": dino.CENTER_MOMENTUM,
            "student_temperature": dino.STUDENT_TEMPERATURE,
            "teacher_temperature": (dino.TEACHER_TEMPERATURE_START, dino.TEACHER_TEMPERATURE),
            "teacher_warmup_epochs": dino.TEACHER_WARMUP_EPOCHS,
            "freeze_last_layer_epochs": dino.FREEZE_LAST_LAYER_EPOCHS,
        }

    @classmethod
    def plan_rows(cls, facts) -> list[PlanRow]:
        dino = facts.cfg.MODEL.DINO
        return [
            (
                "teacher",
                f"momentum from {dino.MOMENTUM:g} to 1, temperature from {dino.TEACHER_TEMPERATURE_START:g} to "
                f"{dino.TEACHER_TEMPERATURE:g} over {dino.TEACHER_WARMUP_EPOCHS} epochs; {dino.OUT_DIM:,} outputs",
            )
        ]

    def parameter_groups(self) -> list[dict]:
        """Biases and batch norm without weight decay, as in the authors' code."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step without the optimizer, or one micro-batch of it.

        Args:
            batch: of :meth:`PretrainMethod.forward`; ``small``, uint8 (n, V - 2, 3, s, s), are further crops for
                the student.

        Returns:
            ``loss_distillation`` and detached statistics.
        """
        step = batch.get("step", StepState())
        self.epoch = batch["epoch"]
        views = [self.normalized(self.micro_batch(crop, batch)) for crop in crops(batch)]
        with torch.no_grad():
            embedded = [self.embed(self.encoder_k, view) for view in views[:2]]  # nxB
            teacher = [self.encoder_k.fc.last(z) for z in embedded]  # nxJ
        student = [self.encoder_q.fc.last(self.embed(self.encoder_q, view)) for view in views]  # V of nxJ
        temperature = teacher_temperature_at(
            self.epoch, self.teacher_warmup_epochs, *self.teacher_temperature
        )
        loss = distillation(student, teacher, self.center, self.student_temperature, temperature)
        report = statistics(embedded[0], teacher[0], self.center, temperature)
        if self.is_first(batch):
            step.teacher_outputs = []
        step.teacher_outputs += teacher
        if self.is_last(batch):
            self.center.copy_(moved_center(self.center, step.teacher_outputs, self.center_momentum))
            update_running_statistics(self)
        return {"loss_distillation": loss, **report}

    def embed(self, encoder: ResNet, images: Tensor) -> Tensor:
        """Embeddings before the last layer: normalized images (n, 3, S, S) -> unit-length (n, B)."""
        return F.normalize(self.compute(encoder, images), dim=1)

    def embeddings(self, images: Tensor) -> Tensor:
        """The teacher's vectors before its last layer: uint8 (n, 3, S, S) -> unit-length (n, B)."""
        return self.embed(self.encoder_k, self.normalized(images))

    def after_backward(self, iteration: int, progress: float) -> None:
        if self.epoch < self.freeze_last_layer_epochs:
            self.encoder_q.fc.last_layer.weight.grad = None

    def after_step(self, progress: float) -> None:
        momentum_update(self.encoder_k, self.encoder_q, cosine_momentum(self.momentum, progress))


@torch.no_grad()
def statistics(z: Tensor, output: Tensor, center: Tensor, temperature: float) -> dict[str, Tensor]:
    """What the log shows of a step: how sharp the teacher is, and how far from one answer for all images.

    Args:
        z: (n, B) of the teacher before its last layer; output: (n, J) after it; center: (J,).

    Returns:
        ``teacher_entropy``, in nats: log J is uniform, 0 is a single output; ``outputs_used``: of the J, those
        that are some image's likeliest; ``embedding_spread``.
    """
    target = F.softmax((output - center) / temperature, dim=1)  # nxJ
    return {
        "teacher_entropy": torch.special.entr(target).sum(dim=1).mean(),
        "outputs_used": torch.zeros_like(center).index_fill_(0, target.argmax(dim=1), 1).sum(),
        EMBEDDING_STD: spread(z),
    }
