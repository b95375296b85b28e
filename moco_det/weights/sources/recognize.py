"""Recognizes a checkpoint's family by its names, and under which prefix they stand."""

import re
from collections.abc import Mapping
from typing import Any

from moco_det.weights.backbone_file import Preprocessing
from moco_det.weights.sources.families import PREPROCESSINGS, Family, begins
from moco_det.weights.sources.places import find_places, outer_prefixes, same_tensors
from moco_det.weights.sources.table import FAMILIES

# Families that are a ResNet and nothing else, each named as its layout: what is taken under an unknown prefix.
PLAIN = ("torchvision", "children")
# Contents that are known and still cannot be converted, by a name in them, and why.
_CANNOT_CONVERT = (
    (
        r".*/~/|.*/batch_norm(alization)?/",
        "weights of JAX or TensorFlow, whose convolutions and pooling pad on one side ('SAME'), as no ResNet of "
        "detectron2 does; take a PyTorch version of them",
    ),
    (
        r"(.*\.)?(conv\d|downsample\.0)\.weight_(orig|mask)$",
        "pruned layers whose masks are still apart; call torch.nn.utils.prune.remove on them and save again",
    ),
    (
        r"(.*\.)?(conv\d|downsample\.0)\.(weight_[guv]$|parametrizations\.)",
        "weights in a parametrization (weight or spectral norm); remove it (torch.nn.utils.parametrize."
        "remove_parametrizations) and save again",
    ),
    (
        r"(.*\.)?(conv\d|downsample\.0)\.(.*\.)?lora_[AB]\b",
        "low-rank adapters (LoRA), not the weights; merge them into the network and save again",
    ),
)


def check_prefix(names: list[str], prefix: str) -> None:
    """Refuse a ``--prefix`` with which no name begins.

    Raises:
        ValueError: names the prefixes under which there are ResNets.
    """
    if not any(name.startswith(prefix) for name in names):
        places = ", ".join(repr(place) for place in find_places(names) if place)
        raise ValueError(
            f"no name begins with --prefix {prefix!r}; "
            + (f"ResNets are under {places}" if places else f"the first names are {', '.join(names[:5])}")
        )


def recognize(
    content: Mapping,
    tensors: Mapping[str, Any],
    encoder: str | None,
    family: str | None,
    preprocessing: Preprocessing | None,
) -> tuple[Family, str, list[str]]:
    """The family, what stands before all its names, and notes.

    Raises:
        ValueError: no family, or several that are converted differently.
    """
    for pattern, reason in _CANNOT_CONVERT:
        if any(re.match(pattern, name) for name in tensors):
            raise ValueError(f"the file holds {reason}")
    places = find_places(tensors)
    if "backbone." in places:
        _refuse_dilated_segmenters(tensors)
    outers = outer_prefixes(places)
    lines = {outer: _lines(content, tensors, outer) for outer in outers}
    if family is not None:
        known = next(known for known in FAMILIES if known.name == family)
        begin = known.prefixes.get(encoder or known.default, "")
        fits = (o for o in outers if o + begin in places or known.recognizes(lines[o]))
        return known, next(fits, ""), []
    known = _best([family for family in FAMILIES if family.recognizes(lines[""])], encoder, preprocessing)
    if known:
        return known, "", []
    # Heads are often stripped: then the family's prefix alone must tell.
    weak = [family for family in FAMILIES if _has_backbone(family, lines[""], encoder)]
    known = _best(weak, encoder, preprocessing)
    if known and (len(weak) == 1 or encoder or known.layout not in PLAIN):
        return known, "", []
    if known:
        return _plain(tensors, known.prefixes[known.default], places, known.layout)
    for outer in outers[1:]:
        known = _best(
            [family for family in FAMILIES if family.recognizes(lines[outer])], encoder, preprocessing
        )
        if known and known.name in PLAIN:
            return _plain(tensors, outer, places, known.layout)
        if known:
            return known, outer, [f"all names begin with {outer!r}"]
    if not places:
        _refuse_unknown(list(tensors))
    return _plain(tensors, places[0], places, "torchvision")


