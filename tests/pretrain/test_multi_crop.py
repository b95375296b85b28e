"""Small crops in MoCo: further queries of the same keys, by hand, in micro-batches, over two processes."""

from unittest import mock

import pytest
import torch
from mechanism_examples import SETTINGS, make_model
from torch.nn import functional as F

from moco_det.pretrain.method import crops
from moco_det.pretrain.moco.losses import info_nce
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.core import run_processes, tiny_pretrain_config, write_random_images
from moco_det.testing.methods import (
    assert_one_algorithm,
    by_groups,
    random_multi_crop_batch,
    take_steps,
    train,
)

SETTING = "symmetric queue"


def plain_batch(iteration):
    batch = random_multi_crop_batch(iteration)
    del batch["small"]
    return batch


@pytest.mark.parametrize("setting", ["queue", SETTING])
def test_the_loss_is_the_mean_over_large_and_small_queries(setting):
    """Each with the keys of the global crop, or in both orders with the keys of either one."""
    model, batch = make_model(setting), random_multi_crop_batch(0)
    model.shuffle_bn = False
    for parameter in model.encoder_q.parameters():  # else both encoders are the same
        parameter.data *= 1.1
    images = [(crop - model.pixel_mean) / model.pixel_std for crop in crops(batch)]
    with torch.no_grad():
        loss = model(batch)["loss_contrastive"]  # after which encoder_k is that of the keys
        q = [F.normalize(by_groups(model.encoder_q, x), dim=1) for x in images]
        k = [F.normalize(by_groups(model.encoder_k, x), dim=1) for x in images[:2]]
    start = make_model(setting).dictionary.keys
    orders = [(q[0], k[1]), (q[1], k[0])] if setting == SETTING else [(q[0], k[1])]
    losses = [
        info_nce((z * key).sum(dim=1), z @ start, model.temperature)
        for query, key in orders
        for z in (query, q[2], q[3])
    ]
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_the_queue_takes_no_small_crop():
    with_small, without = make_model(SETTING), make_model(SETTING)
    with_small(random_multi_crop_batch(0)), without(plain_batch(0))
    torch.testing.assert_close(with_small.dictionary.keys, without.dictionary.keys)
    assert with_small.dictionary.num_real == 16


def test_micro_batches_make_the_step_of_the_whole_batch():
    with mock.patch.dict(SETTINGS, {"parts": {"DICTIONARY": "queue", "ACCUMULATE": 2, "BN_GROUP_SIZE": 4}}):
        parts = take_steps(make_model("parts"), batch=random_multi_crop_batch)
    assert_one_algorithm(take_steps(make_model("queue"), batch=random_multi_crop_batch), [parts])


def steps_of_this_rank():
    return take_steps(make_model(SETTING), batch=random_multi_crop_batch)


def test_two_processes_train_what_one_trains():
    assert_one_algorithm(steps_of_this_rank(), run_processes(steps_of_this_rank, 2))


def test_a_run_with_small_crops(tmp_path):
    cfg = tiny_pretrain_config(tmp_path / "run", EPOCHS=1)
    cfg.INPUT.VIEWS.SMALL_CROPS, cfg.INPUT.VIEWS.SMALL_SIZE = 2, 16
    write_random_images(tmp_path / "images", 24)
    assert train(cfg, tmp_path / "images").batch["small"].shape == (8, 2, 3, 16, 16)
    cfg.OUTPUT_DIR = str(tmp_path / "other")
    with (
        mock.patch.object(MoCo, "uses_small_crops", False),
        pytest.raises(ValueError, match="SMALL_CROPS is 2.*MoCo"),
    ):
        train(cfg, tmp_path / "images")


def test_the_gradient_cache_refuses_small_crops():
    cfg = tiny_pretrain_config(ACCUMULATE=2)
    cfg.MODEL.MOCO.DICTIONARY, cfg.INPUT.VIEWS.SMALL_CROPS = "end_to_end", 3
    with pytest.raises(ValueError, match="SMALL_CROPS is 3 .* end_to_end and SOLVER.ACCUMULATE 2"):
        MoCo.check_config(cfg, ranks=1)
