import itertools

import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler

from moco_det.config import get_cfg
from moco_det.config.key import FINETUNE
from moco_det.config.rules import check_values
from moco_det.data.labels import take_labels
from moco_det.finetune.sampler import ResumableSampler
from moco_det.finetune.trainer import Trainer

RECORDS = [{"image_id": number} for number in range(200)]
WIDE = [bool(number * 7 % 3) for number in range(11)]


def batches(grouped, start, count, batch_size=3, factors=None):
    """Image numbers of batches that detectron2's own loader makes of the sampler."""
    records = [{"image": n, "width": 2 if w else 1, "height": 1} for n, w in enumerate(WIDE)]
    sampler = ResumableSampler([grouped and w for w in WIDE], batch_size, 5, start, factors)
    loader = build_detection_train_loader(
        records, mapper=dict, sampler=sampler, total_batch_size=batch_size, aspect_ratio_grouping=grouped
    )
    return [[record["image"] for record in batch] for batch in itertools.islice(loader, count)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("start", [0, 1, 2, 5, 20])
def test_a_late_start_gives_the_batches_of_an_early_one(grouped, start):
    assert batches(grouped, start, 10) == batches(grouped, 0, 30)[start : start + 10]


@pytest.mark.parametrize("start", [1, 7, 20])
def test_a_late_start_is_exact_with_repeated_images_too(start):
    factors = torch.linspace(1, 3, len(WIDE))
    whole = batches(True, 0, 30, factors=factors)
    assert batches(True, start, 10, factors=factors) == whole[start : start + 10]
    assert whole != batches(True, 0, 30)


def test_repeated_images_come_as_detectron2_gives_them():
    factors = torch.linspace(1, 3, len(WIDE))
    ours = itertools.islice(ResumableSampler(WIDE, 3, seed=5, repeat_factors=factors), 60)
    assert list(ours) == list(itertools.islice(RepeatFactorTrainingSampler(factors, seed=5), 60))


def test_every_image_comes_once_an_epoch():
    images = list(itertools.islice(ResumableSampler(WIDE, 3, seed=5), 22))
    assert sorted(images[:11]) == sorted(images[11:]) == list(range(11))
    assert images[:11] != images[11:]


def test_the_seed_orders_the_images():
    first, same, other = (list(itertools.islice(ResumableSampler(WIDE, 3, seed=s), 11)) for s in (1, 1, 2))
    assert first == same != other


def test_all_labels_are_all():
    assert take_labels(RECORDS, 1.0, 3) == RECORDS


def test_a_smaller_share_is_a_part_of_a_larger_one_and_in_order():
    few, more = (take_labels(RECORDS, share, 3) for share in (0.05, 0.2))
    assert len(few) == 10 and len(more) == 40
    assert all(record in more for record in few)
    assert few == sorted(few, key=lambda record: record["image_id"])


def test_seeds_draw_other_images():
    assert take_labels(RECORDS, 0.1, 1) != take_labels(RECORDS, 0.1, 2)


def test_at_least_one_is_left():
    assert len(take_labels(RECORDS[:3], 0.01, 1)) == 1


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_what_is_no_share_is_refused(fraction):
    cfg = get_cfg()
    cfg.DATASETS.LABEL_FRACTION = fraction
    with pytest.raises(ValueError, match=f"LABEL_FRACTION is {fraction}; expected above 0, at most 1"):
        check_values(cfg, FINETUNE)


def test_samplers_that_cannot_take_a_share_say_so():
    cfg = get_cfg()
    cfg.merge_from_list(
        ["DATASETS.LABEL_FRACTION", "0.1", "DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"]
    )
    with pytest.raises(ValueError, match="LABEL_FRACTION is 0.1.*TrainingSampler.*Random"):
        Trainer.build_train_loader(cfg)
