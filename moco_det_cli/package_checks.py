"""Checks the installed packages: Python, torch, torchvision, detectron2, moco_det and its requirements."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys

from moco_det_cli.findings import OK, STOP, WARNING, Finding

PYTHON = (3, 10)
TORCH = "2.4"
# setup.py's install_requires, but torch and torchvision; a test compares.
REQUIREMENTS = {
    "numpy": "1.26",
    "pillow": "10.1",
    "fvcore": "",
    "iopath": "",
    "pycocotools": "",
    "matplotlib": "",
    "scipy": "",
    "tabulate": "",
    "contourpy": "",
    "tensorboard": "",
    "tqdm": "",
}
# What detectron2 imports when moco_det does; a wheel that was installed without its dependencies lacks them.
OF_DETECTRON2 = ("omegaconf", "hydra-core", "yacs", "cloudpickle", "termcolor", "packaging")
# Modules whose package has another name than they.
UNDER_OTHER_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python", "hydra": "hydra-core"}
GET_DETECTRON2 = (
    "`make setup` in a checkout, or "
    "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git' (INSTALL.md)"
)
WITHOUT_COMPILED = (
    "rotated boxes, deformable convolution and the fast COCO evaluator are absent; all else runs"
)


def numbers(version: str) -> tuple[int, ...]:
    """Release numbers of a version: (2, 11) of "2.11.0+cpu" (trailing zeros say nothing)."""
    found = [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < PYTHON:
        return Finding(
            "Python", STOP, f"{version}; 3.10 or newer is needed", "make setup PYTHON=/path/to/python3.12"
        )
    return Finding("Python", OK, f"{version}, {sys.executable}")


def imported(facts: dict[str, dict], ended: str) -> list[Finding]:
    """What the probe imported.

    Args:
        facts: of each of its steps that ended.
        ended: how it ended before its last step; empty when it reached it.
    """
    checks = {"torch": torch, "torchvision": torchvision, "detectron2": detectron2, "moco_det": moco_det}
    found = []
    for name, check in checks.items():
        if name not in facts:
            continue
        found += [_failed(name, facts[name])] if "failed" in facts[name] else check(facts)
    if ended:
        fix = "run that import by hand (a very busy machine may only be slow); or install again: `make setup`"
        found.append(Finding("imports", STOP, ended, fix))
    left = [name for name in checks if name not in facts]
    if left and not ended:
        found.append(Finding(", ".join(left), WARNING, "not looked at, since the above does not import"))
    return found


def _failed(name: str, facts: dict) -> Finding:
    if facts["missing"] == name or facts["failed"].startswith("PackageNotFoundError"):
        fixes = {"detectron2": GET_DETECTRON2, "moco_det": "pip install . in a checkout"}
        fix = fixes.get(name, "pip install torch torchvision")
        return Finding(name, STOP, "not installed", fix)
    if facts["missing"]:
        top = facts["missing"].split(".")[0]
        fix = f"pip install {UNDER_OTHER_NAMES.get(top, top)}"
    elif facts["failed"].startswith(("OSError", "FileNotFoundError", "PermissionError")):
        fix = "see what is said of the disks below"
    else:
        fix = "reinstall the packages that disagree, in an environment of its own: `make setup`"
    return Finding(name, STOP, f"does not import: {facts['failed']}", fix)


def torch(facts: dict[str, dict]) -> list[Finding]:
    version, built_for = facts["torch"]["version"], facts["torch"]["cuda"] or facts["torch"]["hip"]
    if numbers(version) < numbers(TORCH):
        fix = "pip install --upgrade torch torchvision, and build detectron2 again"
        return [Finding("torch", STOP, f"{version}; {TORCH} or newer is needed", fix)]
    return [Finding("torch", OK, f"{version}, " + (f"for CUDA {built_for}" if built_for else "for CPUs"))]


def torchvision(facts: dict[str, dict]) -> list[Finding]:
    version, error = facts["torchvision"]["version"], facts["torchvision"]["error"]
    if not error:
        return [Finding("torchvision", OK, f"{version}, its operators run")]
    found = f"{version} does not run with torch {facts['torch']['version']}: {error}"
    fix = "install both from the same place: pip install --force-reinstall torch torchvision"
    wants = facts["torchvision"]["wants"]
    return [Finding("torchvision", STOP, found + (f"; it was built for {wants[0]}" if wants else ""), fix)]


def detectron2(facts: dict[str, dict]) -> list[Finding]:
    its = facts["detectron2"]
    version = numbers(its["version"])
    if version and version < (0, 6):
        return [Finding("detectron2", STOP, f"{its['version']}; 0.6 or newer is needed", GET_DETECTRON2)]
    found = [Finding("detectron2", OK, f"{its['version']}, {its['origin']}")]
    if its["compiled_error"]:
        text = f"{', '.join(its['compiled'])} does not load: {its['compiled_error']}; {WITHOUT_COMPILED}"
        fix = f"build detectron2 for this torch: {GET_DETECTRON2}"
        found.append(Finding("detectron2._C", WARNING, text, fix))
    else:
        text = "loads" if its["compiled"] else f"none: {WITHOUT_COMPILED}"
        found.append(Finding("detectron2._C", OK, text))
    if not its["pkg_resources"]:
        text = (
            "detectron2.model_zoo imports pkg_resources, which setuptools has no more; moco_det does without"
        )
        fix = "in your own script, before it: from moco_det.model_zoo.detectron2_zoo import model_zoo"
        found.append(Finding("detectron2.model_zoo", WARNING, text, fix))
    return found


def moco_det(facts: dict[str, dict]) -> list[Finding]:
    return [Finding("moco_det", OK, f"{facts['moco_det']['version']}, {facts['moco_det']['folder']}")]


def requirements() -> list[Finding]:
    """Other packages, by what is installed under their names; nothing is imported."""
    missing, old = [], []
    for name, minimum in {**REQUIREMENTS, **dict.fromkeys(OF_DETECTRON2, "")}.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if minimum and numbers(version) < numbers(minimum):
            old.append(f"{name}>={minimum}")
    if not missing and not old:
        return [Finding("other packages", OK, f"all {len(REQUIREMENTS) + len(OF_DETECTRON2)} are there")]
    parts = [f"missing: {', '.join(missing)}"] if missing else []
    parts += [f"too old, needed: {', '.join(old)}"] if old else []
    wanted = " ".join(f"'{name}'" if ">" in name else name for name in missing + old)
    return [Finding("other packages", STOP, "; ".join(parts), f"pip install {wanted}")]
