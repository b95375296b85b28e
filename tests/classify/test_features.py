"""Features: of which weights, and how images go in; when the cache serves; kNN and accuracies against loops."""

import dataclasses
import math
import os
import shutil

import numpy as np
import pytest
import torch
from checkpoint_examples import official_moco, own_checkpoint, random_states
from classify_runs import LINEAR, make_trainer, metrics, run_tool

from moco_det.classify.accuracy import accuracy_on_features, count_hits
from moco_det.classify.classifier import Classifier
from moco_det.classify.features import cache_key
from moco_det.convert.verify import detectron2_resnet
from moco_det.modeling.encoder import pooled_features
from moco_det.testing.core import write_shard
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, write_backbone
from moco_det.weights.resnet_names import to_detectron2
from moco_det.weights.sources.families import MSRA

CACHED = ("CLASSIFY.FEATURES", "cached")


def save_backbone(path, states, preprocessing, arch="resnet18"):
    tensors = {
        to_detectron2(name): value.float().numpy()
        for name, value in states.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    write_backbone(path, tensors, preprocessing, {"arch": arch, "source": "test", "encoder": ""})
    return path


# ---- The encoder is the file's -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torchvision", "official", "own", "backbone"])
def test_any_file_that_convert_reads_gives_its_features(random_set, tmp_path, kind):
    states, other = random_states("resnet18"), random_states("resnet18", seed=1)
    path = tmp_path / ("weights.pkl" if kind == "backbone" else "weights.pth")
    preprocessing = TORCHVISION_PREPROCESSING
    if kind == "backbone":
        preprocessing = dataclasses.replace(preprocessing, pixel_mean=(90.0, 91.0, 92.0))
        save_backbone(path, states, preprocessing)
    else:
        makers = {"torchvision": lambda a, _: a, "official": official_moco, "own": own_checkpoint}
        torch.save(makers[kind](states, other), path)
        if kind == "own":  # whose record has a std of its own
            preprocessing = dataclasses.replace(preprocessing, pixel_std=(50.0, 51.0, 52.0))
    trainer = make_trainer(LINEAR, random_set, tmp_path / "out", weights=path)
    trainer.model.train()
    image, _ = trainer.train_set[3]
    plain = Classifier(trainer.cfg).encoder
    plain.load_state_dict({n: v for n, v in states.items() if not n.startswith("fc.")})
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.pixel_mean, preprocessing.pixel_std))
    expected = pooled_features(plain.eval(), ((image - mean) / std)[None])
    torch.testing.assert_close(trainer.features(trainer.train_set)[3:4], expected, atol=1e-4, rtol=1e-4)


def test_blue_green_red_images_and_a_stride_in_the_1x1(random_set, tmp_path):
    """Features of a network as MSRA's ResNet-50 are those of detectron2's own network."""
    states = random_states("resnet50")
    path = save_backbone(tmp_path / "msra.pkl", states, MSRA, "resnet50")
    words = ("CLASSIFY.ARCH", "resnet50", "INPUT.VIEWS.SIZE", "64")
    trainer = make_trainer(LINEAR, random_set, tmp_path / "out", *words, weights=path)
    trainer.model.train()
    reference = detectron2_resnet("resnet50", stride_in_1x1=True)
    named = {to_detectron2(n): v for n, v in states.items() if not n.startswith("fc.") and "num_b" not in n}
    reference.load_state_dict(named, assign=True, strict=False)
    image = trainer.train_set[0][0]
    bgr = image.flip(0) - torch.tensor(MSRA.pixel_mean).view(3, 1, 1)
    expected = reference.eval()(bgr[None])["res5"].mean(dim=(2, 3))
    with torch.no_grad():
        found = trainer.classifier.features(image[None])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_without_weights_the_encoder_is_random_and_the_log_says_so(random_set, tmp_path):
    trainer = make_trainer(LINEAR, random_set, tmp_path)
    assert trainer.history.weights == ""
    assert "starts from random weights" in (tmp_path / "log.txt").read_text()


def test_bfloat16_is_near_float32(random_set, weights, tmp_path, computed_in_bfloat16):
    exact, near = (
        make_trainer(LINEAR, random_set, tmp_path / precision, "SOLVER.PRECISION", precision, weights=weights)
        for precision in ("float32", "bfloat16")
    )
    a, b = (trainer.features(trainer.test_set) for trainer in (exact, near))
    assert b.dtype == torch.float32 and not torch.equal(a, b)
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.999


# ---- The cache ---------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """How many images the encoder has seen."""
    seen, features = [], Classifier.features
    monkeypatch.setattr(
        Classifier, "features", lambda self, images: seen.extend(images) or features(self, images)
    )
    return seen