def _lines(content: Mapping, tensors: Mapping[str, Any], outer: str) -> str:
    """The names behind a prefix and the file's entries, one per line, for ``Family.recognizes``."""
    records = content.get("config.json", {})
    marks = [f"<{key}>" for key in (*content, *(records if isinstance(records, Mapping) else ()))]
    return "\n".join((*(name.removeprefix(outer) for name in tensors if name.startswith(outer)), *marks))


def _best(
    candidates: list[Family], encoder: str | None, preprocessing: Preprocessing | None
) -> Family | None:
    """The first of families that are converted alike; None where there is no candidate.

    Raises:
        ValueError: they are converted differently, and the user's preprocessing does not settle it.
    """
    if not candidates:
        return None
    known = ", ".join(candidate.name for candidate in candidates)
    if len({_place(candidate, encoder) for candidate in candidates}) > 1:
        raise ValueError(
            f"the checkpoint could be of several families, which are converted differently: {known}; "
            f"say which with --family, e.g. --family {candidates[0].name}"
        )
    inputs = {candidate.preprocessing: candidate for candidate in reversed(candidates)}
    if preprocessing is not None or len(inputs) == 1:
        return inputs.get(preprocessing, candidates[0])
    names = {value: name for name, value in PREPROCESSINGS.items()}
    choices = "; ".join(
        f"--preprocessing {names[value]} ({', '.join(c.name for c in candidates if c.preprocessing == value)})"
        for value in inputs
        if value
    )
    raise ValueError(
        f"the checkpoint could be of several families, which differ in how images were normalized: {known}; "
        f"say it with {choices}, or name the family with --family"
    )


def _plain(
    tensors: Mapping[str, Any], place: str, places: list[str], layout: str
) -> tuple[Family, str, list[str]]:
    """The ResNet at a place of a file of unknown origin.

    Raises:
        ValueError: there are others, and they are not the same.
    """
    others = [other for other in places if other != place]
    if not all(same_tensors(tensors, place, other) for other in others):
        raise ValueError(
            f"the file holds {len(places)} ResNets, under {', '.join(map(repr, places))}, and they differ; "
            f"say which with --prefix, e.g. --prefix {places[0]}"
        )
    known = next(family for family in FAMILIES if family.name == layout)
    notes = [f"the backbone was found under {place!r}"]
    return known, place, notes + [f"the same tensors are under {other!r} too" for other in others]


def _has_backbone(family: Family, lines: str, encoder: str | None) -> bool:
    prefix = family.prefixes.get(encoder or family.default, "")
    parts = (r"conv1\.", r"layer1\.") if family.layout == "torchvision" else (r"0\.", r"4\.")
    return prefix != "" and all(begins(re.escape(prefix) + part, lines) for part in parts)


def _place(family: Family, encoder: str | None) -> tuple:
    """The prefixes of a family's backbone, and the layout of its names."""
    return family.prefixes.get(encoder or family.default), family.layout


def _refuse_dilated_segmenters(tensors: Mapping[str, Any]) -> None:
    """torchvision's FCN and DeepLab, by their heads: dilation leaves no trace in tensors."""
    convolutions = {name for name, value in tensors.items() if getattr(value, "ndim", 0) == 4}
    fcn = {"classifier.0.weight", "classifier.4.weight"} <= convolutions
    if fcn or any(re.match(r"aux_classifier\.|classifier\.0\.convs\.", name) for name in tensors):
        raise ValueError(
            "the file holds a segmenter of torchvision (FCN, DeepLab), whose last two stages are dilated, as in "
            "no ResNet of detectron2; take a backbone of stride 32"
        )


def _refuse_unknown(names: list[str]) -> None:
    raise ValueError(
        f"the checkpoint is of no known family ({', '.join(family.name for family in FAMILIES)}); "
        f"its first names are {', '.join(names[:5]) or 'none'}"
    )
