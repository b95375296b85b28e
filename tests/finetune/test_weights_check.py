import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from moco_det.finetune.inits import read_init
from moco_det.finetune.loaded_weights import LoadedWeights, read_weights
from moco_det.finetune.weights_check import check_loaded_backbone, check_loaded_detector, check_preprocessing
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing, write_backbone

MSRA = Preprocessing("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), True)


def save(path, tensors, preprocessing=TORCHVISION_PREPROCESSING):
    write_backbone(path, tensors, preprocessing, {})
    return str(path)


def load(cfg, path):
    """A detector as detectron2 loads it, and the file as we read it."""
    model = build_model(cfg)
    DetectionCheckpointer(model).load(path)
    return model, read_weights(path)


# ---- reading ------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_the_fix():
    with pytest.raises(ValueError, match="'nowhere/backbone.pkl' does not exist.*convert_to_d2.py"):
        read_weights("nowhere/backbone.pkl")


def test_a_pretraining_checkpoint_is_sent_to_the_converter(tmp_path):
    path = str(tmp_path / "model_final.pth")
    torch.save({"model": {"encoder_q.conv1.weight": torch.zeros(1)}, "iteration": 3}, path)
    with pytest.raises(ValueError, match="convert it first: tools/convert_to_d2.py .*model_final.pth"):
        read_weights(path)


@pytest.mark.parametrize("name", ["evil.pkl", "evil.pth"])
def test_reading_runs_no_code(tmp_path, name):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / name
    content = {"model": Evil(), "__author__": "x"}
    path.write_bytes(pickle.dumps(content)) if name.endswith("pkl") else torch.save(content, path)
    with pytest.raises(ValueError):
        read_weights(str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "content"), [("cut.pth", b"PK\3\4cut"), ("empty.pth", b"")])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_weights(str(path))


def test_options_behind_a_question_mark_are_detectron2s(backbone):
    assert (
        read_weights(backbone + "?matching_heuristics=True").tensors.keys()
        == read_weights(backbone).tensors.keys()
    )


# ---- preprocessing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.FORMAT", "BGR"),
        ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        ("MODEL.RESNETS.STRIDE_IN_1X1", True),
    ],
)
def test_each_key_is_compared_with_the_record(tiny_cfg, backbone, key, value):
    cfg = tiny_cfg("moco")
    weights = read_weights(backbone)
    check_preprocessing(cfg, weights, read_init("moco"))
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=f"{key} is .*expected .*leave the KEY VALUE pairs") as error:
        check_preprocessing(cfg, weights, read_init("moco"))
    assert str(error.value).count("expected") == 1  # the other three are not blamed


def test_the_fix_names_the_overlay_that_fits(tmp_path, tiny_cfg, backbone_tensors):
    weights = read_weights(save(tmp_path / "msra.pkl", backbone_tensors, MSRA))
    with pytest.raises(
        ValueError, match="INPUT.FORMAT.*PIXEL_MEAN.*PIXEL_STD.*STRIDE.*use --init supervised_msra"
    ):
        check_preprocessing(tiny_cfg("moco"), weights, read_init("moco"))
    own = Preprocessing("RGB", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0), False)
    weights = read_weights(save(tmp_path / "own.pkl", backbone_tensors, own))
    with pytest.raises(ValueError, match="overlay of your own"):
        check_preprocessing(tiny_cfg("moco"), weights, None)


def test_the_overlay_speaks_for_a_file_without_a_record(tmp_path, tiny_cfg, backbone_tensors):
    path = tmp_path / "foreign.pkl"
    path.write_bytes(
        pickle.dumps({"model": backbone_tensors, "__author__": "x", "matching_heuristics": True})
    )
    weights = read_weights(str(path))
    assert weights.preprocessing is None
    cfg = tiny_cfg("moco")
    check_preprocessing(cfg, weights, read_init("moco"))
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match="INPUT.FORMAT is BGR, expected RGB"):
        check_preprocessing(cfg, weights, read_init("moco"))


# ---- tensors ------------------------------------------------------------------------------------------------


