"""Checks the machine: GPUs, processor, disks, shared memory, data sets."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from moco_det_cli.cores import busy_cores, free_cores, usable_cores
from moco_det_cli.findings import OK, STOP, WARNING, Finding

GIB = 2**30
LITTLE_DISK = (
    5 * GIB
)  # a ResNet-50 run keeps checkpoints of some 0.4 GiB each, the environment itself takes 5 GB
LITTLE_SHARED_MEMORY = GIB  # Docker's default is 64 MiB, which a batch of 224-pixel images fills
SAMPLE = 2**20  # bytes


def _lacks(facts: dict[str, dict], step: str, needs: str) -> str:
    """Why the probe has nothing to say of a step; empty where it has."""
    if step in facts:
        return facts[step].get("failed", "")
    return f"not looked at, since {needs} does not import"


def gpus(facts: dict[str, dict]) -> Finding:
    """Check what the probe says of GPUs."""
    lacks = _lacks(facts, "gpus", "torch")
    if lacks:
        return Finding("GPUs", WARNING, lacks)
    facts = facts["gpus"]
    broken = [f"{gpu['name']}: {gpu['error']}" for gpu in facts["found"] if gpu["error"]]
    if broken:
        fix = "a torch built for this GPU and driver, or free the GPU; --num-gpus 0 computes on the CPU"
        return Finding("GPUs", STOP, "; ".join(broken), fix)
    if facts["found"]:
        return Finding("GPUs", OK, "; ".join(map(_describe, facts["found"])))
    if facts["hidden"]:
        return Finding("GPUs", OK, "hidden by CUDA_VISIBLE_DEVICES; runs compute on the CPU")
    if facts["driver"]:
        why = "; ".join(facts["warnings"]) or "this torch is not built for it"
        fix = "pip install --force-reinstall torch torchvision built for the driver's CUDA (nvidia-smi shows it)"
        return Finding("GPUs", WARNING, f"there is an NVIDIA driver, but torch sees no GPU: {why}", fix)
    return Finding("GPUs", OK, "none; runs compute on the CPU")


def _describe(gpu: dict) -> str:
    major, minor = gpu["capability"]
    # Tensor cores know float16 from Volta (7.0) on and bfloat16 from Ampere (8.0) on.
    kinds = ["float32", *(["float16"] if major >= 7 else []), *(["bfloat16"] if major >= 8 else [])]
    memory = f"{gpu['free'] / GIB:.0f} of {gpu['bytes'] / GIB:.0f} GiB free"
    return f"{gpu['name']} (compute capability {major}.{minor}, {memory}, fast in {', '.join(kinds)})"


def processor(facts: dict[str, dict]) -> list[Finding]:
    """Cores, their load, and the threads that a run would take."""
    cores, busy = usable_cores(), busy_cores()
    text = f"{cores} usable"
    if not _lacks(facts, "moco_det", ""):
        its = facts["moco_det"]
        text += (
            f", {its['cpu_capability']}, {'gains' if its['cpu_bfloat16'] else 'does not gain'} by bfloat16"
        )
    found = [Finding("CPU cores", OK, text)]
    set_to = os.environ.get("OMP_NUM_THREADS", "")
    threads = f"OMP_NUM_THREADS={set_to or '(not set)'}"
    if set_to and not set_to.isdigit():
        fix = f"export OMP_NUM_THREADS={cores}, or unset it"
        return [*found, Finding("threads", WARNING, f"{threads} is no whole number", fix)]
    if busy is None:
        return [*found, Finding("threads", OK, f"{threads}; this system does not tell how busy it is")]
    text = f"{threads}; {busy:.1f} cores are busy now"
    free = free_cores(busy)
    if set_to and int(set_to) > free:
        fix = f"on the CPU: export OMP_NUM_THREADS={free}; threads wait for one another at every operation"
        return [*found, Finding("threads", WARNING, text, fix)]
    if busy > cores - 0.5:  # none is left
        return [*found, Finding("threads", WARNING, text, "end other programs, or let fewer run at once")]
    return [*found, Finding("threads", OK, text)]


def disks() -> list[Finding]:
    """Check the disks that runs write to: the working folder, with output/ below it, and temporary files."""
    try:
        here = os.getcwd()
    except OSError:
        fix = "cd to a folder that exists"
        return [Finding("disk for output", STOP, "the working folder was removed", fix)]
    try:
        temporary = tempfile.gettempdir()
    except OSError as error:  # no folder takes a file
        temporary, lost = None, str(error)
    found = [_disk("disk for output", here)]
    if temporary is None:
        fix = "free space there, or export TMPDIR=/a/folder/with/space"
        return [*found, Finding("disk for temporary files", STOP, lost, fix)]
    if os.stat(temporary).st_dev == os.stat(here).st_dev:
        return found
    return [*found, _disk("disk for temporary files", temporary)]


def _disk(name: str, folder: str) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free in {folder}"
    fix = "free space, or set OUTPUT_DIR (TMPDIR for temporary files) to a folder on another disk"
    try:  # the number of free bytes tells nothing of quotas, read-only mounts and used-up inodes
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(SAMPLE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(name, STOP, f"cannot write 1 MiB in {folder}: {error.strerror or error}; {text}", fix)
    return Finding(name, WARNING, text, fix) if free < LITTLE_DISK else Finding(name, OK, text)


def shared_memory(folder: str = "/dev/shm") -> Finding:
    """Through which the loader's workers hand over images."""
    if not Path(folder).is_dir():
        return Finding("shared memory", OK, "not limited here")
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free in {folder}"
    if free < LITTLE_SHARED_MEMORY:
        fix = "docker run --shm-size 8g (or --ipc host), or DATALOADER.NUM_WORKERS 0"
        return Finding(
            "shared memory", WARNING, f'{text}; the loader\'s workers may fail with "Bus error"', fix
        )
    return Finding("shared memory", OK, text)


def datasets(facts: dict[str, dict]) -> Finding:
    """Check what the probe says of data sets; none are needed to pre-train on a folder of images."""
    lacks = _lacks(facts, "datasets", "moco_det")
    if lacks:
        return Finding("data sets", WARNING, lacks)
    facts = facts["datasets"]
    where = f"in {facts['root']} (DETECTRON2_DATASETS={os.environ.get('DETECTRON2_DATASETS', '(not set)')})"
    if facts["found"]:
        return Finding(
            "data sets", OK, f"{', '.join(facts['found'])} {where}; `moco-det check-datasets` looks inside"
        )
    fix = (
        "`moco-det check-datasets` says where to get them; export DETECTRON2_DATASETS=/folder/that/holds/them"
    )
    return Finding("data sets", WARNING, f"none {where}; only fine-tuning needs them", fix)
