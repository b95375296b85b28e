"""A checkpoint of each family in ``moco_det/weights/sources/table.py``, laid out as its source there saves it.

Each takes two backbones under torchvision's names (with ``fc`` and step counters): the one that is trained and its
moving average, of which families with one network use the first.
"""

import argparse

import torch
from checkpoint_examples import official_moco, own_checkpoint

from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING
from moco_det.weights.resnet_names import to_detectron2


def backbone(states: dict, prefix: str = "") -> dict:
    return {f"{prefix}{name}": value for name, value in states.items() if not name.startswith("fc.")}


def linear(prefix: str, *layers: int) -> dict:
    places = [f"{layer}." for layer in layers] or [""]
    return {f"{prefix}.{place}{kind}": torch.ones(4) for place in places for kind in ("weight", "bias")}


def detectron2_names(states: dict) -> dict:
    return {to_detectron2(name): value for name, value in backbone(states).items()}


def caffe2_names(states: dict) -> dict:
    """Names of detectron2's ImageNetPretrained/MSRA files: norms with statistics, conv1's bias, a classifier."""
    blobs = {}
    for name, value in detectron2_names(states).items():
        if name.endswith("num_batches_tracked"):
            continue
        blob = name.replace("stem.conv1.norm", "res_conv1_bn").replace("stem.conv1", "conv1")
        for plain, branch in (
            ("conv1", "branch2a"),
            ("conv2", "branch2b"),
            ("conv3", "branch2c"),
            ("shortcut", "branch1"),
        ):
            if blob.startswith("res") and not blob.startswith("res_"):
                blob = blob.replace(f".{plain}.", f".{branch}.")
        blob = blob.replace(".norm.", "_bn_").replace(".", "_")
        for tensor, short in (("weight", "s"), ("bias", "b"), ("running_mean", "rm"), ("running_var", "riv")):
            blob = blob.replace(f"bn_{tensor}", f"bn_{short}")
        blobs[blob.removesuffix("_weight") + "_w" if blob.endswith("_weight") else blob] = value.numpy()
    return {**blobs, "conv1_b": torch.zeros(64).numpy(), "pred_w": torch.ones(2, 2).numpy()}


def huggingface_names(states: dict, prefix: str = "") -> dict:
    kinds = {"conv": "convolution", "bn": "normalization"}
    renamed = {}
    for name, value in backbone(states).items():
        parts = name.split(".")
        if parts[0].startswith("layer"):
            place = f"encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}."
            if parts[2] == "downsample":
                place += f"shortcut.{'convolution' if parts[3] == '0' else 'normalization'}"
            else:
                place += f"layer.{int(parts[2][-1]) - 1}.{kinds[parts[2][:-1]]}"
        else:
            place = f"embedder.embedder.{kinds[parts[0][:-1]]}"
        renamed[f"{prefix}{place}.{parts[-1]}"] = value
    return renamed


def children_names(states: dict, prefix: str) -> dict:
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    split = (name.partition(".") for name in backbone(states))
    return {f"{prefix}{places[first]}.{rest}": states[f"{first}.{rest}"] for first, _, rest in split}


def mmengine(states: dict) -> dict:
    cfg = (
        "data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)\n"
    )
    return {
        "meta": {"epoch": 1, "cfg": cfg + "model = dict(backbone=dict(style='pytorch'))"},
        "state_dict": states,
    }


def solo(query: str, key: str):
    def make(q, k):
        heads = linear("projector", 0, 2) | linear("momentum_projector", 0, 2) | linear("classifier")
        queue = {
            "queue": torch.ones(2, 4, 8),
            "queue_ptr": torch.zeros(1),
            "momentum_classifier.weight": torch.ones(2),
        }
        return {"state_dict": backbone(q, query) | backbone(k, key) | heads | queue, "epoch": 3}

    return make


def wrapped(states: dict, prefix: str = "module.") -> dict:
    return {f"{prefix}{name}": value for name, value in states.items()}


