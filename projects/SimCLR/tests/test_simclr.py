"""SimCLR: the loss against loops, one algorithm on all processes, resumption, conversion, refusals."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moco_det.convert.convert import convert
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
from moco_simclr import SimCLR, add_simclr_config
from moco_simclr.simclr import nt_xent_logits

RECIPE = Path(__file__).resolve().parents[1] / "configs/simclr_R_50_1000ep.yaml"
TAU = 0.3


def make_model(group=4):
    torch.manual_seed(0)
    encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 16, 8), None))
    return SimCLR(encoder=encoder, temperature=TAU, **PIXELS).double().train()


def equation_1(z_1, z_2, tau):
    """The mean of l(2k-1, 2k) and l(2k, 2k-1) by loops, as the paper numbers the views."""
    z = [z_view[k] for k in range(len(z_1)) for z_view in (z_1, z_2)]
    sim = lambda i, j: z[i] @ z[j] / (z[i].norm() * z[j].norm())  # noqa: E731

    def loss(i, j):
        others = [(sim(i, k) / tau).exp() for k in range(len(z)) if k != i]
        return -((sim(i, j) / tau).exp() / sum(others)).log()

    pairs = range(0, len(z), 2)
    return sum(loss(i, i + 1) + loss(i + 1, i) for i in pairs) / len(z)


def nt_xent(z_1, z_2, tau):
    own = torch.arange(len(z_1))
    z_1, z_2 = F.normalize(z_1, dim=1), F.normalize(z_2, dim=1)
    logits = [nt_xent_logits(z_1, z_2, z_1, own, tau), nt_xent_logits(z_2, z_1, z_2, own, tau)]
    return F.cross_entropy(torch.cat(logits), own.repeat(2))


def test_a_step_equals_loops():
    """Loss and gradients of encoder and head, batch norm over groups of 4."""
    model, batch = make_model(), random_batch(0)
    encoder = copy.deepcopy(model.encoder_q)
    outputs = model({**batch, "micro_batch": 0})
    outputs["loss_nt_xent"].backward()
    expected = equation_1(*(by_groups(encoder, x) for x in plain_views(batch)), TAU)
    expected.backward()
    torch.testing.assert_close(outputs["loss_nt_xent"], expected)
    torch.testing.assert_close(gradients(model.encoder_q), gradients(encoder))
    assert outputs["mutual_information"] == pytest.approx(math.log(15) - expected.item())
    assert encoder.bn1.num_batches_tracked == 0 and model.encoder_q.bn1.num_batches_tracked == 1


def test_the_loss_by_hand():
    """Two images whose views are alike, at right angles: a positive at 1, two negatives at 0."""
    z = torch.eye(2)
    assert float(nt_xent(z, z, 0.5)) == pytest.approx(math.log(1 + 2 * math.exp(-2)))


def test_the_loss_equals_lightlys():
    loss = pytest.importorskip("lightly.loss").NTXentLoss(temperature=TAU)
    z_1, z_2 = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(nt_xent(z_1, z_2, TAU), loss(z_1, z_2))


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
    root = tmp_path_factory.mktemp("simclr")
    write_random_images(root / "images", 16)

    def config(folder):
        cfg = tiny_method_config(RECIPE, add_simclr_config, folder, WARMUP_EPOCHS=1)
        cfg.MODEL.SIMCLR.HIDDEN_DIM, cfg.MODEL.SIMCLR.DIM = 32, 16
        return cfg

    return assert_resumes(config, root / "images", root)


def test_the_result_converts(whole, tmp_path):
    """The resumed run with LARS and warm-up equals the whole one, whose checkpoint becomes a backbone."""
    found = convert(f"{whole.cfg.OUTPUT_DIR}/model_final.pth", tmp_path / "backbone.pkl")
    assert found.provenance["arch"] == "resnet18" and set(found.dropped) == {
        "projection head",
        "batch-norm step counter",
    }
    assert isinstance(whole.method.encoder_q.fc[0], nn.Linear) and len(whole.method.encoder_q.fc) == 3


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.SIMCLR.TEMPERATURE", 0.0, "SIMCLR.TEMPERATURE is 0.0; expected above 0"),
        ("MODEL.SIMCLR.DIM", 0, "SIMCLR.DIM is 0; expected 1 or more"),
        ("SOLVER.ACCUMULATE", 2, "ACCUMULATE is 2; expected 1 with SimCLR"),
        ("MODEL.ENCODER.NORM", "GN", "NORM is 'GN'; expected one of BN, SyncBN"),
    ],
)
def test_refuses_with_the_numbers(key, value, message):
    cfg = tiny_method_config(RECIPE, add_simclr_config)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        SimCLR(cfg)


def test_the_plan_counts_the_negatives():
    cfg = tiny_method_config(RECIPE, add_simclr_config, IMS_PER_BATCH=512, BASE_LR=0.6)
    (_, rate), row = method_rows(Facts(cfg, 10_000))
    assert "0.3 x 512 / 256, gives 0.6" in rate
    assert row == ("negatives", "1,022, both views of the other images of the batch")


def test_the_recipe_has_the_papers_values():
    cfg = settled_recipe(RECIPE, add_simclr_config)
    solver, method, views = cfg.SOLVER, cfg.MODEL.SIMCLR, cfg.INPUT.VIEWS
    assert (solver.OPTIMIZER, solver.LR_SCHEDULER_NAME, solver.WARMUP_EPOCHS) == ("LARS", "CosineLR", 10)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (4096, 0.3 * 4096 / 256, 1e-6)
    assert (method.DIM, method.HIDDEN_DIM, method.TEMPERATURE) == (128, 2048, 0.1)
    assert (views.RECIPE, views.CROP_SCALE, cfg.MODEL.ENCODER.NORM) == ("simclr", (0.08, 1.0), "SyncBN")


def test_the_toy_recipe_is_sound():
    cfg = settled_recipe(RECIPE.parent / "toy/simclr_R_18.yaml", add_simclr_config)
    assert cfg.MODEL.ENCODER.ARCH == "resnet18"
