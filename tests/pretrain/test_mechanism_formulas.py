"""The memory bank and end-to-end against loops from the papers' formulas; the comparisons catch planted bugs.

InstDisc: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination".
"""

import contextlib
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

from moco_det.modeling import grouped_batch_norm
from moco_det.pretrain.moco import dictionaries
from moco_det.pretrain.moco import model as moco
from moco_det.pretrain.moco.dictionaries import EndToEnd, MemoryBank
from moco_det.pretrain.moco.losses import info_nce, nce
from moco_det.pretrain.moco.model import MoCo
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


def assert_follows_the_loops(setting, steps=3, bug=contextlib.nullcontext):
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
        with bug():
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


# ---- Planted bugs: what the comparisons must catch -------------------------------------------------


def own_key_among_the_negatives():
    wrong = lambda p, n, tau: info_nce(p, torch.cat([n, p[:, None]], dim=1), tau)  # noqa: E731
    return mock.patch.object(dictionaries, "info_nce", wrong)


def keys_without_gradients():
    plain = MoCo.embed_keys
    return mock.patch.object(MoCo, "embed_keys", lambda *args: [keys.detach() for keys in plain(*args)])


def keys_not_shuffled():
    plain = moco.draw_permutation
    return mock.patch.object(
        moco, "draw_permutation", lambda count, shuffled, *key: plain(count, False, *key)
    )


def bank_updated_before_the_comparison():
    plain = MemoryBank.step

    def wrong(self, model, batch):
        with torch.no_grad(), grouped_batch_norm.recomputing():
            q = model.embed(model.encoder_q, batch["query"])
        self.update(batch["index"], self.rows(batch["index"]), q)
        return plain(self, model, batch)

    return mock.patch.object(MemoryBank, "step", wrong)


def momentum_of_the_query():
    plain = MemoryBank.update
    return mock.patch.object(
        MemoryBank, "update", lambda self, index, keys, q: plain(self, index, q, keys)
    )  # t q + (1 - t) entry


def z_estimated_anew():
    plain = MemoryBank.step

    def wrong(self, *args):
        self.has_normalizer = False
        return plain(self, *args)

    return mock.patch.object(MemoryBank, "step", wrong)


def drawn_without_the_iteration():
    plain = MemoryBank.draw
    return mock.patch.object(MemoryBank, "draw", lambda self, iteration: plain(self, 0))


def noise_of_one_draw():
    wrong = lambda p, n, tau, z, images: nce(p, n, tau, z / n.shape[1], images)  # noqa: E731  h = P / (P + 1/n)
    return mock.patch.object(dictionaries, "nce", wrong)


@pytest.mark.parametrize(
    "setting, bug, steps",
    [
        ("two encoders", own_key_among_the_negatives, 1),
        ("two encoders", keys_without_gradients, 1),
        ("two encoders", keys_not_shuffled, 1),
        ("bank", bank_updated_before_the_comparison, 1),
        ("bank", momentum_of_the_query, 1),
        ("bank", drawn_without_the_iteration, 2),
        ("bank with nce", z_estimated_anew, 2),
        ("bank with nce", noise_of_one_draw, 1),
    ],
)
def test_the_loops_tell_a_wrong_step(setting, bug, steps):
    with pytest.raises(AssertionError):
        assert_follows_the_loops(setting, steps, bug)


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