def _openselfsup(second_queue: bool):
    def make(q, k):
        states = backbone(q, "encoder_q.0.") | linear("encoder_q.1.mlp", 0, 2) | backbone(k, "encoder_k.0.")
        states |= linear("encoder_k.1.mlp", 0, 2) | backbone(q, "backbone.")
        states |= {"queue": torch.ones(4, 8), "queue_ptr": torch.zeros(1)}
        return mmengine(
            states | ({"queue2": torch.ones(4, 8), "queue2_ptr": torch.zeros(1)} if second_queue else {})
        )

    return make


def _byol(q, k):
    online = wrapped(q, "online_encoder.net.") | linear("online_encoder.projector", 0, 3)
    target = wrapped(k, "target_encoder.net.") | linear("target_encoder.projector", 0, 3)
    return wrapped(q, "net.") | online | target | linear("online_predictor", 0, 3)


def _dino(q, k):
    def network(states):
        return wrapped(
            backbone(states, "backbone.")
            | linear("head.mlp", 0, 2)
            | {"head.last_layer.weight_v": torch.ones(2)}
        )

    args = argparse.Namespace(arch="resnet50", lr=0.1)
    return {
        "student": network(q),
        "teacher": network(k),
        "epoch": 1,
        "args": args,
        "dino_loss": {"center": torch.ones(2)},
    }


_PROVENANCE = {
    "source": "moco",
    "file": "a.pth",
    "sha256": "0",
    "encoder": "query",
    "arch": "resnet18",
    "config": "",
}
_RECORD = {"preprocessing": TORCHVISION_PREPROCESSING.to_dict(), "provenance": _PROVENANCE}
_TIMM = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
_HF = {"config.json": {"model_type": "resnet", "downsample_in_bottleneck": False}}

