"""SwAV's steps: against the paper by hand, over two processes, resumed, refused, converted."""

import pytest
import torch
from swav_examples import PROTOTYPES, QUEUE, RECIPES, embed_by_hand, make_model, tiny_config
from test_swav_losses import loss_by_loops, sinkhorn_by_loops

from moco_det.config import get_cfg, merge_config
from moco_det.convert.command import main as convert
from moco_det.testing.core import run_processes, write_random_images
from moco_det.testing.methods import (
    assert_one_algorithm,
    assert_resumes,
    random_multi_crop_batch,
    take_steps,
    train,
)
from moco_swav import add_swav_config
from moco_swav.swav import SwAV


def test_a_step_is_the_papers_with_all_crops_and_a_full_queue():
    model = make_model(queue_size=QUEUE)
    for iteration in (0, 1):  # 16 embeddings of each large view
        model(random_multi_crop_batch(iteration))
    kept = [[], []]
    for iteration in (0, 1):
        batch = random_multi_crop_batch(iteration)
        for view, name in enumerate(("query", "key")):
            kept[view].append(embed_by_hand(model, batch[name]))
    batch = random_multi_crop_batch(2)
    crops = [batch["query"], batch["key"], batch["small"][:, 0], batch["small"][:, 1]]
    prototypes = model.prototypes.weight / model.prototypes.weight.norm(dim=1, keepdim=True)
    scores = [embed_by_hand(model, crop) @ prototypes.T for crop in crops]
    codes = []
    for view in range(2):
        rows = torch.cat([scores[view], *(z @ prototypes.T for z in kept[view])]).detach()
        codes.append(sinkhorn_by_loops(rows, 0.05, 3)[:8])
    expected = loss_by_loops([score.detach() for score in scores], codes, 0.1)
    assert float(model(batch)["loss_swapped"].detach()) == pytest.approx(expected, rel=1e-10)


def test_a_queue_takes_part_when_it_is_full_and_keeps_each_view_apart():
    with_queue, without = make_model(queue_size=QUEUE), make_model()
    same = []
    for iteration in range(3):
        losses = [
            float(m(random_multi_crop_batch(iteration))["loss_swapped"].detach())
            for m in (with_queue, without)
        ]
        same.append(losses[0] == losses[1])
    assert same == [True, True, False]
    keys = [queue.keys.T for queue in with_queue.queues]
    for view, name in enumerate(("query", "key")):
        z = embed_by_hand(with_queue, random_multi_crop_batch(2)[name])
        torch.testing.assert_close(keys[view][:8], z)  # the queue wrapped
    waiting = make_model(queue_size=QUEUE, queue_start_epoch=2)
    waiting(random_multi_crop_batch(0, epoch=1))
    assert waiting.queues[0].num_real == 0
    waiting(random_multi_crop_batch(0, epoch=2))
    assert waiting.queues[0].num_real == 8


@pytest.mark.parametrize("epoch, moved", [(0, False), (1, True)])
def test_prototypes_are_frozen_in_the_first_epoch_and_lie_on_the_sphere(epoch, moved):
    model = make_model()
    start = torch.nn.functional.normalize(model.prototypes.weight.detach(), dim=1)
    take_steps(model, lr=0.5, batch=lambda iteration: random_multi_crop_batch(iteration, epoch))
    model(random_multi_crop_batch(9))
    torch.testing.assert_close(model.prototypes.weight.norm(dim=1), torch.ones(PROTOTYPES).double())
    assert torch.allclose(model.prototypes.weight, start) != moved


def test_no_gradient_flows_through_the_codes():
    """With one crop's prediction alone, the gradient must be that of fixed codes."""
    model = make_model()
    batch = {name: value for name, value in random_multi_crop_batch(0).items() if name != "small"}
    model(batch)["loss_swapped"].backward()
    gradient = model.prototypes.weight.grad.clone()
    prototypes = model.prototypes.weight.detach().requires_grad_()
    scores = [embed_by_hand(model, batch[name]).detach() @ prototypes.T for name in ("query", "key")]
    codes = [sinkhorn_by_loops(score.detach(), 0.05, 3) for score in scores]
    predictions = [torch.log_softmax(score / 0.1, dim=1) for score in scores]
    (-(codes[0] * predictions[1] + codes[1] * predictions[0]).sum(dim=1).mean() / 2).backward()
    torch.testing.assert_close(gradient, prototypes.grad)


def steps_of_this_rank(group):
    return take_steps(make_model(group, queue_size=QUEUE), steps=4, batch=random_multi_crop_batch)


def test_two_processes_train_what_one_trains():
    """With batch norm over the whole batch, a full queue and trained prototypes."""
    one = take_steps(make_model(8, queue_size=QUEUE), steps=4, batch=random_multi_crop_batch)
    assert_one_algorithm(one, run_processes(steps_of_this_rank, 2, 8))


@pytest.mark.stress
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    write_random_images(tmp_path / "images", 24)
    assert_resumes(tiny_config, tmp_path / "images", tmp_path)


def test_the_encoder_converts(tmp_path):
    write_random_images(tmp_path / "images", 24)
    train(tiny_config(tmp_path / "run", EPOCHS=1), tmp_path / "images")
    convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
    assert (tmp_path / "backbone.pkl").exists()


@pytest.mark.parametrize(
    "node, key, value, message",
    [
        ("SWAV", "EPSILON", 0.0, "MODEL.SWAV.EPSILON is 0.0; expected above 0"),
        ("SWAV", "QUEUE_SIZE", 4, "QUEUE_SIZE is 4, smaller than SOLVER.IMS_PER_BATCH 8.*0 .none., or to 8"),
        ("SOLVER", "ACCUMULATE", 2, "ACCUMULATE is 2, but the codes .* set it to 1"),
    ],
)
def test_refuses_what_cannot_be(node, key, value, message):
    cfg = tiny_config()
    (cfg.SOLVER if node == "SOLVER" else cfg.MODEL[node])[key] = value
    with pytest.raises(ValueError, match=message):
        SwAV.check_config(cfg, ranks=1)


@pytest.mark.parametrize(
    "name, batch, lr, queue", [("swav_R_50_200ep", 4096, 4.8, 0), ("swav_R_50_200ep_bs256", 256, 0.6, 3840)]
)
def test_recipes_have_the_papers_values(name, batch, lr, queue):
    """Appendix A."""
    cfg = get_cfg()
    add_swav_config(cfg)
    merge_config(cfg, str(RECIPES / f"{name}.yaml"), [])
    swav, views, solver = cfg.MODEL.SWAV, cfg.INPUT.VIEWS, cfg.SOLVER
    assert (swav.PROTOTYPES, swav.TEMPERATURE, swav.EPSILON, swav.SINKHORN_ITERATIONS) == (3000, 0.1, 0.05, 3)
    assert (swav.DIM, swav.HIDDEN_DIM, swav.FREEZE_PROTOTYPES_EPOCHS, swav.QUEUE_SIZE) == (
        128,
        2048,
        1,
        queue,
    )
    assert (views.SIZE, views.SMALL_SIZE, views.RECIPE) == (224, 96, "simclr")
    assert tuple(views.CROP_SCALE) == (0.14, 1.0) and tuple(views.SMALL_CROP_SCALE) == (0.05, 0.14)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (batch, lr, 1e-6)
    assert (solver.OPTIMIZER, cfg.MODEL.ENCODER.NORM) == ("LARS", "SyncBN")
    SwAV.check_config(cfg, ranks=8)
