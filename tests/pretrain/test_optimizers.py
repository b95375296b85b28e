"""LARS against its formula by loops, and what it leaves out."""

import pytest
import torch

from moco_det.pretrain.optimizers import LARS, build_optimizer, trust_ratio
from moco_det.testing.core import tiny_pretrain_config


def by_hand(w, b, gradients, lr, m, decay, trust):
    """Three steps, number by number."""
    v_w, v_b = [[0.0] * len(row) for row in w], [0.0] * len(b)
    for g_w, g_b in gradients:
        u = [[g + decay * x for g, x in zip(*rows, strict=True)] for rows in zip(g_w, w, strict=True)]
        norm_w = sum(x * x for row in w for x in row) ** 0.5
        norm_u = sum(x * x for row in u for x in row) ** 0.5
        for i, row in enumerate(u):
            for j, x in enumerate(row):
                v_w[i][j] = m * v_w[i][j] + trust * norm_w / norm_u * x
        for i, row in enumerate(v_w):
            w[i] = [x - lr * v for x, v in zip(w[i], row, strict=True)]
        v_b = [m * v + g for v, g in zip(v_b, g_b, strict=True)]
        b = [x - lr * v for x, v in zip(b, v_b, strict=True)]
    return w, b


def test_lars_equals_loops():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    w, b = torch.nn.Parameter(draw(3, 2)), torch.nn.Parameter(draw(3))
    gradients = [(draw(3, 2), draw(3)) for _ in range(3)]
    settings = (0.3, 0.9, 0.1, 0.02)
    expected = by_hand(w.tolist(), b.tolist(), [(x.tolist(), y.tolist()) for x, y in gradients], *settings)
    lr, momentum, decay, trust = settings
    optimizer = LARS([w, b], lr=lr, momentum=momentum, weight_decay=decay, trust=trust)
    for w.grad, b.grad in gradients:
        optimizer.step()
    torch.testing.assert_close(w.data, torch.tensor(expected[0], dtype=torch.float64))
    torch.testing.assert_close(b.data, torch.tensor(expected[1], dtype=torch.float64))


@pytest.mark.parametrize("w, u", [(0.0, 1.0), (1.0, 0.0)])
def test_a_norm_of_nothing_leaves_the_step_as_it_is(w, u):
    assert trust_ratio(torch.full((2, 2), w), torch.full((2, 2), u), 0.001) == 1


def test_lars_skips_what_has_no_gradient():
    w = torch.nn.Parameter(torch.ones(2, 2))
    LARS([w], lr=1.0, weight_decay=1.0).step()
    assert torch.equal(w.data, torch.ones(2, 2))


@pytest.mark.parametrize("name, kind", [("SGD", torch.optim.SGD), ("LARS", LARS)])
def test_the_config_chooses(name, kind):
    cfg = tiny_pretrain_config(OPTIMIZER=name, LARS_TRUST=0.02)
    optimizer = build_optimizer(cfg, [{"params": [torch.nn.Parameter(torch.ones(2))]}])
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.9, 1e-4)
    assert group.get("trust") == (0.02 if name == "LARS" else None)
