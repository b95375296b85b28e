"""InfoNCE against loops from the paper's equation 1 and a value worked by hand."""

import math

import pytest
import torch

from moco_det.pretrain.losses import info_nce


def info_nce_by_loops(q, k, queue, temperature):
    """Equation 1: -log( exp(q.k+/t) / sum over k+ and the K negatives of exp(q.ki/t) ), mean over queries."""
    total = 0.0
    for query, key in zip(q.tolist(), k.tolist(), strict=True):
        positive = sum(a * b for a, b in zip(query, key, strict=True))
        exponentials = [math.exp(positive / temperature)]
        for negative in queue.T.tolist():
            similarity = sum(a * b for a, b in zip(query, negative, strict=True))
            exponentials.append(math.exp(similarity / temperature))
        total += -math.log(exponentials[0] / sum(exponentials))
    return total / len(q)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_equals_loops(temperature):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    queue = torch.randn(7, 11, generator=generator, dtype=torch.float64)
    q, k, queue = (torch.nn.functional.normalize(x, dim=d) for x, d in ((q, 1), (k, 1), (queue, 0)))
    loss = info_nce((q * k).sum(1), q @ queue, temperature)
    assert loss.item() == pytest.approx(info_nce_by_loops(q, k, queue, temperature), abs=1e-12)


def test_value_by_hand():
    # two queries: similarities 1 with the key, 0 and -1 with the negatives; and 0 with 1 and 1, t = 0.5
    loss = info_nce(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, -1.0], [1.0, 1.0]]), 0.5)
    by_hand = (math.log(1 + math.exp(-2) + math.exp(-4)) + math.log(1 + 2 * math.exp(2))) / 2
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("count", [6, 70])
def test_equals_cross_entropy_and_its_gradient_at_the_temperature_of_v1(count):
    """Large logits (1 / 0.07) neither overflow nor change the gradient; 70 queries are more than a chunk."""
    generator = torch.Generator().manual_seed(1)
    positive = torch.rand(count, generator=generator, dtype=torch.float64).requires_grad_()
    negatives = torch.rand(count, 50, generator=generator, dtype=torch.float64).requires_grad_()
    loss = info_nce(positive, negatives, 0.07)
    logits = torch.cat([positive[:, None], negatives], dim=1) / 0.07
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(count, dtype=torch.long))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (positive, negatives)),
        torch.autograd.grad(expected, (positive, negatives)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


PLANTED_BUGS = {
    "temperature multiplied": lambda p, n, t: info_nce(p, n, 1 / t),
    "positive left out of the sum": lambda p, n, t: ((n / t).logsumexp(1) - p / t).mean(),
    "sum for mean": lambda p, n, t: info_nce(p, n, t) * len(p),
    "temperature on the negatives alone": lambda p, n, t: info_nce(p * t, n, t),
    "first negative taken for the key": lambda p, n, t: info_nce(n[:, 0], n, t),
}


@pytest.mark.parametrize("bug", PLANTED_BUGS)
def test_the_loops_tell_a_wrong_loss(bug):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    queue = torch.randn(7, 11, generator=generator, dtype=torch.float64)
    wrong = PLANTED_BUGS[bug]((q * k).sum(1), q @ queue, 0.2)
    assert abs(wrong.item() - info_nce_by_loops(q, k, queue, 0.2)) > 1e-3
