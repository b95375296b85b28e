"""The linear protocol: what it reaches, what each learning rate gets, what stays frozen, what it writes."""

import itertools
import shutil

import pytest
import torch
from classify_runs import LINEAR, lines, make_trainer, metrics, run_tool, write_colored_set
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from moco_det.classify import trainer as trainer_module
from moco_det.classify.evaluation_hooks import EvaluateFeatures
from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file

CACHED = ("CLASSIFY.FEATURES", "cached")
RATES = ("CLASSIFY.MORE_LRS", "(1.0, 0.01)")


@pytest.fixture(scope="module")
def finished(colored, weights, tmp_path_factory):
    return run_tool(LINEAR, colored, tmp_path_factory.mktemp("run"), *RATES, weights=weights)


def test_the_recipe_has_the_official_values():
    """PAPER: MoCo v1 section 4.1; official code, main_lincls.py."""
    cfg = get_cfg()
    merge_config(cfg, get_config_file("ImageNet-Classification/linear_R_50_100ep"), [])
    solver, views = cfg.SOLVER, cfg.INPUT.VIEWS
    assert (solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY, solver.IMS_PER_BATCH) == (
        30.0,
        0.9,
        0.0,
        256,
    )
    assert (solver.EPOCHS, solver.STEP_EPOCHS, solver.GAMMA) == (100, (60, 80), 0.1)
    assert (views.RECIPE, views.SIZE, views.CROP_SCALE) == ("crop_flip", 224, (0.08, 1.0))
    assert (cfg.CLASSIFY.FREEZE, cfg.CLASSIFY.FEATURES, cfg.CLASSIFY.MORE_LRS) == (True, "live", ())


def test_the_run_folder(finished, colored):
    assert {"config.yaml", "metrics.json", "run.json", "model_final.pth", "features"} <= {
        path.name for path in finished.iterdir()
    }
    measured = [line for line in lines(finished) if "linear/top1" in line]
    assert [line["iteration"] for line in measured] == [2, 5]  # each epoch of floor(24 / 8) steps
    last = metrics(finished)
    assert {"knn/top1", "linear/top1", "linear/top5", "linear/top1_best"} <= set(last)
    assert last["linear/top1"] == last["linear/top1_lr_0.1"]  # the recipe's own, not the best
    assert last["linear/top1_best"] == max(last[f"linear/top1_lr_{rate}"] for rate in ("0.1", "1", "0.01"))
    assert "best on the test images, optimistic" in (finished / "log.txt").read_text()
    saved = torch.load(finished / "model_final.pth", weights_only=True)
    assert set(saved["model"]) == {f"{n}.{kind}" for n in range(3) for kind in ("weight", "bias")}
    assert saved["classes"] == ["blue", "green", "red"]


def test_classifiers_start_as_the_official_ones_and_all_alike(random_set, tmp_path):
    trainer = make_trainer(LINEAR, random_set, tmp_path, *RATES)
    first, *others = trainer.classifier.probes
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.1) and not first.bias.any()
    assert all(torch.equal(first.weight, other.weight) for other in others)
    groups = trainer.optimizer.param_groups
    assert [(g["base_lr"], g["momentum"], g["weight_decay"]) for g in groups] == [
        (0.1, 0.9, 0.0),
        (1.0, 0.9, 0.0),
        (0.01, 0.9, 0.0),
    ]


# ---- What it reaches: features by the label, and features that know nothing of it --------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Many images, which are never read: their features are made up."""
    root = write_colored_set(tmp_path_factory.mktemp("many"), 1)
    for folder in root.glob("*/*"):
        for number in range(1, 200):
            shutil.copy(folder / "000.png", folder / f"{number:03d}.png")
    return root


def run_on(make_features, many, output, monkeypatch):
    monkeypatch.setattr(
        trainer_module, "cached_features", lambda model, folder, cache, **_: make_features(folder)
    )
    return metrics(run_tool(LINEAR, many, output, *CACHED, "SOLVER.EPOCHS", "5"))