def test_a_fitting_backbone_passes_in_fpn(tiny_cfg, backbone):
    cfg = tiny_cfg("moco")
    check_loaded_backbone(cfg, *load(cfg, backbone))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("res4.1.conv2.weight"), "1 not in the file: res4.1.conv2.weight"),
        (lambda t: t.pop("res3.0.shortcut.norm.running_var"), "res3.0.shortcut.norm.running_var"),
        (
            lambda t: t.update({"res2.0.conv1.weight": np.zeros((8, 8, 3, 3), "f")}),
            "1 other in the file: res2.0",
        ),
        (
            lambda t: t.update({"res4.2.conv1.weight": np.zeros(3, "f")}),
            "without a place in the model: res4.2",
        ),
    ],
)
def test_each_deviation_stops_the_run(tmp_path, tiny_cfg, backbone_tensors, change, match):
    tensors = dict(backbone_tensors)
    change(tensors)
    cfg = tiny_cfg("moco")
    with pytest.raises(ValueError, match=match):
        check_loaded_backbone(cfg, *load(cfg, save(tmp_path / "b.pkl", tensors)))


def test_a_tensor_that_changed_after_loading_is_found(tiny_cfg, backbone):
    cfg = tiny_cfg("moco")
    model, weights = load(cfg, backbone)
    model.backbone.bottom_up.res5[1].conv2.norm.running_mean[0] += 1
    with pytest.raises(ValueError, match=r"1 other in the file: res5.1.conv2.norm.running_mean"):
        check_loaded_backbone(cfg, model, weights)


def test_a_head_left_in_the_file_is_said_not_refused(tmp_path, tiny_cfg, backbone_tensors, log):
    path = save(tmp_path / "b.pkl", backbone_tensors | {"stem.fc.weight": np.zeros(3, "f")})
    cfg = tiny_cfg("moco")
    check_loaded_backbone(cfg, *load(cfg, path))
    assert "1 tensors of the file have no place in this model: stem.fc.weight" in log.text


def test_c4_has_res5_in_its_head_and_the_extra_norm_apart(tmp_path, thin_c4_cfg):
    state = build_model(thin_c4_cfg).state_dict()
    names = {n.removeprefix("backbone.").removeprefix("roi_heads."): n for n in state}
    kept = [n for n in names if n.startswith(("stem", "res")) and not n.endswith("tracked")]
    tensors = {n: state[names[n]].numpy() + 0.01 for n in kept if not n.startswith("res5.norm")}
    assert len(tensors) == 265  # 53 convolutions, and as many norms of four tensors
    check_loaded_backbone(thin_c4_cfg, *load(thin_c4_cfg, save(tmp_path / "b.pkl", tensors)))
    without = {name: value for name, value in tensors.items() if not name.startswith("res5")}
    with pytest.raises(ValueError, match="50 not in the file: res5.0.conv1.norm.bias"):
        check_loaded_backbone(thin_c4_cfg, *load(thin_c4_cfg, save(tmp_path / "c.pkl", without)))


def test_fused_norms_fit_frozen_norms_only(tmp_path, tiny_cfg, backbone_tensors):
    fused = {name: value for name, value in backbone_tensors.items() if ".running_" not in name}
    path = save(tmp_path / "fused.pkl", fused)
    cfg = tiny_cfg("moco")
    with pytest.raises(ValueError, match="MODEL.RESNETS.NORM .*FrozenBN"):
        check_loaded_backbone(cfg, *load(cfg, path))
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    check_loaded_backbone(cfg, *load(cfg, path))


# ---- Caffe2's names -----------------------------------------------------------------------------------------

# How the file spells a norm: detectron2's MSRA file, the short way, and Detectron's (fused: no statistics).
LONG = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
SHORT = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
FUSED = {"weight": "s", "bias": "b"}
BRANCHES = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}


