"""InfoNCE against loops from the paper's equation 1 and a value worked by hand."""

import math

import pytest
import torch

from moco_det.pretrain.moco import losses
from moco_det.testing.planted import assert_caught, planted


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


def assert_equals_loops(temperature):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    queue = torch.randn(7, 11, generator=generator, dtype=torch.float64)
    q, k, queue = (torch.nn.functional.normalize(x, dim=d) for x, d in ((q, 1), (k, 1), (queue, 0)))
    loss = losses.info_nce((q * k).sum(1), q @ queue, temperature)
    assert loss.item() == pytest.approx(info_nce_by_loops(q, k, queue, temperature), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_equals_loops(temperature):
    assert_equals_loops(temperature)


def test_value_by_hand():
    # two queries: similarities 1 with the key, 0 and -1 with the negatives; and 0 with 1 and 1, t = 0.5
    loss = losses.info_nce(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, -1.0], [1.0, 1.0]]), 0.5)
    by_hand = (math.log(1 + math.exp(-2) + math.exp(-4)) + math.log(1 + 2 * math.exp(2))) / 2
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("/= temperature", "*= temperature"),
        ("positive[:, None], negatives]", "positive[:, None] * temperature, negatives]"),
        ("positive[:, None], negatives]", "negatives]"),
        ("torch.zeros(", "torch.ones("),
        ("F.cross_entropy(logits", "len(logits) * F.cross_entropy(logits"),
    ],
    ids=["multiplied", "negatives alone", "no positive", "first negative taken for the key", "sum for mean"],
)
def test_the_loops_catch_a_planted_bug(right, wrong):
    with planted(losses, "info_nce", right, wrong):
        assert_caught(assert_equals_loops, 0.2, bug=wrong)
