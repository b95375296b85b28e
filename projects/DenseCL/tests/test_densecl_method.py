"""DenseCL's steps: against the paper by hand, over two processes, in micro-batches, resumed, converted."""

import copy

import pytest
import torch
from test_densecl_losses import oracle
from torch import nn
from torch.nn import functional as F

from moco_densecl import add_densecl_config
from moco_densecl.densecl import DenseCL
from moco_det.config import get_cfg, merge_config
from moco_det.convert.command import main as convert
from moco_det.modeling.encoder import feature_map
from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm2d
from moco_det.modeling.heads import mlp
from moco_det.pretrain.moco.losses import info_nce
from moco_det.testing.core import REPOSITORY, run_processes, write_random_images
from moco_det.testing.methods import (
    PIXELS,
    assert_one_algorithm,
    assert_resumes,
    random_batch,
    take_steps,
    tiny_method_config,
    train,
)

RECIPES = REPOSITORY / "projects/DenseCL/configs"


def tiny_config(output="", **solver):
    cfg = tiny_method_config(RECIPES / "toy/densecl_R_18.yaml", add_densecl_config, output, **solver)
    moco = cfg.MODEL.MOCO
    moco.DIM, moco.QUEUE_SIZE, moco.MOMENTUM, moco.TEMPERATURE = 6, 24, 0.9, 0.2
    cfg.MODEL.DENSECL.WARMUP_STEPS = 1
    cfg.INPUT.VIEWS.SIZE = 36
    return cfg


class MapEncoder(nn.Module):
    """The parts of a ResNet that DenseCL asks for, in their order: a map, its mean, the head."""

    WIDTH = 24

    def __init__(self, group):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, self.WIDTH, 3, stride=4), GroupedBatchNorm2d(self.WIDTH, group)
        self.relu = nn.ReLU()
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), mlp((self.WIDTH, self.WIDTH, 6), None)


def make_model(group=4, **changes):
    torch.manual_seed(0)
    settings = {
        **{"dim": 6, "queue_size": 24, "momentum": 0.9, "temperature": 0.2, "shuffle_bn": True},
        **{"dense_share": 0.5, "grid": 0, "warmup_steps": 1, "seed": 1, **PIXELS},
    }
    return DenseCL(encoder=MapEncoder(group), **{**settings, **changes}).double().train()


def make_batch(iteration):
    return random_batch(iteration, size=9)  # a map of 2 x 2


def heads_by_hand(encoder, dense, images, model):
    """Map (n, D, P), embedding (n, C), dense vectors (n, C, P) by copies, batch norm over 4 images at a time."""
    encoder = copy.deepcopy(encoder)
    x = (images.double() - model.pixel_mean) / model.pixel_std
    full = feature_map(encoder, x)
    image = F.normalize(encoder.fc(full.mean((2, 3))), dim=1)
    return full.flatten(2).detach(), image.detach(), dense(full).flatten(2).detach()


@pytest.mark.parametrize("iteration, share", [(0, 0.0), (1, 0.5)])
def test_a_step_is_the_papers(iteration, share):
    """Without shuffled keys, whose permutation no hand follows; the tests of ranks have it."""
    model = make_model(shuffle_bn=False)
    model.encoder_q.fc[0].weight.data *= 1.1  # else both encoders are the same
    model.dense_q[0].weight.data *= 1.2
    batch = make_batch(0)
    with torch.no_grad():
        for key, query in ((model.encoder_k, model.encoder_q), (model.dense_k, model.dense_q)):
            expected = copy.deepcopy(key)
            for p, q in zip(expected.parameters(), query.parameters(), strict=True):
                p.copy_(0.9 * p + 0.1 * q)
            if key is model.encoder_k:
                encoder_k = expected
            else:
                dense_k = expected
    query_map, q, r = heads_by_hand(model.encoder_q, model.dense_q, batch["query"], model)
    key_map, k, t = heads_by_hand(encoder_k, dense_k, batch["key"], model)
    queue, dense_queue = model.queue.keys.clone(), model.dense_queue.keys.clone()
    outputs = model({**batch, "iteration": iteration})

    image_loss = float(info_nce((q * k).sum(1), q @ queue, 0.2))
    position_loss = oracle(query_map, key_map, F.normalize(r, dim=1), F.normalize(t, dim=1), dense_queue)
    assert float(outputs["loss_contrastive"].detach()) == pytest.approx((1 - share) * image_loss, rel=1e-9)
    assert float(outputs["loss_dense"].detach()) == pytest.approx(share * position_loss, rel=1e-9)
    bound = torch.tensor(25.0).log() - position_loss
    assert float(outputs["mutual_information_dense"]) == pytest.approx(float(bound), rel=1e-6)
    torch.testing.assert_close(model.queue.keys[:, :8].T, k)
    torch.testing.assert_close(model.dense_queue.keys[:, :8].T, F.normalize(t.mean(2), dim=1))
    outputs["loss_dense"].backward()
    assert (model.dense_q[0].weight.grad.abs().max() > 0) == (share > 0)
    assert model.dense_k[0].weight.grad is None


