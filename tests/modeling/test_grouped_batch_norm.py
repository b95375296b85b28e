"""Groups, shuffle and running statistics against plain versions; the leak, exactly."""

import pytest
import torch
from torch import nn

from moco_det.modeling.collectives import gather_with_gradient, local_block, shuffle, unshuffle
from moco_det.modeling.grouped_batch_norm import (
    GroupedBatchNorm1d,
    GroupedBatchNorm2d,
    average_running_statistics,
    recomputing,
    update_running_statistics,
)
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.core import run_processes, tiny_pretrain_config


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


@pytest.mark.parametrize("affine", [True, False])
def test_vectors_are_maps_of_one_position(affine):
    vectors, maps = (kind(3, 4, affine=affine).double() for kind in (GroupedBatchNorm1d, GroupedBatchNorm2d))
    x = images().mean((2, 3))
    torch.testing.assert_close(vectors(x), maps(x[:, :, None, None])[:, :, 0, 0])
    for bn in (vectors, maps):
        update_running_statistics(bn)
    torch.testing.assert_close(vectors.state_dict(), maps.state_dict())
    assert len(list(vectors.parameters())) == (2 if affine else 0)


@pytest.mark.parametrize("group_size", [2, 4, 12])
def test_normalizes_each_group_by_its_own_statistics(group_size):
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
    update_running_statistics(bn)
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
    update_running_statistics(ours)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_unshuffle_undoes_shuffle():
    x = images()
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = shuffle(x, permutation)
    for place, source in enumerate(permutation.tolist()):
        assert torch.equal(shuffled[place], x[source])
    assert torch.equal(unshuffle(shuffled, permutation), x)


def test_micro_batches_make_one_step_of_the_running_statistics():
    """A forward pass that is repeated for the gradients counts once."""
    whole, parts, x = layer(4), layer(4), images() * 3 + 2
    whole(x)
    for part in x.split(4):
        parts(part)
        with recomputing():
            parts(part)
    assert parts.running_mean.abs().max() == 0 and parts.num_batches_tracked == 0
    for bn in (whole, parts):
        update_running_statistics(bn)
        update_running_statistics(bn)  # no groups since: nothing changes
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


PERMUTATION = torch.randperm(12, generator=torch.Generator().manual_seed(0))
GROUP_SIZES = (3, 6, 12)


def _on_ranks():
    """Keys of the shuffled batch, gradient of the batch and running statistics, by group size."""
    results = {"shuffled": shuffle(local_block(images()), PERMUTATION), "float16": _float16_sums()}
    results["vectors"] = [_vectors(affine) for affine in (True, False)]
    for group_size in GROUP_SIZES:
        bn, x = layer(group_size), images().requires_grad_()
        keys = unshuffle(bn(results["shuffled"]).detach(), PERMUTATION)
        (gradient,) = torch.autograd.grad(bn(local_block(x)).pow(3).sum(), x)
        torch.distributed.all_reduce(gradient)
        update_running_statistics(bn)
        average_running_statistics(bn)
        results[group_size] = (keys, gradient, bn.running_mean, bn.running_var)
    return results


def _vectors(affine):
    """Vectors of this rank's block, normalized in one group over all ranks, gradient and statistics."""
    bn = GroupedBatchNorm1d(3, 12, affine=affine).double()
    x = images().mean((2, 3)).requires_grad_()  # 12x3
    y = bn(local_block(x))
    (gradient,) = torch.autograd.grad(gather_with_gradient(y).pow(3).sum(), x)
    update_running_statistics(bn)
    return y.detach(), gradient, bn.running_mean, bn.running_var


def _float16_sums():
    """Mean and largest output of one group over all ranks whose sum no float16 can hold."""
    ranks = torch.distributed.get_world_size()
    bn = GroupedBatchNorm2d(1, 1000 * ranks)
    y = bn(torch.tensor([256.0, 257.0]).repeat(500).view(1000, 1, 1, 1).half())
    return bn.mean_sum.item(), y.dtype, y.abs().max().item()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    return run_processes(_on_ranks, request.param)


def test_the_shuffle_deals_over_the_global_batch(ranks):
    n = 12 // len(ranks)
    for rank, results in enumerate(ranks):
        assert torch.equal(results["shuffled"], images()[PERMUTATION[rank * n : rank * n + n]])


@pytest.mark.parametrize("number", [0, 1])
def test_vectors_on_ranks_equal_one(ranks, number):
    """They do with and without scale and shift; each rank has the gradients of the sum over all ranks' sums."""
    y, gradient, *statistics = _vectors(affine=number == 0)
    found = [rank["vectors"][number] for rank in ranks]
    torch.testing.assert_close(torch.cat([rank[0] for rank in found]), y)
    torch.testing.assert_close(sum(rank[1] for rank in found) / len(ranks), gradient)
    for rank in found:
        torch.testing.assert_close(rank[2:], tuple(statistics))


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_ranks_equal_one(ranks, group_size):
    """Ranks with several groups, with one, and groups over two and four ranks."""
    bn, x = layer(group_size), images().requires_grad_()
    whole = unshuffle(bn(shuffle(x.detach(), PERMUTATION)), PERMUTATION)
    (gradient,) = torch.autograd.grad(bn(x).pow(3).sum(), x)
    update_running_statistics(bn)
    for results in ranks:
        keys, theirs, mean, variance = results[group_size]
        torch.testing.assert_close(keys, whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(theirs, gradient, atol=1e-11, rtol=0)
        torch.testing.assert_close(mean, bn.running_mean)
        torch.testing.assert_close(variance, bn.running_var)


def test_a_group_over_ranks_keeps_the_precision_of_its_statistics(ranks):
    for results in ranks:
        mean, dtype, largest = results["float16"]
        assert mean == pytest.approx(256.5, abs=0.01) and dtype == torch.float16
        assert largest == pytest.approx(1.0, abs=1e-2)


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
            keys = [
                model.embed_keys(model.encoder_k, {"key": images, "iteration": iteration})[0]
                for images in (x, perturbed)
            ]
            change = (keys[0] - keys[1])[0].abs().max()
        together = True
        if shuffled:
            from moco_det.utils.seeding import torch_generator

            order = torch.randperm(8, generator=torch_generator(cfg.SEED, "shuffle", iteration)).tolist()
            together = order.index(0) // 4 == order.index(1) // 4
        assert (change > 1e-9) == together
        seen.add(together)
    assert seen == ({True, False} if shuffled else {True})
