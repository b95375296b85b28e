"""Maps the names of each layout to torchvision's, and says what detectron2's ResNet has no place for."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names

from moco_det.weights.backbone_tensors import is_real
from moco_det.weights.resnet_names import to_torchvision

STATISTICS = ("running_mean", "running_var")
# detectron2's FrozenBN fills a norm without statistics so that it multiplies and adds alone; its epsilon is 1e-5.
IDENTITY_VAR = 1 - 1e-5
FUSED_NOTE = (
    "the norms' statistics are multiplied into their scale, so the written ones are 0 and 1: fine-tune with "
    "MODEL.RESNETS.NORM FrozenBN"
)


def _detectron2(name: str) -> str | None:
    """torchvision's name for detectron2's; also in FPN (``backbone.bottom_up.``) and C4 (``roi_heads.res5``)."""
    inner = re.sub(r"^(backbone\.(bottom_up\.)?|roi_heads\.)(?=stem\.|res\d\.)", "", name)
    try:
        return to_torchvision(inner)
    except ValueError:
        return None


def _caffe2(name: str) -> str | None:
    (plain,) = convert_basic_c2_names([name])
    plain = re.sub(r"^conv1\.", "stem.conv1.", plain)
    return _detectron2(plain)


_HUGGINGFACE = {"convolution": ("conv{}", "downsample.0"), "normalization": ("bn{}", "downsample.1")}


def _huggingface(name: str) -> str | None:
    name = name.removeprefix("resnet.")
    if match := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", name):
        return f"{_HUGGINGFACE[match[1]][0].format(1)}.{match[2]}"
    block = r"encoder\.stages\.(\d)\.layers\.(\d+)\."
    if match := re.fullmatch(block + r"layer\.(\d)\.(convolution|normalization)\.(\w+)", name):
        stage, index, conv, kind, tensor = match.groups()
        return f"layer{int(stage) + 1}.{index}.{_HUGGINGFACE[kind][0].format(int(conv) + 1)}.{tensor}"
    if match := re.fullmatch(block + r"shortcut\.(convolution|normalization)\.(\w+)", name):
        stage, index, kind, tensor = match.groups()
        return f"layer{int(stage) + 1}.{index}.{_HUGGINGFACE[kind][1]}.{tensor}"
    return None


# Places in nn.Sequential(*list(resnet.children())[:-1]); 2 is the ReLU, 3 the pooling.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _children(name: str) -> str | None:
    place, _, rest = name.partition(".")
    return f"{_CHILDREN[place]}.{rest}" if place in _CHILDREN else None


# A name of the layout (without the family's prefix) -> torchvision's; None: it is no tensor of a ResNet.
LAYOUTS: Mapping[str, Callable[[str], str | None]] = {
    "torchvision": lambda name: name,
    "detectron2": _detectron2,
    "caffe2": _caffe2,
    "huggingface": _huggingface,
    "children": _children,
}

# What names tell of features that detectron2's ResNet (plain stem, no attention) has no place for.
_FEATURES = (
    (
        r"(.*\.)?(conv1\.\d+|stem\.\d+|stem\.conv\d_\d|stem\.conv[23])\.",
        "a deep stem of several convolutions",
    ),
    (r"(stage[234]|transition[123])\.", "the parallel branches of an HRNet"),
    (r"(attnpool|conv2|conv3)\.", "CLIP's stem and attention pooling"),
    (r"layer\d\.\d+\.downsample\.2\.", "average pooling in the shortcut (ResNet-D)"),
    (r"(.*\.)?(filt|blurpool.*)$", "anti-aliasing (blur pooling)"),
    (r"layer\d\.\d+\.(se|se_module|eca|cbam|attn|bam|gc)\.", "squeeze-and-excitation or other attention"),
    (r"layer\d\.\d+\.conv\d\.(fc\d|bn\d|conv|attn|paths|radix)", "split attention or selective kernels"),
    (r"layer\d\.\d+\.(convs|bns)\.\d", "the scales of a Res2Net"),
    (r"layer\d\.\d+\.bn\d\.(IN|BN)\.", "instance normalization (IBN-Net)"),
    (r"layer\d\.\d+\.conv2_offset\.", "deformable convolutions"),
    (r"(.*\.)?(stages\.\d+\.blocks?|stem\.conv$|norm1|pre_norm)", "pre-activation or CSP blocks"),
    (r"(.*\.)?(patch_embed|patch_embeddings|cls_token|class_token|pos_embed)", "a vision transformer"),
    (r"(.*\.)?(conv1|downsample\.0|conv2|conv3)\.bias$", "convolutions with a bias"),
)
# Features of timm's models that leave no trace in the tensors: their recorded name alone tells.
_ARCH_NAMES = (
    (r"(resnet|ecaresnet|seresnet)\w*(aa|blur)", "anti-aliasing (blur pooling)"),
    (
        r"resnet\d+_?(c|d|t|s)$|resnet\d+(c|d|t|s)[._]|v1[cdse]",
        "a deep stem or average pooling in the shortcut",
    ),
    (r"resnetv2|_gn\b|resnet\d+_gn", "pre-activation blocks or group norm"),
)


def refuse_unsupported(backbone: Mapping[str, Any], arch: str) -> None:
    """Refuse, by its name, what detectron2's ResNet cannot represent.

    Args:
        backbone: tensors under torchvision's names; names that fit nowhere are still as they were.
        arch: the architecture's name that the file records, or "".

    Raises:
        ValueError: says the feature and how it was seen.
    """
    for pattern, feature in _ARCH_NAMES:
        if re.search(pattern, arch):
            raise ValueError(_refusal(feature, f"the file calls its architecture {arch!r}"))
    for pattern, feature in _FEATURES:
        for name in backbone:
            if re.match(pattern, name):
                raise ValueError(_refusal(feature, f"the file has {name}"))
    stem = tuple(getattr(backbone.get("conv1.weight"), "shape", ()))
    if len(stem) in (3, 5):
        raise ValueError(_refusal(f"{len(stem) - 2}-dimensional convolutions", f"conv1.weight is {stem}"))
    if len(stem) == 4 and stem[2:] != (7, 7):
        raise ValueError(
            _refusal(f"a {stem[2]}x{stem[3]} stem (for small images)", f"conv1.weight is {stem}")
        )
    if "bn1.weight" in backbone and not any(name.endswith(STATISTICS) for name in backbone):
        raise ValueError(
            _refusal("norms without running statistics (group norm?)", "there is no running_mean at all")
        )


def _refusal(feature: str, sign: str) -> str:
    return (
        f"detectron2's ResNet cannot represent {feature}: {sign}. Expected a plain ResNet, ResNeXt or wide ResNet "
        "with batch norm; train such a backbone, or take a detector that has this feature"
    )


def fold_split_statistics(backbone: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Average the statistics of split batch norm over its splits, as its own evaluation mode does.

    lightly's SplitBatchNorm keeps C * splits means and variances. Only where every norm has the same number of
    splits; else the lengths are damage, and left for the check to name.
    """
    statistics = {
        name: torch.as_tensor(value)
        for name, value in backbone.items()
        if name.endswith(STATISTICS) and is_real(value) and value.ndim == 1
    }
    ratios = set()
    for name, value in statistics.items():
        channels = getattr(backbone.get(f"{name.rpartition('.')[0]}.weight"), "shape", ())[:1]
        ratios.add(len(value) / channels[0] if channels and channels[0] else 0.0)
    splits = int(ratios.pop()) if len(ratios) == 1 and max(ratios).is_integer() else 1
    if splits < 2:
        return backbone, []
    # In the dtype of the file, as lightly does it: float64 would round otherwise in the last place.
    folded = backbone | {name: value.reshape(splits, -1).mean(0) for name, value in statistics.items()}
    return folded, [f"the statistics of split batch norm were averaged over its {splits} splits"]


def complete_fused_norms(backbone: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give norms whose statistics are multiplied into their scale (Caffe2) statistics that change nothing."""
    norms = {n.removesuffix(".bias") for n in backbone if re.search(r"(bn\d|downsample\.1)\.bias$", n)}
    if not norms or any(name.endswith(STATISTICS) for name in backbone):
        return backbone, []
    completed = dict(backbone)
    for norm in sorted(norms):
        shape = getattr(backbone[f"{norm}.bias"], "shape", ())
        completed[f"{norm}.running_mean"] = torch.zeros(tuple(shape))
        completed[f"{norm}.running_var"] = torch.full(tuple(shape), IDENTITY_VAR)
    return completed, [FUSED_NOTE]