def test_a_grid_is_pooled_from_the_map():
    model = make_model(grid=1)
    embedded = model.embed(model.encoder_q, model.dense_q, make_batch(0)["query"])
    assert embedded.map.shape == (8, 24, 1) and embedded.dense.shape == (8, 6, 1)
    torch.testing.assert_close(embedded.dense[..., 0], embedded.pooled)


def test_micro_batches_make_the_step_of_the_whole_batch():
    whole, parts = (take_steps(make_model(accumulate=count), batch=make_batch) for count in (1, 2))
    assert_one_algorithm(whole, [parts])


def steps_of_this_rank(group):
    return take_steps(make_model(group), batch=make_batch)


def test_two_processes_train_what_one_trains():
    one = take_steps(make_model(8), batch=make_batch)
    assert_one_algorithm(one, run_processes(steps_of_this_rank, 2, 8))


@pytest.mark.stress
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    write_random_images(tmp_path / "images", 24)
    assert_resumes(tiny_config, tmp_path / "images", tmp_path)


def test_the_query_encoder_converts(tmp_path):
    write_random_images(tmp_path / "images", 24)
    train(tiny_config(tmp_path / "run", EPOCHS=1), tmp_path / "images")
    convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
    assert (tmp_path / "backbone.pkl").exists()


@pytest.mark.parametrize(
    "node, key, value, message",
    [
        ("DENSECL", "LAMBDA", 1.5, "MODEL.DENSECL.LAMBDA is 1.5; expected 0 or more, at most 1"),
        ("DENSECL", "GRID", -1, "MODEL.DENSECL.GRID is -1; expected 0 or more"),
        ("MOCO", "QUEUE_SIZE", 4, "MODEL.MOCO.QUEUE_SIZE is 4, smaller than SOLVER.IMS_PER_BATCH 8"),
    ],
)
def test_refuses_what_cannot_be(node, key, value, message):
    cfg = tiny_config()
    cfg.MODEL[node][key] = value
    with pytest.raises(ValueError, match=message):
        DenseCL.check_config(cfg, ranks=1)


@pytest.mark.parametrize(
    "name, lr, epochs", [("densecl_R_50_200ep", 0.03, 200), ("densecl_R_50_coco_800ep", 0.3, 800)]
)
def test_recipes_have_the_papers_values(name, lr, epochs):
    """Section 4.1."""
    cfg = get_cfg()
    add_densecl_config(cfg)
    merge_config(cfg, str(RECIPES / f"{name}.yaml"), [])
    moco, solver = cfg.MODEL.MOCO, cfg.SOLVER
    assert (cfg.MODEL.DENSECL.LAMBDA, moco.DIM, moco.QUEUE_SIZE, moco.MOMENTUM) == (0.5, 128, 65536, 0.999)
    assert (moco.TEMPERATURE, cfg.INPUT.VIEWS.RECIPE, cfg.INPUT.VIEWS.SIZE) == (0.2, "v2", 224)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.EPOCHS, solver.WEIGHT_DECAY) == (
        256,
        lr,
        epochs,
        1e-4,
    )
    assert solver.LR_SCHEDULER_NAME == "EpochCosineLR"
    DenseCL.check_config(cfg, ranks=8)
