"""The part of the doctor that imports: in a process of its own, since a broken installation may crash or hang it.

Each step gives plain facts; :mod:`moco_det_cli.doctor` checks them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import warnings
from pathlib import Path


def torch() -> dict:
    """torch and what it was built for."""
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
    }


def gpus() -> dict:
    """The GPUs that torch sees; of each, why a small computation fails on it, if it does."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    found = [_gpu(index) for index in range(torch.cuda.device_count())] if available else []
    return {
        "found": found,
        "warnings": [str(warning.message).splitlines()[0] for warning in caught],
        "driver": os.path.exists("/proc/driver/nvidia/version"),
        "hidden": os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
    }


def _gpu(index: int) -> dict:
    import torch

    properties = torch.cuda.get_device_properties(index)
    error = ""
    try:
        ones = torch.ones(8, 8, device=f"cuda:{index}")
        assert float((ones @ ones).sum()) == 512
        free = torch.cuda.mem_get_info(index)[0]
    except Exception as failure:
        error, free = _in_a_line(failure), 0
    return {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "bytes": properties.total_memory,
        "free": free,
        "error": error,
    }


def torchvision() -> dict:
    """torchvision and whether its compiled operators run: suppression of boxes, and RoIAlign."""
    torch_wanted = [
        need for need in importlib.metadata.requires("torchvision") or () if _names(need, "torch")
    ]
    version = importlib.metadata.version("torchvision")
    try:
        _run_operators()
        error = ""
    except Exception as failure:  # RuntimeError: operator torchvision::nms does not exist
        error = _in_a_line(failure)
    return {"version": version, "wants": torch_wanted, "error": error}


def _names(need: str, package: str) -> bool:
    return need.removeprefix(package)[:1] in tuple(" (<>=!~;") and need.startswith(package)


def _run_operators() -> None:
    import torch
    from torchvision.ops import nms, roi_align

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.1]], device=device)
        assert nms(boxes, torch.tensor([1.0, 0.5], device=device), 0.5).tolist() == [0]
        aligned = roi_align(torch.ones(1, 1, 8, 8, device=device), [boxes], 2)
        assert aligned.cpu().eq(1).all()


def detectron2() -> dict:
    """detectron2: version, where it came from, and whether its compiled part loads."""
    import detectron2

    folder = Path(detectron2.__file__).parent
    files, error = [file.name for file in folder.glob("_C*")], ""
    if files:
        try:
            importlib.import_module("detectron2._C")
        except Exception as failure:
            error = _in_a_line(failure)
    return {
        "version": detectron2.__version__,
        "origin": _origin() or f"the folder {folder}",
        "compiled": files,
        "compiled_error": error,
        "pkg_resources": importlib.util.find_spec("pkg_resources") is not None,
    }


def _origin() -> str:
    for name in ("detectron2", "sal-detectron2"):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
        commit = direct.get("vcs_info", {}).get("commit_id", "")
        source = direct.get("url", "an index")
        return f"{name} {distribution.version} from {source}" + (f" at {commit[:10]}" if commit else "")
    return ""


def moco_det() -> dict:
    """Whether the package itself imports, and what it says of bfloat16 on this processor."""
    import torch

    import moco_det
    from moco_det.modeling.precision import gains_by_bfloat16

    return {
        "version": moco_det.__version__,
        "folder": str(Path(moco_det.__file__).parent),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_bfloat16": gains_by_bfloat16("cpu"),
    }


def datasets() -> dict:
    """The paper's data sets whose files and folders are there; what is in them is not looked at."""
    from detectron2.data import DatasetCatalog

    from moco_det.finetune.datasets import needed_files
    from moco_det.model_zoo.tasks import TASKS
    from moco_det.utils.files import datasets_root

    names = {name for task in TASKS for name in (*task.train, *task.test)}
    needed = {name: needed_files(name) for name in sorted(names) if name in DatasetCatalog}
    whole = [name for name, paths in needed.items() if paths and all(map(os.path.exists, paths))]
    return {"root": os.path.abspath(datasets_root()), "found": whole}


# In this order; a step that fails keeps those that need it from being taken.
STEPS = {
    torch: (),
    gpus: ("torch",),
    torchvision: ("torch",),
    detectron2: ("torch",),
    moco_det: ("torch", "torchvision", "detectron2"),
    datasets: ("moco_det",),
}


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def main() -> None:
    """Take the steps; a line of JSON before each and one after it, so that it is known at which one it ended."""
    # What the imported libraries print goes to stderr.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    failed = set()
    for step, needs in STEPS.items():
        name = step.__name__
        if failed.intersection(needs):
            failed.add(name)
            continue
        print(json.dumps({"begins": name}), file=out)
        try:
            facts = step()
        except Exception as error:
            facts = {"failed": _in_a_line(error), "missing": getattr(error, "name", None)}
        if "failed" in facts or (step is torchvision and facts["error"]):
            failed.add(name)
        print(json.dumps({"step": name, "facts": facts}), file=out)
    sys.stdout.flush()
    os._exit(0)  # not through the libraries' own ends, which may hang too
