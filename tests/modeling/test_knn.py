"""kNN against loops, and values worked by hand."""

import math

import pytest
import torch

from moco_det.modeling.knn import knn_accuracy, nearest


def vote_by_loops(query, references, labels, k, temperature):
    """Wu et al. 2018, section 3.4: the class with the largest sum of exp(cosine / T) over the k nearest."""
    cosines = []
    for reference, label in zip(references.tolist(), labels.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(query.tolist(), reference, strict=True))
        norm = math.sqrt(sum(a * a for a in query.tolist())) * math.sqrt(sum(b * b for b in reference))
        cosines.append((dot / norm, label))
    votes = {}
    for cosine, label in sorted(cosines, reverse=True)[:k]:
        votes[label] = votes.get(label, 0) + math.exp(cosine / temperature)
    return max(votes, key=votes.get)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (5, 0.07), (7, 0.5), (30, 0.1)])
def test_equals_loops(k, temperature):
    generator = torch.Generator().manual_seed(k)
    references, queries = (torch.randn(n, 4, generator=generator) for n in (30, 40))
    labels = torch.randint(0, 3, (30,), generator=generator)
    predicted = [vote_by_loops(query, references, labels, k, temperature) for query in queries]
    truth = torch.randint(0, 3, (40,), generator=generator)
    expected = 100 * sum(p == t for p, t in zip(predicted, truth.tolist(), strict=True)) / 40
    assert knn_accuracy(queries, truth, references, labels, k, temperature) == pytest.approx(expected)


def test_near_neighbors_outvote_many_far_ones():
    """One neighbor at cosine 1 against three at 0.5: e^(1/T) > 3 e^(0.5/T) when T < 0.5 / log 3 = 0.455."""
    query = torch.tensor([[1.0, 0.0]])
    references = torch.tensor([[2.0, 0.0], *[[0.5, 0.75**0.5]] * 3])
    labels = torch.tensor([0, 1, 1, 1])
    assert knn_accuracy(query, torch.tensor([0]), references, labels, 4, 0.40) == 100
    assert knn_accuracy(query, torch.tensor([0]), references, labels, 4, 0.50) == 0


def test_length_of_features_does_not_count():
    generator = torch.Generator().manual_seed(0)
    references, query = torch.randn(9, 4, generator=generator), torch.randn(1, 4, generator=generator)
    _, indices = nearest(query, references, 3)
    _, scaled = nearest(query * 5, references * torch.arange(1, 10)[:, None], 3)
    assert torch.equal(indices, scaled)


@pytest.mark.parametrize("k", [0, 4])
def test_k_must_fit_the_references(k):
    with pytest.raises(ValueError, match=f"k is {k}; expected 1 to 3"):
        nearest(torch.ones(1, 2), torch.ones(3, 2), k)
