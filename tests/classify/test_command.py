"""What a user can get wrong, the labeled set, and the views that are sampled."""

import re
import shutil

import pytest
import torch
from classify_runs import LINEAR, SUPERVISED, make_trainer, run_tool

from moco_det.classify.command import main
from moco_det.classify.data import RandomViews, view_batches
from moco_det.data.labeled_folder import LabeledFolder, open_labeled_set
from moco_det.testing.core import write_random_images


@pytest.mark.parametrize(
    "recipe, words, message",
    [
        (
            LINEAR,
            ("SOLVER.MAX_ITER", "9"),
            "SOLVER.MAX_ITER does not apply to training a classifier; use SOLVER.E",
        ),
        (LINEAR, ("TEST.KNN.IMAGES", "x"), "TEST.KNN.IMAGES does not apply .*; use --images"),
        (LINEAR, ("MODEL.MOCO.QUEUE_SIZE", "8"), "MODEL.MOCO.QUEUE_SIZE does not apply"),
        (
            LINEAR,
            ("CLASSIFY.BN_GROUP_SIZE", "8"),
            "CLASSIFY.BN_GROUP_SIZE has no effect with CLASSIFY.FREEZE True",
        ),
        (
            LINEAR,
            ("CLASSIFY.FEATURES", "cached", "INPUT.VIEWS.CROP_SCALE", "(0.2, 1.0)"),
            "INPUT.VIEWS.CROP_SCALE has no effect with CLASSIFY.FEATURES cached",
        ),
        (
            LINEAR,
            ("CLASSIFY.FEATURES", "frozen"),
            "CLASSIFY.FEATURES is 'frozen'; expected one of live, cached",
        ),
        (
            LINEAR,
            ("CLASSIFY.MORE_LRS", "(0.1, 2.0)"),
            r"are \[0.1, 0.1, 2.0\]; expected different rates",
        ),
        (LINEAR, ("CLASSIFY.MORE_LRS", "(-1.0,)"), r"CLASSIFY.MORE_LRS is \(-1.0,\); expected above 0"),
        (LINEAR, ("CLASSIFY.FREZE", "True"), "unknown config key 'CLASSIFY.FREZE'.*'CLASSIFY.FREEZE'"),
        (LINEAR, ("SOLVER.IMS_PER_BATCH", "32"), "24 images do not fill one batch"),
        (LINEAR, ("CLASSIFY.ARCH", ""), "CLASSIFY.ARCH is empty, and no --weights tell it"),
        (
            LINEAR,
            ("SOLVER.PRECISION", "float16"),
            "SOLVER.PRECISION is 'float16'; expected one of float32, bfl",
        ),
        (LINEAR, ("CLASSIFY.PERIOD_EPOCHS", "0"), "CLASSIFY.PERIOD_EPOCHS is 0; expected 1 or more"),
        (LINEAR, ("MODEL.WEIGHTS", "/nowhere.pth"), "MODEL.WEIGHTS '/nowhere.pth' is no file"),
        (LINEAR, ("DATASETS.IMAGES", "x"), "both --images and DATASETS.IMAGES are given"),
        (SUPERVISED, ("TEST.KNN.K", "5"), "TEST.KNN.K has no effect with CLASSIFY.FREEZE False"),
        (
            SUPERVISED,
            ("CLASSIFY.MORE_LRS", "(1.0,)"),
            "CLASSIFY.MORE_LRS is .*no effect with CLASSIFY.FREEZE False",
        ),
        (
            SUPERVISED,
            ("CLASSIFY.BN_GROUP_SIZE", "3"),
            "SOLVER.IMS_PER_BATCH is 8, .*1 processes, and CLASSIFY.BN_GROUP_SIZE is 3; .*the 8 images",
        ),
    ],
)
def test_settings_that_cannot_run_end_in_one_sentence(random_set, tmp_path, capsys, recipe, words, message):
    with pytest.raises(SystemExit) as stop:
        run_tool(recipe, random_set, tmp_path / "out", *words)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert re.search(message, error) and error.startswith("error: ") and len(error.splitlines()) == 1


