"""Sorts a checkpoint's tensors into the backbone and the rest, once its family is known."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from moco_det.weights.backbone_file import Preprocessing
from moco_det.weights.backbone_tensors import find_arch, in_channels, with_channels
from moco_det.weights.sources.families import PREPROCESSINGS, Family, Record, openmmlab_config
from moco_det.weights.sources.layouts import (
    FUSED_NOTE,
    LAYOUTS,
    complete_fused_norms,
    fold_split_statistics,
    refuse_unsupported,
)
from moco_det.weights.sources.places import state_dicts, unwrapped, without_wrappers
from moco_det.weights.sources.recognize import PLAIN, check_prefix, recognize


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint whose family is known, sorted by what its tensors are for.

    Attributes:
        encoder: which encoder was taken; "" where the family has only one network.
        backbone: torchvision's names and the tensors, as the file has them.
        dropped: reason -> names in the file (without wrappers).
        bookkeeping: the file's entries beside the state dict.
        renamed: torchvision's names -> names in the file (without wrappers).
        notes: what was done to tensors on the way.
        layout_from: the source of the family's layout.
        encoders: those that the family has, if several.
        is_guess: whether it is a plain ResNet under a prefix, of which nobody says how its images were normalized.
    """

    family: str
    layout_from: str
    encoders: tuple[str, ...]
    encoder: str
    record: Record
    backbone: dict[str, Any]
    dropped: dict[str, list[str]]
    bookkeeping: list[str]
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_guess: bool = False


