"""Sinkhorn and the swapped prediction against loops and against lightly."""

import math

import pytest
import torch

from moco_swav.losses import sinkhorn, swapped_prediction

EPSILON, TAU = 0.05, 0.1


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sinkhorn_by_loops(scores, epsilon, iterations):
    """Diag(u) exp(scores / epsilon) Diag(v), one sum after another."""
    rows, columns = scores.shape
    q = [[math.exp(float(scores[i, j]) / epsilon) for j in range(columns)] for i in range(rows)]
    for _ in range(iterations):
        for j in range(columns):
            mass = sum(q[i][j] for i in range(rows))
            for i in range(rows):
                q[i][j] *= 1 / columns / mass
        for i in range(rows):
            mass = sum(q[i])
            q[i] = [value / rows / mass for value in q[i]]
    return torch.tensor(q, dtype=torch.float64) * rows


def loss_by_loops(scores, codes, temperature):
    terms = []
    for i, code in enumerate(codes):
        for v, score in enumerate(scores):
            if v == i:
                continue
            for image in range(len(score)):
                total = sum(math.exp(float(s) / temperature) for s in score[image])
                probabilities = [math.exp(float(s) / temperature) / total for s in score[image]]
                terms.append(
                    -sum(float(q) * math.log(p) for q, p in zip(code[image], probabilities, strict=True))
                )
    return sum(terms) / len(terms)


@pytest.mark.parametrize("iterations", [1, 3])
def test_codes_are_those_of_loops(iterations):
    scores = normal(6, 5) * 0.1
    expected = sinkhorn_by_loops(scores, EPSILON, iterations)
    torch.testing.assert_close(sinkhorn(scores, EPSILON, iterations), expected)


def test_codes_spread_over_the_prototypes_and_large_scores_do_not_overflow():
    scores = torch.rand(40, 8, generator=torch.Generator().manual_seed(0)) + 60  # exp(1200) overflows
    codes = sinkhorn(scores, EPSILON, 100)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((8,), 5.0), rtol=1e-3, atol=0)


def test_the_loss_is_that_of_loops():
    scores = [normal(4, 5, seed=seed) * 0.2 for seed in range(4)]
    codes = [sinkhorn(score, EPSILON, 3) for score in scores[:2]]
    ours = swapped_prediction(scores, codes, TAU)
    assert float(ours) == pytest.approx(loss_by_loops(scores, codes, TAU), rel=1e-12)


def test_lightly_has_the_same_values():
    lightly = pytest.importorskip("lightly.loss")
    scores = [normal(8, 6, seed=seed) * 0.2 for seed in range(5)]
    queued = [normal(16, 6, seed=seed) * 0.2 for seed in (10, 11)]
    theirs = lightly.SwaVLoss(TAU, 3, EPSILON)
    for queue in (None, queued):
        rows = [torch.cat([s, *([queue[i]] if queue else [])]) for i, s in enumerate(scores[:2])]
        codes = [sinkhorn(r, EPSILON, 3)[:8] for r in rows]
        expected = float(theirs(scores[:2], scores[2:], queue))
        assert float(swapped_prediction(scores, codes, TAU)) == pytest.approx(expected, rel=1e-9)
