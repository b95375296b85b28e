"""A ResNet and what classifies its pooled features, as a detectron2 meta-architecture.

n: images on this rank, S: side of a view, D: features of an image, C: classes.
"""

import functools

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.modeling.encoder import build_resnet, pooled_features
from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm2d, update_running_statistics
from moco_det.modeling.precision import encoder_precision
from moco_det.utils.metric_names import ACCURACY
from moco_det.utils.seeding import torch_generator


def learning_rates(cfg) -> tuple[float, ...]:
    """One for each classifier that is trained; the first is the recipe's own."""
    return (cfg.SOLVER.BASE_LR, *map(float, cfg.CLASSIFY.MORE_LRS))


def linear_classifier(dim: int, num_classes: int, seed: int) -> nn.Linear:
    """Weights from N(0, 0.01), biases 0 (official code, main_lincls.py); equal for equal arguments."""
    fc = nn.Linear(dim, num_classes)
    nn.init.normal_(fc.weight, std=0.01, generator=torch_generator(seed, "linear classifier"))
    nn.init.zeros_(fc.bias)
    return fc


@META_ARCH_REGISTRY.register()
class Classifier(nn.Module):
    """Frozen: an encoder in evaluation mode and linear classifiers, one for each learning rate.

    Not frozen: the encoder with its own ``fc``, all of it trained.
    """

    @configurable
    def __init__(
        self,
        *,
        encoder: nn.Module,
        probes: list[nn.Linear],
        rates: tuple[float, ...],
        pixel_mean: list[float],
        pixel_std: list[float],
        image_format: str = "RGB",
        precision: torch.dtype = torch.float32,
        channels_last: bool = True,
    ):
        """
        Args:
            encoder: a torchvision ResNet; its ``fc`` classifies where there are no probes.
            probes: linear classifiers of its frozen features.
            rates: the learning rate of each probe, for the names of their losses.
            pixel_mean, pixel_std: per channel of ``image_format``, on the scale 0 to 255.
            image_format: the order of the first three channels that the encoder wants, ``"RGB"`` or ``"BGR"``, or
                ``"L"`` where they are no colors.
            precision: of the encoder's arithmetic; classifiers and losses are float32.
            channels_last: as in :class:`moco_det.pretrain.moco.model.MoCo`.
        """
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder = encoder.to(memory_format=self.memory_format)
        self.probes = nn.ModuleList(probes)
        self.rates = rates
        self.frozen = len(probes) > 0
        self.encoder.requires_grad_(not self.frozen)
        self.flip_channels = image_format == "BGR"
        self.precision = precision
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg):
        classify = cfg.CLASSIFY
        norm = (
            nn.BatchNorm2d
            if classify.FREEZE
            else functools.partial(GroupedBatchNorm2d, group_size=classify.BN_GROUP_SIZE)
        )
        encoder = build_resnet(
            classify.ARCH,
            norm,
            num_classes=classify.NUM_CLASSES,
            stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
            in_channels=cfg.INPUT.CHANNELS,
        )
        rates, probes = learning_rates(cfg), []
        if classify.FREEZE:
            dim, encoder.fc = encoder.fc.in_features, nn.Identity()
            probes = [linear_classifier(dim, classify.NUM_CLASSES, cfg.SEED) for _ in rates]
        return {
            "encoder": encoder,
            "probes": probes,
            "rates": rates,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "image_format": cfg.INPUT.FORMAT,
            "precision": encoder_precision(cfg),
            "channels_last": cfg.SOLVER.CHANNELS_LAST,
        }

    @property
    def trained(self) -> nn.Module:
        """What training changes, and so what a checkpoint holds: the probes, or the encoder."""
        return self.probes if self.frozen else self.encoder

    def train(self, mode: bool = True):
        """A frozen encoder stays in evaluation mode: its batch norm goes by its own statistics and keeps them."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            batch: ``label``, int64 (n,), and ``image``, uint8 (n, C, S, S) in RGB, or ``features``, (n, D).

        Returns:
            ``loss`` of the first classifier, ``loss_lr_…`` of the others; its ``accuracy`` in [0, 1].
        """
        labels = batch["label"].to(self.pixel_mean.device, non_blocking=True)  # n
        outputs = self.logits(batch)
        losses = [F.cross_entropy(logits, labels) for logits in outputs]
        if not self.frozen:
            update_running_statistics(self)
        return {
            "loss": losses[0],
            # Classifiers share no weight, so the gradient of the sum is to each that of its own loss.
            **{f"loss_lr_{rate:g}": loss for rate, loss in zip(self.rates[1:], losses[1:], strict=True)},
            ACCURACY: (outputs[0].detach().argmax(1) == labels).float().mean(),
        }

    def logits(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """(n, C) of each classifier."""
        if not self.frozen:
            return [self.encoder.fc(self.features(batch["image"]))]
        if "features" in batch:
            features = batch["features"].to(self.pixel_mean.device, non_blocking=True)
        else:
            with torch.no_grad():
                features = self.features(batch["image"])  # nxD
        # One product for each, not one for all: only so is each bit the same as alone.
        return [probe(features) for probe in self.probes]

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of the encoder: uint8 (n, C, S, S), colors in RGB -> (n, D)."""
        images = images.to(self.pixel_mean.device, non_blocking=True)
        if self.flip_channels:
            images = torch.cat((images[:, :3].flip(1), images[:, 3:]), dim=1)
        images = ((images - self.pixel_mean) / self.pixel_std).contiguous(memory_format=self.memory_format)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            features = pooled_features(self.encoder, images)
        return features.float() if self.precision != torch.float32 else features
