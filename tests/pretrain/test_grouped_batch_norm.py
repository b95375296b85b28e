"""Groups, shuffle and running statistics against plain versions; the leak, exactly."""

import pytest
import torch
from torch import nn

from moco_det.pretrain.grouped_batch_norm import (
    GroupedBatchNorm2d,
    average_running_statistics,
    local_block,
    shuffle,
    unshuffle,
)
from moco_det.pretrain.moco import MoCo
from moco_det.testing import run_processes, tiny_pretrain_config


def images(count=12, channels=3, seed=0):
    return torch.randn(
        count, channels, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def layer(group_size):
    bn = GroupedBatchNorm2d(3, group_size).double()
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        bn.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    return bn


@pytest.mark.parametrize("group_size", [2, 4, 12])
def test_normalises_each_group_by_its_own_statistics(group_size):
    bn, x = layer(group_size), images()
    y = bn(x)
    for start in range(0, 12, group_size):
        group = x[start : start + group_size]
        for c in range(3):
            values = group[:, c]
            mean = values.mean()
            std = ((values - mean) ** 2).mean().add(bn.eps).sqrt()
            expected = (values - mean) / std * bn.weight[c] + bn.bias[c]
            torch.testing.assert_close(y[start : start + group_size, c], expected)


def test_running_statistics_take_one_step_towards_the_mean_over_groups():
    bn, x = layer(4), images() * 3 + 2
    bn(x)
    means = torch.stack([x[i : i + 4].transpose(0, 1).flatten(1).mean(1) for i in (0, 4, 8)])
    variances = torch.stack(
        [x[i : i + 4].transpose(0, 1).flatten(1).var(1, unbiased=True) for i in (0, 4, 8)]
    )
    torch.testing.assert_close(bn.running_mean, 0.1 * means.mean(0))
    torch.testing.assert_close(bn.running_var, 0.9 + 0.1 * variances.mean(0))
    assert bn.num_batches_tracked == 1


def test_one_group_is_plain_batch_norm():
    ours, plain = layer(12), nn.BatchNorm2d(3).double()
    plain.load_state_dict(ours.state_dict())
    x = images().requires_grad_()
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(
        torch.autograd.grad(ours(x).pow(3).sum(), x), torch.autograd.grad(plain(x).pow(3).sum(), x)
    )
    ours, plain = layer(12), nn.BatchNorm2d(3).double()
    plain.load_state_dict(ours.state_dict())
    ours(x), plain(x)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_unshuffle_undoes_shuffle():
    x = images()
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = shuffle(x, permutation)
    for place, source in enumerate(permutation.tolist()):
        assert torch.equal(shuffled[place], x[source])
    assert torch.equal(unshuffle(shuffled, permutation), x)


def _on_two_ranks():
    x = images()
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = shuffle(local_block(x), permutation)
    bn = layer(3)
    normalised = bn(shuffled)
    average_running_statistics(bn)
    return shuffled, unshuffle(normalised, permutation), bn.running_mean, bn.running_var


def test_two_ranks_equal_one():
    """Exact tensors by rank: the shuffle deals over the global batch, statistics are those of all groups."""
    x = images()
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    bn = layer(3)
    whole = unshuffle(bn(shuffle(x, permutation)), permutation)
    for rank, (shuffled, keys, mean, variance) in enumerate(run_processes(_on_two_ranks, 2)):
        assert torch.equal(shuffled, x[permutation[rank * 6 : rank * 6 + 6]])
        torch.testing.assert_close(keys, whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(mean, bn.running_mean)
        torch.testing.assert_close(variance, bn.running_var)


@pytest.mark.parametrize("shuffled", [False, True])
def test_leak_through_batch_norm(shuffled):
    """Perturb another image of query 0's group: does the key of query 0 change?

    Without the shuffle it does at every step: the statistics of the group reach the key, and can tell the
    query which key is its own. With the shuffle only when the permutation puts the two together.
    """
    cfg = tiny_pretrain_config()
    cfg.MODEL.MOCO.SHUFFLE_BN = shuffled
    torch.manual_seed(0)
    model = MoCo(cfg).double().train()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    perturbed = x.clone()
    perturbed[1] += 0.5  # images 0 to 3 are query 0's group
    seen = set()
    for iteration in range(12):
        with torch.no_grad():
            change = (model.embed_keys(x, iteration) - model.embed_keys(perturbed, iteration))[0].abs().max()
        together = True
        if shuffled:
            from moco_det.seeding import torch_generator

            order = torch.randperm(8, generator=torch_generator(cfg.SEED, "shuffle", iteration)).tolist()
            together = order.index(0) // 4 == order.index(1) // 4
        assert (change > 1e-9) == together
        seen.add(together)
    assert seen == ({True, False} if shuffled else {True})
