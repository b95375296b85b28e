"""Finds backbones in files of any nesting and naming: where ResNets lie, and what stands before their names."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

# Entries of a file that hold a state dict, and what goes before its names; the first two are alternatives.
_MAIN = ("state_dict", "model", "model_state_dict", "classy_state_dict.base_model.model.trunk", "blobs")
_BESIDE = ("model_ema", "state_dict_ema", "student", "teacher")
# What DistributedDataParallel, torch.compile, FSDP, activation checkpointing and Lightning put into names.
_WRAPPERS = {
    *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
    *("_fpw_module", "_ddp_module"),
}
# A tensor that each ResNet has, by the layouts of names.
_IN_EACH_RESNET = re.compile(
    r"(|.*\.)(layer1\.0\.conv1|4\.0\.conv1|res2\.0\.conv1|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution)"
    r"\.weight"
)


def state_dicts(content: Mapping, prefix: str = "") -> tuple[dict[str, Any], list[str], list[str]]:
    """All state dicts of a file as one, nested ones under dotted names.

    Args:
        prefix: of the names that are wanted; if the usual entries have none, all entries are opened.

    Returns:
        The tensors, the names of the entries beside them that are no networks, and of those that are.
    """
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
    wanted = _hold_resnet(states)
    if prefix:
        wanted = any(without_wrappers(name).startswith(prefix) for name in _tensor_names(states))
    if used and not wanted and _hold_resnet(content):
        used = set()  # the backbone is in an entry of another name
    if used:
        others = [name for name in content if name not in used]
        networks = [n for n in others if isinstance(content[n], Mapping) and _hold_resnet(content[n])]
        return _flat(states), [str(n) for n in others if n not in networks], list(map(str, networks))
    tensors = _flat(content)
    if tensors.keys() == set(map(str, content)):
        return tensors, [], []
    beside = [str(name) for name, value in content.items() if str(name) in tensors and not _is_tensor(value)]
    return {name: value for name, value in tensors.items() if name not in beside}, beside, []


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _tensor_names(states: Mapping, depth: int = 6) -> Iterable[str]:
    for name, value in states.items():
        if _is_tensor(value):
            yield str(name)
        elif isinstance(value, Mapping) and depth:
            yield from (f"{name}.{inner}" for inner in _tensor_names(value, depth - 1))


def _hold_resnet(states: Mapping) -> bool:
    return bool(find_places(map(without_wrappers, _tensor_names(states))))


def _flat(states: Mapping) -> dict[str, Any]:
    """The same with each nested mapping that holds a backbone opened; others stay what they are."""
    flat: dict[str, Any] = {}
    for name, value in states.items():
        if isinstance(value, Mapping) and _hold_resnet(value):
            flat |= {f"{name}.{inner}": tensor for inner, tensor in _flat(value).items()}
        else:
            flat[str(name)] = value
    return flat


def without_wrappers(name: str) -> str:
    """A name without the parts that wrappers put into it, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def unwrapped(states: Mapping) -> dict[str, Any]:
    """The tensors under their names without wrappers.

    Raises:
        ValueError: two get the same name, or FSDP has flattened them into shards.
    """
    tensors = {}
    for name, value in states.items():
        plain = without_wrappers(str(name))
        if plain.rpartition(".")[2] in ("_flat_param", "flat_param"):
            raise ValueError(
                f"{str(name)!r} is one shard of FSDP's flattened parameters; save the whole model where it was "
                "trained, with StateDictType.FULL_STATE_DICT"
            )
        if plain in tensors:
            raise ValueError(f"two tensors are called {plain!r} once the names of wrappers are taken off")
        tensors[plain] = value
    return tensors


def find_places(names: Iterable[str]) -> list[str]:
    """What stands before the names of each ResNet, e.g. ``["encoder_q.", "encoder_k."]``."""
    return list(dict.fromkeys(match[1] for name in names if (match := _IN_EACH_RESNET.fullmatch(name))))


def outer_prefixes(places: list[str]) -> list[str]:
    """The dotted beginnings that all places share, the shortest first; the first is none at all."""
    shared = ""
    prefixes = [""]
    for part in re.findall(r"[^.]*\.", places[0]) if places else []:
        shared += part
        if not all(place.startswith(shared) for place in places):
            break
        prefixes.append(shared)
    return prefixes


def same_tensors(tensors: Mapping[str, Any], one: str, other: str) -> bool:
    """Whether all that lies behind two prefixes is equal, bit by bit."""
    inner = [{n.removeprefix(p): v for n, v in tensors.items() if n.startswith(p)} for p in (one, other)]
    return inner[0].keys() == inner[1].keys() and all(
        _is_tensor(value)
        and _is_tensor(inner[1][name])
        and np.array_equal(*map(_bits, (value, inner[1][name])))
        for name, value in inner[0].items()
    )


def _bits(value: Any) -> np.ndarray:
    tensor = torch.as_tensor(value).detach().contiguous()
    return (
        np.frombuffer(tensor.reshape(-1).view(torch.uint8).numpy().tobytes(), np.uint8)
        if tensor.numel()
        else tensor.numpy()
    )
