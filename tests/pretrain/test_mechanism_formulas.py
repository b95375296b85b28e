"""The memory bank and end-to-end against loops from the papers' formulas; the comparisons catch planted bugs.

InstDisc: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination".
"""

import copy
import math
from unittest import mock

import pytest
import torch
from mechanism_examples import (
    BY_LOOPS,
    IMAGES,
    TAU,
    T,
    embed,
    gradients,
    make_batch,
    make_model,
    step,
)
from torch.nn import functional as F

from moco_det.pretrain.moco import dictionaries
from moco_det.pretrain.moco.dictionaries import EndToEnd, MemoryBank
from moco_det.pretrain.moco.losses import nce
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.planted import assert_caught, planted
from moco_det.utils.seeding import torch_generator

# ---- The papers' formulas, in loops ----------------------------------------------------------------


def end_to_end_by_loops(f_q, f_k, batch, purpose="shuffle"):
    """MoCo v1, equation 1, with the 7 other keys of the batch as negatives."""
    order = torch.randperm(8, generator=torch_generator(1, purpose, batch["iteration"])).tolist()
    q, k = embed(f_q, batch["query"], list(range(8))), embed(f_k, batch["key"], order)
    total = 0.0
    for i in range(8):
        others = [(q[i] @ k[j] / TAU).exp() for j in range(8) if j != i]
        own = (q[i] @ k[i] / TAU).exp()
        total += -(own / (own + sum(others))).log() / 8
    return total


def bank_by_loops(f_q, bank, batch, setting, z):
    """InfoNCE with a proximal term, or InstDisc's equations 2 to 8; the loss, the bank after it, and Z."""
    q, index = embed(f_q, batch["query"], list(range(8))), batch["index"].tolist()
    drawn = torch.randint(
        IMAGES, (12,), generator=torch_generator(1, "negatives", batch["iteration"])
    ).tolist()
    if z is None:  # equation 8, the mean over the first batch
        z = sum(IMAGES / 12 * sum((bank[j] @ v / TAU).exp() for j in drawn) for v in q).item() / 8
    total = 0.0
    for v, i in zip(q, index, strict=True):
        if setting == "bank with nce":

            def h(j, v=v):
                p = (bank[j] @ v / TAU).exp() / z
                return p / (p + 12 / IMAGES)

            total += -(h(i).log() + sum((1 - h(j)).log() for j in drawn)) / 8
        else:
            own, others = (bank[i] @ v / TAU).exp(), sum((bank[j] @ v / TAU).exp() for j in drawn)
            total += (-(own / (own + others)).log() + 0.3 * sum((v - bank[i]) ** 2)) / 8
    after = bank.clone()
    for v, i in zip(q, index, strict=True):
        moved = T * bank[i] + (1 - T) * v.detach()
        after[i] = moved / moved.norm()
    return total, after, z


def assert_follows_the_loops(setting, steps=3):
    model = make_model(setting)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    z = None
    for iteration in range(steps):
        batch = make_batch(iteration)
        f_q = copy.deepcopy(model.encoder_q)
        f_q.zero_grad()
        if model.dictionary.__class__ is EndToEnd:
            f_k = f_q if setting == "shared encoder" else copy.deepcopy(model.encoder_k)
            f_k.zero_grad()
            expected = end_to_end_by_loops(f_q, f_k, batch)
            if setting == "symmetric":
                other = {**batch, "query": batch["key"], "key": batch["query"]}
                expected = (expected + end_to_end_by_loops(f_q, f_k, other, "shuffle swapped")) / 2
        else:
            f_k = None
            bank = model.dictionary.entries.clone()
            expected, after, z = bank_by_loops(f_q, bank, batch, setting, z)
        expected.backward()
        loss = step(model, batch)
        assert loss == pytest.approx(expected.item(), abs=1e-9), iteration
        theirs = [f_q] if f_k in (None, f_q) else [f_q, f_k]
        ours = [e for e in (model.encoder_q, model.encoder_k) if e is not None]
        torch.testing.assert_close(gradients(*ours), gradients(*theirs), atol=1e-8, rtol=1e-8)
        if f_k is None:
            torch.testing.assert_close(model.dictionary.entries, after, atol=1e-12, rtol=0)
        optimizer.step()


@pytest.mark.parametrize("setting", BY_LOOPS)
def test_three_steps_equal_the_formulas(setting):
    """Loss, gradients of all encoders, and the bank, over steps that change the weights."""
    assert_follows_the_loops(setting)


BUGS = {
    "own key among the negatives": (
        *("two encoders", 1, EndToEnd, "contrast", "info_nce(positive, negatives,"),
        "info_nce(positive, q @ keys.T,",
    ),
    "keys without gradients": (
        *("two encoders", 1, EndToEnd, "step", "model.embed_keys(encoder_of_keys(model), batch)"),
        "[keys.detach() for keys in model.embed_keys(encoder_of_keys(model), batch)]",
    ),
    "keys not shuffled": ("two encoders", 1, MoCo, "shuffled", "self.shuffle_bn", "False"),
    "bank updated before the comparison": (
        *("bank", 1, MemoryBank, "step", "queries = model.embed_queries(batch)"),
        "queries = model.embed_queries(batch); self.update(step.index, step.keys, queries[0].detach()); "
        "step.keys = self.rows(step.index)",
    ),
    "momentum of the query": (
        *("bank", 1, MemoryBank, "update", "self.momentum * keys + (1 - self.momentum) * queries"),
        "self.momentum * queries + (1 - self.momentum) * keys",
    ),
    "drawn without the iteration": (
        "bank",
        2,
        MemoryBank,
        "draw",
        '"negatives", iteration',
        '"negatives", 0',
    ),
    "Z estimated again": ("bank with nce", 2, MemoryBank, "step", "and not self.has_normalizer", ""),
    # h = P / (P + 1/n)
    "noise of one draw": ("bank with nce", 1, dictionaries, "nce", "negatives.shape[1] / num", "1 / num"),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_loops_catch_a_planted_bug(name):
    setting, steps, *bug = BUGS[name]
    with planted(*bug):
        assert_caught(assert_follows_the_loops, setting, steps, bug=name)


# ---- The loss of InstDisc against its definition ---------------------------------------------------


def test_nce_by_its_definition_with_the_exact_normalization():
    """Three images: P sums to 1 over them, and the estimate of Z from all entries once is exact."""
    generator = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(3, 4, generator=generator, dtype=torch.float64), dim=1)
    v = F.normalize(torch.randn(4, generator=generator, dtype=torch.float64), dim=0)
    similarities = bank @ v
    z = sum(math.exp(s / 0.5) for s in similarities.tolist())
    p = [math.exp(s / 0.5) / z for s in similarities.tolist()]
    assert sum(p) == pytest.approx(1)
    # m = 2 drawn (images 0 and 2), P_n = 1/3; the query is image 1.
    h = [x / (x + 2 / 3) for x in p]
    expected = -(math.log(h[1]) + math.log(1 - h[0]) + math.log(1 - h[2]))
    found = nce(similarities[1:2], similarities[None, [0, 2]], 0.5, torch.tensor(z, dtype=torch.float64), 3)
    assert found.item() == pytest.approx(expected, abs=1e-12)

    dictionary = MemoryBank(4, 3, negatives=3, momentum=0.5, use_nce=True, seed=0).double()
    model = mock.Mock(accumulate=1, temperature=0.5, embed=lambda encoder, x: v[None])
    estimate = dictionary.estimate_normalizer(model, {"query": torch.zeros(1)}, bank)
    assert estimate.item() == pytest.approx(z, abs=1e-12)
