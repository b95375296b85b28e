"""Fewer labels: which images are taken, and what a run with them is called."""

import pytest

from moco_det.config import get_cfg
from moco_det.config.key import FINETUNE
from moco_det.config.rules import check_values
from moco_det.data.labels import take_labels
from moco_det.finetune.trainer import Trainer

RECORDS = [{"image_id": number} for number in range(200)]


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
    with pytest.raises(
        ValueError, match="LABEL_FRACTION is 0.1, which goes with .*TrainingSampler, not with Random"
    ):
        Trainer.build_train_loader(cfg)
