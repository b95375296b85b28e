"""SimSiam: a step against loops, the predictor's rate, one algorithm on all processes, resumption, conversion."""

import copy
from pathlib import Path

import pytest
import torch

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
from moco_simsiam import SimSiam, add_simsiam_config
from moco_simsiam.simsiam import negative_cosine

RECIPE = Path(__file__).resolve().parents[1] / "configs/simsiam_R_50_100ep.yaml"


def make_model(group=4, accumulate=1, **settings):
    torch.manual_seed(0)
    head = mlp((SmallEncoder.WIDTH, 16, 16, 8), group, last_norm=True, last_affine=False)
    encoder, predictor = SmallEncoder(group, head), mlp((8, 4, 8), group)
    settings = {"predictor_lr": 0.1, **settings}
    model = SimSiam(encoder=encoder, predictor=predictor, accumulate=accumulate, **settings, **PIXELS)
    return model.double().train()


def equation_4(model, batch):
    """Image by image, with copies of the networks: the loss, the encoder and the predictor."""
    f, h = copy.deepcopy(model.encoder_q), copy.deepcopy(model.predictor)
    z = [by_groups(f, view) for view in plain_views(batch)]
    p = [by_groups(h, view) for view in z]
    loss = 0
    for i in range(len(z[0])):
        for prediction, target in ((p[0][i], z[1][i].detach()), (p[1][i], z[0][i].detach())):
            cosine = (prediction / prediction.norm()) @ (target / target.norm())
            loss = loss - cosine / 2 / len(z[0])
    return loss, f, h


def test_a_step_equals_loops():
    """Loss and gradients, which flow through the predictions alone."""
    model, batch = make_model(), random_batch(0)
    loss = model({**batch, "micro_batch": 0})["loss_similarity"]
    loss.backward()
    expected, f, h = equation_4(model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model.encoder_q, model.predictor), gradients(f, h))


def test_the_loss_equals_lightlys():
    cosine = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    p, z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(negative_cosine(p, z), cosine(p, z))


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
    root = tmp_path_factory.mktemp("simsiam")
    write_random_images(root / "images", 16)

    def config(folder):
        cfg = tiny_method_config(RECIPE, add_simsiam_config, folder)
        cfg.MODEL.SIMSIAM.DIM, cfg.MODEL.SIMSIAM.PREDICTOR_DIM = 32, 8
        cfg.MODEL.SIMSIAM.PREDICTOR_LR_FACTOR = 3.0
        return cfg

    return assert_resumes(config, root / "images", root)


def test_the_predictor_keeps_its_learning_rate(whole):
    """The second of two epochs: the encoder's is halved."""
    encoder, predictor = (group["lr"] for group in whole.optimizer.param_groups)
    assert (encoder, predictor) == (pytest.approx(0.05), pytest.approx(0.3))
    names = [{id(p) for p in group["params"]} for group in whole.optimizer.param_groups]
    assert names[1] == {id(p) for p in whole.method.predictor.parameters()}
    assert names[0] == {id(p) for p in whole.method.encoder_q.parameters()}
    assert not make_model().parameter_groups()[1]["decay_lr"]
    assert make_model(fix_predictor_lr=False).parameter_groups()[1]["decay_lr"]


def test_the_result_converts(whole, tmp_path):
    """The resumed run equals the whole one, whose encoder becomes a backbone."""
    found = convert(f"{whole.cfg.OUTPUT_DIR}/model_final.pth", tmp_path / "backbone.pkl")
    assert found.provenance["arch"] == "resnet18"
    assert all(name.startswith("predictor.") for name in found.dropped["other parts of the method"])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.SIMSIAM.PREDICTOR_DIM", 0, "PREDICTOR_DIM is 0; expected 1 or more"),
        ("MODEL.SIMSIAM.PREDICTOR_LR_FACTOR", 0.0, "PREDICTOR_LR_FACTOR is 0.0; expected above 0"),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 1, "batch norm has groups of 1 image.* needs 2 or more"),
    ],
)
def test_refuses_with_the_numbers(key, value, message):
    cfg = tiny_method_config(RECIPE, add_simsiam_config)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        SimSiam(cfg)


def test_the_plan_tells_of_the_predictor():
    cfg = tiny_method_config(RECIPE, add_simsiam_config)
    cfg.MODEL.SIMSIAM.PREDICTOR_LR_FACTOR = 3.0
    assert method_rows(Facts(cfg, 1000))[1] == ("predictor", "its learning rate 0.3 stays")


def test_the_recipe_has_the_papers_values():
    cfg = settled_recipe(RECIPE, add_simsiam_config)
    solver, method, views = cfg.SOLVER, cfg.MODEL.SIMSIAM, cfg.INPUT.VIEWS
    assert (solver.OPTIMIZER, solver.LR_SCHEDULER_NAME, solver.WARMUP_EPOCHS) == ("SGD", "EpochCosineLR", 0)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (512, 0.05 * 512 / 256, 1e-4)
    assert (solver.EPOCHS, method.DIM, method.PREDICTOR_DIM) == (100, 2048, 512)
    assert (method.PREDICTOR_LR_FACTOR, method.FIX_PREDICTOR_LR) == (1, True)
    assert (views.RECIPE, views.CROP_SCALE, cfg.MODEL.ENCODER.NORM) == ("v2", (0.2, 1.0), "SyncBN")


def test_the_toy_recipe_is_sound():
    cfg = settled_recipe(RECIPE.parent / "toy/simsiam_R_18.yaml", add_simsiam_config)
    assert cfg.MODEL.ENCODER.ARCH == "resnet18"
