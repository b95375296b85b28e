"""The CIFAR-10 demo of MoCo's authors: its settings, its small stem, and a run on a folder of its layout."""

import json

import pytest
import torch
from PIL import Image

from moco_det import model_zoo
from moco_det.config import get_cfg, merge_config
from moco_det.convert.command import main as convert
from moco_det.data.decoding import decode_rgb
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.data.views import RECIPES
from moco_det.modeling.encoder import build_resnet, pooled_features
from moco_det.pretrain.command import main as pretrain
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.core import tiny_pretrain_config, write_random_images

SYMMETRIC = "Pretrain/cifar10_moco_R_18_symmetric_200ep"


def test_the_recipe_is_that_of_the_demo():
    """The recipe has the notebook's network, MoCo, training and monitor (official code)."""
    cfg = get_cfg()
    merge_config(cfg, model_zoo.get_config_file("Pretrain/cifar10_moco_R_18_200ep"), [])
    encoder, moco, solver, knn = cfg.MODEL.ENCODER, cfg.MODEL.MOCO, cfg.SOLVER, cfg.TEST.KNN
    assert (encoder.ARCH, encoder.STEM, moco.DIM, moco.MLP) == ("resnet18", "cifar", 128, False)
    assert (moco.QUEUE_SIZE, moco.MOMENTUM, moco.TEMPERATURE, moco.SHUFFLE_BN) == (4096, 0.99, 0.1, True)
    assert solver.IMS_PER_BATCH / encoder.BN_GROUP_SIZE == 8 and solver.IMS_PER_BATCH == 512
    assert (solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY, solver.EPOCHS) == (0.06, 0.9, 5e-4, 200)
    assert solver.LR_SCHEDULER_NAME == "EpochCosineLR"
    assert (knn.K, knn.TEMPERATURE, knn.FEATURES, knn.CENTER_CROP) == (200, 0.1, "embedding", False)
    for photometric in RECIPES[cfg.INPUT.VIEWS.RECIPE]:
        assert (photometric.operations, photometric.jitter) == (("jitter", "grayscale"), (0.4, 0.4, 0.4, 0.1))
        assert (photometric.jitter_probability, photometric.grayscale_probability) == (0.8, 0.2)
        assert photometric.blur_probability == 0
    assert tuple(cfg.INPUT.VIEWS.CROP_SCALE) == (0.08, 1.0)


def test_the_mean_of_both_orders_makes_the_steps_of_the_demos_sum():
    """They do so with the learning rate and the weight decay of the symmetric recipe."""
    cfg = get_cfg()
    merge_config(cfg, model_zoo.get_config_file(SYMMETRIC), [])
    weights = []
    for lr, decay, share in ((0.06, 5e-4, 1.0), (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, 0.5)):
        w = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.SGD([w], lr=lr, momentum=0.9, weight_decay=decay)
        for _ in range(20):
            optimizer.zero_grad()
            (share * ((w - 0.3).square().sum() + (w + 0.1).cos().sum())).backward()
            optimizer.step()
        weights.append(w.detach())
    torch.testing.assert_close(*weights, rtol=1e-12, atol=0)


def test_the_small_stem_keeps_the_side_of_an_image():
    model = build_resnet("resnet18", stem="cifar")
    images = torch.randn(2, 3, 32, 32)
    assert model.maxpool(model.conv1(images)).shape == (2, 64, 32, 32)
    assert pooled_features(model, images).shape == (2, 512)
    usual = build_resnet("resnet18")
    assert usual.maxpool(usual.conv1(images)).shape == (2, 64, 8, 8)


def test_the_monitor_can_see_whole_images(tmp_path):
    write_random_images(tmp_path / "x", 1, size=32)
    folder = LabeledFolder(str(tmp_path), 32, "TEST.KNN.IMAGES", center_crop=False)
    (path,) = folder.paths
    image = torch.frombuffer(bytearray(decode_rgb(path).tobytes()), dtype=torch.uint8)
    assert torch.equal(folder[0][0], image.view(32, 32, 3).permute(2, 0, 1))
    assert not torch.equal(LabeledFolder(str(tmp_path), 32, "TEST.KNN.IMAGES")[0][0], folder[0][0])


def test_a_folder_in_cifars_layout_trains_and_is_refused_by_name_where_detectors_begin(tmp_path, capsys):
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            for path in write_random_images(tmp_path / split / name, 8, size=32, seed=number):
                Image.open(path).save(path.with_suffix(".png"))
                path.unlink()
    arguments = ["--config-file", SYMMETRIC, "--images", str(tmp_path / "train"), "--num-gpus", "0"]
    settings = {
        "TEST.KNN.IMAGES": tmp_path,
        "OUTPUT_DIR": tmp_path / "run",
        "INPUT.VIEWS.SIZE": 16,
        "SOLVER.EPOCHS": 1,
        "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.LOG_PERIOD": 1,
        "MODEL.ENCODER.BN_GROUP_SIZE": 4,
        "MODEL.MOCO.QUEUE_SIZE": 16,
        "DATALOADER.NUM_WORKERS": 0,
        "SEED": 1,
    }
    options = [str(word) for pair in settings.items() for word in pair]
    pretrain([*arguments, *options])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert "knn_accuracy" in lines[-1] and lines[-1]["total_loss"] > 0
    with pytest.raises(SystemExit):
        convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
    assert "3x3 stem (for small images)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pretrain([*arguments, *options, "MODEL.WEIGHTS", "x.pth", "OUTPUT_DIR", str(tmp_path / "again")])
    assert "with MODEL.ENCODER.STEM cifar" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key, known",
    [("MODEL.ENCODER.STEM", "imagenet, cifar"), ("TEST.KNN.FEATURES", "pooled, embedding")],
)
def test_unknown_values_are_refused(key, known):
    cfg = tiny_pretrain_config()
    cfg.merge_from_list([key, "tiny"])
    with pytest.raises(ValueError, match=f"{key} is 'tiny'.*{known}"):
        MoCo.check_config(cfg, ranks=1)