def write_caffe2(path, cfg, norms, **more):
    """A ResNet-50 with random values, laid out as Caffe2's; ``more`` are further tensors."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "conv1_b": torch.zeros(4),
        "fc1000_w": torch.zeros(10, 64),
        "fc1000_b": torch.zeros(10),
        **more,
    }
    for name, value in build_model(cfg).state_dict().items():
        name = name.removeprefix("backbone.").removeprefix("bottom_up.").removeprefix("roi_heads.")
        if not name.startswith(("stem.conv1.", "res")) or name.startswith("res5.norm"):
            continue
        *place, convolution, last = name.replace(".norm.", ".").split(".")
        if place == ["stem"]:
            start = "res_conv1" if ".norm." in name else "conv1"
        else:
            start = "_".join([*place, BRANCHES[convolution]])
        if ".norm." not in name:
            tensors[f"{start}_w"] = torch.rand(value.shape, generator=generator)
        elif last in norms:
            tensors[f"{start}_bn_{norms[last]}"] = torch.rand(value.shape, generator=generator)
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in tensors.items()}, protocol=2))
    return str(path)


@pytest.mark.parametrize("norms", [LONG, SHORT])
def test_a_caffe2_file_is_compared_under_detectron2s_names(tmp_path, thin_c4_cfg, norms, log):
    path = write_caffe2(tmp_path / "R-50.pkl", thin_c4_cfg, norms)
    model, weights = load(thin_c4_cfg, path)
    check_loaded_backbone(thin_c4_cfg, model, weights)
    assert "All 265 backbone tensors equal those of" in log.text
    assert "conv1_b of the Caffe2 file is not used" in log.text
    assert "no place in this model: fc1000.bias, fc1000.weight" in log.text
    statistics = model.backbone.res3[0].shortcut.norm
    statistics.running_var, statistics.running_mean = statistics.running_mean, statistics.running_var
    with pytest.raises(ValueError, match="2 other in the file: res3.0.shortcut.norm.running_mean, res3.0"):
        check_loaded_backbone(thin_c4_cfg, model, weights)


def test_weights_of_another_network_are_named(tmp_path, tiny_cfg):
    """The file says what it holds, so the message says which of the two to change."""
    cfg = tiny_cfg()
    model = build_model(cfg)
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 50, 256
    tensors = {"stem.conv1.norm.running_mean": torch.zeros(1)}
    weights = LoadedWeights("r18.pkl", "sha", {}, tensors, None, "resnet18")
    with pytest.raises(
        ValueError, match=r"Fix: the file holds a resnet18, MODEL.RESNETS.DEPTH is 50: .*ARCH resnet50"
    ):
        check_loaded_backbone(cfg, model, weights)


def test_a_fused_caffe2_file_fits_frozen_norms_only(tmp_path, thin_c4_cfg):
    path = write_caffe2(tmp_path / "R-50.pkl", thin_c4_cfg, FUSED)
    with pytest.raises(ValueError, match="MODEL.RESNETS.NORM .*FrozenBN"):
        check_loaded_backbone(thin_c4_cfg, *load(thin_c4_cfg, path))
    thin_c4_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    model, weights = load(thin_c4_cfg, path)
    check_loaded_backbone(thin_c4_cfg, model, weights)
    model.backbone.res3[0].shortcut.norm.weight[0] += 1
    with pytest.raises(ValueError, match="1 other in the file: res3.0.shortcut.norm.weight"):
        check_loaded_backbone(thin_c4_cfg, model, weights)


def test_a_caffe2_detector_is_no_backbone(tmp_path, thin_c4_cfg):
    path = write_caffe2(tmp_path / "R-50.pkl", thin_c4_cfg, FUSED, conv_rpn_w=torch.zeros(1))
    with pytest.raises(ValueError, match="R-50.pkl' .*detector .*Caffe2"):
        read_weights(path)


def test_a_run_starts_from_supervised_msra(tmp_path, tiny_cfg, train):
    """A thin file takes the place of the published one."""
    words = ["MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"]
    words += ["MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.STEM_OUT_CHANNELS", "4"]
    cfg = tiny_cfg("supervised_msra")
    cfg.merge_from_list(words)
    path = write_caffe2(tmp_path / "R-50.pkl", cfg, LONG)
    folder = train("--init", "supervised_msra", *words, "MODEL.WEIGHTS", path, "SOLVER.MAX_ITER", "1")
    assert f"All 265 backbone tensors equal those of {path}" in (folder / "log.txt").read_text()


# ---- full detectors -----------------------------------------------------------------------------------------


def test_a_full_detector_is_accounted_for(tmp_path, tiny_cfg, log):
    cfg = tiny_cfg()
    path = str(tmp_path / "model_final.pth")
    trained = build_model(cfg)
    torch.save({"model": trained.state_dict()}, path)
    check_loaded_detector(*load(cfg, path), complete=True)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    model, weights = load(cfg, path)
    check_loaded_detector(model, weights, complete=False)
    assert "4 tensors of the model are not the file's" in log.text
    assert "roi_heads.box_predictor.cls_score.weight" in log.text
    with pytest.raises(ValueError, match="roi_heads.box_predictor.bbox_pred.bias"):
        check_loaded_detector(model, weights, complete=True)


def test_a_backbone_is_no_detector_to_evaluate(tiny_cfg, backbone):
    with pytest.raises(ValueError, match="fills 0 of .*detector"):
        check_loaded_detector(*load(tiny_cfg("moco"), backbone), complete=True)