def test_the_cache_serves_again_and_only_what_it_is_of(random_set, weights, tmp_path, counted):
    images = tmp_path / "images"
    shutil.copytree(random_set, images)

    def computed(*words, file=weights):
        trainer = make_trainer(LINEAR, images, tmp_path / "out", *CACHED, *words, weights=file)
        trainer.model.train()
        before = len(counted)
        trainer.features(trainer.train_set)
        return len(counted) - before

    assert computed() == 24
    assert computed() == 0 and computed("SOLVER.BASE_LR", "3.0") == 0
    assert computed("INPUT.VIEWS.SIZE", "48") == 24
    assert computed() == 24  # the file of another size took its place
    torch.save(random_states("resnet18", seed=1), tmp_path / "other.pth")
    assert computed(file=tmp_path / "other.pth") == 24
    assert computed() == 24
    changed = images / "train/a/003.jpg"
    content = changed.read_bytes()
    changed.write_bytes(content)  # of the same size: its time tells
    os.utime(changed, (1, 1))
    assert computed() == 24
    (images / "train/a/004.jpg").unlink()
    assert computed() == 23
    assert len(list((tmp_path / "out/features").glob("train_*"))) == 1


def test_a_run_computes_each_feature_once(random_set, weights, tmp_path, counted):
    """24 images to train on and 12 to measure on, for kNN, two epochs and each measurement."""
    run_tool(LINEAR, random_set, tmp_path, *CACHED, weights=weights)
    assert len(counted) == 36


# ---- What evaluates them --------------------------------------------------------------------------------------


def test_knn_is_that_of_a_loop(random_set, weights, tmp_path):
    run = run_tool(
        LINEAR, random_set, tmp_path, "TEST.KNN.K", "5", "TEST.KNN.TEMPERATURE", "0.1", weights=weights
    )
    trainer = make_trainer(LINEAR, random_set, tmp_path / "again", weights=weights)
    train, test = (trainer.features(part).double() for part in (trainer.train_set, trainer.test_set))
    hits = 0
    for query, truth in zip(test, trainer.test_set.labels, strict=True):
        cosines = [float(query @ other / query.norm() / other.norm()) for other in train]
        votes = [0.0, 0.0]
        for cosine, label in sorted(zip(cosines, trainer.train_set.labels, strict=True), reverse=True)[:5]:
            votes[label] += math.exp(cosine / 0.1)
        hits += votes[truth] > votes[1 - truth]
    assert metrics(run)["knn/top1"] == pytest.approx(100 * hits / 12)


def test_top_1_and_top_5_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 8, generator=generator), torch.arange(200) % 12
    classifier = torch.nn.Linear(8, 12)
    hits = [0, 0]
    for feature, label in zip(features, labels.tolist(), strict=True):
        order = sorted(range(12), key=lambda c: -classifier(feature)[c].item())
        hits[0] += order[0] == label
        hits[1] += label in order[:5]
    assert accuracy_on_features(classifier, features, labels) == (hits[0] / 2, hits[1] / 2)
    assert hits[0] < hits[1] < 200


def test_with_fewer_than_five_classes_top_5_is_all():
    assert count_hits(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([0, 0])).tolist() == [1, 2]


# ---- From shards -------------------------------------------------------------------------------------------


def test_labeled_shards_give_what_their_folders_give(random_set, weights, tmp_path):
    """The same features, evaluated the same; and the cache goes with the shards."""
    for part in ("train", "test"):
        files = sorted((random_set / part).rglob("*.jpg"))
        for number in range(2):
            members = {
                str(path.relative_to(random_set / part)): path.read_bytes() for path in files[number::2]
            }
            write_shard(tmp_path / f"shards/{part}/{number}.tar", members)
    words = ("SOLVER.EPOCHS", "1", *CACHED)
    folders = run_tool(LINEAR, random_set, tmp_path / "a", *words, weights=weights)
    shards = run_tool(LINEAR, tmp_path / "shards", tmp_path / "b", *words, weights=weights)
    for part in ("train", "test"):
        (ours,), (theirs,) = (list((run / "features").glob(f"{part}_*.npy")) for run in (shards, folders))
        assert sorted(np.load(ours).tolist()) == sorted(np.load(theirs).tolist())
    assert metrics(shards)["knn/top1"] == metrics(folders)["knn/top1"]
    trainer = make_trainer(LINEAR, tmp_path / "shards", tmp_path / "c", *CACHED, weights=weights)
    key = cache_key(trainer.classifier, trainer.train_set)
    os.utime(tmp_path / "shards/train/1.tar", (1, 1))
    assert key != cache_key(trainer.classifier, trainer.train_set)