EXAMPLES = {
    "moco_det": own_checkpoint,
    "backbone": lambda q, k: {"model": detectron2_names(q), "__author__": "moco_det", "moco_det": _RECORD},
    "moco": official_moco,
    "moco_v3": lambda q, k: {
        "state_dict": wrapped(
            wrapped(q, "base_encoder.") | wrapped(k, "momentum_encoder.") | linear("predictor", 0, 3)
        ),
        "arch": "resnet50",
    },
    "pycontrast": lambda q, k: {
        "model": wrapped(backbone(q, "encoder.") | linear("head", 0, 2)),
        "epoch": 1,
        "contrast": {"memory": torch.ones(4)},
        "model_ema": backbone(k, "encoder.") | linear("head", 0, 2),
    },
    "pixpro": lambda q, k: {
        "opt": argparse.Namespace(lr=1),
        "model": wrapped(
            backbone(q, "encoder.")
            | backbone(k, "encoder_k.")
            | linear("projector.linear1")
            | linear("projector_k.linear1")
            | linear("value_transform")
        ),
    },
    "simsiam": lambda q, k: {
        "state_dict": wrapped(wrapped(q, "encoder.") | linear("predictor", 0, 3)),
        "arch": "resnet50",
    },
    "simclr": lambda q, k: backbone(q, "encoder.") | linear("projector", 0, 2),
    "simclr_sthalles": lambda q, k: {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": backbone(q, "backbone.") | linear("backbone.fc", 0, 2),
    },
    "byol": _byol,
    "swav": lambda q, k: {
        "state_dict": wrapped(
            backbone(q) | linear("projection_head", 0, 3) | {"prototypes.weight": torch.ones(4)}
        ),
        "epoch": 1,
    },
    "dino": _dino,
    "barlow_twins": lambda q, k: {
        "epoch": 1,
        "model": wrapped(
            backbone(q, "backbone.") | linear("projector", 0, 3) | {"bn.running_mean": torch.ones(4)}
        ),
    },
    "vicreg": lambda q, k: {
        "epoch": 1,
        "model": wrapped(backbone(q, "backbone.") | linear("projector", 0, 3)),
    },
    "vissl": lambda q, k: {
        "phase_idx": 1,
        "classy_state_dict": {
            "base_model": {"model": {"trunk": backbone(q, "_feature_blocks."), "heads": linear("0.clf", 0)}}
        },
    },
    "densecl": _openselfsup(True),
    "openselfsup": _openselfsup(False),
    "openselfsup_byol": lambda q, k: mmengine(
        backbone(q, "online_net.0.")
        | backbone(k, "target_net.0.")
        | backbone(q, "backbone.")
        | linear("online_net.1", 0)
        | linear("target_net.1", 0)
        | linear("head.predictor", 0)
    ),
    "mmpretrain": lambda q, k: mmengine(backbone(q, "backbone.") | linear("neck.fc") | linear("head.fc")),
    "mmpretrain_moco": lambda q, k: mmengine(
        backbone(q, "backbone.")
        | backbone(k, "encoder_k.module.0.")
        | linear("encoder_k.module.1.mlp", 0)
        | {"encoder_k.steps": torch.tensor(1), "queue": torch.ones(4, 8), "queue_ptr": torch.zeros(1)}
        | linear("neck.mlp", 0)
    ),
    "mmpretrain_byol": lambda q, k: mmengine(
        backbone(q, "backbone.")
        | backbone(k, "target_net.module.0.")
        | linear("target_net.module.1", 0)
        | {"target_net.steps": torch.tensor(1)}
        | linear("neck", 0)
        | linear("head.predictor", 0)
    ),
    "mmdet": lambda q, k: mmengine(
        backbone(q, "backbone.")
        | linear("neck.lateral_convs.0.conv")
        | linear("rpn_head.rpn_conv")
        | linear("roi_head.bbox_head.fc_cls")
    ),
    "smp": lambda q, k: backbone(q, "encoder.")
    | linear("decoder.blocks.0.conv1", 0)
    | linear("segmentation_head", 0),
    "torchvision_detection": lambda q, k: backbone(q, "backbone.body.")
    | linear("backbone.fpn.inner_blocks.0", 0)
    | linear("rpn.head.cls_logits")
    | linear("roi_heads.box_head.fc6"),
    "solo_learn": solo("backbone.", "momentum_backbone."),
    "solo_learn_1.0": solo("encoder.", "momentum_encoder."),
    "lightly": lambda q, k: {
        "epoch": 1,
        "state_dict": children_names(q, "backbone.")
        | children_names(k, "backbone_momentum.")
        | linear("projection_head.layers", 0)
        | linear("projection_head_momentum.layers", 0),
    },
    "lightly_teacher": lambda q, k: {
        "state_dict": children_names(q, "student_backbone.")
        | children_names(k, "teacher_backbone.")
        | linear("student_head.layers", 0)
        | linear("teacher_head.layers", 0)
        | {"criterion.center": torch.ones(4)}
    },
    "lightly_named": lambda q, k: {
        "state_dict": backbone(q, "backbone.")
        | backbone(k, "teacher_backbone.")
        | linear("projection_head.layers", 0)
        | linear("teacher_projection_head.layers", 0)
        | linear("online_classifier.classification_head")
    },
    "lightly_dino": lambda q, k: {
        "state_dict": backbone(q, "student_backbone.")
        | backbone(k, "backbone.")
        | linear("projection_head.layers", 0)
        | linear("student_projection_head.layers", 0)
        | {"criterion.center": torch.ones(4)}
    },
    "timm": lambda q, k: {"state_dict": q, "config.json": _TIMM},
    "timm_training": lambda q, k: {
        "epoch": 1,
        "arch": "resnet18",
        "version": 2,
        "state_dict": q,
        "state_dict_ema": k,
    },
    "torchvision_training": lambda q, k: {
        "model": q,
        "optimizer": {"state": {}},
        "epoch": 3,
        "model_ema": {"n_averaged": torch.tensor(9)} | {f"module.{name}": value for name, value in k.items()},
    },
    "huggingface": lambda q, k: {
        "state_dict": huggingface_names(q, "resnet.") | linear("classifier", 1),
        **_HF,
    },
    "detectron2": lambda q, k: {
        "model": detectron2_names(q),
        "__author__": "torchvision",
        "matching_heuristics": True,
    },
    "caffe2": lambda q, k: caffe2_names(q),
    "torchvision": lambda q, k: q,
    "onnx": lambda q, k: {
        "state_dict": backbone(q),
        "onnx": {"stride_in_1x1": False, "before": [], "fused": False},
    },
    "children": lambda q, k: children_names(q, ""),
}
