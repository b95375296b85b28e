"""Training a whole network: against plain torch, its checkpoint, its resume, and fine-tuning."""

import itertools
import shutil

import pytest
import torch
from classify_runs import SUPERVISED, lines, make_trainer, metrics, run_tool
from torch.nn import functional as F
from torchvision.models import resnet18

from moco_det.config import get_cfg, merge_config
from moco_det.convert.convert import convert
from moco_det.model_zoo import get_config_file
from moco_det.weights.backbone_file import read_backbone
from moco_det.weights.resnet_names import to_detectron2


@pytest.fixture(scope="module")
def finished(colored, tmp_path_factory):
    words = (
        *("CLASSIFY.BN_GROUP_SIZE", "8", "SOLVER.BASE_LR", "0.003", "SOLVER.EPOCHS", "12"),
        *("SOLVER.LR_SCHEDULER_NAME", "EpochCosineLR", "CLASSIFY.PERIOD_EPOCHS", "4"),
    )
    return run_tool(SUPERVISED, colored, tmp_path_factory.mktemp("run"), *words)


@pytest.mark.parametrize(
    "name, rate, epochs, steps",
    [
        ("ImageNet-Classification/supervised_R_50_90ep", 0.1, 90, (30, 60, 80)),
        ("ImageNet-Classification/finetune_R_50_90ep", 0.03, 90, (30, 60, 80)),
        ("iNaturalist-Classification/finetune_R_50_100ep", 0.025, 100, (70, 90)),
    ],
)
def test_recipes(name, rate, epochs, steps):
    """He et al. 2016, Goyal et al. 2017; PAPER: MoCo v1, A.6 and A.7."""
    cfg = get_cfg()
    merge_config(cfg, get_config_file(name), [])
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.EPOCHS, solver.STEP_EPOCHS) == (rate, epochs, steps)
    assert (solver.IMS_PER_BATCH, solver.MOMENTUM, solver.WEIGHT_DECAY) == (256, 0.9, 1e-4)
    assert (cfg.CLASSIFY.FREEZE, cfg.CLASSIFY.BN_GROUP_SIZE, cfg.CLASSIFY.ARCH) == (False, 32, "resnet50")


def test_it_learns_what_can_be_learned(finished):
    found = metrics(finished)
    assert found["top1"] > 90 and found["top5"] == 100  # chance is 33
    assert [line["iteration"] for line in lines(finished) if "top1" in line] == [11, 23, 35]
    assert not (finished / "features").exists() and "knn/top1" not in found


def test_the_checkpoint_is_torchvisions_and_converts(finished, tmp_path):
    saved = torch.load(finished / "model_final.pth", weights_only=True)
    model = resnet18(num_classes=3)
    model.load_state_dict(saved["model"])  # strict
    assert saved["moco_det"]["arch"] == "resnet18" and saved["classes"] == ["blue", "green", "red"]
    done = convert(finished / "model_final.pth", tmp_path / "backbone.pkl")
    assert done.provenance["source"] == "torchvision" and done.preprocessing.format == "RGB"
    assert done.dropped["classifier"] == ["fc.weight", "fc.bias"]
    written = read_backbone(tmp_path / "backbone.pkl").tensors
    for name, value in saved["model"].items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(torch.from_numpy(written[to_detectron2(name)]), value), name


def test_a_step_is_that_of_plain_torch(random_set, weights, tmp_path, request):
    """torchvision's network, cross-entropy and SGD with weight decay; batch norm over the whole batch of 8."""
    torch.set_default_dtype(torch.float64)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    trainer = make_trainer(SUPERVISED, random_set, tmp_path, "CLASSIFY.BN_GROUP_SIZE", "8", weights=weights)
    plain = resnet18(num_classes=2).train()
    plain.load_state_dict(trainer.classifier.encoder.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    trainer.model.train()
    batches = list(itertools.islice(trainer._random_views(), 2))
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(plain((batch["image"] - mean) / std), batch["label"]).backward()
        optimizer.step()
    trainer.batches = iter(batches)
    for _ in range(2):
        trainer.run_step()
    for name, value in plain.state_dict().items():
        ours = trainer.classifier.encoder.state_dict()[name]
        torch.testing.assert_close(ours, value, atol=1e-9, rtol=1e-9, msg=name)


def test_fine_tuning_starts_from_the_weights_with_a_new_classifier(random_set, weights, tmp_path):
    states = torch.load(weights)
    trainer = make_trainer(SUPERVISED, random_set, tmp_path, weights=weights)
    for name, value in trainer.classifier.encoder.state_dict().items():
        if name.startswith("fc."):
            assert value.shape[0] == 2
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(value, states[name]), name
    (group,) = trainer.optimizer.param_groups
    assert group["weight_decay"] == 1e-4 and len(group["params"]) == 62


def test_stop_and_resume_equals_uninterrupted(random_set, tmp_path):
    first = make_trainer(SUPERVISED, random_set, tmp_path / "cut")
    first.max_iter = 4
    first.run()
    resumed = make_trainer(SUPERVISED, random_set, tmp_path / "cut", resume=True)
    assert resumed.start_iter == 4
    resumed.run()
    whole = make_trainer(SUPERVISED, random_set, tmp_path / "whole")
    whole.run()
    for name, value in whole.classifier.state_dict().items():
        assert torch.equal(value, resumed.classifier.state_dict()[name]), name
    # Measuring changes nothing: without it, the same weights.
    quiet = make_trainer(SUPERVISED, random_set, tmp_path / "quiet", "CLASSIFY.PERIOD_EPOCHS", "2")
    quiet.run()
    for name, value in whole.classifier.state_dict().items():
        assert torch.equal(value, quiet.classifier.state_dict()[name]), name


def test_a_trained_network_is_judged_by_the_same_tool(finished, colored, tmp_path):
    shutil.copy(finished / "model_final.pth", tmp_path / "supervised.pth")
    run = run_tool(
        ("linear_R_50_100ep", "SOLVER.BASE_LR", "0.1", "TEST.KNN.K", "3"),
        *(colored, tmp_path / "linear"),
        weights=tmp_path / "supervised.pth",
    )
    assert metrics(run)["knn/top1"] > 90
