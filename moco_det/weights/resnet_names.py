"""The one table of names: torchvision's ResNet <-> detectron2's ResNet. It renames; it checks no shapes."""

from collections.abc import Iterator

from moco_det.config.architectures import STAGE_BLOCKS

_MOST_BLOCKS = max(max(blocks) for blocks in STAGE_BLOCKS.values())


def _pairs() -> Iterator[tuple[str, str]]:
    """Modules that hold tensors, as (torchvision, detectron2), for every depth there is."""
    yield "conv1", "stem.conv1"
    yield "bn1", "stem.conv1.norm"
    for stage in range(1, 5):
        for block in range(_MOST_BLOCKS):
            here, there = f"layer{stage}.{block}", f"res{stage + 1}.{block}"
            for conv in range(1, 4):
                yield f"{here}.conv{conv}", f"{there}.conv{conv}"
                yield f"{here}.bn{conv}", f"{there}.conv{conv}.norm"
            yield f"{here}.downsample.0", f"{there}.shortcut"
            yield f"{here}.downsample.1", f"{there}.shortcut.norm"


_TO_DETECTRON2 = dict(_pairs())
_TO_TORCHVISION = {there: here for here, there in _pairs()}


def to_detectron2(name: str) -> str:
    """``"layer1.0.bn2.weight"`` -> ``"res2.0.conv2.norm.weight"``.

    Raises:
        ValueError: torchvision's ResNets have no such module.
    """
    return _rename(name, _TO_DETECTRON2, "torchvision")


def to_torchvision(name: str) -> str:
    """The inverse of :func:`to_detectron2`.

    Raises:
        ValueError: detectron2's ResNets have no such module.
    """
    return _rename(name, _TO_TORCHVISION, "detectron2")


def _rename(name: str, table: dict[str, str], owner: str) -> str:
    module, _, tensor = name.rpartition(".")
    if module not in table:
        raise ValueError(
            f"{name!r} is no tensor of {owner}'s ResNet; expected for example '{next(iter(table))}.weight'"
        )
    return f"{table[module]}.{tensor}"
