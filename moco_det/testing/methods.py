"""What every method of pre-training must pass; shared by the tests of the projects. See also testing.core."""

from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moco_det.config import get_cfg, merge_config
from moco_det.data.views import ViewSettings
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.engine.schedule import check_schedule
from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm2d, average_running_statistics, local_block
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.method import PretrainMethod, StepState, method_class
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer


def settled_recipe(recipe: str | Path, add_config: Callable[[CfgNode], None], *options: str) -> CfgNode:
    """A recipe as its script reads it for one process, checked: every key applies and fits the others.

    Args:
        options: KEY VALUE pairs.
    """
    words = ["--config-file", str(recipe), "--num-gpus", "0", "--images", "images", *options]
    cfg = build_config(argument_parser().parse_args(words), [add_config])
    method_class(cfg).check_config(cfg, ranks=1)
    check_schedule(cfg)
    ViewSettings.from_config(cfg)
    return cfg


def tiny_method_config(
    recipe: str | Path, add_config: Callable[[CfgNode], None], output_dir: str | Path = "", **solver
) -> CfgNode:
    """A recipe of a project on ResNet-18 at 32 px, 2 groups of 4 images a batch, two epochs.

    Args:
        solver: keys of SOLVER and their values.
    """
    cfg = get_cfg()
    add_config(cfg)
    merge_config(cfg, str(recipe), [])
    cfg.MODEL.DEVICE = "cpu"
    encoder = cfg.MODEL.ENCODER
    encoder.ARCH, encoder.NORM, encoder.BN_GROUP_SIZE = "resnet18", "BN", 4
    cfg.INPUT.VIEWS.SIZE, cfg.DATALOADER.NUM_WORKERS = 32, 0
    cfg.SEED, cfg.OUTPUT_DIR = 1, str(output_dir)
    tiny = {"IMS_PER_BATCH": 8, "EPOCHS": 2, "WARMUP_EPOCHS": 0, "LOG_PERIOD": 1, "CHECKPOINT_EPOCHS": 1}
    for key, value in {**tiny, "PRECISION": "float32", **solver}.items():
        cfg.SOLVER[key] = value
    return cfg


PIXELS = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}


def plain_views(batch: dict) -> list[Tensor]:
    """Both views of a batch as float64, normalized by hand."""
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in PIXELS.values())
    return [(batch[name].double() - mean) / std for name in ("query", "key")]


def by_groups(module: Callable[[Tensor], Tensor], x: Tensor, size: int = 4) -> Tensor:
    """A module on groups of rows, one after the other and each by itself."""
    return torch.cat([module(x[start : start + size]) for start in range(0, len(x), size)])


def gradients(*modules: nn.Module) -> Tensor:
    """Of all their parameters, in one row."""
    return torch.cat([p.grad.flatten() for module in modules for p in module.parameters()])


class SmallEncoder(nn.Module):
    """What a method asks of an encoder, at a size that loops can follow: batch norm over groups, and ``fc``."""

    WIDTH = 24

    def __init__(self, bn_group_size: int, head: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(3, self.WIDTH, 3, stride=2)
        self.bn1 = GroupedBatchNorm2d(self.WIDTH, bn_group_size)
        self.fc = head

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn1(self.conv1(x)).relu().mean((2, 3)))


def random_batch(iteration: int, count: int = 8, size: int = 9) -> dict:
    """Two views of ``count`` images, the whole global batch."""
    generator = torch.Generator().manual_seed(iteration)
    views = torch.randint(0, 256, (2, count, 3, size, size), generator=generator, dtype=torch.uint8)
    index = torch.arange(count) + count * iteration
    return {"query": views[0], "key": views[1], "index": index, "epoch": 0, "iteration": iteration}


def random_multi_crop_batch(iteration: int, epoch: int = 1) -> dict:
    """Two large crops and two small ones of 8 images."""
    small = random_batch(100 + iteration, size=7)
    crops = torch.stack([small["query"], small["key"]], dim=1)  # 8x2x3x7x7
    return {**random_batch(iteration), "small": crops, "epoch": epoch}


def take_steps(
    model: PretrainMethod, steps: int = 2, lr: float = 0.01, batch: Callable[[int], dict] = random_batch
) -> tuple[list[float], dict[str, Tensor]]:
    """Steps of SGD as the loop makes them, on the ranks there are.

    Returns:
        the loss of each step on this rank, and the state after them.
    """
    wrapped = model
    if comm.get_world_size() > 1:
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameter_groups(), lr=lr)
    losses = []
    for iteration in range(steps):
        progress = iteration / steps
        inputs = {
            name: local_block(value) if isinstance(value, Tensor) else value
            for name, value in batch(iteration).items()
        }
        optimizer.zero_grad()
        losses.append(0.0)
        step = StepState()
        for part in range(model.accumulate):
            outputs = wrapped({**inputs, "progress": progress, "micro_batch": part, "step": step})
            loss = sum(value for name, value in outputs.items() if name.startswith("loss")) / model.accumulate
            loss.backward()
            losses[-1] += float(loss)
        model.after_backward(iteration, progress)
        optimizer.step()
        model.after_step(progress)
    average_running_statistics(model)
    return losses, {name: value.clone() for name, value in model.state_dict().items()}


def assert_one_algorithm(one: tuple, ranks: list[tuple], tolerance: float = 1e-9) -> None:
    """Ranks trained what one process trains: losses by their mean, and every tensor of the state.

    Args:
        one: what :func:`take_steps` gave on one process, in float64; ranks: on each of several.
    """
    for step, loss in enumerate(one[0]):
        mean = sum(losses[step] for losses, _ in ranks) / len(ranks)
        assert abs(mean - loss) <= tolerance, (step, mean, loss)
    for _, state in ranks:
        for name, value in one[1].items():
            torch.testing.assert_close(state[name], value, atol=10 * tolerance, rtol=10 * tolerance)


def train(
    cfg: CfgNode, images: str | Path, steps: int | None = None, resume: bool = False
) -> PretrainTrainer:
    """Run a config, to the end or up to a number of steps; the trainer afterwards."""
    cfg.DATASETS.IMAGES = str(images)
    prepare_run_folder(cfg, resume)
    trainer = PretrainTrainer(cfg)
    if resume:
        trainer.resume()
    if steps is not None:
        trainer.max_iter = steps
    trainer.run()
    return trainer


def assert_resumes(config: Callable[[Path], CfgNode], images: str | Path, folder: Path) -> PretrainTrainer:
    """A run cut in the middle of an epoch and continued equals an uninterrupted one, bit for bit.

    Args:
        config: of a run in a folder, with schedules that change within it.

    Returns:
        the trainer of the uninterrupted run, whose folder is ``folder / "whole"``.
    """
    whole = train(config(folder / "whole"), images)
    cut = whole.steps_per_epoch + 1
    train(config(folder / "cut"), images, steps=cut)
    resumed = train(config(folder / "cut"), images, resume=True)
    assert resumed.start_iter == cut
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name
    ours, theirs = (trainer.optimizer.state_dict()["state"] for trainer in (whole, resumed))
    for number, state in ours.items():
        assert torch.equal(state["momentum_buffer"], theirs[number]["momentum_buffer"])
    return whole
