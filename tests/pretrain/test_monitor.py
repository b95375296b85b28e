"""The kNN monitor: which features evaluate which, in which mode, and an untrained network on fair terms."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from moco_det.data.labeled_folder import LabeledFolder
from moco_det.modeling.knn import knn_accuracy
from moco_det.pretrain.diagnostics import effective_rank
from moco_det.pretrain.moco.model import MoCo
from moco_det.pretrain.monitor import KNNMonitor, extract_features, with_settled_statistics
from moco_det.testing.core import tiny_pretrain_config, write_random_images


@pytest.fixture
def cfg(tmp_path):
    for split, seed in (("train", 0), ("test", 7)):
        for number, name in enumerate("xyz"):
            write_random_images(tmp_path / "knn" / split / name, 6, seed=seed + number)
    cfg = tiny_pretrain_config(tmp_path)
    cfg.TEST.KNN.IMAGES = str(tmp_path / "knn")
    cfg.TEST.KNN.K = 3
    return cfg


def make_model(cfg):
    torch.manual_seed(0)
    return MoCo(cfg).train()


def batches(cfg, size):
    folder = LabeledFolder(cfg.TEST.KNN.IMAGES + "/train", 32, "TEST.KNN.IMAGES")
    return torch.utils.data.DataLoader(folder, batch_size=size)


def test_features_are_those_of_evaluation_whatever_the_batch(cfg):
    """They use running statistics: in training mode they would depend on the batch and change the statistics."""
    model = make_model(cfg)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole, labels = extract_features(model, batches(cfg, 18))
    parts, _ = extract_features(model, batches(cfg, 4))
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=1e-4)
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_settling_changes_the_statistics_of_a_copy_and_no_weight(cfg):
    model = make_model(cfg)
    settled = with_settled_statistics(model, KNNMonitor(cfg, 3)._batches_for_statistics())
    assert torch.equal(model.encoder_q.bn1.running_mean, torch.zeros(64))
    assert settled.encoder_q.bn1.running_mean.abs().max() > 0.1
    for ours, theirs in zip(model.parameters(), settled.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_test_images_are_judged_by_training_images(cfg):
    class Trainer:
        class storage:  # noqa: N801
            values = {}

            @classmethod
            def put_scalars(cls, smoothing_hint, **values):
                cls.values |= values

    monitor, model = KNNMonitor(cfg, 3), make_model(cfg)
    monitor.trainer = Trainer
    monitor._evaluate("now", model)
    test, test_labels = extract_features(model, monitor._batches(monitor.test))
    train, train_labels = extract_features(model, monitor._batches(monitor.train))
    expected = knn_accuracy(test, test_labels, train, train_labels, 3, cfg.TEST.KNN.TEMPERATURE)
    assert Trainer.storage.values == {"knn_accuracy": expected, "effective_rank": effective_rank(train)}
    assert expected < 90  # random colors: only images that are their own neighbors would do better
    for row in json.loads(Path(cfg.OUTPUT_DIR, "neighbors.json").read_text()):
        assert "/test/" in row["query"] and all("/train/" in n["path"] for n in row["neighbors"])


@pytest.mark.parametrize("better", [0, 1])
def test_training_has_to_pass_the_better_of_both_statistics(cfg, monkeypatch, better):
    """An untrained network is measured with its initial running statistics and with those of the images."""
    measured = [30.0, 30.0]
    measured[1 - better] = 20.0
    accuracies = iter(measured)
    shown = []
    monkeypatch.setattr("moco_det.pretrain.monitor.knn_accuracy", lambda *args: next(accuracies))
    monitor = KNNMonitor(cfg, 3)
    monitor.trainer = SimpleNamespace(start_iter=0, method=make_model(cfg), storage=SimpleNamespace())
    monitor.trainer.storage.put_scalars = lambda smoothing_hint, **values: shown.append(values)
    monitor.before_train()
    assert [values["knn_accuracy"] for values in shown] == [30.0] and next(accuracies, None) is None
    initial, _ = extract_features(make_model(cfg), monitor._batches(monitor.train))
    assert (shown[0]["effective_rank"] == effective_rank(initial)) == (better == 0)


def test_an_unreadable_labeled_image_is_named_with_its_key(cfg, tmp_path):
    (tmp_path / "knn/train/x/000.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="TEST.KNN.IMAGES: .*000.jpg"):
        extract_features(make_model(cfg), batches(cfg, 4))


def test_a_set_laid_out_as_imagenet_is_taken(cfg, tmp_path):
    """train/ and val/, as the classifier takes it; val/ goes before test/."""
    (tmp_path / "knn/test").rename(tmp_path / "knn/val")
    assert KNNMonitor(cfg, 1).test.root == str(tmp_path / "knn/val")
    (tmp_path / "knn/val").rename(tmp_path / "knn/other")
    with pytest.raises(ValueError, match="TEST.KNN.IMAGES: .*val/.*test/"):
        KNNMonitor(cfg, 1)
