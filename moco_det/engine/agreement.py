"""All processes of a run have the same settings, code and images; else they would hang, or train apart."""

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from moco_det.config import known_keys, value_of
from moco_det.config.rules import kind_of


def check_agreement(facts: dict[str, object]) -> None:
    """Compare facts between all processes, which all call this.

    Raises:
        ValueError: names each that differs, with the values and the processes that have them.
    """
    all_facts = comm.all_gather(facts)
    names = dict.fromkeys(name for facts in all_facts for name in facts)
    differ = []
    for name in names:
        values: dict[str, list[int]] = {}
        for rank, facts in enumerate(all_facts):
            values.setdefault(repr(facts.get(name)), []).append(rank)
        if len(values) > 1:
            having = (f"{value} on {', '.join(map(str, ranks))}" for value, ranks in values.items())
            differ.append(f"{name} is {' and '.join(having)}")
    if differ:
        raise ValueError(
            f"the processes of this run do not agree: {'; '.join(differ)} (number of the process); start all with "
            "the same command, code and data"
        )


def settings_and_code(cfg: CfgNode) -> dict[str, object]:
    """Every key of a config that all processes must have alike, and what code runs it."""
    facts = {key: value_of(cfg, key) for key in known_keys(cfg) if kind_of(key).ranks_agree}
    return {
        **facts,
        "the code of moco_det": code_digest(),
        "Python": platform.python_version(),
        **_versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "torchvision", "numpy", "pillow", "detectron2"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # used from its folder
            found[package] = "unknown"
    return found


@functools.cache
def code_digest() -> str:
    """First 12 hex digits of the sha256 of the package's Python files."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
