import dataclasses
import os
import shutil

import pytest
import torch

from moco_det.config.overlays import PREPROCESSING_KEYS, overlay_text
from moco_det.finetune import command
from moco_det.finetune.inits import NOT_GIVEN, OVERLAY_KEYS, check_init, read_init
from moco_det.model_zoo import get_config, list_inits
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING

VOC, TOY = "PascalVOC-Detection/faster_rcnn_R_50_C4_24k", "toy/faster_rcnn_R_18_FPN"


@pytest.mark.parametrize("name", ["moco", "random", "supervised_msra", "supervised_torchvision"])
def test_each_overlay_holds_the_five_keys_and_no_other(name):
    assert name in list_inits()
    assert read_init(name).name == name  # reading refuses other keys


def test_overlay_values():
    moco, random, msra, torchvision = map(
        read_init, ("moco", "random", "supervised_msra", "supervised_torchvision")
    )
    assert moco.weights == NOT_GIVEN
    assert random.weights == ""
    assert msra.weights == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert torchvision.weights == "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
    assert moco.preprocessing == random.preprocessing == torchvision.preprocessing
    assert moco.preprocessing.to_dict() == {
        "format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
        "stride_in_1x1": False,
    }
    assert msra.preprocessing.to_dict() == {
        "format": "BGR",
        "pixel_mean": [103.53, 116.28, 123.675],
        "pixel_std": [1.0, 1.0, 1.0],
        "stride_in_1x1": True,
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("MODEL:\n  WEIGHTS: ''\n", "expected exactly"),
        ("SOLVER:\n  BASE_LR: 1.0\n", "SOLVER.BASE_LR"),
    ],
)
def test_an_overlay_of_other_keys_is_refused(tmp_path, text, match):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        read_init(str(path))


@pytest.fixture
def pair(tmp_path, backbone):
    """Weights and the overlay beside them, as convert writes them; and what the trainer makes of them."""
    values = {PREPROCESSING_KEYS[key]: value for key, value in TORCHVISION_PREPROCESSING.to_dict().items()}
    folder = tmp_path / "moved"
    folder.mkdir()
    os.rename(backbone, folder / "satellite.pkl")
    (folder / "satellite.yaml").write_text(
        overlay_text("Title", (), {"MODEL.WEIGHTS": "satellite.pkl", **values})
    )
    return folder


@pytest.mark.parametrize("where", ["absolute", "relative", "here"])
def test_weights_of_an_overlay_lie_beside_it(pair, monkeypatch, where):
    monkeypatch.chdir(pair if where == "here" else pair.parent)
    folder = {"absolute": f"{pair}/", "relative": "moved/", "here": ""}[where]
    init = read_init(f"{folder}satellite.yaml")
    assert (init.name, init.weights) == ("satellite", f"{folder}satellite.pkl")
    assert get_config(TOY, init.overlay).MODEL.WEIGHTS == init.weights
    assert get_config(TOY, init.overlay, "other.pkl").MODEL.WEIGHTS == "other.pkl"


@pytest.mark.parametrize("weights", ["", NOT_GIVEN, "detectron2://some/file.pkl", "/elsewhere/file.pkl"])
def test_what_is_no_relative_path_stays(tmp_path, weights):
    (tmp_path / "mine.yaml").write_text(f"MODEL: {{WEIGHTS: '{weights}'}}\n")
    assert get_config(TOY, str(tmp_path / "mine.yaml")).MODEL.WEIGHTS == weights


def test_training_takes_the_overlay_alone_and_pairs_win(pair, train, monkeypatch):
    started = []
    monkeypatch.setattr(
        command, "run_in_processes", lambda work, args, cfg, *others: started.append((cfg, others[-1]))
    )
    train("--init", str(pair / "satellite.yaml"))
    shutil.copy(pair / "satellite.pkl", pair / "other.pkl")
    train("--init", str(pair / "satellite.yaml"), "MODEL.WEIGHTS", str(pair / "other.pkl"), output="out2")
    assert [cfg.MODEL.WEIGHTS for cfg, _ in started] == [str(pair / "satellite.pkl"), str(pair / "other.pkl")]
    assert [init.name for _, init in started] == ["satellite", "satellite"]  # what run.json names


