"""A loss that is not finite ends the run at its step and is told apart; clipping."""

import re

import pytest
import torch
from detectron2.modeling import build_model

from moco_det.config import get_cfg
from moco_det.engine.trainer import with_count
from moco_det.pretrain.numerics import LossGuard, first_not_finite
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import run_processes, tiny_pretrain_config, write_random_images

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 24)
    return folder


def trainer_of(images, folder, **solver) -> PretrainTrainer:
    folder.mkdir(exist_ok=True)
    cfg = tiny_pretrain_config(folder, **solver)
    cfg.DATASETS.IMAGES = str(images)
    return PretrainTrainer(cfg)


def spoil_before(trainer, step: int, change) -> None:
    forward = trainer.method.forward

    def forward_spoiled(batch):
        if batch["iteration"] == step:
            change()
        return forward(batch)

    trainer.method.forward = forward_spoiled


@pytest.mark.parametrize("values, finite", [([1.0], True), ([1.0, NAN], False), ([INF, 1.0], False)])
def test_the_guard_looks_at_every_loss_since_it_was_asked(values, finite):
    guard = LossGuard()
    for value in values:
        guard.note(torch.tensor(value))
    assert guard.all_finite() is finite
    assert guard.all_finite() is True


def test_the_first_layer_in_the_order_of_the_computation_is_named():
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
    x = torch.ones(3, 2)
    assert first_not_finite(model, lambda: model(x)).startswith("The output of every layer is finite")
    model[2].bias.data[0] = INF
    model[3].weight.data[:] = NAN
    said = first_not_finite(model, lambda: model(x))
    assert said.endswith("is 2; its bias is not finite")
    said = first_not_finite(model, lambda: model[3](model[1](x) * INF))
    assert said.endswith("is 3; its weight is not finite")
    model[3].weight.data[:] = 1
    said = first_not_finite(model, lambda: model[3](model[1](x) * INF))
    assert said.endswith("its input was not finite either, so what lies before it overflowed")
    assert not model[0]._forward_hooks  # none stays


def test_a_run_stops_at_the_step_and_leaves_what_reproduces_it(images, tmp_path):
    """Although nothing is logged before step 100. The weights in the file are those of the step."""
    trainer = trainer_of(images, tmp_path, LOG_PERIOD=100)
    weight = trainer.method.encoder_q.layer2[0].bn1.weight
    before = {}

    def spoil():
        weight.data[0] = 3e38  # finite, but what comes out of it is not
        before.update({name: value.clone() for name, value in trainer.method.encoder_q.named_parameters()})

    spoil_before(trainer, 2, spoil)
    with pytest.raises(FloatingPointError) as error:
        trainer.run()
    path = tmp_path / "nonfinite_0000002.pth"
    said = str(error.value)
    # The key encoder comes first and has a part of the weight; whether that part overflows depends on the CPU.
    assert re.match(
        r"step 3, process 0: loss_contrastive nan\. The first layer .* is encoder_[kq]\.layer2\.0\.bn[12][.;]",
        said,
    )
    assert str(path) in said and "lower SOLVER.BASE_LR" in said

    saved = torch.load(path, weights_only=True)
    assert saved["iteration"] == 2 and saved["seed"] == 1 and saved["epoch"] == 0 and saved["rank"] == 0
    assert torch.equal(saved["index"], trainer.batch["index"])
    for name, value in before.items():
        assert torch.equal(saved["model"][f"encoder_q.{name}"], value), name
    cfg = get_cfg().load_cfg(saved["config"])
    again = build_model(with_count(cfg, "DATASETS.NUM_IMAGES", 24))
    again.load_state_dict(saved["model"])
    outputs = again.train()({**saved, "micro_batch": 0})
    assert not outputs["loss_contrastive"].isfinite()


@pytest.mark.parametrize("dictionary, first", [("queue", "encoder_k"), ("end_to_end", "encoder_[qk]")])
def test_accumulated_losses_are_looked_at_one_by_one(images, tmp_path, dictionary, first):
    """They are also where the step is repeated with a gradient cache."""
    cfg = tiny_pretrain_config(tmp_path, ACCUMULATE=2)
    cfg.DATASETS.IMAGES, cfg.MODEL.MOCO.DICTIONARY = str(images), dictionary
    trainer = PretrainTrainer(cfg)
    spoil_before(trainer, 1, lambda: trainer.method.encoder_q.conv1.weight.data.fill_(NAN))
    with pytest.raises(FloatingPointError, match=f"step 2, .*{first}.conv1; its weight is not finite"):
        trainer.run()


def _one_of_two(images, folder) -> str:
    trainer = trainer_of(images, folder)
    if torch.distributed.get_rank() == 1:
        trainer.method.temperature = NAN  # in the loss alone: the layers are those of both
    try:
        trainer.run()
    except FloatingPointError as error:
        return str(error)
    return ""


def test_all_processes_stop_where_one_must(images, tmp_path):
    first, second = run_processes(_one_of_two, 2, images, tmp_path)
    assert first == second
    assert "step 1, process 1: loss_contrastive nan. The output of every layer is finite" in first
    saved = torch.load(tmp_path / "nonfinite_0000000.pth", weights_only=True)
    assert len(saved["index"]) == len(saved["query"]) == 8  # of both


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipped_gradients_move_the_weights_by_no_more(images, tmp_path, precision):
    """Plain SGD without decay: a step is the learning rate times the clipped gradient, scaler or not."""
    moved = {}
    for enabled in (False, True):
        cfg = tiny_pretrain_config(tmp_path, PRECISION=precision, MOMENTUM=0.0, WEIGHT_DECAY=0.0)
        cfg.DATASETS.IMAGES = str(images)
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = enabled
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1e-4
        trainer = PretrainTrainer(cfg)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=precision == "float16")
        before = trainer.method.encoder_q.fc[2].weight.detach().clone()
        trainer.max_iter = 1
        trainer.run()
        moved[enabled] = (before - trainer.method.encoder_q.fc[2].weight.detach()) / 0.03
    assert moved[False].abs().max() > 2e-4
    torch.testing.assert_close(moved[True], moved[False].clamp(-1e-4, 1e-4), rtol=0.02, atol=2e-6)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("CLIP_TYPE", "most", "CLIP_TYPE is 'most'; expected one of value, norm"),
        ("CLIP_VALUE", 0.0, "above 0"),
    ],
)
def test_strange_clipping_is_refused(images, tmp_path, key, value, message):
    cfg = tiny_pretrain_config(tmp_path)
    cfg.DATASETS.IMAGES = str(images)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS[key] = value
    with pytest.raises(ValueError, match=message):
        PretrainTrainer(cfg)
