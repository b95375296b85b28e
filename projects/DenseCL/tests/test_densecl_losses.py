"""The dense loss against loops over images and positions, straight from the paper's equations."""

import math

import pytest
import torch
from torch.nn import functional as F

from moco_densecl.losses import correspondence, dense_loss, dense_similarities

TAU = 0.2


def oracle(query_map, key_map, r, t, queue):
    """Equations 2 and 4, one position at a time."""
    losses = []
    for image in range(len(r)):
        for s in range(r.shape[2]):
            cosines = [
                float(torch.cosine_similarity(query_map[image, :, s], key_map[image, :, p], dim=0))
                for p in range(key_map.shape[2])
            ]
            best = max(range(len(cosines)), key=cosines.__getitem__)
            own = math.exp(float(r[image, :, s] @ t[image, :, best]) / TAU)
            others = sum(math.exp(float(r[image, :, s] @ queue[:, k]) / TAU) for k in range(queue.shape[1]))
            losses.append(-math.log(own / (own + others)))
    return sum(losses) / len(losses)


@pytest.fixture
def tensors():
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return (
        normal(3, 6, 4) * 5,
        normal(3, 6, 4),
        *(F.normalize(normal(3, 5, 4), dim=1) for _ in range(2)),
        F.normalize(normal(5, 7), dim=0),
    )


def test_the_loss_is_that_of_loops(tensors):
    query_map, key_map, r, t, queue = tensors
    ours = dense_loss(*dense_similarities(r, t, correspondence(query_map, key_map), queue), TAU)
    assert float(ours) == pytest.approx(oracle(*tensors), rel=1e-12)


def test_correspondence_finds_a_permutation():
    """The second view is the first with its positions shuffled and each vector scaled: cosines ignore that."""
    query_map = torch.randn(2, 8, 9, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 1, 4, 0, 5, 8, 2, 6, 7])
    key_map = query_map[:, :, order] * torch.linspace(0.1, 9, 9)
    assert torch.equal(correspondence(query_map, key_map), order.argsort().expand(2, -1))


def test_equal_similarities_give_the_log_of_the_candidates():
    positive, negatives = torch.zeros(12), torch.zeros(12, 31)
    assert float(dense_loss(positive, negatives, TAU)) == pytest.approx(math.log(32))
