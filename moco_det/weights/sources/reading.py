"""Reads weight files: torch, plain pickles, safetensors, ONNX, and folders with one. Runs no foreign code."""

import argparse
import json
import os
import pickle
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moco_det.weights.backbone_file import UnsafePickleError, restricted_load
from moco_det.weights.sources.foreign import is_onnx, refuse_by_name_or_text, refuse_folder, refuse_foreign
from moco_det.weights.sources.onnx_graph import read_onnx

# How a torch file begins: the zip container, or (torch < 1.6) a pickle of this magic number.
_TORCH_ZIP = b"PK"
_TORCH_LEGACY = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
# Names of the one weight file in a folder that Hugging Face's or timm's save functions wrote; what lies beside it.
_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HUB_RECORDS = ("config.json", "preprocessor_config.json")
_ENDINGS = (".pth", ".pt", ".ckpt", ".pkl", ".safetensors", ".bin", ".tar", ".onnx")


def weight_file(path: str | os.PathLike) -> Path:
    """The file that holds the weights: ``path`` itself, or the only one in the folder ``path``.

    Raises:
        ValueError: no such file, or several.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"source {str(path)!r} is no file (looked in {os.getcwd()!r})")
    refuse_folder(path)
    hub = [path / name for name in _HUB_WEIGHTS if (path / name).is_file()]
    found = hub[:1] or sorted(file for file in path.iterdir() if file.suffix in _ENDINGS and file.is_file())
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise ValueError(
            f"the folder {str(path)!r} has {len(found)} weight files ({names}); expected exactly one, or "
            f"{' or '.join(_HUB_WEIGHTS)}: name the file itself"
        )
    return found[0]


def read_checkpoint(path: str | os.PathLike, trust_pickle: bool = False) -> Any:
    """Read a torch file, a plain pickle, a safetensors or ONNX file or a folder with one; content decides.

    Without ``trust_pickle`` no code from the file runs: torch files go through ``weights_only=True``, plain
    pickles through the allow-list of ``backbone_file``.

    Returns:
        What the file holds. The records beside a hub's weight file (``config.json``) come as further entries.

    Raises:
        ValueError: the file is damaged, is none of these kinds, or asks for foreign code (it is named).
    """
    path = weight_file(path)
    with open(path, "rb") as file:
        start = file.read(512)
    is_torch = start.startswith(_TORCH_ZIP) or _TORCH_LEGACY in start
    is_safetensors = start[8:9] == b"{" and not is_torch
    if not is_safetensors:
        refuse_foreign(path, start)
    try:
        if is_safetensors:
            content = _read_safetensors(path)
        elif not is_torch and is_onnx(start, path.name):
            content = read_onnx(path)
        else:
            content = (_read_trusting if trust_pickle else _read_safely)(path, is_torch)
        return _with_records(content, path)
    except UnsafePickleError as error:
        raise ValueError(f"{error}; if you trust where the file comes from, pass --trust-pickle") from error
    except ValueError:  # says already what is wrong
        if not is_torch:
            refuse_by_name_or_text(path, start)
        raise
    except Exception as error:  # torch and pickle raise nearly anything on a damaged file
        if not is_torch:
            refuse_by_name_or_text(path, start)
        first_line = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: cannot be read; it is damaged, truncated, or needs missing code ({first_line})"
        ) from error


def _read_safely(path: Path, is_torch: bool) -> Any:
    # torch before 2.6 runs foreign code from tar files even under weights_only=True (CVE-2025-32434).
    if tarfile.is_tarfile(path):
        raise UnsafePickleError(f"{path}: a tar file of torch 0.1, which cannot be read safely")
    if not is_torch:
        return restricted_load(path)
    # The arguments of a training script, which many put into their checkpoints: a class that runs nothing.
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {refused[1]}, which is" if refused else "is damaged, or holds what is"
        if refused and re.search(r"ShardedTensor|DTensor", refused[1]):
            raise ValueError(
                f"{path}: {what} one shard of a distributed model (FSDP); save the whole model where it was "
                "trained, with StateDictType.FULL_STATE_DICT"
            ) from error
        raise UnsafePickleError(
            f"{path}: {what} neither a tensor nor a plain value; reading it could run foreign code"
        ) from error


def _read_trusting(path: Path, is_torch: bool) -> Any:
    if is_torch or tarfile.is_tarfile(path):
        content = torch.load(path, map_location="cpu", weights_only=False)
    else:
        with open(path, "rb") as file:
            content = pickle.load(file, encoding="latin1")
    if isinstance(content, Mapping):
        return {key: _state_dict_of(value) for key, value in content.items()}
    return _state_dict_of(content)


def _state_dict_of(value: Any) -> Any:
    """A whole network that was pickled gives its tensors."""
    return value.state_dict() if isinstance(value, nn.Module) else value


def _read_safetensors(path: Path) -> dict[str, Any]:
    """``{"state_dict": tensors}``, and what the header records."""
    safe_open = _safetensors().safe_open
    with safe_open(path, framework="pt") as file:
        content: dict[str, Any] = {"state_dict": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
        header = file.metadata() or {}
    if "moco_det" in header:
        content["moco_det"] = json.loads(header["moco_det"])
    return content


def _safetensors() -> Any:
    try:
        import safetensors.torch  # here, since only users of such files need the package
    except ImportError as error:
        raise ValueError(
            "a .safetensors file needs the package safetensors; pip install 'moco_det[convert]'"
        ) from error
    return safetensors


def _with_records(content: Any, path: Path) -> Any:
    if path.name not in _HUB_WEIGHTS or not isinstance(content, Mapping):
        return content
    records = {}
    for name in _HUB_RECORDS:
        if (path.parent / name).is_file():
            try:
                records[name] = json.loads((path.parent / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path.parent / name}: is no JSON ({error})") from error
            if not isinstance(records[name], dict):
                raise ValueError(f"{path.parent / name}: expected an object, found {records[name]!r:.40}")
    if not records:
        return content
    return {**(content if "state_dict" in content else {"state_dict": content}), **records}
