"""Shared by the tests of the core and of the projects: tiny configs, tiny images, several processes on a CPU."""

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from detectron2.utils import comm
from PIL import Image

from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file

REPOSITORY = Path(__file__).resolve().parents[2]


def tiny_pretrain_config(output_dir: str | Path = "", **solver):
    """MoCo v2 on ResNet-18 at 32 px: 2 groups of 4 images a batch, a queue of 24."""
    cfg = get_cfg()
    merge_config(cfg, get_config_file("Pretrain/moco_v2_R_50_200ep"), [])
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ENCODER.ARCH = "resnet18"
    cfg.MODEL.MOCO.DIM = 16
    cfg.MODEL.MOCO.QUEUE_SIZE = 24
    cfg.MODEL.MOCO.MOMENTUM = 0.9
    cfg.MODEL.ENCODER.BN_GROUP_SIZE = 4
    cfg.INPUT.VIEWS.SIZE = 32
    cfg.SOLVER.IMS_PER_BATCH = 8
    cfg.SOLVER.EPOCHS = 2
    cfg.SOLVER.LOG_PERIOD = 1
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 1
    cfg.OUTPUT_DIR = str(output_dir)
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


def set_keys(cfg, settings: Mapping[str, object]) -> None:
    """Set keys of MODEL.MOCO, MODEL.ENCODER or SOLVER by the last part of their names."""
    for name, value in settings.items():
        node = next(node for node in (cfg.MODEL.MOCO, cfg.MODEL.ENCODER, cfg.SOLVER) if name in node)
        node[name] = value


def write_random_images(folder: Path, count: int, size: int = 40, seed: int = 0) -> list[Path]:
    """JPEGs of smooth random color, named 000.jpg onwards."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        paths.append(folder / f"{number:03d}.jpg")
        coarse.resize((size, size), Image.BICUBIC).save(paths[-1], quality=95)
    return paths


def write_shard(path: Path, files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> str:
    """A tar of the given members, in their order; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)


def run_processes(function: Callable, count: int, *args) -> list:
    """Call ``function(*args)`` in ``count`` gloo processes on the CPU; its results by rank.

    ``function`` must be importable (a top-level function), and its result must survive ``torch.save``.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (count, folder, function, args), nprocs=count)
        return [torch.load(os.path.join(folder, f"{rank}.pt"), weights_only=False) for rank in range(count)]


def _process(rank: int, count: int, folder: str, function: Callable, args: tuple) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=count)
    comm.create_local_process_group(count)  # as detectron2's launch does; a warning about waiting asks for it
    try:
        torch.save(function(*args), os.path.join(folder, f"{rank}.pt"))
        torch.distributed.barrier()  # nobody leaves while another still talks to it
    finally:
        torch.distributed.destroy_process_group()
    # detectron2.utils.comm keeps the group in a cache, and with it gloo's threads. One of them that asks for the
    # interpreter's lock while the interpreter ends aborts the process, so it is left without an end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
