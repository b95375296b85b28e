"""The rules by which a study's sizes follow from data and device, and the budget of hours."""

import dataclasses
import itertools
import math

import pytest

from moco_det.benchmark.own import sizes
from moco_det.benchmark.own.budget import Costs, Speed, fit
from moco_det.benchmark.own.plan import Study
from moco_det.benchmark.own.sizes import DataFacts, Device

CPU, GPU = Device("CPU"), Device("a GPU", 80.0)
FACTS = DataFacts("mine", 4485, 4150, tuple("abc"), 1.02, 240, (0.062, 0.2, 0.49))


def keys(choices):
    return {key: value for choice in choices for key, value in choice.keys.items()}


def detector(facts=FACTS, device=CPU, depth=18, **given):
    return keys(
        sizes.detector_choices(facts, device, depth, {k.replace("__", "."): v for k, v in given.items()})
    )


# ---- schedules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "batch", "iterations"), [(117_266, 16, 90_000), (16_551, 16, 18_000), (2975, 8, 24_000)]
)
def test_detectron2s_schedules_lie_near_the_rule(images, batch, iterations):
    found = sizes.iterations_for(images, images, batch, is_gpu=True)
    assert 1 / 1.6 < found / iterations < 1.6


def test_few_labels_train_for_more_epochs_but_not_longer():
    whole = sizes.iterations_for(4485, 4485, 8, is_gpu=False)
    assert whole == round(145 * math.sqrt(4485) / 8 / 4) * 4 == 1212
    lengths = [sizes.iterations_for(n, 4485, 8, is_gpu=False) for n in (45, 224, 897, 2000, 4485)]
    assert lengths == sorted(lengths) and lengths[0] == lengths[1] == pytest.approx(whole / 2, abs=4)
    epochs = [8 * length / n for length, n in zip(lengths, (45, 224, 897, 2000, 4485), strict=True)]
    assert epochs == sorted(epochs, reverse=True)
    assert all(length % 4 == 0 for length in lengths)  # evaluated four times, at whole iterations


# ---- image size, anchors, batch, learning rate -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "device", "expected"),
    [(240, CPU, 192), (100, CPU, 96), (240, GPU, 480), (480, GPU, 800), (1080, GPU, 800), (50, GPU, 96)],
)
def test_image_size_follows_the_images(side, device, expected):
    found = detector(dataclasses.replace(FACTS, side=side), device)
    assert found["INPUT.MIN_SIZE_TEST"] == expected == max(found["INPUT.MIN_SIZE_TRAIN"])
    assert found["INPUT.MAX_SIZE_TEST"] > expected


@pytest.mark.parametrize("low", [2, 8, 15, 40, 200])
@pytest.mark.parametrize("ratio", [1, 1.5, 4, 20])
def test_anchors_cover_the_boxes_on_levels_fine_enough(low, ratio):
    high = low * ratio
    found = sizes.anchor_sizes(low, high)
    assert found == sorted(found) and 1 <= len(found) <= 5
    if len(found) > 1:
        assert (found[0], found[-1]) == (round(max(low, 8)), round(high))
        # One level more would have its anchors on a stride of more than a third of them.
        assert high >= 3 * 4 * 2 ** (len(found) - 1)
        ratios = [b / a for a, b in itertools.pairwise(found)]
        assert max(ratios) / min(ratios) < 1.2 or low < 20  # whole pixels
    else:
        assert max(low, 8) <= found[0] <= max(high, 12)


def test_anchors_follow_the_size_that_is_given():
    by_rule, given = detector(), detector(INPUT__MIN_SIZE_TEST=96)
    assert by_rule["MODEL.ANCHOR_GENERATOR.SIZES"] == [[12], [33], [94]]
    assert by_rule["MODEL.RPN.IN_FEATURES"] == ["p2", "p3", "p4"]
    assert given["MODEL.ANCHOR_GENERATOR.SIZES"] == [[8], [47]]


@pytest.mark.parametrize(("gib", "batch"), [(11, 2), (24, 4), (80, 16)])
def test_batch_and_learning_rate_follow_the_memory(gib, batch):
    found = detector(dataclasses.replace(FACTS, side=720), Device("a GPU", gib), 50)
    assert found["SOLVER.IMS_PER_BATCH"] == batch
    assert found["SOLVER.BASE_LR"] == pytest.approx(0.02 * batch / 16)


def test_depth_follows_the_device():
    assert [sizes.depth_of(d)[0] for d in (CPU, Device("small", 6.0), GPU)] == [18, 18, 50]


# ---- pre-training ----------------------------------------------------------------------------------------------


