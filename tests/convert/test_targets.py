"""Formats and other libraries: what is written can be read again and is the same; names and strides are proven."""

import json

import numpy as np
import pytest
import torch
import torchvision
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from family_examples import EXAMPLES, caffe2_names

from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.convert.verify import TOLERANCE
from moco_det.model_zoo.detectron2_zoo import model_zoo
from moco_det.weights.backbone_file import read_backbone
from moco_det.weights.resnet_names import to_detectron2
from moco_det.weights.sources import locate_backbone, read_checkpoint
from moco_det.weights.sources.families import MSRA, SWAV


@pytest.fixture
def source(tmp_path, official):
    torch.save(official, tmp_path / "moco.pth.tar")
    return tmp_path / "moco.pth.tar"


@pytest.mark.parametrize(
    "target, name", [("detectron2", "b.pth"), ("torchvision", "b.pth"), ("timm", "b.pth"), ("mmdet", "b.pth")]
)
def test_there_and_back(tmp_path, source, resnet18, target, name):
    """Each target's file is itself a source, and gives the same tensors."""
    done = convert(source, tmp_path / name, target=target)
    assert max(done.differences.values()) <= TOLERANCE
    again = locate_backbone(read_checkpoint(tmp_path / name))
    assert again.backbone.keys() == done.kept.keys()
    assert all(torch.equal(again.backbone[n], resnet18[n]) for n in done.kept)
    assert (tmp_path / "b.yaml").exists() == (target == "detectron2")


@pytest.mark.parametrize("target", ["detectron2", "safetensors", "torchvision"])
def test_safetensors_there_and_back(tmp_path, source, resnet18, target):
    safetensors = pytest.importorskip("safetensors")
    done = convert(source, tmp_path / "b.safetensors", target=target)
    with safetensors.safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"  # without which Hugging Face's loaders refuse it
    assert done.overlay is None and not (tmp_path / "b.yaml").exists()
    content = read_checkpoint(tmp_path / "b.safetensors")
    assert content["moco_det"]["provenance"] == done.provenance
    convert(tmp_path / "b.safetensors", tmp_path / "c.pkl")
    tensors = read_backbone(tmp_path / "c.pkl").tensors
    assert all(np.array_equal(tensors[to_detectron2(n)], resnet18[n]) for n in done.kept)


def test_backbone_pkl_to_torchvision_strictly(tmp_path, source, resnet18):
    """torchvision loads the file strictly but for its classifier."""
    convert(source, tmp_path / "b.pkl")
    done = convert(tmp_path / "b.pkl", tmp_path / "t.pth", target="torchvision")
    assert done.provenance["source"] == "backbone"
    states, theirs = torch.load(tmp_path / "t.pth", weights_only=True), torchvision.models.resnet18()
    assert list(states) == [name for name in theirs.state_dict() if not name.startswith("fc.")]
    result = theirs.load_state_dict(states, strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"] and not result.unexpected_keys


def test_detectron2_loads_the_pth(tmp_path, source, resnet18):
    convert(source, tmp_path / "b.pth")
    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.update(STRIDE_IN_1X1=False, DEPTH=18, RES2_OUT_CHANNELS=64, NORM="BN")
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "b.pth"))
    states = model.state_dict()
    for name in ("conv1.weight", "layer4.1.bn2.running_var"):
        assert torch.equal(states[f"backbone.bottom_up.{to_detectron2(name)}"], resnet18[name])


@pytest.mark.parametrize(
    "target, name, kept",
    [("torchvision", "b.pth", False), ("torchvision", "b.safetensors", True), ("mmdet", "b.pth", True)],
)
def test_a_file_without_place_for_the_preprocessing_says_so(tmp_path, resnet18, target, name, kept):
    """SwAV's is not torchvision's, which the way back assumes of bare tensors."""
    torch.save(EXAMPLES["swav"](resnet18, None), tmp_path / "swav.pth")
    done = convert(tmp_path / "swav.pth", tmp_path / name, target=target)
    assert any("no place for its preprocessing" in note for note in done.notes) != kept
    again = convert(tmp_path / name, tmp_path / "c.pkl")
    assert (again.preprocessing == SWAV) == kept


# ---- The stride in the first 1x1 ---------------------------------------------------------------------------


