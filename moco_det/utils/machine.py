"""The machine that a run is carried out on: what it is, how many cores, how much memory was used."""

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path

import torch

from moco_det_cli.cores import usable_cores

# The libraries that turn JPEG files into pixels.
DECODERS = ("pillow", "torchvision", "simplejpeg")


def num_cores() -> int:
    """Cores that this process may use."""
    return usable_cores()


def peak_memory_bytes(device: str) -> int:
    """The most memory this process has held: of its GPU for ``"cuda"``, else of the machine."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kibibytes elsewhere


def describe_machine(device: str) -> dict[str, object]:
    """Processor, cores, GPUs and versions; nothing that names the host."""
    return {
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version for name in DECODERS if (version := _installed(name))},
    }


def _installed(package: str) -> str | None:
    """The version of a package; None: it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