def locate_backbone(
    content: Any,
    encoder: str | None = None,
    family: str | None = None,
    prefix: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> Source:
    """Recognize a checkpoint's family and sort its tensors into backbone and the rest.

    Names are looked at as they are, then without what all backbones of the file have before their names
    (``"model."`` of a user's module), until they are a family's; at the end of that stands a plain ResNet.

    Args:
        content: what ``read_checkpoint`` gives.
        encoder: ``"query"`` or ``"key"``; None takes the family's own choice.
        family: the family's name, where the content is ambiguous.
        prefix: look only at the tensors whose names begin so.
        preprocessing: the user's, by which families that differ in nothing else need not be told apart.

    Raises:
        ValueError: unknown or ambiguous family, no such encoder in it, a damaged record, or a network that
            detectron2 cannot represent. Tensors that nothing explains stay in ``backbone`` and are refused when
            it is checked.
    """
    if not isinstance(content, Mapping):
        raise ValueError(
            f"the file holds a {type(content).__name__}; expected a dict of tensors (a state dict)"
        )
    prefix = without_wrappers(f"{prefix.rstrip('.')}.") if prefix else ""
    states, bookkeeping, networks = state_dicts(content, prefix)
    tensors = unwrapped(states)
    if prefix:
        check_prefix(list(tensors), prefix)
    inner = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    found, outer, notes = recognize(content, inner, encoder, family, preprocessing)
    notes += [f"the entry {name!r} holds another network, which --prefix {name} takes" for name in networks]
    try:
        record = found.record(content, found.preprocessing)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = "'moco_det' record" if "moco_det" in content else f"record of a {found.name} file"
        raise ValueError(f"the checkpoint's {what} is damaged: {error}") from error
    encoder = _encoder_of(found, encoder or record.encoder)
    begin = found.prefixes[encoder]
    if not any(name.startswith(outer + begin) for name in inner):
        raise ValueError(
            f"the file has no tensor of the {encoder} encoder (their names start with {prefix + outer + begin!r})"
        )
    backbone, dropped, renamed = _sort(tensors, found, encoder, prefix + outer)
    backbone, more = fold_split_statistics(backbone)
    notes += more
    if found.layout == "caffe2":
        backbone, more = complete_fused_norms(backbone)
        notes += more
    if found.name == "onnx" and content["onnx"]["fused"]:
        notes.append(FUSED_NOTE)
    # What lies elsewhere is no feature of the backbone: the check calls it left over.
    whole = prefix + outer + begin
    inside = {name: v for name, v in backbone.items() if renamed.get(name, whole).startswith(whole)}
    refuse_unsupported(inside, _recorded_arch(content))
    _refuse_recorded_dilation(content)
    return Source(
        family=found.name,
        layout_from=found.checked,
        encoders=tuple(found.prefixes) if len(found.prefixes) > 1 else (),
        encoder=encoder if len(found.prefixes) > 1 else "",
        record=record,
        backbone=backbone,
        dropped=dropped,
        bookkeeping=bookkeeping,
        renamed=renamed,
        notes=tuple(notes),
        is_guess=bool(prefix + outer) and found.name in PLAIN,
    )


def agreed_arch(found: Source) -> str:
    """The architecture of a source's backbone.

    Raises:
        ValueError: its tensors are no ResNet's, or another one's than the checkpoint says.
    """
    arch = find_arch(found.backbone)
    if found.record.arch not in (None, arch):
        raise ValueError(
            f"the checkpoint says it holds a {found.record.arch}, but its tensors are a {arch}'s; "
            "it was damaged or edited: take an intact one"
        )
    return arch


def agreed_preprocessing(found: Source, given: Preprocessing | None = None) -> Preprocessing:
    """How the backbone wants its input: as the user says, else as the file or its family does.

    For images of one or N channels, of which only three are known, :meth:`Preprocessing.for_channels` says it.

    Raises:
        ValueError: nobody says, or the user does for another number of channels.
    """
    wanted = given or found.record.preprocessing
    if wanted is None:
        raise ValueError(
            f"a {found.family} file does not say how its images were normalized, nor where the stride is; give "
            "--preprocessing torchvision (RGB, scaled, stride in the 3x3) or msra (BGR, std 1, stride in the 1x1)"
        )
    channels = in_channels(found.backbone)
    if given is not None and given not in PREPROCESSINGS.values() and len(given.pixel_mean) != channels:
        raise ValueError(
            f"mean and std are given for {len(given.pixel_mean)} channels, and the network's images have "
            f"{channels}; give one value per channel"
        )
    if given is None and found.family == "moco_det" and len(wanted.pixel_mean) != channels:
        raise ValueError(
            f"this encoder sees images of {channels} channel{'s' * (channels > 1)} that pre-training made of "
            f"{len(wanted.pixel_mean)}, which no detector does; convert another encoder"
        )
    if found.record.stride_in_1x1 is not None:
        wanted = dataclasses.replace(wanted, stride_in_1x1=found.record.stride_in_1x1)
    return wanted.for_channels(channels)


def for_channels(found: Source, channels: int, rule: str) -> Source:
    """The source as if it were for images of other channels, see :func:`with_channels`."""
    record, backbone = found.record, with_channels(found.backbone, channels, rule)
    if record.preprocessing is not None:
        record = dataclasses.replace(record, preprocessing=record.preprocessing.for_channels(channels))
    return dataclasses.replace(found, record=record, backbone=backbone)


def preprocessing_notes(found: Source, given: Preprocessing | None = None) -> list[str]:
    """What about the input nobody said and was assumed."""
    notes = []
    if given is None and found.is_guess:
        notes.append(
            "nothing in the file says how its images were normalized: torchvision's way is assumed; "
            "--preprocessing says another"
        )
    wanted, channels = given or found.record.preprocessing, in_channels(found.backbone)
    if wanted is not None and len(wanted.pixel_mean) != channels:
        notes.append(
            f"images of {channels} channel{'s' * (channels > 1)}: mean and std are the averages of the known "
            f"{len(wanted.pixel_mean)}; --pixel-mean and --pixel-std say others"
        )
    return notes


def _encoder_of(family: Family, encoder: str | None) -> str:
    encoder = encoder or family.default
    if encoder not in family.prefixes:
        choice = (
            "one network; leave --encoder out" if len(family.prefixes) == 1 else f"{list(family.prefixes)}"
        )
        raise ValueError(f"--encoder is {encoder!r}, but a {family.name} file holds {choice}")
    return encoder


def _recorded_arch(content: Mapping) -> str:
    """The architecture's name as the checkpoint, its training script's arguments or its hub config record it."""
    config = content.get("config.json")
    if isinstance(config, Mapping) and isinstance(config.get("architecture"), str):
        return config["architecture"]
    return content["arch"] if isinstance(content.get("arch"), str) else ""


def _refuse_recorded_dilation(content: Mapping) -> None:
    """OpenMMLab's segmenters dilate their last stages, which only their config tells."""
    text = openmmlab_config(content)
    found = re.search(r"\bdilations=[\[(]([\d,\s]+)[\])]", text)
    if found and {number.strip() for number in found[1].split(",")} - {"1", ""}:
        raise ValueError(
            f"detectron2's ResNet cannot represent dilated stages: its config has {found[0]}; "
            "take a backbone of stride 32"
        )


def _sort(
    tensors: dict[str, Any], family: Family, encoder: str, outer: str
) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, str]]:
    """Backbone under torchvision's names, reason -> dropped names, and torchvision's names -> the file's."""
    prefix = family.prefixes[encoder]
    reasons = [
        (re.escape(other), f"{name} encoder")
        for name, other in family.prefixes.items()
        if name != encoder and other
    ]
    if prefix and "" in family.prefixes.values():  # the other network has no prefix of its own
        reasons.append((rf"(?!{re.escape(prefix)})", "query encoder"))
    reasons += [
        *family.others,
        (re.escape(prefix) + r"fc\.", family.head),
        (r".*\.num_batches_tracked$", "batch-norm step counter"),
    ]
    rename = LAYOUTS[family.layout]
    backbone, dropped, renamed = {}, {}, {}
    for name, value in tensors.items():
        if not name.startswith(outer):
            dropped.setdefault(f"outside {outer!r}", []).append(name)
            continue
        theirs = name.removeprefix(outer)
        reason = next((reason for pattern, reason in reasons if re.match(pattern, theirs)), None)
        if reason is not None:
            dropped.setdefault(reason, []).append(name)
            continue
        inner = theirs.removeprefix(prefix)
        plain = (rename(inner) if theirs.startswith(prefix) else None) or inner
        if plain in backbone:
            raise ValueError(
                f"{renamed[plain]!r} and {name!r} are both {plain!r}; the file holds two backbones"
            )
        backbone[plain], renamed[plain] = value, name
    return backbone, dropped, renamed