def test_caffe2_is_proven_against_a_network_with_its_stride(tmp_path, resnet50):
    """The small reference here is written down once more, from Detectron's own description."""
    import pickle

    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(caffe2_names(resnet50)))
    done = convert(tmp_path / "R-50.pkl", tmp_path / "b.pkl")
    assert done.provenance["source"] == "caffe2" and done.preprocessing == MSRA
    assert done.dropped["bias of conv1, which detectron2 does not use either"] == ["conv1_b"]
    overlay = yaml.safe_load(done.overlay.read_text())
    assert overlay["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is True and overlay["INPUT"]["FORMAT"] == "BGR"
    for target in ("torchvision", "timm"):
        with pytest.raises(ValueError, match=f"1x1, .*{target}"):
            convert(tmp_path / "R-50.pkl", tmp_path / "t.pth", target=target)
    mmdet = convert(tmp_path / "R-50.pkl", tmp_path / "m.pth", target="mmdet")
    assert max(mmdet.differences.values()) <= TOLERANCE
    meta = read_checkpoint(tmp_path / "m.pth")["meta"]
    assert meta["style"] == "caffe" and meta["stride_in_1x1"] is True


def test_detectron2_files_need_to_be_told_their_preprocessing(tmp_path, resnet18, capsys):
    content = EXAMPLES["detectron2"](resnet18, None) | {"__author__": "somebody"}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl")])
    assert "--preprocessing torchvision" in capsys.readouterr().err and not (tmp_path / "b.pkl").exists()
    main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl"), "--preprocessing", "msra"])
    assert read_backbone(tmp_path / "b.pkl").preprocessing == MSRA


# ---- Options -------------------------------------------------------------------------------------------------


def test_json_names_and_init(tmp_path, source, capsys):
    (tmp_path / "inits").mkdir()
    options = [
        "--json",
        str(tmp_path / "done.json"),
        "--names",
        "--emit-init",
        str(tmp_path / "inits/my.yaml"),
    ]
    main([str(source), str(tmp_path / "b.pkl"), *options])
    facts = json.loads((tmp_path / "done.json").read_text())
    assert facts["renamed"]["encoder_q.layer1.0.bn1.weight"] == "res2.0.conv1.norm.weight"
    assert facts["provenance"]["source"] == "moco" and len(facts["kept"]) == 100
    assert (
        facts["preprocessing"]["format"] == "RGB" and max(facts["differences"].values()) <= facts["tolerance"]
    )
    assert "encoder_q.conv1.weight -> stem.conv1.weight" in capsys.readouterr().out
    overlay = yaml.safe_load((tmp_path / "inits/my.yaml").read_text())
    assert overlay["MODEL"]["WEIGHTS"] == "../b.pkl" and not (tmp_path / "b.yaml").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["b.txt"], "must end in '.pkl' or '.pth' or '.safetensors' for --to detectron2"),
        (["b.pkl", "--to", "timm"], "must end in '.pth' or '.safetensors' for --to timm"),
        (
            ["b.pth", "--to", "timm", "--emit-init", "x.yaml"],
            "--emit-init is for weights that tools/train_net.py loads",
        ),
        (["b.pkl", "--emit-init", "x.txt"], "expected a .yaml in a folder that exists"),
        (["b.pkl", "--json", "absent/done.json"], "folder of --json 'absent/done.json' does not exist"),
        (["b.pkl", "--json", "./b.pkl"], "is one of the other files"),
        (["b.pkl", "--json", "b.yaml"], "is one of the other files"),
        (["b.pkl", "--json", "moco.pth.tar"], "is one of the other files"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, source, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="2"):
        main([str(source), *options])
    assert message in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before


def test_ambiguous_source_says_how(tmp_path, resnet18, capsys):
    torch.save({f"encoder.{n}": v for n, v in resnet18.items()}, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl")])
    assert "simsiam, simclr" in capsys.readouterr().err
    main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl"), "--family", "simsiam"])
    assert (tmp_path / "b.pkl").is_file()


def test_folders(tmp_path, source, resnet18):
    with pytest.raises(ValueError, match="has 0 weight files"):
        (tmp_path / "empty").mkdir()
        convert(tmp_path / "empty", tmp_path / "b.pkl")
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(resnet18, folder / "one.pth")
    assert convert(folder, tmp_path / "b.pkl").provenance["file"] == "one.pth"
    torch.save(resnet18, folder / "two.pth")
    with pytest.raises(ValueError, match=r"has 2 weight files \(one.pth, two.pth\)"):
        convert(folder, tmp_path / "c.pkl")
