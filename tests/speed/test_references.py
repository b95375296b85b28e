"""The references of the benchmark are the published recipe: they compute what ours computes."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from moco_det.modeling.collectives import shuffle
from moco_det.modeling.momentum_encoder import momentum_update
from moco_det.pretrain.loader import TwoViews
from moco_det.pretrain.moco.losses import info_nce
from moco_det.speed.model import recipe, views_of
from moco_det.speed.options import smoke_options
from moco_det.speed.references import (
    PublishedMoCo,
    bytes_of_shuffle,
    float_images,
    published_loss,
    published_momentum_update,
    published_views,
)
from moco_det.speed.transfer import by_pycocotools, coco_case
from moco_det.testing.core import run_processes


def unit(*shape, seed, dim=1):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=dim)


def test_the_loss_and_its_gradient():
    q, k, queue = unit(6, 8, seed=0).requires_grad_(), unit(6, 8, seed=1), unit(8, 40, seed=2, dim=0)
    theirs = published_loss(q, k, queue, 0.2)
    ours = info_nce((q * k).sum(1), q @ queue, 0.2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad(loss, q) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_the_momentum_update(momentum):
    query = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    theirs = copy.deepcopy(query)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 1
    ours = copy.deepcopy(theirs)
    published_momentum_update(theirs, query, momentum)
    momentum_update(ours, query, momentum)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


def test_the_step():
    """Two steps in float64 from the same weights, one batch-norm group and no shuffle: losses and weights."""
    options = smoke_options("cpu")
    cfg = recipe(options, "float32", channels_last=False)
    cfg.MODEL.MOCO.SHUFFLE_BN = False
    from detectron2.modeling import build_model

    ours = build_model(cfg).double().train()
    theirs = PublishedMoCo(options.arch, 128, cfg.MODEL.MOCO.QUEUE_SIZE, 0.999, 0.2).double().train()
    for name in ("encoder_q", "encoder_k"):
        getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    theirs.queue.copy_(ours.dictionary.keys)
    batch = views_of(options, options.batch)
    views = [float_images(batch[name].double()) for name in ("query", "key")]
    # Our mean and deviation are those of 8-bit pixel values.
    scale = {"rtol": 0, "atol": 1e-6}
    for iteration in range(2):
        own = ours({**batch, "iteration": iteration})["loss_contrastive"]
        other = theirs(*views)
        torch.testing.assert_close(own, other, **scale)
        for model, loss in ((ours, own), (theirs, other)):
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in model.encoder_q.parameters():
                    parameter -= 0.03 * parameter.grad
    for one, other in zip(ours.encoder_q.parameters(), theirs.encoder_q.parameters(), strict=True):
        torch.testing.assert_close(one, other, **scale)
    torch.testing.assert_close(ours.dictionary.keys, theirs.queue, **scale)


def test_the_views_are_distributed_as_ours(tmp_path):
    """Mean, contrast and sharpness of 300 views of a picture, within four standard errors."""
    from moco_det.speed.images import view_settings, write_photographs

    path = write_photographs(tmp_path, 1)[0]
    torch.manual_seed(0)
    transform, image = published_views(64), Image.open(path).convert("RGB")
    dataset = TwoViews([path], seed=0, views=view_settings(64))
    theirs = np.array([_numbers(transform(image)) for _ in range(300)])
    ours = np.array(
        [
            _numbers(float_images(dataset[(epoch, 0)][view]))
            for epoch in range(150)
            for view in ("query", "key")
        ]
    )
    error = np.sqrt(theirs.var(axis=0) / len(theirs) + ours.var(axis=0) / len(ours))
    assert (np.abs(theirs.mean(axis=0) - ours.mean(axis=0)) < 4 * error).all()


def _numbers(view: torch.Tensor) -> list[float]:
    return [
        *view.mean(dim=(1, 2)).tolist(),
        *view.std(dim=(1, 2)).tolist(),
        float((view[:, :, 1:] - view[:, :, :-1]).abs().mean()),
    ]


def _bytes_on_rank(permutation, count, size):
    """What a rank hands to the others in a shuffle."""
    rank, sent = torch.distributed.get_rank(), []
    exchange = torch.distributed.all_to_all_single

    def counting(output, given, output_splits, input_splits):
        sent.append(sum(n for taker, n in enumerate(input_splits) if taker != rank) * given[0].nbytes)
        exchange(output, given, output_splits, input_splits)

    torch.distributed.all_to_all_single = counting
    shuffle(torch.zeros(count, 3, size, size, dtype=torch.uint8), permutation)
    return sum(sent)


def test_the_counted_bytes_are_those_of_a_real_shuffle():
    permutation = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert run_processes(_bytes_on_rank, 2, permutation, 6, 4) == bytes_of_shuffle(permutation, 2, 4)


def test_a_perfect_detector_has_ap_1():
    truth, _ = coco_case(3)
    perfect = [{**a, "score": 1.0} for a in truth["annotations"]]
    assert by_pycocotools(truth, perfect)[0] == pytest.approx(1.0)
