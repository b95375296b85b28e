"""MoCo v3: a step against loops, the keys' momentum, one algorithm on all processes, resumption, conversion."""

import copy
import math
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
from moco_v3 import MoCoV3, add_moco_v3_config

RECIPE = Path(__file__).resolve().parents[1] / "configs/moco_v3_R_50_100ep.yaml"
TAU, M = 0.3, 0.9


def make_model(group=4, accumulate=1):
    torch.manual_seed(0)
    norms = {"bn_group_size": group, "last_norm": True, "last_affine": False}
    encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 16, 8), **norms))
    settings = {"temperature": TAU, "momentum": M, "accumulate": accumulate, **PIXELS}
    model = MoCoV3(encoder=encoder, predictor=mlp((8, 16, 8), **norms), **settings)
    for p in model.encoder_k.parameters():  # as after some steps: no longer the query encoder
        p.data.mul_(1.1)
    return model.double().train()


def algorithm_1(model, batch):
    """ctr(q1, k2) + ctr(q2, k1), query by query, with copies of the networks."""
    f, h, f_k = (copy.deepcopy(m) for m in (model.encoder_q, model.predictor, model.encoder_k))
    x = plain_views(batch)
    q_1, q_2 = (by_groups(h, by_groups(f, view)) for view in x)
    k_1, k_2 = (by_groups(f_k, view).detach() for view in x)
    loss, unit = 0, lambda v: v / v.norm()
    for queries, keys in ((q_1, k_2), (q_2, k_1)):
        for i, q in enumerate(queries):
            logits = torch.stack([unit(q) @ unit(k) / TAU for k in keys])
            loss = loss - 2 * TAU * logits.log_softmax(0)[i] / len(queries)
    return loss, f, h


def test_a_step_equals_loops():
    """Loss and gradients; the keys get none; the bound is that of the plain log loss."""
    model, batch = make_model(), random_batch(0)
    outputs = model({**batch, "micro_batch": 0})
    outputs["loss_contrastive"].backward()
    expected, f, h = algorithm_1(model, batch)
    expected.backward()
    torch.testing.assert_close(outputs["loss_contrastive"], expected)
    torch.testing.assert_close(gradients(model.encoder_q, model.predictor), gradients(f, h))
    assert all(p.grad is None and not p.requires_grad for p in model.encoder_k.parameters())
    log_loss = expected.item() / (2 * TAU) / 2
    assert outputs["mutual_information"] == pytest.approx(math.log(8) - log_loss)


@pytest.mark.parametrize("progress, momentum", [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_key_encoder_follows_with_a_rising_momentum(progress, momentum):
    model = make_model()
    old, new = (copy.deepcopy(e).state_dict() for e in (model.encoder_k, model.encoder_q))
    model.after_step(progress)
    for name, value in model.encoder_k.named_parameters():
        torch.testing.assert_close(value.data, momentum * old[name] + (1 - momentum) * new[name])


def test_micro_batches_are_the_same_algorithm():
    """The keys of all images first, then the queries by micro-batches."""
    assert_one_algorithm(take_steps(make_model(2)), [take_steps(make_model(2, accumulate=2))])


def _runs():
    settings = {"4": (4, 1), "8": (8, 1), "2, in micro-batches": (2, 2)}
    return {name: take_steps(make_model(*values)) for name, values in settings.items()}


@pytest.fixture(scope="module")
def two_ranks():
    return run_processes(_runs, 2)


@pytest.mark.parametrize("setting", ["4", "8", "2, in micro-batches"])
def test_two_processes_train_what_one_trains(two_ranks, setting):
    """A group of batch norm on each, one over both, and several on each in micro-batches."""
    assert_one_algorithm(_runs()[setting], [rank[setting] for rank in two_ranks])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("moco_v3")
    write_random_images(root / "images", 16)

    def config(folder):
        cfg = tiny_method_config(RECIPE, add_moco_v3_config, folder, WARMUP_EPOCHS=1)
        cfg.MODEL.MOCO_V3.HIDDEN_DIM, cfg.MODEL.MOCO_V3.DIM, cfg.MODEL.MOCO_V3.MOMENTUM = 32, 16, 0.5
        return cfg

    return assert_resumes(config, root / "images", root)


def test_the_result_converts(whole, tmp_path):
    """The resumed run equals the whole one, either of whose encoders becomes a backbone."""
    source = f"{whole.cfg.OUTPUT_DIR}/model_final.pth"
    found = convert(source, tmp_path / "backbone.pkl")
    assert (found.provenance["arch"], found.provenance["encoder"]) == ("resnet18", "query")
    assert all(name.startswith("predictor.") for name in found.dropped["other parts of the method"])
    assert convert(source, tmp_path / "key.pkl", encoder="key").provenance["encoder"] == "key"


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.MOCO_V3.TEMPERATURE", 0.0, "TEMPERATURE is 0.0; expected above 0"),
        ("MODEL.MOCO_V3.MOMENTUM", -0.1, "MOMENTUM is -0.1; expected 0 or more, at most 1"),
        ("MODEL.MOCO_V3.PROJECTOR_LAYERS", 0, "PROJECTOR_LAYERS is 0; expected 1 or more"),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 1, "batch norm has groups of 1 image.* needs 2 or more"),
    ],
)
def test_refuses_with_the_numbers(key, value, message):
    cfg = tiny_method_config(RECIPE, add_moco_v3_config)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        MoCoV3(cfg)


def test_the_plan_tells_negatives_and_momentum():
    cfg = tiny_method_config(RECIPE, add_moco_v3_config)
    assert method_rows(Facts(cfg, 1000))[1:] == [
        ("negatives", "7, the other keys of the batch"),
        ("momentum", "0.99, rising to 1: keys follow over 100 steps at first"),
    ]


def test_the_recipe_has_the_papers_values():
    cfg = settled_recipe(RECIPE, add_moco_v3_config)
    solver, method, views = cfg.SOLVER, cfg.MODEL.MOCO_V3, cfg.INPUT.VIEWS
    assert (solver.OPTIMIZER, solver.LR_SCHEDULER_NAME, solver.WARMUP_EPOCHS) == ("LARS", "CosineLR", 10)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (4096, 0.6 * 4096 / 256, 1e-6)
    assert (method.DIM, method.HIDDEN_DIM, method.TEMPERATURE, method.MOMENTUM) == (256, 4096, 1.0, 0.99)
    assert (views.RECIPE, views.CROP_SCALE, cfg.MODEL.ENCODER.NORM) == ("byol", (0.2, 1.0), "SyncBN")


def test_the_toy_recipe_is_sound():
    cfg = settled_recipe(RECIPE.parent / "toy/moco_v3_R_18.yaml", add_moco_v3_config)
    assert cfg.MODEL.ENCODER.ARCH == "resnet18"
