"""Recognises a checkpoint's family and sorts its tensors into the backbone and the rest."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from moco_det.backbone_file import Preprocessing
from moco_det.backbone_tensors import find_arch
from moco_det.sources.families import Family, Record, begins
from moco_det.sources.layouts import (
    LAYOUTS,
    complete_fused_norms,
    fold_split_statistics,
    refuse_unsupported,
)
from moco_det.sources.table import FAMILIES

# Entries of a file that hold a state dict, and what goes before its names; the first two are alternatives.
_MAIN = ("state_dict", "model", "model_state_dict", "classy_state_dict.base_model.model.trunk", "blobs")
_BESIDE = ("model_ema", "state_dict_ema", "student", "teacher")
# Contents that are known and still cannot be converted, by a name in them, and why.
_HOPELESS = (
    (
        r".*/~/|.*/batch_norm(alization)?/",
        "weights of JAX or TensorFlow, whose convolutions and pooling pad on one side ('SAME'), as no ResNet of "
        "detectron2 does; take a PyTorch version of them",
    ),
)


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
    """

    family: str
    encoder: str
    record: Record
    backbone: dict[str, Any]
    dropped: dict[str, list[str]]
    bookkeeping: list[str]
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def locate_backbone(content: Any, encoder: str | None = None, family: str | None = None) -> Source:
    """Recognise a checkpoint's family and sort its tensors into backbone and the rest.

    Args:
        content: what ``read_checkpoint`` gives.
        encoder: ``"query"`` or ``"key"``; None takes the family's own choice.
        family: the family's name, where the content is ambiguous.

    Raises:
        ValueError: unknown or ambiguous family, no such encoder in it, a damaged record, or a network that
            detectron2 cannot represent. Tensors that nothing explains stay in ``backbone`` and are refused when
            it is checked.
    """
    if not isinstance(content, Mapping):
        raise ValueError(
            f"the file holds a {type(content).__name__}; expected a dict of tensors (a state dict)"
        )
    states, bookkeeping = _state_dicts(content)
    tensors = _without_wrappers(states)
    found = _recognise(content, list(tensors), encoder, family)
    try:
        record = found.record(content, found.preprocessing)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = "'moco_det' record" if "moco_det" in content else f"record of a {found.name} file"
        raise ValueError(f"the checkpoint's {what} is damaged: {error}") from error
    encoder = _encoder_of(found, encoder or record.encoder)
    prefix = found.prefixes[encoder]
    if not any(name.startswith(prefix) for name in tensors):
        raise ValueError(
            f"the file has no tensor of the {encoder} encoder (their names start with {prefix!r})"
        )
    backbone, dropped, renamed = _sort(tensors, found, encoder)
    backbone, notes = fold_split_statistics(backbone)
    if found.layout == "caffe2":
        backbone, more = complete_fused_norms(backbone)
        notes += more
    refuse_unsupported(backbone, _recorded_arch(content))
    chosen = encoder if len(found.prefixes) > 1 else ""
    return Source(found.name, chosen, record, backbone, dropped, bookkeeping, renamed, tuple(notes))


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

    Raises:
        ValueError: nobody says.
    """
    wanted = given or found.record.preprocessing
    if wanted is None:
        raise ValueError(
            f"a {found.family} file does not say how its images were normalised, nor where the stride is; give "
            "--preprocessing torchvision (RGB, scaled, stride in the 3x3) or msra (BGR, std 1, stride in the 1x1)"
        )
    return wanted


def _state_dicts(content: Mapping) -> tuple[Mapping, list[str]]:
    """All state dicts of a file as one, and the names of what lies beside them."""
    states: dict[str, Any] = {}
    used = set()
    for path in _MAIN:
        inner = content
        for key in path.split("."):
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            states.update(inner)
            used.add(path.split(".")[0])
            break
    for key in _BESIDE:
        if isinstance(content.get(key), Mapping):
            states.update({f"{key}.{name}": value for name, value in content[key].items()})
            used.add(key)
    if not used:
        return content, []
    return states, [str(name) for name in content if name not in used]


def _without_wrappers(states: Mapping) -> dict[str, Any]:
    """Drop the parts that DistributedDataParallel and torch.compile put into names, wherever they stand."""
    tensors = {}
    for name, value in states.items():
        plain = ".".join(part for part in str(name).split(".") if part not in ("module", "_orig_mod"))
        if plain in tensors:
            raise ValueError(
                f"two tensors are called {plain!r} once 'module.' and '_orig_mod.' are taken off"
            )
        tensors[plain] = value
    return tensors


def _recognise(content: Mapping, names: list[str], encoder: str | None, family: str | None) -> Family:
    if family is not None:
        return next(known for known in FAMILIES if known.name == family)
    records = content.get("config.json", {})
    marks = [f"<{key}>" for key in (*content, *(records if isinstance(records, Mapping) else ()))]
    lines = "\n".join((*names, *marks))
    candidates = [known for known in FAMILIES if known.recognises(lines)]
    if not candidates:  # heads are often stripped: then the prefix alone must tell
        candidates = [known for known in FAMILIES if _has_backbone(known, lines, encoder)]
    if not candidates:
        _refuse_unknown(names)
    first = candidates[0]
    if any(_outcome(other, encoder) != _outcome(first, encoder) for other in candidates):
        known = ", ".join(candidate.name for candidate in candidates)
        raise ValueError(
            f"the checkpoint could be of several families, which are converted differently: {known}; "
            f"say which with --family, e.g. --family {first.name}"
        )
    return first


def _has_backbone(family: Family, lines: str, encoder: str | None) -> bool:
    prefix = family.prefixes.get(encoder or family.default, "")
    parts = (r"conv1\.", r"layer1\.") if family.layout == "torchvision" else (r"0\.", r"4\.")
    return prefix != "" and all(begins(re.escape(prefix) + part, lines) for part in parts)


def _outcome(family: Family, encoder: str | None) -> tuple:
    """What decides how a file is converted; families that agree in it need not be told apart."""
    return family.prefixes.get(encoder or family.default), family.layout, family.preprocessing


def _refuse_unknown(names: list[str]) -> None:
    for pattern, reason in _HOPELESS:
        if any(re.match(pattern, name) for name in names):
            raise ValueError(f"the file holds {reason}")
    raise ValueError(
        f"the checkpoint is of no known family ({', '.join(family.name for family in FAMILIES)}); "
        f"its first names are {', '.join(names[:5]) or 'none'}"
    )


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


def _sort(
    tensors: dict[str, Any], family: Family, encoder: str
) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, str]]:
    prefix = family.prefixes[encoder]
    reasons = [
        (re.escape(other), f"{name} encoder")
        for name, other in family.prefixes.items()
        if name != encoder and other
    ]
    if (
        family.prefixes and prefix and "" in family.prefixes.values()
    ):  # the other network has no prefix of its own
        reasons.append((rf"(?!{re.escape(prefix)})", "query encoder"))
    reasons += [
        *family.others,
        (re.escape(prefix) + r"fc\.", family.head),
        (r".*\.num_batches_tracked$", "batch-norm step counter"),
    ]
    rename = LAYOUTS[family.layout]
    backbone, dropped, renamed = {}, {}, {}
    for name, value in tensors.items():
        reason = next((reason for pattern, reason in reasons if re.match(pattern, name)), None)
        if reason is not None:
            dropped.setdefault(reason, []).append(name)
            continue
        inner = name.removeprefix(prefix)
        plain = (rename(inner) if name.startswith(prefix) else None) or inner
        if plain in backbone:
            raise ValueError(
                f"{renamed[plain]!r} and {name!r} are both {plain!r}; the file holds two backbones"
            )
        backbone[plain], renamed[plain] = value, name
    return backbone, dropped, renamed