def pretraining(facts=FACTS, device=CPU, kind="objects", **given):
    given = {k.replace("__", "."): v for k, v in given.items()}
    return keys(sizes.pretraining_choices(facts, device, 18, kind, given))


def test_images_of_several_objects_are_scenes():
    assert sizes.kind_of_images(FACTS)[0] == "objects"
    assert sizes.kind_of_images(dataclasses.replace(FACTS, boxes=2.3))[0] == "scenes"
    assert "INPUT.VIEWS.SMALL_SIZE" not in pretraining()
    assert pretraining(kind="scenes")["INPUT.VIEWS.SMALL_CROPS"] == 2
    assert pretraining(device=GPU, kind="scenes")["INPUT.VIEWS.SMALL_SIZE"] == 96


@pytest.mark.parametrize("unlabeled", [20, 64, 300, 4150, 2_000_000])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_the_queue_holds_whole_batches_of_a_part_of_the_images(unlabeled, device):
    found = pretraining(dataclasses.replace(FACTS, unlabeled=unlabeled), device)
    batch, queue = found["SOLVER.IMS_PER_BATCH"], found["MODEL.MOCO.QUEUE_SIZE"]
    assert queue % batch == 0 and batch <= queue <= max(batch, unlabeled // 4)
    assert batch % found["MODEL.ENCODER.BN_GROUP_SIZE"] == 0 and batch <= unlabeled


def test_epochs_follow_the_number_of_images():
    assert pretraining()["SOLVER.EPOCHS"] == math.ceil(300_000 / 4150)
    assert pretraining(dataclasses.replace(FACTS, unlabeled=100))["SOLVER.EPOCHS"] == 800
    assert pretraining(device=GPU)["SOLVER.EPOCHS"] == 800
    assert pretraining(SOLVER__EPOCHS=7)["SOLVER.EPOCHS"] == 7


# ---- hours -----------------------------------------------------------------------------------------------------

STUDY = Study((0.01, 0.05, 0.2, 1.0), (1, 3), (600, 600, 600, 1200), 72)
COSTS = Costs(Speed(1.3, 40.0, 0.6), 1, 64, 4150, 2, 3, 0, 2)


def slow_hours(study, costs):
    """Run by run."""
    seconds = costs.pretrainings * (
        15 + study.epochs * (costs.unlabeled // costs.batch) * costs.speed.pretraining_step
    )
    for length in study.lengths:
        for iterations in study.short:
            for _ in range(costs.starts * costs.seeds):
                run = 15 + length * iterations * costs.speed.iteration + 4 * costs.speed.evaluation
                seconds += run / costs.jobs
    return seconds / 3600


def test_hours_are_those_of_all_runs():
    assert COSTS.hours(STUDY) == pytest.approx(slow_hours(STUDY, COSTS))
    tuned = dataclasses.replace(COSTS, tuning=6)
    assert tuned.hours(STUDY) - COSTS.hours(STUDY) == pytest.approx(6 * (15 + 600 * 1.3 + 160) / 2 / 3600)


def test_what_fits_gives_up_nothing():
    assert fit(STUDY, COSTS, 100, frozenset()) == (STUDY, [])


@pytest.mark.parametrize("hours", [2.2, 3, 4, 6, 8, 12])
def test_a_budget_is_kept_by_giving_up_as_little_as_it_takes(hours):
    study, given_up = fit(STUDY, COSTS, hours, frozenset())
    assert COSTS.hours(study) <= hours and given_up
    assert given_up[0] == "the long schedule" and study.lengths == (1,)
    assert sum(sentence.startswith("length: ") for sentence in given_up) <= 1
    if given_up[-1].startswith("length: "):  # the last resort, once two shares are left
        assert len(study.shares) == 2
    assert study.shares == STUDY.shares[len([s for s in given_up if "labels" in s]) :]
    with pytest.raises(ValueError, match="smallest study"):
        fit(STUDY, COSTS, 0.5, frozenset())


def test_what_was_asked_for_is_not_given_up():
    study, given_up = fit(STUDY, COSTS, 9, frozenset({"schedules"}))
    assert study.lengths == (1, 3) and given_up[0] == "1% of the labels"
    study, given_up = fit(STUDY, COSTS, 3, frozenset({"shares", "epochs"}))
    assert study.shares == STUDY.shares and study.epochs == 72 and study.short[-1] < 1200
    assert "length: schedules are" in given_up[-1] and "pre-training" not in given_up[-1]
    with pytest.raises(ValueError, match="the smallest study"):
        fit(STUDY, COSTS, 1, frozenset({"shares", "schedules", "iterations", "epochs"}))
