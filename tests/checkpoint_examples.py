"""Checkpoints of each family with random weights in which every tensor matters: no two are equal."""

import torch

from moco_det.modeling.encoder import build_resnet
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING


def random_states(arch: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A torchvision state dict (with fc and step counters), at a scale that keeps deep features finite."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {
            name: value.shape for name, value in build_resnet(arch, num_classes=16).state_dict().items()
        }
    return {name: random_tensor(name, shape, generator) for name, shape in shapes.items()}


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A tensor of a ResNet, by its name."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1:  # a convolution or fc: He's scale
        return values * (2 / shape[1:].numel()) ** 0.5
    if name.endswith(("running_var", "weight")):
        return 1 + values.tanh() / 2
    return values / 10


def official_moco(query: dict, key: dict, prefix: str = "module.") -> dict:
    """The layout of an official MoCo v2 file (facebookresearch/moco 3b42c2a, main_moco.py)."""
    states = {}
    for encoder, backbone in (("encoder_q", query), ("encoder_k", key)):
        states |= {
            f"{prefix}{encoder}.{name}": v for name, v in backbone.items() if not name.startswith("fc.")
        }
        states |= {
            f"{prefix}{encoder}.fc.{layer}.{kind}": torch.ones(4)
            for layer in (0, 2)
            for kind in ("weight", "bias")
        }
    states[f"{prefix}queue"] = torch.ones(4, 8)
    states[f"{prefix}queue_ptr"] = torch.zeros(1, dtype=torch.long)
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": states,
        "optimizer": {"state": {}, "param_groups": []},
    }


def own_checkpoint(query: dict, key: dict) -> dict:
    """The layout of this project's checkpoints, with a preprocessing of its own."""
    preprocessing = {**TORCHVISION_PREPROCESSING.to_dict(), "pixel_std": [50.0, 51.0, 52.0]}
    return {
        "model": {
            **{f"encoder_q.{name}": value for name, value in query.items()},
            **{f"encoder_k.{name}": value for name, value in key.items()},
            "dictionary.keys": torch.ones(2, 4),
            "dictionary.pointer": torch.tensor(0),
        },
        "optimizer": {"state": {}},
        "iteration": 12,
        "config": "SEED: 1\n",
        "moco_det": {"arch": "resnet18", "preprocessing": preprocessing},
    }
