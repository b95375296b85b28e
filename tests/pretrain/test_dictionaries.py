"""The queue against a plain list."""

import pytest
import torch

from moco_det.pretrain.moco.dictionaries import Queue
from moco_det.testing.core import run_processes


def rows(start, count, dim=3):
    """``count`` recognizable keys: start, start + 1, ..."""
    return torch.arange(start, start + count).float()[:, None].repeat(1, dim)


@pytest.mark.parametrize("batch", [1, 4, 5, 12])
def test_first_in_first_out_and_wrap_around(batch):
    """Whatever the batch, also one that does not divide the queue: the newest 12 keys, the oldest replaced."""
    queue = Queue(dim=3, size=12, seed=0)
    random_start = queue.keys.clone()
    slots = [None] * 12
    for step in range(9):
        for i in range(batch):
            slots[(step * batch + i) % 12] = float(step * batch + i)
        queue.enqueue(rows(step * batch, batch))
        for slot, value in enumerate(slots):
            expected = random_start[:, slot] if value is None else torch.full((3,), value)
            torch.testing.assert_close(queue.keys[:, slot], expected)
        assert queue.fill.item() == pytest.approx(sum(v is not None for v in slots) / 12)
    newest = sorted(queue.keys[0].tolist())[-min(12, 9 * batch) :]
    assert newest == [float(v) for v in range(9 * batch - min(12, 9 * batch), 9 * batch)]


def test_negatives_are_a_copy():
    """The backward pass reads the negatives after the queue was updated."""
    queue = Queue(dim=3, size=4, seed=0)
    negatives = queue.negatives()
    before = negatives.clone()
    queue.enqueue(rows(0, 2))
    torch.testing.assert_close(negatives, before)


def test_starts_with_unit_vectors_drawn_from_the_seed():
    queue = Queue(dim=8, size=100, seed=3)
    torch.testing.assert_close(queue.keys.norm(dim=0), torch.ones(100))
    assert queue.fill == 0
    torch.manual_seed(5)  # the global generator has no part in it
    assert torch.equal(queue.keys, Queue(dim=8, size=100, seed=3).keys)
    assert not torch.equal(queue.keys, Queue(dim=8, size=100, seed=4).keys)


def test_state_survives_saving():
    queue = Queue(dim=3, size=5, seed=0)
    queue.enqueue(rows(0, 3))
    other = Queue(dim=3, size=5, seed=1)
    other.load_state_dict(queue.state_dict())
    other.enqueue(rows(3, 4))
    queue.enqueue(rows(3, 4))
    assert torch.equal(queue.keys, other.keys) and queue.pointer == other.pointer == 2


def _start_of_rank():
    torch.manual_seed(torch.distributed.get_rank())  # as detectron2 seeds its processes
    return Queue(dim=8, size=16, seed=3).keys


def test_equal_on_all_ranks_from_the_first_step():
    first, second = run_processes(_start_of_rank, 2)
    assert torch.equal(first, second)