def test_a_backbone_file_is_its_own_overlay(backbone, backbone_tensors, tmp_path, train, monkeypatch):
    """It may be .pkl or .pth; the preprocessing that it records is merged below the KEY VALUE pairs."""
    started = []
    monkeypatch.setattr(
        command, "run_in_processes", lambda work, args, cfg, *others: started.append((cfg, others[-1]))
    )
    unusual = dataclasses.replace(TORCHVISION_PREPROCESSING, pixel_std=(50.0, 51.0, 52.0))
    record = {"preprocessing": unusual.to_dict(), "provenance": {"source": "test"}}
    states = {name: torch.from_numpy(array) for name, array in backbone_tensors.items()}
    content = {"model": states, "moco_det": record, "matching_heuristics": True}
    torch.save(content, tmp_path / "unusual.pth")
    train("--init", backbone)
    train("--init", str(tmp_path / "unusual.pth"), "SEED", "7", output="out2")
    (first, init), (second, _) = started
    assert first.MODEL.WEIGHTS == backbone and init.name == "backbone" and init.weights == backbone
    assert second.MODEL.PIXEL_STD == [50.0, 51.0, 52.0] and second.SEED == 7
    with pytest.raises(ValueError, match="MODEL.PIXEL_STD is .*1.0, 1.0, 1.0.*, expected .*50.0"):
        train("--init", str(tmp_path / "unusual.pth"), "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]", output="out3")


def test_weight_files_that_cannot_be_their_own_overlay(tmp_path):
    with pytest.raises(ValueError, match="--init 'absent.pkl' does not exist"):
        read_init("absent.pkl")
    torch.save({"model": {"stem.conv1.weight": torch.ones(1)}}, tmp_path / "detector.pth")
    with pytest.raises(ValueError, match="its input.*tools/convert"):
        read_init(str(tmp_path / "detector.pth"))
    with pytest.raises(ValueError, match="tools/convert_to_d2.py b"):
        read_init("b.safetensors")
    for record in (3, {"provenance": {}}, {"preprocessing": {}, "provenance": {}}):
        torch.save({"model": {"stem.conv1.weight": torch.ones(1)}, "moco_det": record}, tmp_path / "x.pth")
        with pytest.raises(ValueError, match="x.pth: the 'moco_det' record is damaged"):
            read_init(str(tmp_path / "x.pth"))
    (tmp_path / "cut.pth").write_bytes(b"PK" + bytes(50))
    with pytest.raises(ValueError, match="cut.pth' .*torch file"):
        read_init(str(tmp_path / "cut.pth"))


def test_weights_that_stayed_behind_are_named(pair, train):
    os.remove(pair / "satellite.pkl")
    with pytest.raises(ValueError, match="MODEL.WEIGHTS '.*moved/satellite.pkl' does not exist"):
        train("--init", str(pair / "satellite.yaml"))


def test_an_own_overlay_may_be_called_as_a_supervised_one(pair):
    (pair / "satellite.yaml").rename(pair / "supervised_satellite.yaml")
    own = str(pair / "supervised_satellite.yaml")
    check_init(get_config(TOY, own), read_init(own))  # depth 18


def test_an_unknown_init_names_the_nearest():
    with pytest.raises(ValueError, match="match: 'supervised_msra'"):
        read_init("supervised_mrsa")


@pytest.mark.parametrize(
    ("init", "weights", "recipe", "match"),
    [
        ("moco", "", TOY, "--init moco needs a weight file and has none"),
        ("random", "backbone.pkl", TOY, "starts from scratch, but MODEL.WEIGHTS is 'backbone.pkl'"),
        ("supervised_msra", "", TOY, "DEPTH 50, found 18"),
        ("supervised_torchvision", "backbone.pkl", TOY, "DEPTH 50, found 18"),
        (None, "", VOC, "give --init random"),
    ],
)
def test_a_start_that_is_not_the_inits_is_refused(init, weights, recipe, match):
    with pytest.raises(ValueError, match=match):
        check_init(get_config(recipe, init, weights), read_init(init) if init else None)


def test_weights_emptied_on_the_command_line_are_no_random_start():
    cfg = get_config(VOC, "supervised_msra")
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(ValueError, match="supervised_msra needs a weight file"):
        check_init(cfg, read_init("supervised_msra"))


@pytest.mark.parametrize(
    ("init", "weights"), [("moco", "b.pkl"), ("random", ""), ("supervised_msra", ""), (None, "b.pkl")]
)
def test_fitting_starts_pass(init, weights):
    check_init(get_config(VOC, init, weights), read_init(init) if init else None)


def test_the_overlay_keys_are_the_documented_ones():
    assert set(OVERLAY_KEYS) == {
        *("MODEL.WEIGHTS", "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
        "MODEL.RESNETS.STRIDE_IN_1X1",
    }


@pytest.mark.parametrize("schedule", ["1x", "2x"])
def test_frozen_norms_need_weights(schedule):
    cfg = get_config(f"LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_{schedule}_frozenBN", "random")
    with pytest.raises(ValueError, match="NORM is FrozenBN.* _frozenBN.*--init"):
        check_init(cfg, read_init("random"))
    cfg.MODEL.RESNETS.NORM = "naiveSyncBN"
    check_init(cfg, read_init("random"))
