"""MODEL.WEIGHTS: what encoders start from, read once a run, and what is refused."""

import json

import pytest
import torch
from checkpoint_examples import official_moco, random_states
from opened_files import opened_files

from moco_det.classify.command import main as classify_main
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.pretrain.command import main as pretrain_main
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import set_keys, tiny_pretrain_config, write_random_images
from moco_det.weights.initial_weights import read_initial_weights

TINY = (
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.DIM", "16", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "4", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "1", "DATALOADER.NUM_WORKERS", "0"),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 24)
    return folder


def trainer_from(weights, images, output, **moco):
    cfg = tiny_pretrain_config(output, CHECKPOINT_EPOCHS=1)
    cfg.DATASETS.IMAGES, cfg.MODEL.WEIGHTS = str(images), str(weights)
    set_keys(cfg, moco)
    prepare_run_folder(cfg, resume=(output / "last_checkpoint").exists())
    return PretrainTrainer(cfg)


@pytest.mark.parametrize("family", ["torchvision", "official"])
def test_both_encoders_start_from_the_backbone(images, tmp_path, resnet18, family):
    content = resnet18 if family == "torchvision" else official_moco(resnet18, random_states("resnet18", 1))
    torch.save(content, tmp_path / "weights.pth")
    trainer = trainer_from(tmp_path / "weights.pth", images, tmp_path / "out")
    plain = trainer_from("", images, tmp_path / "plain")
    for encoder, untouched in (
        (trainer.method.encoder_q, plain.method.encoder_q),
        (trainer.method.encoder_k, plain.method.encoder_k),
    ):
        for name, value in encoder.state_dict().items():
            if name.startswith("fc."):
                assert torch.equal(value, untouched.state_dict()[name])
            elif not name.endswith("num_batches_tracked"):
                assert torch.equal(value, resnet18[name]), name
    assert trainer.history.weights == "weights.pth" and len(trainer.history.weights_sha256) == 64


def pretrain(weights, images, output, *flags):
    words = (
        "--config-file",
        "Pretrain/moco_v2_R_50_200ep",
        "--num-gpus",
        "0",
        "--images",
        str(images),
        *flags,
    )
    pretrain_main([*words, *TINY, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(output)])


def classify(weights, images, output, *flags):
    words = ("--config-file", "configs/ImageNet-Classification/linear_R_50_100ep.yaml", "--num-gpus", "0")
    given = ("--images", str(output.parent / "labeled"), "--weights", weights, *flags)
    for part in ("train", "val"):
        write_random_images(output.parent / "labeled" / part / "a", 8)
        write_random_images(output.parent / "labeled" / part / "b", 8)
    keys = (
        *("CLASSIFY.ARCH", "", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
        "SOLVER.EPOCHS",
        "1",
    )
    classify_main([*words, *given, *keys, "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(output)])


@pytest.mark.parametrize("stage", [pretrain, classify])
def test_weights_are_read_once_and_hashed_once(images, tmp_path, resnet18, stage):
    """The checks, the encoders, the log and the record, or a dry run's page, all use what one reading gave."""
    path = str(tmp_path / "weights.pth")
    torch.save(resnet18, path)
    with opened_files() as opened:
        sha256 = read_initial_weights(path, "MODEL.ENCODER.ARCH").sha256
        once = opened.count(path)
    assert once > 1
    for flags in (("--dry-run",), ()):
        with opened_files() as opened:
            stage(path, images, tmp_path / "out", *flags)
            assert opened.count(path) == once, flags
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert (record["extra"]["weights"], record["extra"]["weights_sha256"]) == ("weights.pth", sha256)


def test_a_checkpoint_replaces_the_weights_and_remembers_them(images, tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "weights.pth")
    first = trainer_from(tmp_path / "weights.pth", images, tmp_path / "out")
    first.max_iter = 3
    first.run()
    (tmp_path / "weights.pth").unlink()
    resumed = trainer_from(tmp_path / "weights.pth", images, tmp_path / "out")
    resumed.resume()
    assert resumed.history.weights_sha256 == first.history.weights_sha256
    for name, value in first.method.state_dict().items():
        assert torch.equal(resumed.method.state_dict()[name], value)


def test_what_cannot_be_started_from_is_refused(images, tmp_path, resnet18):
    with pytest.raises(ValueError, match="MODEL.WEIGHTS .*nowhere.pth' is no file"):
        trainer_from("nowhere.pth", images, tmp_path / "a")
    torch.save(resnet18, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="resnet18; MODEL.ENCODER.ARCH is resnet34"):
        trainer_from(tmp_path / "weights.pth", images, tmp_path / "b", ARCH="resnet34")
    torch.save({n: v for n, v in resnet18.items() if n != "bn1.bias"}, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match="MODEL.WEIGHTS .*torn.pth.*1 missing: bn1.bias"):
        trainer_from(tmp_path / "torn.pth", images, tmp_path / "c")
    own = {"model": {f"encoder_q.{name}": value for name, value in resnet18.items()}}
    own["moco_det"] = {
        "arch": "resnet18",
        "preprocessing": {
            "format": "RGB",
            "pixel_mean": [10.0, 20.0, 30.0],
            "pixel_std": [58.395, 57.12, 57.375],
            "stride_in_1x1": False,
        },
    }
    torch.save(own, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"trained with MODEL.PIXEL_MEAN \[10.0, 20.0, 30.0\], this run has"):
        trainer_from(tmp_path / "own.pth", images, tmp_path / "d")
