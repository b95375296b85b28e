"""BYOL: a step against loops, the target's momentum, one algorithm on all processes, resumption, fine-tuning."""

import copy
import math
from pathlib import Path

import pytest
import torch

from moco_byol import BYOL, add_byol_config
from moco_byol.byol import regression_loss
from moco_det.convert.convert import convert
from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.engine.record import read_run_record
from moco_det.finetune.command import make_parser, run
from moco_det.modeling.heads import mlp
from moco_det.pretrain.plan.facts import Facts
from moco_det.pretrain.plan.plan import method_rows
from moco_det.testing.core import run_processes, write_random_images
from moco_det.testing.methods import (
    PIXELS,
    SmallEncoder,
    assert_one_algorithm,
    assert_resumes,
    by_groups,
    gradients,
    plain_views,
    random_batch,
    settled_recipe,
    take_steps,
    tiny_method_config,
)
from moco_det.toyworld.make import make_toyworld

RECIPE = Path(__file__).resolve().parents[1] / "configs/byol_R_50_1000ep.yaml"
TAU = 0.9


def make_model(group=4, accumulate=1):
    torch.manual_seed(0)
    encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 16, 8), group))
    predictor = mlp((8, 16, 8), group)
    model = BYOL(encoder=encoder, predictor=predictor, momentum=TAU, accumulate=accumulate, **PIXELS)
    for p in model.encoder_k.parameters():  # as after some steps: no longer the online network
        p.data.mul_(1.1)
    return model.double().train()


def equation_2(model, batch):
    """Both orders, image by image, with copies of the networks: the loss, the online encoder and the predictor."""
    f, q, target = (copy.deepcopy(m) for m in (model.encoder_q, model.predictor, model.encoder_k))
    x = plain_views(batch)
    predictions = [by_groups(q, by_groups(f, view)) for view in x]
    targets = [by_groups(target, view).detach() for view in x]
    loss = 0
    for i in range(len(x[0])):
        for p, z in ((predictions[0][i], targets[1][i]), (predictions[1][i], targets[0][i])):
            loss = loss + (p / p.norm() - z / z.norm()).square().sum() / len(x[0])
    return loss, f, q


def test_a_step_equals_loops():
    """Loss and gradients; the target gets none."""
    model, batch = make_model(), random_batch(0)
    loss = model({**batch, "micro_batch": 0})["loss_regression"]
    loss.backward()
    expected, f, q = equation_2(model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model.encoder_q, model.predictor), gradients(f, q))
    assert all(p.grad is None and not p.requires_grad for p in model.encoder_k.parameters())


def test_the_loss_by_hand():
    """Parallel, opposite and at right angles: 0, 4 and 2."""
    prediction = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    target = torch.tensor([[1.0, 0.0], [-5.0, 0.0], [1.0, 0.0]])
    pairs = zip(prediction.split(1), target.split(1), strict=True)
    assert [float(regression_loss(*pair)) for pair in pairs] == [0, 4, 2]


def test_the_loss_equals_lightlys():
    cosine = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    p, z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(regression_loss(p, z), 2 + 2 * cosine(p, z))