def test_separable_features_reach_100_percent(many, tmp_path, monkeypatch):
    def separable(folder):
        noise = torch.rand(len(folder), 512, generator=torch.Generator().manual_seed(0))
        return F.pad(3.0 * F.one_hot(torch.tensor(folder.labels), 3), (0, 509)) + 0.1 * noise

    found = run_on(separable, many, tmp_path, monkeypatch)
    assert found["linear/top1"] == found["linear/top5"] == found["knn/top1"] == 100


def test_shuffled_labels_stay_at_chance(many, tmp_path, monkeypatch):
    def of_no_label(folder):
        kind = torch.Generator().manual_seed(len(folder.root))  # other features for train and val
        return torch.randn(len(folder), 512, generator=kind)

    found = run_on(of_no_label, many, tmp_path, monkeypatch)
    for name in ("linear/top1", "knn/top1"):  # 600 images: a standard deviation of 1.9 %
        assert abs(found[name] - 100 / 3) < 8, name


# ---- Several learning rates at once ------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["live", "cached"])
def test_several_learning_rates_are_each_alone(random_set, weights, tmp_path, features):
    """Bit for bit."""
    options = ("CLASSIFY.FEATURES", features, "SOLVER.EPOCHS", "3", "SOLVER.STEP_EPOCHS", "(1,)")
    together = make_trainer(LINEAR, random_set, tmp_path / "all", *options, *RATES, weights=weights)
    together.run()
    for number, rate in enumerate(("0.1", "1.0", "0.01")):
        words = (*options, "SOLVER.BASE_LR", rate)
        alone = make_trainer(LINEAR, random_set, tmp_path / rate, *words, weights=weights)
        alone.run()
        for name, value in alone.classifier.probes[0].state_dict().items():
            assert torch.equal(value, together.classifier.probes[number].state_dict()[name]), (rate, name)


@pytest.mark.parametrize("batch, sizes", [("8", [8, 8, 8]), ("16", [16, 8])], ids=["equal", "smaller last"])
def test_steps_are_those_of_the_definition(random_set, weights, tmp_path, request, batch, sizes):
    """Cross-entropy's gradient written out, and SGD with momentum, in float64 over every batch of three epochs."""
    torch.set_default_dtype(torch.float64)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    options = (*CACHED, "SOLVER.IMS_PER_BATCH", batch, "SOLVER.EPOCHS", "3", "SOLVER.STEP_EPOCHS", "(1, 2)")
    trainer = make_trainer(LINEAR, random_set, tmp_path, *options, weights=weights)
    weight, bias = (value.detach().clone() for value in trainer.classifier.probes[0].parameters())
    features, labels = trainer.features(trainer.train_set), torch.tensor(trainer.train_set.labels)
    trainer.run()
    moving = [torch.zeros_like(weight), torch.zeros_like(bias)]
    batches = list(itertools.islice(trainer._slots(), 3 * len(sizes)))
    assert [len(slots) for slots in batches] == 3 * sizes
    for slots in batches:
        index, rate = [i for _, i in slots], 0.1 * 0.1 ** slots[0][0]
        error = (features[index] @ weight.T + bias).softmax(1) - F.one_hot(labels[index], 2)  # nxC
        gradients = error.T @ features[index] / len(index), error.mean(0)
        for value, gradient, velocity in zip((weight, bias), gradients, moving, strict=True):
            velocity.mul_(0.9).add_(gradient)
            value.sub_(rate * velocity)
    probe = trainer.classifier.probes[0]
    difference = max(float((probe.weight - weight).abs().max()), float((probe.bias - bias).abs().max()))
    print("largest difference", difference)
    assert difference < 1e-12


def test_the_result_is_the_recipes_own_rate_and_not_the_best(random_set, tmp_path):
    """Three classifiers made by hand: right for half of the images, for none, and for all."""
    trainer = make_trainer(LINEAR, random_set, tmp_path, *RATES)
    labels = torch.tensor(trainer.test_set.labels)
    features = F.pad(F.one_hot(labels, 2).float(), (0, 510))
    for probe, to_class in zip(trainer.classifier.probes, ((0, 0), (1, 0), (0, 1)), strict=True):
        probe.weight.data.zero_()
        for label, answer in enumerate(to_class):
            probe.weight.data[answer, label] = 1
    evaluation = EvaluateFeatures(trainer.cfg, trainer.classifier, features, labels, 1)
    evaluation.trainer = trainer
    with EventStorage() as trainer.storage:
        evaluation._evaluate()
    found = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert (found["linear/top1"], found["linear/top1_best"]) == (50, 100)
    assert [found[f"linear/top1_lr_{rate}"] for rate in ("0.1", "1", "0.01")] == [50, 0, 100]
    assert "50.00 %, top-5 100.00 % at learning rate 0.1" in (tmp_path / "log.txt").read_text()


