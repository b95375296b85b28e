"""SwAV: what every method passes; its steps against the paper by hand, its queues and prototypes."""

import copy

import pytest
import torch
from test_swav_losses import loss_by_loops, sinkhorn_by_loops

from moco_det.modeling.heads import mlp
from moco_det.testing.core import REPOSITORY
from moco_det.testing.methods import MethodSuite, SmallEncoder, random_multi_crop_batch, take_steps
from moco_swav import add_swav_config, swav
from moco_swav.swav import SwAV

DIM, PROTOTYPES, QUEUE = 6, 5, 16


def make_model(group=4, **changes):
    torch.manual_seed(0)
    settings = {
        **{"dim": DIM, "prototypes": PROTOTYPES, "temperature": 0.1, "epsilon": 0.05},
        **{"sinkhorn_iterations": 3, "freeze_prototypes_epochs": 1},
        **{"pixel_mean": [120.0] * 3, "pixel_std": [60.0] * 3},
    }
    encoder = SmallEncoder(group, mlp((SmallEncoder.WIDTH, 8, DIM), group))
    return SwAV(encoder=encoder, **{**settings, **changes}).double().train()


def embed_by_hand(model, images):
    """Unit-length embeddings by a copy, whose statistics nobody reads."""
    z = copy.deepcopy(model.encoder_q)((images.double() - 120) / 60)
    return z / z.norm(dim=1, keepdim=True)


def check_step():
    """Compare a step with all crops and a full queue."""
    model = make_model(queue_size=QUEUE)
    for iteration in (0, 1):  # 16 embeddings of each global crop
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
    """The gradient of one crop's prediction alone must be that of fixed codes."""
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


class TestSwAV(MethodSuite):
    add_config = staticmethod(add_swav_config)
    recipes = REPOSITORY / "projects/SwAV/configs"
    # Appendix A.
    published = {
        name: {
            **{"MODEL.SWAV.PROTOTYPES": 3000, "MODEL.SWAV.TEMPERATURE": 0.1, "MODEL.SWAV.EPSILON": 0.05},
            **{"MODEL.SWAV.SINKHORN_ITERATIONS": 3, "MODEL.SWAV.DIM": 128, "MODEL.SWAV.HIDDEN_DIM": 2048},
            **{"MODEL.SWAV.FREEZE_PROTOTYPES_EPOCHS": 1, "MODEL.SWAV.QUEUE_SIZE": queue},
            **{"INPUT.VIEWS.SIZE": 224, "INPUT.VIEWS.SMALL_SIZE": 96, "INPUT.VIEWS.RECIPE": "simclr"},
            **{"INPUT.VIEWS.CROP_SCALE": (0.14, 1.0), "INPUT.VIEWS.SMALL_CROP_SCALE": (0.05, 0.14)},
            **{"SOLVER.IMS_PER_BATCH": batch, "SOLVER.BASE_LR": lr, "SOLVER.WEIGHT_DECAY": 1e-6},
            **{"SOLVER.OPTIMIZER": "LARS", "MODEL.ENCODER.NORM": "SyncBN"},
        }
        for name, batch, lr, queue in (
            ("swav_R_50_200ep", 4096, 4.8, 0),
            ("swav_R_50_200ep_bs256", 256, 0.6, 3840),
        )
    }
    tiny = (
        "toy/swav_R_18",
        {
            **{"MODEL.SWAV.DIM": DIM, "MODEL.SWAV.HIDDEN_DIM": 16, "MODEL.SWAV.PROTOTYPES": PROTOTYPES},
            **{"MODEL.SWAV.QUEUE_SIZE": QUEUE, "MODEL.SWAV.QUEUE_START_EPOCH": 0},
            "INPUT.VIEWS.SMALL_SIZE": 16,
        },
    )
    refused = (
        ("MODEL.SWAV.EPSILON", 0.0),
        ("MODEL.SWAV.QUEUE_SIZE", 4, "MODEL.SWAV.QUEUE_SIZE is 4", "SOLVER.IMS_PER_BATCH 8", "0 (none)"),
    )
    accumulates = False  # codes are assigned over the whole batch at once
    batch = staticmethod(random_multi_crop_batch)
    steps = 4  # with a full queue and trained prototypes
    bugs = (
        (SwAV, "codes", "[: len(scores)]", "[-len(scores) :]"),
        (SwAV, "codes", "self.queues[view].num_real == self.queues[view].size", "False"),
        (SwAV, "keep", "embeddings[:2]", "embeddings[1:3]"),
        (swav, "sinkhorn", "codes.sum(dim=0)", "codes.sum(dim=0).square()"),
        (swav, "swapped_prediction", "score / temperature", "score * temperature"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        return make_model(group, queue_size=QUEUE)

    def check_step(self):
        check_step()
