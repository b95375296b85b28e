"""backbone.pkl, the file between pre-training and fine-tuning: written atomically, read without running code.

Its content is ``{"model": {name: float32 array}, "__author__": "moco_det", "matching_heuristics": True,
"moco_det": {"preprocessing": ..., "provenance": ...}}``. The first three are what detectron2 needs to take a
``.pkl`` as its own and to match names by suffix, so a plain detectron2 script trains from the file; it passes
over the fourth. What the tensors are called and whether they are right is not decided here but in
``moco_det.convert``.
"""

import collections
import dataclasses
import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moco_det.utils.files import atomic_write

_AUTHOR = "moco_det"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How the backbone wants its input, and where its bottlenecks put the stride (False: in the 3x3).

    ``format`` is the order of the first three channels, or ``"L"`` (detectron2's and Pillow's word for gray) where
    there are no such three; ``pixel_mean`` and ``pixel_std`` have one value per channel. ``range`` is INPUT.RANGE:
    empty for plain 8-bit images, whose record does not mention it.
    """

    format: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    stride_in_1x1: bool
    range: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """The number of channels of the images."""
        return len(self.pixel_mean)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, ready to be stored."""
        return {
            "format": self.format,
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
            "stride_in_1x1": self.stride_in_1x1,
            **({"range": list(self.range)} if self.range else {}),
        }

    def in_words(self) -> str:
        """The record in one line."""
        mean, std = (
            " ".join(f"{value:g}" for value in values) for values in (self.pixel_mean, self.pixel_std)
        )
        stride = "first 1x1" if self.stride_in_1x1 else "3x3"
        limits = f"values {' '.join(f'{value:g}' for value in self.range)}, " if self.range else ""
        return f"{self.format}, {limits}mean {mean}, std {std}; stride in the {stride}"

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Preprocessing":
        """Read a stored record.

        Raises:
            ValueError: an entry is missing, unknown or not of its kind.
        """
        expected = {field.name for field in dataclasses.fields(cls)} - {"range"}
        if not isinstance(record, Mapping) or set(record) - {"range"} != expected:
            found = sorted(map(str, record)) if isinstance(record, Mapping) else type(record).__name__
            raise ValueError(f"the preprocessing record has {found}; expected {sorted(expected)}")
        if not isinstance(record["stride_in_1x1"], bool):
            raise ValueError(f"stride_in_1x1 is {record['stride_in_1x1']!r}; expected True or False")
        numbers = {"range": (), **record}
        for name in ("pixel_mean", "pixel_std", "range"):
            values = numbers[name]
            wrong = not isinstance(values, list | tuple) or {type(v) for v in values} - {int, float}
            if wrong or not (values or name == "range"):
                raise ValueError(f"{name} is {values!r}; expected one number per channel")
        mean, std, limits = (
            tuple(map(float, numbers[name])) for name in ("pixel_mean", "pixel_std", "range")
        )
        if len(mean) != len(std):
            raise ValueError(f"pixel_mean has {len(mean)} numbers and pixel_std {len(std)}; expected as many")
        if len(limits) not in (0, 2, 2 * len(mean)):
            raise ValueError(
                f"range is {limits}; expected a lowest and a highest value, for all channels or for each"
            )
        formats = ("RGB", "BGR", "L") if len(mean) > 1 else ("L",)  # two are RGB in older files
        if record["format"] not in formats:
            raise ValueError(
                f"preprocessing format is {record['format']!r}; expected {' or '.join(map(repr, formats))} for "
                f"{len(mean)} channels"
            )
        return cls(record["format"], mean, std, record["stride_in_1x1"], limits)

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same for images of another number of channels: the averages of mean and std, for each."""
        if channels == len(self.pixel_mean):
            return self
        mean, std = ((round(sum(v) / len(v), 3),) * channels for v in (self.pixel_mean, self.pixel_std))
        channel_order = self.format
        if channels < 3:
            channel_order = "L"
        elif self.format == "L" and self.channels == 1:
            channel_order = "RGB"
        limits = self.range if len(self.range) == 2 else ()
        return Preprocessing(channel_order, mean, std, self.stride_in_1x1, limits)


# ImageNet's statistics in the units of an 8-bit image: 255 times torchvision's (0.485, 0.456, 0.406) and
# (0.229, 0.224, 0.225), which the official MoCo code uses too.
TORCHVISION_PREPROCESSING = Preprocessing("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False)


@dataclasses.dataclass(frozen=True)
class BackboneFile:
    """What a weight file holds; ``preprocessing`` is None where the file does not say."""

    tensors: dict[str, np.ndarray]
    preprocessing: Preprocessing | None
    provenance: dict[str, Any]


def file_sha256(path: str | os.PathLike) -> str:
    """The identity of a weight file, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_backbone(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    provenance: Mapping[str, Any],
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write backbone.pkl, whole or not at all: a temporary file in the same folder takes the name at the end.

    Args:
        path: where to, ending in ``.pkl``.
        tensors: detectron2's ResNet names and their float32 arrays.
        provenance: plain values: source, file, sha256, encoder, arch, config.
        check: called with the finished temporary file; when it raises, ``path`` stays as it was.

    Raises:
        OSError: the file cannot be written; names the path and the reason.
    """
    path = Path(path)
    assert path.suffix == ".pkl", path
    assert all(isinstance(a, np.ndarray) and a.dtype == np.float32 for a in tensors.values())
    content = {
        "model": {name: np.ascontiguousarray(array) for name, array in tensors.items()},
        "__author__": _AUTHOR,
        "matching_heuristics": True,
        _AUTHOR: {"preprocessing": preprocessing.to_dict(), "provenance": dict(provenance)},
    }
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            pickle.dump(content, file, protocol=4)
        check(temporary)


def read_backbone(path: str | os.PathLike) -> BackboneFile:
    """Read backbone.pkl or .pth, or another detectron2 or Caffe2 weight file, without running code from it.

    Returns:
        The file's tensors. A file that moco_det did not write has ``preprocessing`` None and no provenance;
        the names of a Caffe2 file (``conv1_w``) are returned as they are.

    Raises:
        ValueError: not a pickle, no weights in it, or a damaged record.
        UnsafePickleError: it holds more than arrays and plain values.
    """
    return parse_backbone(_content(path), path)


def parse_backbone(content: Any, path: str | os.PathLike) -> BackboneFile:
    """Parse what the file ``path`` holds, as :func:`read_backbone` does."""
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}; expected backbone.pkl's dict with 'model'"
        )
    tensors = content.get("model", _caffe2_blobs(content))
    if not isinstance(tensors, Mapping) or not tensors:
        keys = ", ".join(map(repr, list(content)[:5]))
        raise ValueError(
            f"{path}: no weights under 'model' (the file's keys: {keys or 'none'}); "
            "write backbone.pkl with tools/convert_to_d2.py"
        )
    strange = [name for name, value in tensors.items() if not isinstance(value, np.ndarray)]
    if strange:
        raise ValueError(f"{path}: {strange[0]!r} is no array ({len(strange)} such entries)")
    return with_record(dict(tensors), content.get(_AUTHOR), path)


def with_record(tensors: dict[str, Any], record: Any, path: str | os.PathLike) -> BackboneFile:
    """Tensors, and what the record beside them in the file ``path`` says; None where there is no record.

    Raises:
        ValueError: the record is damaged.
    """
    if record is None:
        return BackboneFile(tensors, None, {})
    try:
        return BackboneFile(
            tensors, Preprocessing.from_dict(record["preprocessing"]), dict(record["provenance"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: the 'moco_det' record is damaged ({error}); convert the source again"
        ) from error


def _content(path: str | os.PathLike) -> Any:
    """What a pickle, or the zip file of torch, holds; the tensors of the latter as arrays."""
    with open(path, "rb") as file:
        is_torch = file.read(2) == b"PK"
    if not is_torch or os.fspath(path).endswith(".pkl"):  # detectron2 takes the ending for the kind
        return restricted_load(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        states = content["model"].items()
        return {
            **content,
            "model": {n: value.numpy() if isinstance(value, torch.Tensor) else value for n, value in states},
        }
    except Exception as error:  # torch raises nearly anything on a damaged file
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: no weight file of detectron2, or a damaged one ({reason})") from error


def _caffe2_blobs(content: Mapping) -> dict[str, Any] | None:
    """The weights of a Caffe2 or Detectron1 file (as detectron2's checkpointer takes them), or None."""
    blobs = content.get("blobs", content)
    if not isinstance(blobs, Mapping) or "conv1_w" not in blobs:
        return None
    return {name: value for name, value in blobs.items() if not str(name).endswith("_momentum")}


class UnsafePickleError(ValueError):
    """A pickle asks for something that is neither an array nor a plain value."""


# What stages that read no code say; only convert has the option.
HOW_TO_TRUST = (
    "if you trust where it comes from, convert it: tools/convert_to_d2.py --trust-pickle {} backbone.pkl"
)


def refused_by_torch(error: pickle.UnpicklingError) -> str:
    """What ``torch.load(weights_only=True)`` found, in a few words; torch's own lines say how to run it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"asks for {found[1]}" if found else "is damaged, or holds more than tensors and plain values"


def restricted_load(path: str | os.PathLike) -> Any:
    """Unpickle numpy arrays and plain values; nothing else is imported or called.

    numpy's own constructors are not handed to the pickle either: with them it could build an array of objects
    from raw bytes, that is, of pointers of its choice. Stand-ins below take the same arguments.

    Raises:
        UnsafePickleError: the pickle names another global; the message says which.
        ValueError: not a pickle, or a damaged one.
    """
    with open(path, "rb") as file:
        try:
            return _finished(_RestrictedUnpickler(file, encoding="latin1").load())
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}") from error
        except Exception as error:  # a damaged pickle may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())  # some have two lines
            raise ValueError(f"{path}: not a pickle, or a damaged one ({reason})") from error


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UnsafePickleError(
                f"asks for {module}.{name}, which is neither a numpy array nor a plain value; "
                "reading it could run foreign code"
            )
        return _ALLOWED[module, name]


class _Dtype:
    """Stands in for ``numpy.dtype``: numbers, booleans and text of fixed length."""

    def __init__(self, code: str, *_):
        self.value = np.dtype(str(code))
        if self.value.kind not in "biufcSU":
            raise UnsafePickleError(f"holds an array of dtype {code!r}; expected numbers or text")

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands in for ``numpy.ndarray``; numpy's pickles always fill it in through its state."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: _Dtype, shape: tuple[int, ...], memory_order: str) -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 wrote bytes as str
    return (
        np.frombuffer(raw, dtype.value).reshape(shape, order=memory_order).copy(order="K")
    )  # frombuffer is read-only


def _empty_array(*_) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _array(raw, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    """Protocols 0 to 2 spell bytes so."""
    if encoding != "latin1":
        raise UnsafePickleError(f"encodes text as {encoding!r}; expected 'latin1'")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # so protocols 0 to 2 spell empty bytes
    ("collections", "OrderedDict"): collections.OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _empty_array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _array  # protocol 5


def _finished(value: Any) -> Any:
    """The unpickled value with each stand-in replaced by what it stands for."""
    if isinstance(value, _Array | _Dtype):
        return value.value
    if isinstance(value, dict):
        return {_finished(key): _finished(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item) for item in value)
    return value
