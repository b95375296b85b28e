"""The symmetric form against loops, micro-batches against whole batches; planted bugs are caught."""

import copy
from unittest import mock

import pytest
import torch
from mechanism_examples import SETTINGS, TAU, embed, gradients, make_batch, make_model, step

from moco_det.pretrain.moco.dictionaries import EndToEnd, Queue
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.planted import assert_caught, planted
from moco_det.utils.seeding import torch_generator

M = 0.9
SYMMETRIC_QUEUE = {"DICTIONARY": "queue", "SYMMETRIC": True, "QUEUE_SIZE": 24, "MOMENTUM": M}


# ---- The symmetric form with a queue -------------------------------------------------------------------


def symmetric_queue_by_loops(f_q, f_k, queue, batch):
    """The loss of the CIFAR-10 demo of MoCo's authors, but the mean; queue: 24 keys, the oldest first."""
    with torch.no_grad():
        for k, q in zip(f_k.parameters(), f_q.parameters(), strict=True):
            k.copy_(M * k + (1 - M) * q)
    views = batch["query"], batch["key"]
    total, keys = 0.0, {}
    for one, (purpose, other) in enumerate((("shuffle", 1), ("shuffle swapped", 0))):
        order = torch.randperm(8, generator=torch_generator(1, purpose, batch["iteration"])).tolist()
        q = embed(f_q, views[one], list(range(8)))
        with torch.no_grad():
            k = keys[other] = embed(f_k, views[other], order)
        for i in range(8):
            own, others = (q[i] @ k[i] / TAU).exp(), sum((q[i] @ n / TAU).exp() for n in queue)
            total += -(own / (own + others)).log() / 16
    return total, [*queue, *keys[0], *keys[1]][16:]


def assert_symmetric_queue_follows_the_loops(steps=2):
    with mock.patch.dict(SETTINGS, {"here": SYMMETRIC_QUEUE}):
        model = make_model("here")
    queue = list(model.dictionary.keys.T.clone())
    f_k = copy.deepcopy(model.encoder_k)
    for iteration in range(steps):
        batch = make_batch(iteration)
        f_q = copy.deepcopy(model.encoder_q)
        f_q.zero_grad()
        expected, queue = symmetric_queue_by_loops(f_q, f_k, queue, batch)
        expected.backward()
        assert step(model, batch) == pytest.approx(expected.item(), abs=1e-9), iteration
        torch.testing.assert_close(gradients(model.encoder_q), gradients(f_q), atol=1e-8, rtol=1e-8)
        start = int(model.dictionary.pointer)  # the oldest key
        ours = torch.cat([model.dictionary.keys[:, start:], model.dictionary.keys[:, :start]], dim=1).T
        torch.testing.assert_close(ours, torch.stack(queue), atol=1e-10, rtol=0)
        with torch.no_grad():  # weights that move, as an optimizer moves them
            for parameter in model.encoder_q.parameters():
                parameter -= 0.05 * parameter.grad
    assert model.encoder_q.bn1.num_batches_tracked == steps


def test_the_symmetric_queue_equals_the_loops():
    assert_symmetric_queue_follows_the_loops()


@pytest.mark.parametrize(
    "bug",
    [
        (Queue, "enqueue", "count = keys.shape[0]", "keys = keys[:8]; count = 8"),  # keys of one view only
        (MoCo, "embed_keys", "keys += ", "momentum_update(encoder, self.encoder_q, self.momentum); keys += "),
        (MoCo, "forward", "queue = ", "self.dictionary.enqueue(step.keys[0]); queue = "),
        (MoCo, "embed_keys", "batch[direction.keys]", 'batch["key"]'),  # views not swapped
    ],
    ids=["keys of one view", "key encoder moved for each direction", "filled before", "views not swapped"],
)
def test_the_loops_catch_a_wrong_symmetric_step(bug):
    with planted(*bug):
        assert_caught(assert_symmetric_queue_follows_the_loops, bug=bug)


# ---- Micro-batches are the same algorithm --------------------------------------------------------------

KINDS = {
    "two encoders": {"DICTIONARY": "end_to_end"},
    "shared encoder": {"DICTIONARY": "end_to_end", "SHARED_ENCODER": True},
    "symmetric": {"DICTIONARY": "end_to_end", "SYMMETRIC": True},
    "symmetric, shared": {"DICTIONARY": "end_to_end", "SYMMETRIC": True, "SHARED_ENCODER": True},
    "symmetric queue": SYMMETRIC_QUEUE,
}


def assert_micro_batches_change_nothing(kind, parts, steps=3):
    """Losses, gradients, and the state with the running statistics, over steps that change the weights."""
    settings = {f"{kind} {a}": {**KINDS[kind], "BN_GROUP_SIZE": 2, "ACCUMULATE": a} for a in (1, parts)}
    with mock.patch.dict(SETTINGS, settings):
        whole, changed = (make_model(name) for name in settings)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in (whole, changed)]
    for iteration in range(steps):
        expected = step(whole, make_batch(iteration))
        assert step(changed, make_batch(iteration)) == pytest.approx(expected, abs=1e-9)
        encoders = [[e for e in (m.encoder_q, m.encoder_k) if e is not None] for m in (whole, changed)]
        ours, theirs = (gradients(*pair) for pair in encoders)
        torch.testing.assert_close(theirs, ours, atol=1e-10, rtol=1e-8)
        for optimizer in optimizers:
            optimizer.step()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(changed.state_dict()[name], value, atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_change_nothing(kind, parts):
    assert_micro_batches_change_nothing(kind, parts)


@pytest.mark.parametrize(
    "function, right, wrong",
    [
        ("cache", "work, gradients,", "work, (torch.cat(gradients[0].chunk(2)[::-1]), gradients[1]),"),
        ("cache", "work, gradients,", "work, (gradients[0], torch.zeros_like(gradients[1])),"),
        ("cached_step", "model.accumulate * (carrier", "(carrier"),  # of a mean, divided twice
    ],
    ids=["of another micro-batch", "none of the keys", "divided twice"],
)
def test_the_comparison_catches_wrong_gradients(function, right, wrong):
    with planted(EndToEnd, function, right, wrong):
        assert_caught(assert_micro_batches_change_nothing, "two encoders", 2, 1, bug=wrong)


def test_the_cache_keeps_the_graph_of_one_micro_batch_at_a_time():
    """Bytes that the backward pass holds after the first micro-batch, counted by autograd's own hook."""
    kept = {}
    for parts in (1, 4):
        setting = {"DICTIONARY": "end_to_end", "BN_GROUP_SIZE": 2, "ACCUMULATE": parts}
        with mock.patch.dict(SETTINGS, {"here": setting}):
            model, total = make_model("here"), []
        pack = lambda tensor, total=total: total.append(tensor.nbytes) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model({**make_batch(0), "micro_batch": 0})
        kept[parts] = sum(total)
    assert kept[4] < 0.5 * kept[1]