def test_weights_that_do_not_fit(random_set, weights, tmp_path, capsys):
    for words, message in (
        (("CLASSIFY.ARCH", "resnet50"), "is a resnet18; CLASSIFY.ARCH is resnet50: make them agree"),
        (("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"), r"were made with MODEL.PIXEL_STD \[58.395"),
        (("INPUT.FORMAT", "BGR"), "were made with INPUT.FORMAT RGB, and the command line has BGR"),
    ):
        with pytest.raises(SystemExit):
            run_tool(LINEAR, random_set, tmp_path / "out", *words, weights=weights)
        assert re.search(message, capsys.readouterr().err)
    trainer = make_trainer(LINEAR, random_set, tmp_path / "any", "CLASSIFY.ARCH", "", weights=weights)
    assert trainer.cfg.CLASSIFY.ARCH == "resnet18"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "there is no --config-file"),
        (("--config-file", "configs/ImageNet-Classification/linear_R_50_100ep.yaml"), "there are no images"),
        (("--config-file", "configs/toy/pretrain_moco_v2_R_18.yaml"), "run it with tools/pretrain_moco.py"),
        (("--config-file", "configs/toy/faster_rcnn_R_18_FPN.yaml"), "run it with tools/train_net.py"),
        (("--eval-only",), "--eval-only does not apply here"),
    ],
)
def test_incomplete_commands(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--num-gpus", "0"])
    assert message in capsys.readouterr().err


def test_the_other_tool_sends_here(capsys):
    from moco_det.finetune.command import main as train_net

    with pytest.raises(SystemExit):
        train_net(["--config-file", "configs/toy/linear_R_18.yaml", "--num-gpus", "0"])
    assert "is a recipe of classification; run it with tools/train_classifier.py" in capsys.readouterr().err


# ---- The labeled set --------------------------------------------------------------------------------------


def test_a_set_that_is_not_as_it_must_be(random_set, tmp_path):
    with pytest.raises(ValueError, match="has neither val/ nor test/"):
        open_labeled_set(str(tmp_path), 32, "--images")
    write_random_images(tmp_path / "test/a", 1)
    with pytest.raises(ValueError, match="train' does not exist"):
        open_labeled_set(str(tmp_path), 32, "--images")
    write_random_images(tmp_path / "train/a", 1)
    write_random_images(tmp_path / "train/b", 1)
    with pytest.raises(ValueError, match="a, b, .*test' a; .*b"):
        open_labeled_set(str(tmp_path), 32, "--images")


def test_val_goes_before_test(random_set, tmp_path):
    """ImageNet's test images have no labels."""
    shutil.copytree(random_set, tmp_path / "set")
    shutil.copytree(tmp_path / "set/test", tmp_path / "set/val")
    assert open_labeled_set(str(tmp_path / "set"), 32, "--images")[1].root.endswith("val")
    assert open_labeled_set(str(random_set), 32, "--images")[1].root.endswith("test")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_cannot_be_read_ends_the_run_in_one_sentence(random_set, tmp_path, capsys, workers):
    shutil.copytree(random_set, tmp_path / "set")
    bad = tmp_path / "set/train/b/005.jpg"
    bad.write_bytes(bad.read_bytes()[:100])
    for recipe in (LINEAR, SUPERVISED):
        with pytest.raises(SystemExit):
            run_tool(recipe, tmp_path / "set", tmp_path / recipe[0], "DATALOADER.NUM_WORKERS", workers)
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        assert "--images: cannot read image" in line and "b/005.jpg" in line and "fix or remove" in line
        assert not (tmp_path / recipe[0] / "run.json").exists()


# ---- Views -------------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_seed_epoch_and_image(random_set):
    train, _ = open_labeled_set(str(random_set), 16, "--images")
    train.paths = (train.paths[0],) * len(train)  # so that views differ by their random numbers alone
    settings = {"recipe": "crop_flip", "crop_scale": (0.08, 1.0)}
    views = RandomViews(train, seed=1, **settings)
    slots = [(epoch, index) for epoch in (0, 1) for index in (3, 7, 11)]
    alone = [views[slot]["image"] for slot in slots]
    assert len({tuple(view.flatten().tolist()) for view in alone}) == 6
    for workers in (0, 2):
        (batch,) = view_batches(views, [slots], workers)
        assert torch.equal(batch["image"], torch.stack(alone))
        assert batch["label"].tolist() == [train.labels[index] for _, index in slots]
    other = RandomViews(train, seed=2, **settings)[slots[0]]["image"]
    assert not torch.equal(other, alone[0])


def test_colors_stay_as_they_are(random_set):
    """Crop and flip alone: each pixel of a view lies within the range of its image's colors."""
    train, _ = open_labeled_set(str(random_set), 16, "--images")
    views = RandomViews(train, seed=1, recipe="crop_flip", crop_scale=(0.08, 1.0))
    for index in range(12):
        image = torch.tensor(list(train.decode(index).getdata()))  # (pixels)x3
        view = views[(0, index)]["image"].flatten(1).T
        assert (view >= image.min(0).values - 2).all() and (view <= image.max(0).values + 2).all()


# ---- A part of the training images, held out ------------------------------------------------------------


def test_settings_are_chosen_without_a_look_at_val(random_set, tmp_path):
    shutil.copytree(random_set / "train", tmp_path / "train")  # there is no val/ to look at
    whole = LabeledFolder(str(tmp_path / "train"), 16, "--images")
    train, held = open_labeled_set(str(tmp_path), 16, "--images", held_out=0.25)
    assert sorted(train.paths + held.paths) == sorted(whole.paths)
    for number in range(len(whole.classes)):
        counts = [part.labels.count(number) for part in (whole, held)]
        assert counts[1] == round(0.25 * counts[0]) > 0
    assert held.paths == open_labeled_set(str(tmp_path), 32, "--images", held_out=0.25)[1].paths
    labels = dict(zip(whole.paths, whole.labels, strict=True))
    assert held.labels == tuple(labels[path] for path in held.paths)
    with pytest.raises(ValueError, match=r"TEST\.HELD_OUT is 0\.01, but class 'a' .* 0 would be held out"):
        open_labeled_set(str(tmp_path), 16, "--images", held_out=0.01)
