"""Images of one or N channels, and networks of other widths: detectron2 builds them from the overlay alone."""

import numpy as np
import pytest
import torch
import yaml
from checkpoint_examples import random_states
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from moco_det.config import get_cfg, merge_config
from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.convert.verify import TOLERANCE
from moco_det.finetune.inits import read_init
from moco_det.finetune.loaded_weights import read_weights
from moco_det.finetune.weights_check import check_loaded_backbone, check_preprocessing
from moco_det.model_zoo import get_config, get_config_file
from moco_det.modeling.encoder import build_resnet
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, read_backbone

HALF = "resnext50_1x32d_stem32_out128"


def detector(init: str, *pairs: object):
    """The config and the loaded model of a small recipe that starts so, merged as the trainer does it."""
    cfg, start = get_cfg(), read_init(init)
    opts = ["MODEL.DEVICE", "cpu", *map(str, pairs)]
    merge_config(cfg, get_config_file("toy/faster_rcnn_R_18_FPN"), opts, (start.overlay,))
    cfg.MODEL.WEIGHTS = start.weights
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return cfg, model


def assert_the_overlay_builds_it(init: str, weights: str, *pairs: object):
    cfg, model = detector(init, *pairs)
    found = read_weights(weights)
    check_preprocessing(cfg, found, read_init(init))
    check_loaded_backbone(cfg, model, found)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_images_of_other_channels(tmp_path, channels, resnet18):
    states = {**resnet18, "conv1.weight": torch.randn(64, channels, 7, 7)}
    torch.save(states, tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    assert max(done.differences.values()) <= TOLERANCE
    assert done.preprocessing == TORCHVISION_PREPROCESSING.for_channels(channels)
    assert any(f"images of {channels} channel" in note and "--pixel-mean" in note for note in done.notes)
    assert np.array_equal(
        read_backbone(tmp_path / "b.pkl").tensors["stem.conv1.weight"], states["conv1.weight"]
    )
    for init in ("b.yaml", "b.pkl"):
        assert_the_overlay_builds_it(str(tmp_path / init), str(tmp_path / "b.pkl"))


def test_mean_and_std_by_hand(tmp_path, resnet18, capsys):
    torch.save({**resnet18, "conv1.weight": torch.randn(64, 2, 7, 7)}, tmp_path / "a.pth")
    command = [str(tmp_path / "a.pth"), str(tmp_path / "b.pkl"), "--pixel-mean", "10", "2000"]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "--pixel-mean and --pixel-std together" in capsys.readouterr().err
    for wrong, message in ((["1"], "as many"), (["1", "0"], "std above 0"), (["nan", "1"], "std above 0")):
        with pytest.raises(SystemExit, match="2"):
            main([*command, "--pixel-std", *wrong])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "3", "--pixel-std", "1", "2", "3"])
    assert "given for 3 channels, and the network's images have 2" in capsys.readouterr().err
    main([*command, "--pixel-std", "5", "900"])
    assert "averages" not in capsys.readouterr().out
    overlay = yaml.safe_load((tmp_path / "b.yaml").read_text())["MODEL"]
    assert (overlay["PIXEL_MEAN"], overlay["PIXEL_STD"]) == ([10.0, 2000.0], [5.0, 900.0])


def test_weights_of_gray_images_are_checked_against_the_config(tmp_path, resnet18):
    torch.save({**resnet18, "conv1.weight": torch.randn(64, 1, 7, 7)}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    cfg = get_config("toy/faster_rcnn_R_18_FPN", "moco", str(tmp_path / "b.pkl"))
    with pytest.raises(
        ValueError, match=r"INPUT.FORMAT is RGB, expected L; MODEL.PIXEL_MEAN is .*\(114.495,\)"
    ):
        check_preprocessing(cfg, read_weights(str(tmp_path / "b.pkl")), None)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [114.495] * 3, [57.63] * 3  # the same number three times
    with pytest.raises(ValueError, match=r"MODEL.PIXEL_MEAN is .*\(114.495,\); MODEL.PIXEL_STD is"):
        check_preprocessing(cfg, read_weights(str(tmp_path / "b.pkl")), None)


@pytest.mark.parametrize("arch", [HALF, "resnext50_1x128d_stem128_out512", "resnext50_8x4d_stem16_out64"])
def test_other_widths_are_built_by_the_overlay(tmp_path, arch):
    states = random_states(arch)
    torch.save(states, tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    assert done.provenance["arch"] == arch and max(done.differences.values()) <= TOLERANCE
    if arch == HALF:
        assert yaml.safe_load(done.overlay.read_text())["MODEL"]["RESNETS"] == {
            **{"STRIDE_IN_1X1": False, "DEPTH": 50, "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 32},
            **{"STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 128},
        }
    convert(tmp_path / "a.pth", tmp_path / "c.pth")
    for init in ("b.yaml", "b.pkl", "c.pth"):
        assert_the_overlay_builds_it(str(tmp_path / init), str(tmp_path / "b.pkl"))


def test_the_way_back_and_a_wrong_key(tmp_path):
    """The negative control of the test above: one width that is not the file's."""
    states = random_states(HALF)
    torch.save(states, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    convert(tmp_path / "b.pkl", tmp_path / "t.pth", target="torchvision")
    result = build_resnet(HALF).load_state_dict(
        torch.load(tmp_path / "t.pth", weights_only=True), strict=False
    )
    assert result.missing_keys == ["fc.weight", "fc.bias"] and not result.unexpected_keys
    with pytest.raises(ValueError, match="MODEL.WEIGHTS"):
        assert_the_overlay_builds_it(
            str(tmp_path / "b.yaml"), str(tmp_path / "b.pkl"), "MODEL.RESNETS.WIDTH_PER_GROUP", 16
        )


def test_usual_networks_leave_depth_and_width_to_the_recipe(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    assert yaml.safe_load(done.overlay.read_text())["MODEL"]["RESNETS"] == {"STRIDE_IN_1X1": False}


@pytest.mark.parametrize(
    "shape, dimensions", [((64, 3, 7, 7, 7), "3-dimensional"), ((64, 12, 7), "1-dimensional")]
)
def test_networks_for_other_than_images(tmp_path, resnet18, shape, dimensions):
    torch.save({**resnet18, "conv1.weight": torch.ones(shape)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"{dimensions} convolutions"):
        convert(tmp_path / "a.pth", tmp_path / "b.pkl")
