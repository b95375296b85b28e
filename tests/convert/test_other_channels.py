"""Weights for other channels than the source's: the rule against plain loops, the proof, and the way back."""

import numpy as np
import pytest
import torch
import yaml
from checkpoint_examples import random_states

from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.convert.verify import TOLERANCE
from moco_det.finetune.inits import preprocessing_of, read_init
from moco_det.finetune.loaded_weights import read_weights
from moco_det.finetune.weights_check import check_preprocessing
from moco_det.model_zoo import get_config
from moco_det.modeling.encoder import build_resnet, stage_features
from moco_det.weights.backbone_file import Preprocessing, read_backbone
from moco_det.weights.backbone_tensors import with_channels
from moco_det.weights.initial_weights import read_initial_weights


def by_loops(weight, channels, rule):
    before = weight.shape[1]
    new = torch.zeros(len(weight), channels, 7, 7)
    for c in range(channels):
        if rule == "mean":
            new[:, c] = sum(weight[:, b] for b in range(before)) / before
        else:
            new[:, c] = weight[:, c % before]
    return new * before / channels


@pytest.mark.parametrize(("before", "after"), [(3, 4), (3, 13), (13, 3), (3, 2), (4, 3), (3, 1), (1, 3)])
@pytest.mark.parametrize("rule", ["repeat", "mean"])
def test_the_rule(before, after, rule):
    weight = torch.randn(64, before, 7, 7)
    found = with_channels({"conv1.weight": weight, "x": 1}, after, rule)
    wanted = "mean" if 1 in (before, after) else rule
    torch.testing.assert_close(found["conv1.weight"], by_loops(weight, after, wanted))
    assert found["x"] == 1
    assert with_channels({"conv1.weight": weight}, before, rule)["conv1.weight"] is weight


@pytest.mark.parametrize(("channels", "rule"), [(4, "mean"), (1, "repeat"), (6, "repeat"), (13, "mean")])
def test_images_of_equal_channels_give_what_they_gave(channels, rule):
    states = {name: value for name, value in random_states("resnet18").items() if not name.startswith("fc.")}
    gray, features = torch.randn(1, 1, 64, 64, dtype=torch.float64), []
    for number, values in ((3, states), (channels, with_channels(states, channels, rule))):
        model = build_resnet("resnet18", in_channels=number).double().eval()
        model.load_state_dict(values, strict=False)
        with torch.no_grad():
            features.append(stage_features(model, gray.expand(-1, number, -1, -1))["res5"])
    torch.testing.assert_close(*features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_there_and_back(tmp_path, channels, capsys):
    states = random_states("resnet18")
    torch.save(states, tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl", channels=channels)
    assert max(done.differences.values()) <= TOLERANCE
    assert done.preprocessing.channels == channels
    assert any(f"made for {channels} channels of one for 3" in note for note in done.notes)
    overlay = yaml.safe_load((tmp_path / "b.yaml").read_text())
    assert overlay["INPUT"] == {"FORMAT": "L" if channels == 1 else "RGB", "CHANNELS": channels, "RANGE": []}
    back = convert(tmp_path / "b.pkl", tmp_path / "c.pth", channels=3, target="torchvision")
    assert max(back.differences.values()) <= TOLERANCE
    again = torch.load(tmp_path / "c.pth", weights_only=True)["conv1.weight"]
    if channels == 1:
        again, expected = again.sum(1), states["conv1.weight"].sum(1)
    else:
        expected = states["conv1.weight"]
    torch.testing.assert_close(again, expected)


def test_range_and_format_travel_and_are_checked(tmp_path, capsys):
    torch.save(random_states("resnet18"), tmp_path / "a.pth")
    numbers = [
        "--pixel-mean",
        *"1234",
        "--pixel-std",
        *"5678",
        "--pixel-range",
        "0",
        "10000",
        "--format",
        "L",
    ]
    main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl"), "--channels", "4", *numbers])
    said = capsys.readouterr().out
    assert "L, values 0 10000, mean 1 2 3 4" in said and "averages" not in said
    wanted = Preprocessing("L", (1, 2, 3, 4), (5, 6, 7, 8), False, (0, 10000))
    assert read_backbone(tmp_path / "b.pkl").preprocessing == wanted
    for init in ("b.yaml", "b.pkl"):
        assert read_init(str(tmp_path / init)).preprocessing == wanted
    cfg = get_config("toy/faster_rcnn_R_18_FPN", str(tmp_path / "b.yaml"))
    assert preprocessing_of(cfg) == wanted
    check_preprocessing(cfg, weights := read_weights(str(tmp_path / "b.pkl")), None)
    for key, value, message in (
        ("INPUT.RANGE", (0.0, 9999.0), r"INPUT.RANGE is \(0.0, 9999.0\), expected \(0.0, 10000.0\)"),
        ("INPUT.RANGE", (), r"INPUT.RANGE is \(\), expected"),
        ("INPUT.FORMAT", "RGB", "INPUT.FORMAT is RGB, expected L"),
    ):
        other = cfg.clone()
        other.defrost()
        other.merge_from_list([key, value])
        with pytest.raises(ValueError, match=message):
            check_preprocessing(other, weights, None)
    with pytest.raises(ValueError, match="4 channels.*INPUT.CHANNELS is 3.*--channels 3"):
        read_initial_weights(str(tmp_path / "b.pkl"), "MODEL.ENCODER.ARCH", "resnet18", 3)
    assert (
        read_initial_weights(str(tmp_path / "b.pkl"), "MODEL.ENCODER.ARCH", "resnet18", 4).preprocessing
        == wanted
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--channels", "17"], "--channels is 17; expected 1 to 16"),
        (["--pixel-range", "0", "1"], "--pixel-range and --format go with --pixel-mean"),
        (["--channels", "4", "--pixel-mean", "1", "--pixel-std", "1"], "the network's images have 4"),
        (["--pixel-mean", *"123", "--pixel-std", *"123", "--pixel-range", "0", "1", "2"], "range is"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, words, message):
    torch.save(random_states("resnet18"), tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl"), *words])
    assert message in capsys.readouterr().err and not (tmp_path / "b.pkl").exists()


def test_records_without_a_range_are_read_and_written_as_before():
    record = {"format": "RGB", "pixel_mean": [1.0, 2, 3], "pixel_std": [4, 5, 6], "stride_in_1x1": True}
    found = Preprocessing.from_dict(record)
    assert found.range == () and found.to_dict() == record
    ranged = Preprocessing.from_dict({**record, "range": [0, 4095]})
    assert ranged.range == (0, 4095) and Preprocessing.from_dict(ranged.to_dict()) == ranged
    for wrong in ([1], [0, 1, 2, 3], "x", [None, 1]):
        with pytest.raises(ValueError, match="range is"):
            Preprocessing.from_dict({**record, "range": wrong})


def test_statistics_are_an_init_from_scratch(tmp_path):
    numbers = "{PIXEL_MEAN: [1, 2, 3, 4], PIXEL_STD: [1, 1, 1, 1]}"
    text = f"INPUT: {{FORMAT: RGB, CHANNELS: 4, RANGE: [0, 9]}}\nMODEL: {numbers}\n"
    (tmp_path / "own.yaml").write_text(text)
    init = read_init(str(tmp_path / "own.yaml"))
    assert init.name == "own" and init.weights == "" and not init.overlay.MODEL.RESNETS.STRIDE_IN_1X1
    assert init.preprocessing == Preprocessing("RGB", (1, 2, 3, 4), (1, 1, 1, 1), False, (0, 9))
    assert np.array_equal(init.overlay.INPUT.RANGE, [0, 9])