@pytest.mark.parametrize("progress, momentum", [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_target_follows_with_a_rising_momentum(progress, momentum):
    """And not the predictor, nor the running statistics."""
    model = make_model()
    old, new = (copy.deepcopy(e).state_dict() for e in (model.encoder_k, model.encoder_q))
    model.after_step(progress)
    for name, value in model.encoder_k.named_parameters():
        torch.testing.assert_close(value.data, momentum * old[name] + (1 - momentum) * new[name])


def test_micro_batches_are_the_same_algorithm():
    assert_one_algorithm(take_steps(make_model(2)), [take_steps(make_model(2, accumulate=2))])


def _runs():
    return {group: take_steps(make_model(group)) for group in (4, 8)}


@pytest.fixture(scope="module")
def two_ranks():
    return run_processes(_runs, 2)


@pytest.mark.parametrize("group", [4, 8])
def test_two_processes_train_what_one_trains(two_ranks, group):
    """A group of batch norm on each, and one over both."""
    assert_one_algorithm(take_steps(make_model(group)), [rank[group] for rank in two_ranks])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("byol")
    write_random_images(root / "images", 16)

    def config(folder):
        cfg = tiny_method_config(RECIPE, add_byol_config, folder, WARMUP_EPOCHS=1)
        cfg.MODEL.BYOL.HIDDEN_DIM, cfg.MODEL.BYOL.DIM, cfg.MODEL.BYOL.MOMENTUM = 32, 16, 0.5
        return cfg

    return assert_resumes(config, root / "images", root)


def test_the_result_converts_and_fine_tunes(whole, tmp_path, monkeypatch):
    """The resumed run equals the whole one; its online encoder becomes a backbone, and that trains."""
    found = convert(f"{whole.cfg.OUTPUT_DIR}/model_final.pth", tmp_path / "backbone.pkl")
    assert (found.provenance["arch"], found.provenance["encoder"]) == ("resnet18", "query")
    assert all(name.startswith("predictor.") for name in found.dropped["other parts of the method"])
    counts = {"num_unlabeled": 1, "num_per_class_train": 1, "num_per_class_test": 1}
    make_toyworld(tmp_path / "toyworld", image_size=64, num_train=13, num_test=12, **counts)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_toy_datasets()
    words = ("--config-file", "toy/faster_rcnn_R_18_FPN", "--num-gpus", "0", "--init", "moco")
    words += ("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2")
    words += ("SOLVER.STEPS", "()", "SOLVER.MAX_ITER", "2", "TEST.PRECISE_BN.NUM_ITER", "1", "SEED", "1")
    words += ("MODEL.WEIGHTS", str(found.output), "OUTPUT_DIR", str(tmp_path / "out"))
    try:
        run(make_parser().parse_args(words))
    finally:
        monkeypatch.undo()
        register_toy_datasets()
    assert not math.isnan(read_run_record(tmp_path / "out")["metrics"]["bbox/AP"])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.BYOL.MOMENTUM", 1.5, "BYOL.MOMENTUM is 1.5; expected 0 or more, at most 1"),
        ("MODEL.BYOL.HIDDEN_DIM", 0, "HIDDEN_DIM is 0; expected 1 or more"),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 1, "batch norm has groups of 1 image.* needs 2 or more"),
        ("SOLVER.ACCUMULATE", 4, "BN_GROUP_SIZE is 4; expected a divisor of the 2 images of a micro-batch"),
    ],
)
def test_refuses_with_the_numbers(key, value, message):
    cfg = tiny_method_config(RECIPE, add_byol_config)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        BYOL(cfg)


def test_the_plan_tells_the_momentum():
    cfg = tiny_method_config(RECIPE, add_byol_config)
    assert method_rows(Facts(cfg, 1000))[1] == (
        "target",
        "momentum 0.996, rising to 1: it follows over 250 steps at first",
    )


def test_the_recipe_has_the_papers_values():
    cfg = settled_recipe(RECIPE, add_byol_config)
    solver, method, views = cfg.SOLVER, cfg.MODEL.BYOL, cfg.INPUT.VIEWS
    assert (solver.OPTIMIZER, solver.LR_SCHEDULER_NAME, solver.WARMUP_EPOCHS) == ("LARS", "CosineLR", 10)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (4096, 0.2 * 4096 / 256, 1.5e-6)
    assert (solver.EPOCHS, method.DIM, method.HIDDEN_DIM, method.MOMENTUM) == (1000, 256, 4096, 0.996)
    assert (views.RECIPE, views.CROP_SCALE, cfg.MODEL.ENCODER.NORM) == ("byol", (0.08, 1.0), "SyncBN")


def test_the_toy_recipe_is_sound():
    cfg = settled_recipe(RECIPE.parent / "toy/byol_R_18.yaml", add_byol_config)
    assert cfg.MODEL.ENCODER.ARCH == "resnet18"