# ---- Frozen is frozen --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "bn1.running_mean", "bn1.num_batches_tracked"])
def test_the_check_sees_the_smallest_change(random_set, tmp_path, name):
    trainer = make_trainer(LINEAR, random_set, tmp_path)
    trainer.check_result()
    value = trainer.classifier.encoder.state_dict()[name]
    first = (0,) * value.ndim
    if value.is_floating_point():
        value[first] = torch.nextafter(value[first], torch.tensor(9.0))
    else:
        value[first] += 1
    with pytest.raises(RuntimeError, match=f"1 of its 120 tensors changed, e.g. {name}"):
        trainer.check_result()


def test_batch_norm_that_goes_on_learning_is_caught(random_set, tmp_path, monkeypatch):
    """A run whose encoder is in training mode ends without a record."""
    run_step = trainer_module.ClassifierTrainer.run_step

    def in_training_mode(self):
        self.classifier.encoder.train()
        run_step(self)

    monkeypatch.setattr(trainer_module.ClassifierTrainer, "run_step", in_training_mode)
    with pytest.raises(RuntimeError, match=r"tensors changed, e.g. bn1.running_mean"):
        run_tool(LINEAR, random_set, tmp_path)
    assert not (tmp_path / "run.json").exists()


# ---- Resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["live", "cached"])
def test_stop_and_resume_equals_uninterrupted(random_set, weights, tmp_path, features):
    options = ("CLASSIFY.FEATURES", features, *RATES)
    first = make_trainer(LINEAR, random_set, tmp_path / "cut", *options, weights=weights)
    first.max_iter = 4  # in the middle of an epoch
    first.run()
    resumed = make_trainer(LINEAR, random_set, tmp_path / "cut", *options, weights=weights, resume=True)
    assert resumed.start_iter == 4
    resumed.run()
    whole = make_trainer(LINEAR, random_set, tmp_path / "whole", *options, weights=weights)
    whole.run()
    for name, value in whole.classifier.state_dict().items():
        assert torch.equal(value, resumed.classifier.state_dict()[name]), name
    losses = [{n: line[n] for n in ("iteration", "total_loss")} for line in lines(tmp_path / "whole")[1:]]
    assert all(any(line.items() <= other.items() for other in lines(tmp_path / "cut")) for line in losses)


def test_a_run_with_other_steps_an_epoch_is_not_continued(random_set, tmp_path):
    """One of a version that dropped the last smaller batch: its checkpoints do not say the number of steps."""
    batch = ("SOLVER.IMS_PER_BATCH", "16")
    old = make_trainer(LINEAR, random_set, tmp_path, *batch)
    del old.checkpointer.record["steps_per_epoch"]
    old.max_iter = 1
    old.run()
    with pytest.raises(ValueError, match=" 1 steps .* 2"):
        make_trainer(LINEAR, random_set, tmp_path, *batch, resume=True)


def test_a_finished_run_that_lost_its_record_gets_it_back(finished, colored, weights, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    again = run_tool(LINEAR, colored, tmp_path / "run", *RATES, weights=weights, flags=("--resume",))
    assert metrics(again) == metrics(finished)


def test_other_weights_do_not_continue_a_run(finished, colored, weights, tmp_path, capsys):
    """The other weights have the same name, so that only their content tells."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    kept = weights.read_bytes()
    states = torch.load(weights)
    states["conv1.weight"] += 1
    try:
        torch.save(states, weights)
        with pytest.raises(SystemExit):
            run_tool(LINEAR, colored, run, *RATES, weights=weights, flags=("--resume",))
    finally:
        weights.write_bytes(kept)
    assert "is another file than the run" in capsys.readouterr().err
