import pytest

from moco_det.finetune.inits import NOT_GIVEN, OVERLAY_KEYS, check_init, read_init
from moco_det.model_zoo import get_config, list_inits

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


def test_an_unknown_init_names_the_nearest():
    with pytest.raises(ValueError, match="nearest init is 'supervised_msra'"):
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
