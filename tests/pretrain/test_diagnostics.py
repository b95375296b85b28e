"""Diagnostics with known answers, and a collapse that is named in the log."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from mechanism_examples import make_batch, make_model
from torch.nn import functional as F

from moco_det.engine.hooks import LogWriter
from moco_det.pretrain.diagnostics import (
    CollapseWatch,
    alignment,
    describe_collapse,
    effective_rank,
    mutual_information_bound,
    pair_statistics,
    spread,
    uniformity,
)
from moco_det.pretrain.moco.losses import info_nce
from moco_det.pretrain.trainer import PretrainTrainer


def random_directions(count, dim):
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.normalize(x, dim=1)


def test_alignment_is_the_mean_squared_distance():
    q, k = random_directions(6, 5), random_directions(12, 5)[6:]
    expected = sum(((a - b) ** 2).sum() for a, b in zip(q, k, strict=True)) / 6
    assert alignment((q * k).sum(dim=1)).item() == pytest.approx(expected.item(), abs=1e-12)
    assert alignment((q * q).sum(dim=1)).item() == pytest.approx(0, abs=1e-12)


def test_uniformity_by_a_loop_over_pairs():
    x = random_directions(7, 4)
    pairs = [math.exp(-2 * ((x[i] - x[j]) ** 2).sum().item()) for i in range(7) for j in range(i)]
    assert uniformity(x).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-12)
    assert uniformity(x[:1].repeat(5, 1)).item() == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-8)
    assert uniformity(torch.eye(10)).item() == pytest.approx(-4, abs=1e-5)  # orthogonal: d^2 = 2
    assert uniformity(x[:1]).item() == 0


def test_spread_is_one_for_even_and_zero_for_equal_embeddings():
    assert spread(random_directions(4000, 64)).item() == pytest.approx(1, abs=0.01)
    assert spread(random_directions(1, 64).repeat(9, 1)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("negatives, least", [(7, 1.2), (511, 2.05)])
def test_mutual_information_is_bounded_from_below(negatives, least):
    """Two views that share one of 8 equally likely classes and no more: they have log 8 = 2.08 nats in common."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randint(8, (4000, 1), generator=generator)
    drawn = torch.randint(8, (4000, negatives), generator=generator)
    loss = info_nce(torch.ones(4000), (own == drawn).float(), temperature=0.01)  # the best critic there is
    assert least < mutual_information_bound(loss, 1 + negatives).item() <= math.log(8) + 0.02
    assert mutual_information_bound(torch.tensor(0.0), 100).item() == pytest.approx(math.log(100))


@pytest.mark.parametrize(
    "setting, candidates", [("queue", 25), ("symmetric", 8), ("bank", 13), ("bank with nce", 0)]
)
def test_mutual_information_of_each_mechanism(setting, candidates):
    """log(candidates) - InfoNCE; the NCE loss is no such bound."""
    outputs = make_model(setting)({**make_batch(0), "micro_batch": 0})
    if not candidates:
        assert "mutual_information" not in outputs
        return
    expected = math.log(candidates) - outputs["loss_contrastive"].item()
    assert outputs["mutual_information"].item() == pytest.approx(expected)
    assert not outputs["mutual_information"].requires_grad


def test_statistics_of_pairs():
    a, b = random_directions(6, 5), random_directions(12, 5)[6:]
    found = pair_statistics(a, b)
    assert found["alignment"] == alignment((a * b).sum(dim=1)) and found["uniformity"] == uniformity(a)
    assert found["embedding_spread"] == spread(a)


def test_effective_rank_of_known_matrices():
    assert effective_rank(torch.eye(12)) == pytest.approx(12)
    assert effective_rank(torch.ones(20, 6)) == pytest.approx(1)
    assert effective_rank(torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]))) == pytest.approx(3)
    # Singular values 3 and 1: entropy of (3/4, 1/4).
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected)
    assert effective_rank(torch.eye(8).repeat(4, 1), rows=32) == pytest.approx(8)
    assert effective_rank(torch.eye(100), rows=10) == pytest.approx(10)


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, None),
        ({"embedding_spread": 0.6, "effective_rank": 200.0}, None),
        ({"embedding_spread": 0.03}, r"embedding std is 0.030"),
        ({"embedding_spread": 0.9, "effective_rank": 1.02}, r"effective rank of 1.02"),
    ],
)
def test_a_collapse_is_described(values, words):
    found = describe_collapse(values)
    assert found is None if words is None else words in found and "SOLVER.BASE_LR" in found


def test_the_watch_warns_once_until_the_embeddings_are_spread_again(caplog):
    watch = CollapseWatch(period=2)
    latest = {}
    watch.trainer = SimpleNamespace(iter=0, max_iter=99, storage=SimpleNamespace(latest=lambda: latest))
    with caplog.at_level(logging.WARNING, logger="moco_det"):
        for iteration, value in enumerate([0.01, 0.01, 0.01, 0.01, 0.7, 0.7, 0.02, 0.02]):
            watch.trainer.iter, latest["embedding_spread"] = iteration, (value, iteration)
            watch.after_step()
    assert [record.message.count("COLLAPSE") for record in caplog.records] == [1, 1]


def test_a_collapsed_model_says_so_in_its_step():
    model = make_model("queue")
    healthy = model(make_batch(0))
    assert describe_collapse({"embedding_spread": healthy["embedding_spread"].item()}) is None
    with torch.no_grad():
        model.encoder_q.fc.weight.zero_()
        model.encoder_q.fc.bias.fill_(1)
    collapsed = model(make_batch(1))
    assert describe_collapse({"embedding_spread": collapsed["embedding_spread"].item()})
    assert collapsed["uniformity"].item() == pytest.approx(0, abs=1e-9)
    assert collapsed["alignment"].item() > 0.1


@pytest.mark.parametrize("setting, per_step", [("queue", 8), ("symmetric queue", 16)])
def test_the_age_of_the_queue_in_steps(setting, per_step):
    """Keys of images only; full, it is the length in steps."""
    model = make_model(setting)
    size = model.dictionary.size
    ages = [model(make_batch(iteration))["queue_age"].item() for iteration in range(5)]
    assert ages == [min(iteration, math.ceil(size / per_step)) for iteration in range(5)]


def test_a_log_line_of_a_method_without_negatives_tells_the_spread():
    names = (
        "epoch",
        "total_loss",
        "embedding_spread",
        "lr",
        "images_per_second",
        "data_wait",
        "seconds_per_step",
    )
    line = LogWriter(PretrainTrainer.describe_outputs, 2, 1).line(dict.fromkeys(names, 0.5), 1)
    assert "embedding std 0.50" in line
