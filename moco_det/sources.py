"""The known checkpoint families: how content tells them apart, where the backbone is. Reads files safely.

A new family is one more entry in FAMILIES. Whether the tensors are whole is asked in ``backbone_tensors.py``.
"""

import dataclasses
import os
import pickle
import re
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import torch

from moco_det.backbone_file import (
    TORCHVISION_PREPROCESSING,
    Preprocessing,
    UnsafePickleError,
    restricted_load,
)
from moco_det.backbone_tensors import find_arch

# ---- Reading a file ------------------------------------------------------------------------------

# How a torch file begins: the zip container, or (torch < 1.6) a pickle of this magic number.
_TORCH_ZIP = b"PK"
_TORCH_LEGACY = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")


def read_checkpoint(path: str | os.PathLike, trust_pickle: bool = False) -> Any:
    """Read a torch file or a plain pickle; its content decides which, not its name.

    Without ``trust_pickle`` no code from the file runs: torch files go through ``weights_only=True``, plain
    pickles through the allow-list of ``backbone_file``.

    Raises:
        ValueError: the file is damaged, is none of these kinds, or asks for foreign code (it is named).
    """
    with open(path, "rb") as file:
        start = file.read(64)
    is_torch = start.startswith(_TORCH_ZIP) or _TORCH_LEGACY in start
    try:
        return (_read_trusting if trust_pickle else _read_safely)(path, is_torch)
    except UnsafePickleError as error:
        raise ValueError(f"{error}; if you trust where the file comes from, pass --trust-pickle") from error
    except ValueError:  # says already what is wrong
        raise
    except Exception as error:  # torch and pickle raise nearly anything on a damaged file
        first_line = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: cannot be read; it is damaged, cut short, or needs missing code ({first_line})"
        ) from error


def _read_safely(path: str | os.PathLike, is_torch: bool) -> Any:
    # torch before 2.6 runs foreign code from tar files even under weights_only=True (CVE-2025-32434).
    if tarfile.is_tarfile(path):
        raise UnsafePickleError(f"{path}: a tar file of torch 0.1, which cannot be read safely")
    if not is_torch:
        return restricted_load(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {refused[1]}, which is" if refused else "is damaged, or holds what is"
        raise UnsafePickleError(
            f"{path}: {what} neither a tensor nor a plain value; reading it could run foreign code"
        ) from error


def _read_trusting(path: str | os.PathLike, is_torch: bool) -> Any:
    if is_torch or tarfile.is_tarfile(path):
        return torch.load(path, map_location="cpu", weights_only=False)
    with open(path, "rb") as file:
        return pickle.load(file, encoding="latin1")


# ---- The families --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Record:
    """What a file says about itself besides its tensors."""

    preprocessing: Preprocessing = TORCHVISION_PREPROCESSING
    arch: str | None = None
    config: str = ""


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    Attributes:
        name: for the provenance and for messages.
        recognise: (the file's content, its tensor names without wrappers) -> is it this kind?
        prefixes: where the backbone is, by ``--encoder``; a family with one network has only "query".
        head: what the tensors ``fc.*`` next to the backbone are.
        others: (pattern, what it is) of further tensors that are no backbone; matched at the name's start.
        record: reads what the file says about itself.
    """

    name: str
    recognise: Callable[[Mapping, list[str]], bool]
    prefixes: Mapping[str, str]
    head: str
    others: tuple[tuple[str, str], ...] = ()
    record: Callable[[Mapping], Record] = lambda content: Record()


def _has(pattern: str) -> Callable[[Mapping, list[str]], bool]:
    return lambda content, names: any(re.match(pattern, name) for name in names)


def _own_record(content: Mapping) -> Record:
    record = content["moco_det"]
    return Record(Preprocessing.from_dict(record["preprocessing"]), record["arch"], content.get("config", ""))


_TWO_ENCODERS = {"query": "encoder_q.", "key": "encoder_k."}

# The first that recognises the file counts.
FAMILIES = (
    Family(
        "moco_det",
        recognise=lambda content, names: "moco_det" in content,
        prefixes=_TWO_ENCODERS,
        head="projection head",
        others=((r"dictionary\.", "dictionary"),),
        record=_own_record,
    ),
    Family(  # facebookresearch/moco, v1 and v2
        "moco",
        recognise=_has(r"encoder_[qk]\."),
        prefixes=_TWO_ENCODERS,
        head="projection head",
        others=((r"queue(_ptr)?$", "dictionary"),),
    ),
    Family(
        "torchvision",
        recognise=_has(r"layer1\.0\."),
        prefixes={"query": ""},
        head="classifier",
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
    """

    family: str
    encoder: str
    record: Record
    backbone: dict[str, Any]
    dropped: dict[str, list[str]]
    bookkeeping: list[str]


def locate_backbone(content: Any, encoder: str = "query") -> Source:
    """Recognise a checkpoint's family and sort its tensors into backbone and the rest.

    Raises:
        ValueError: unknown family, no such encoder in it, or a damaged record. Tensors that nothing explains
            stay in ``backbone`` and are refused when it is checked.
    """
    if not isinstance(content, Mapping):
        raise ValueError(
            f"the file holds a {type(content).__name__}; expected a dict of tensors (a state dict)"
        )
    states, bookkeeping = _state_dict(content)
    tensors = _without_wrappers(states)
    family = _recognise(content, list(tensors))
    if encoder not in family.prefixes:
        raise ValueError(
            f"--encoder is {encoder!r}, but a {family.name} file holds "
            + (
                "one network; leave --encoder out"
                if len(family.prefixes) == 1
                else f"{list(family.prefixes)}"
            )
        )
    try:
        record = family.record(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the checkpoint's 'moco_det' record is damaged: {error}") from error
    prefix = family.prefixes[encoder]
    if not any(name.startswith(prefix) for name in tensors):
        raise ValueError(
            f"the file has no tensor of the {encoder} encoder (their names start with {prefix!r})"
        )
    backbone, dropped = _sort(tensors, family, encoder)
    chosen = encoder if len(family.prefixes) > 1 else ""
    return Source(family.name, chosen, record, backbone, dropped, bookkeeping)


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


def _state_dict(content: Mapping) -> tuple[Mapping, list[str]]:
    """The state dict, and the names of what lies beside it."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            return content[key], [str(name) for name in content if name != key]
    return content, []


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


def _recognise(content: Mapping, names: list[str]) -> Family:
    for family in FAMILIES:
        if family.recognise(content, names):
            return family
    raise ValueError(
        f"the checkpoint is of no known family ({', '.join(family.name for family in FAMILIES)}); "
        f"its first names are {', '.join(names[:5]) or 'none'}"
    )


def _sort(
    tensors: dict[str, Any], family: Family, encoder: str
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    prefix = family.prefixes[encoder]
    reasons = [
        (re.escape(other), f"{name} encoder") for name, other in family.prefixes.items() if name != encoder
    ]
    reasons += [
        *family.others,
        (re.escape(prefix) + r"fc\.", family.head),
        (r".*\.num_batches_tracked$", "batch-norm step counter"),
    ]
    backbone, dropped = {}, {}
    for name, value in tensors.items():
        reason = next((reason for pattern, reason in reasons if re.match(pattern, name)), None)
        if reason is None:
            backbone[name.removeprefix(prefix)] = value
        else:
            dropped.setdefault(reason, []).append(name)
    return backbone, dropped
