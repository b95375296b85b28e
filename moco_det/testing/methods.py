"""What every method of pre-training must pass: :class:`MethodSuite`, and what the tests of a method build with.

pytest finds the suite's tests by their names; nothing here imports it. See also testing.core.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moco_det.config import get_cfg, merge_config, value_of
from moco_det.convert.convert import Conversion, convert
from moco_det.data.views import ViewSettings
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.engine.schedule import check_schedule
from moco_det.modeling.collectives import local_block
from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm2d, average_running_statistics
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.diagnostics import describe_collapse
from moco_det.pretrain.method import PretrainMethod, StepState, method_class
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import run_processes, write_random_images
from moco_det.testing.planted import assert_caught, planted
from moco_det.utils.metric_names import EMBEDDING_STD
from moco_det.weights.backbone_file import read_backbone


def settled_recipe(recipe: str | Path, add_config: Callable[[CfgNode], None], *options: str) -> CfgNode:
    """A recipe as its script reads it for one process, checked: every key applies and fits the others.

    Args:
        options: KEY VALUE pairs.
    """
    words = ["--config-file", str(recipe), "--num-gpus", "0", "--images", "images"]
    words += ["DATASETS.TRAIN", "()", *options]  # which a recipe for a registered data set names
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
    """The gradients of all parameters, in one row."""
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
    """Two global and two local crops of 8 images."""
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
            losses[-1] += loss.item()
        model.after_backward(iteration, progress)
        optimizer.step()
        model.after_step(progress)
    average_running_statistics(model)
    return losses, {name: value.clone() for name, value in model.state_dict().items()}


def assert_one_algorithm(
    one: tuple, ranks: list[tuple], tolerance: float = 1e-9, state_tolerance: float = 1e-8
) -> float:
    """Ranks trained what one process trains: losses by their mean, and every tensor of the state.

    Args:
        one: what :func:`take_steps` gave on one process, in float64; ranks: on each of several.
        tolerance: absolute, of a loss; state_tolerance: absolute and relative, of the state.

    Returns:
        the largest difference of a step's loss.
    """
    differences = []
    for step, loss in enumerate(one[0]):
        mean = sum(losses[step] for losses, _ in ranks) / len(ranks)
        differences.append(abs(mean - loss))
        assert differences[-1] <= tolerance, (step, mean, loss)
    for _, state in ranks:
        for name, value in one[1].items():
            close = {"atol": state_tolerance, "rtol": state_tolerance}
            torch.testing.assert_close(state[name], value, **close, msg=lambda text, n=name: f"{n}: {text}")
    return max(differences, default=0.0)


def assert_step_equals(formula: Callable, model: PretrainMethod, batch: dict) -> dict[str, Tensor]:
    """A step's loss and gradients are those of a formula; a key encoder gets none. Returns the outputs.

    Args:
        formula: of model and batch; it returns the loss, and copies of modules by the names that they have in the
            model.
    """
    outputs = model({**batch, "micro_batch": 0})
    loss = sum(value for name, value in outputs.items() if name.startswith("loss"))
    loss.backward()
    expected, modules = formula(model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    ours = gradients(*(model.get_submodule(name) for name in modules))
    torch.testing.assert_close(ours, gradients(*modules.values()))
    for parameter in model.encoder_k.parameters() if model.encoder_k is not None else ():
        assert parameter.grad is None and not parameter.requires_grad
    return outputs


def assert_target_follows(model: PretrainMethod, momentum: float) -> None:
    """Assert that the key encoder's weights follow the query encoder's, with a momentum that rises to 1."""
    for progress, expected in ((0.0, momentum), (0.5, (1 + momentum) / 2), (1.0, 1.0)):
        old, new = (copy.deepcopy(e).state_dict() for e in (model.encoder_k, model.encoder_q))
        model.after_step(progress)
        for name, value in model.encoder_k.named_parameters():
            torch.testing.assert_close(value.data, expected * old[name] + (1 - expected) * new[name])


def refusal(function: Callable, *args) -> str:
    """The message with which a function refuses its arguments."""
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{function.__qualname__} takes {args}")


def train(
    cfg: CfgNode, image_dir: str | Path, steps: int | None = None, resume: bool = False
) -> PretrainTrainer:
    """Run a config, to the end or up to a number of steps; the trainer afterwards."""
    cfg.DATASETS.IMAGES = str(image_dir)
    prepare_run_folder(cfg, resume)
    trainer = PretrainTrainer(cfg)
    if resume:
        trainer.resume()
    if steps is not None:
        trainer.max_iter = steps
    trainer.run()
    return trainer


def assert_resumes(config: Callable[[Path], CfgNode], image_dir: str | Path, folder: Path) -> PretrainTrainer:
    """A run interrupted in the middle of an epoch and resumed equals an uninterrupted one, bit for bit.

    Args:
        config: of a run in a folder, with schedules that change within it.

    Returns:
        the trainer of the uninterrupted run, whose folder is ``folder / "whole"``.
    """
    whole = train(config(folder / "whole"), image_dir)
    cut = whole.steps_per_epoch + 1
    train(config(folder / "cut"), image_dir, steps=cut)
    resumed = train(config(folder / "cut"), image_dir, resume=True)
    assert resumed.start_iter == cut
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name
    ours, theirs = (trainer.optimizer.state_dict()["state"] for trainer in (whole, resumed))
    for number, state in ours.items():
        assert torch.equal(state["momentum_buffer"], theirs[number]["momentum_buffer"])
    return whole


class MethodSuite:
    """What every method passes; the tests of a method hold a subclass ``TestX`` with what is its own.

    Attributes:
        add_config: adds the method's keys to a config.
        recipes: the folder of its recipes, all of which must fit the method.
        published: by name of a recipe in it, the paper's values by key.
        tiny: the recipe of a run on ResNet-18 of seconds, and the keys that make it so small.
        refused: keys and values, each with what the message must hold where that is not ``KEY is VALUE``.
        inapplicable: a key and a value of the core that say nothing to this method.
        accumulates: whether a step may be taken in micro-batches; else that is refused.
        batch, steps: of the comparisons with :meth:`make_model`.
        bugs: what :func:`moco_det.testing.planted.planted` takes, each caught by :meth:`check_step`.
    """

    add_config: Callable[[CfgNode], None]
    recipes: Path
    published: ClassVar[dict[str, dict]]
    tiny: ClassVar[tuple[str, dict]]
    refused: ClassVar[tuple[tuple, ...]]
    inapplicable: ClassVar[tuple[str, str]] = ("MODEL.MOCO.MLP", "True")
    accumulates: ClassVar[bool] = True
    batch: Callable[[int], dict] = staticmethod(random_batch)
    steps: ClassVar[int] = 2
    bugs: ClassVar[tuple[tuple, ...]]

    # Statistics of each rank alone, where a group of batch norm spans them.
    RANK_BUG = (
        *(GroupedBatchNorm2d, "_group_over_ranks", "all_reduce(values.sum(over), group=ranks)"),
        "values.sum(over) * (self.group_size // x.shape[0])",
    )

    @staticmethod
    def make_model(group: int = 4, accumulate: int = 1) -> PretrainMethod:
        """The method in float64 at a size that loops can follow, of the same random weights at each call."""
        raise NotImplementedError

    def check_step(self) -> None:
        """Compare a step, or several, with the paper's formula by loops."""
        raise NotImplementedError

    @classmethod
    def setup_class(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder, cls.finished = Path(cls.temporary.name), None

    @classmethod
    def teardown_class(cls):
        cls.finished = None
        cls.temporary.cleanup()

    @classmethod
    def tiny_config(cls, output_dir: str | Path = "") -> CfgNode:
        recipe, keys = cls.tiny
        cfg = tiny_method_config(cls.recipes / f"{recipe}.yaml", cls.add_config, output_dir)
        cfg.merge_from_list([part for pair in keys.items() for part in pair])
        return cfg

    @classmethod
    def whole_run(cls) -> PretrainTrainer:
        """The trainer of a finished run, which is made once and equals a resumed one."""
        if cls.finished is None:
            write_random_images(cls.folder / "images", 16)
            cls.finished = assert_resumes(cls.tiny_config, cls.folder / "images", cls.folder)
        return cls.finished

    @classmethod
    def converted(cls) -> Conversion:
        output = Path(cls.whole_run().cfg.OUTPUT_DIR)
        return convert(output / "model_final.pth", output / "backbone.pkl")

    @classmethod
    def runs(cls) -> dict[str, tuple]:
        """Steps on the ranks there are: a batch-norm group on each of two, one over both, and micro-batches."""
        settings = {"groups of 4": (4, 1), "groups of 8": (8, 1)}
        settings |= {"groups of 2": (2, 1 + (comm.get_world_size() > 1))} if cls.accumulates else {}
        runs = {name: cls.run(*setting) for name, setting in settings.items()}
        with planted(*cls.RANK_BUG):
            return runs | {"bug": cls.run(8, 1)}

    @classmethod
    def run(cls, group: int, accumulate: int) -> tuple[list[float], dict[str, Tensor]]:
        return take_steps(cls.make_model(group, accumulate), cls.steps, batch=cls.batch)

    def test_steps_are_the_papers(self):
        self.check_step()

    def test_a_bug_in_a_step_is_caught(self):
        for bug in self.bugs:
            with planted(*bug):
                assert_caught(self.check_step, bug=bug)

    def test_micro_batches_make_the_step_of_the_whole_batch(self):
        if self.accumulates:
            assert_one_algorithm(self.run(2, 1), [self.run(2, 2)])
        else:
            cfg = self.tiny_config()
            cfg.SOLVER.ACCUMULATE = 2
            assert "SOLVER.ACCUMULATE is 2" in refusal(method_class(cfg).check_config, cfg, 1)

    def test_two_processes_train_what_one_trains(self):
        one, ranks = self.runs(), run_processes(self.runs, 2)
        for name in one.keys() - {"bug"}:
            assert_one_algorithm(one[name], [rank[name] for rank in ranks])
        assert_caught(assert_one_algorithm, one["bug"], [rank["bug"] for rank in ranks], bug=self.RANK_BUG)

    def test_a_resumed_run_equals_an_uninterrupted_one(self):
        self.whole_run()

    def test_the_result_converts(self):
        """Every tensor of the resulting encoder but its head."""
        method, found = self.whole_run().method, self.converted()
        encoder = method.encoder_k if method.result == "key" else method.encoder_q
        state, tensors = encoder.state_dict(), read_backbone(found.output).tensors
        for name, renamed in found.kept.items():
            ours = torch.from_numpy(tensors[renamed])
            torch.testing.assert_close(ours, state[name].float(), rtol=1e-5, atol=1e-6)
        backbone = {name for name in state if not name.startswith("fc.")}
        assert found.kept.keys() == {name for name in backbone if "num_batches_tracked" not in name}

    def test_a_collapse_is_seen(self):
        """An encoder that makes the same of all images; the healthy one raises no alarm."""
        model = self.make_model()
        healthy = model(self.batch(0))
        for encoder in model.encoders:
            encoder.fc.register_forward_hook(lambda module, inputs, output: 1 + 1e-3 * output)
        for outputs, seen in ((healthy, False), (model(self.batch(1)), True)):
            values = {EMBEDDING_STD: float(outputs[EMBEDDING_STD])}
            assert (describe_collapse(values) is not None) == seen, values

    def test_a_key_that_does_not_apply_is_refused(self):
        recipe = self.recipes / f"{self.tiny[0]}.yaml"
        message = refusal(settled_recipe, recipe, self.add_config, *self.inapplicable)
        assert self.inapplicable[0] in message

    def test_values_are_refused_with_the_numbers(self):
        for key, value, *words in self.refused:
            cfg = self.tiny_config()
            cfg.merge_from_list([key, value])
            message = refusal(method_class(cfg).check_config, cfg, 1)
            for word in words or (f"{key} is {value!r}",):
                assert word in message, (key, message)

    def test_recipes_fit_and_have_the_papers_values(self):
        for path in self.recipes.rglob("*.yaml"):
            if not path.name.startswith("Base-"):
                settled_recipe(path, self.add_config)
        for name, values in self.published.items():
            cfg = settled_recipe(self.recipes / f"{name}.yaml", self.add_config)
            method_class(cfg).check_config(cfg, ranks=8)
            assert {key: value_of(cfg, key) for key in values} == values, name
