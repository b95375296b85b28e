import errno
import hashlib
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checkpoint_examples import official_moco, own_checkpoint
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from moco_det.convert import convert as convert_module
from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.convert.verify import TOLERANCE
from moco_det.model_zoo.detectron2_zoo import model_zoo
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, read_backbone
from moco_det.weights.resnet_names import to_detectron2, to_torchvision

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path, official):
    torch.save(official, tmp_path / "checkpoint_0199.pth.tar")
    return tmp_path / "checkpoint_0199.pth.tar"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "backbone.pkl"


def assert_holds(path, states):
    tensors = read_backbone(path).tensors
    assert len(tensors) == sum("fc." not in name and "num_batches" not in name for name in states)
    assert all(np.array_equal(array, states[to_torchvision(name)]) for name, array in tensors.items())


# ---- What is written -----------------------------------------------------------------------------------


def test_official_moco(source, output, resnet18):
    conversion = convert(source, output)
    file = read_backbone(output)
    assert_holds(output, resnet18)
    assert file.preprocessing == TORCHVISION_PREPROCESSING
    assert file.provenance == conversion.provenance
    assert file.provenance == {
        "source": "moco",
        "file": "checkpoint_0199.pth.tar",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "encoder": "query",
        "arch": "resnet18",
        "config": "",
    }
    assert (
        conversion.kept["layer1.0.bn1.weight"] == "res2.0.conv1.norm.weight" and len(conversion.kept) == 100
    )
    assert max(conversion.differences.values()) <= TOLERANCE and len(conversion.differences) == 4


def test_every_tensor_of_the_source_is_accounted_for(source, output, official):
    conversion = convert(source, output)
    kept = [f"encoder_q.{name}" for name in conversion.kept]
    dropped = [name for names in conversion.dropped.values() for name in names]
    assert sorted(kept + dropped) == sorted(name.removeprefix("module.") for name in official["state_dict"])


def test_key_encoder(source, output, other_resnet18):
    assert convert(source, output, encoder="key").provenance["encoder"] == "key"
    assert_holds(output, other_resnet18)


def test_own_layout(tmp_path, output, resnet18, other_resnet18):
    torch.save(own_checkpoint(resnet18, other_resnet18), tmp_path / "model_final.pth")
    convert(tmp_path / "model_final.pth", output)
    file = read_backbone(output)
    assert_holds(output, resnet18)
    assert file.preprocessing.pixel_std == (50.0, 51.0, 52.0)
    assert (file.provenance["source"], file.provenance["config"]) == ("moco_det", "SEED: 1\n")


def test_checkpoint_of_the_pretraining_itself(tmp_path, output):
    """Through the real checkpointer, so that neither side of the contract can move alone."""
    from moco_det.engine.checkpoint import RunCheckpointer
    from moco_det.pretrain.moco.model import MoCo
    from moco_det.testing.core import tiny_pretrain_config

    cfg = tiny_pretrain_config(tmp_path)
    model = MoCo(cfg)
    checkpointer = RunCheckpointer(model, cfg, arch="resnet18", save_to_disk=True, num_images=24)
    checkpointer.save("model_final", iteration=3)
    convert(tmp_path / "model_final.pth", output, encoder="key")
    assert_holds(output, model.encoder_k.state_dict())
    file = read_backbone(output)
    assert file.provenance["config"] == cfg.dump() and file.provenance["arch"] == "resnet18"
    assert list(file.preprocessing.pixel_std) == cfg.MODEL.PIXEL_STD


@pytest.mark.parametrize("kind", ["torch", "pickled arrays"])
def test_torchvision(tmp_path, output, resnet18, kind):
    path = tmp_path / "resnet18.pth"
    if kind == "torch":
        torch.save(resnet18, path)
    else:
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in resnet18.items()}))
    assert convert(path, output).provenance["encoder"] == ""
    assert_holds(output, resnet18)


def test_an_older_output_is_replaced(source, output, resnet18):
    output.write_bytes(b"old")
    convert(source, output)
    assert_holds(output, resnet18)


def test_the_overlay_beside_it(tmp_path, output, resnet18, other_resnet18):
    """Exactly what an init sets, from the checkpoint's record; the weights by name, so that the pair can move."""
    torch.save(own_checkpoint(resnet18, other_resnet18), tmp_path / "model_final.pth")
    conversion = convert(tmp_path / "model_final.pth", output)
    assert conversion.overlay == tmp_path / "backbone.yaml"
    assert yaml.safe_load(conversion.overlay.read_text()) == {
        "MODEL": {
            "WEIGHTS": "backbone.pkl",
            "PIXEL_MEAN": [123.675, 116.28, 103.53],
            "PIXEL_STD": [50.0, 51.0, 52.0],
            "RESNETS": {"STRIDE_IN_1X1": False},
        },
        "INPUT": {"FORMAT": "RGB"},
    }


def test_an_older_overlay_of_its_own_is_replaced(source, output):
    overlay = output.with_suffix(".yaml")
    overlay.write_text(f"# {convert_module.TITLE}\nMODEL: {{WEIGHTS: old.pkl}}\n")
    convert(source, output)
    assert "old.pkl" not in overlay.read_text() and "backbone.pkl" in overlay.read_text()


# ---- What is refused: no file appears, an old one stays ---------------------------------------------------


@pytest.fixture(params=[None, b"old"])
def unchanged(request, tmp_path, source, output):
    """Afterwards the folder must be as before, with and without an older output."""
    if request.param:
        output.write_bytes(request.param)
        output.with_suffix(".yaml").write_text(f"# {convert_module.TITLE}\nold\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    yield
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_rename_is_caught_by_the_proof(source, output, unchanged, monkeypatch):
    """The negative control of the whole way: conv1's and conv2's norm change places in every block."""
    exchange = {"bn1": "bn2", "bn2": "bn1"}

    def wrong(name):
        parts = name.split(".")
        return to_detectron2(".".join(exchange.get(part, part) if len(parts) > 2 else part for part in parts))

    monkeypatch.setattr(convert_module, "to_detectron2", wrong)
    with pytest.raises(ValueError, match="features differ"):
        convert(source, output)


@pytest.mark.parametrize(
    "function, error, message",
    [
        ("fsync", errno.ENOSPC, "^cannot write '[^']*backbone.pkl': No space left on device"),
        ("replace", errno.EACCES, "^cannot write '[^']*backbone.pkl': Permission denied"),
    ],
)
def test_unwritable_output(source, output, unchanged, monkeypatch, function, error, message):
    def fail(*args):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match=message):
            convert(source, output)


def test_an_overlay_that_cannot_be_written_leaves_no_weights(source, output, unchanged, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        with pytest.raises(OSError, match="^cannot write '[^']*backbone.yaml': No space left on device"):
            convert(source, output)


def test_a_yaml_of_the_user_is_not_replaced(source, output):
    overlay = output.with_suffix(".yaml")
    overlay.write_text("# my recipe\nSEED: 1\n")
    with pytest.raises(ValueError, match="backbone.yaml' .*another name"):
        convert(source, output)
    assert overlay.read_text() == "# my recipe\nSEED: 1\n" and not output.exists()


def break_states(source, change):
    content = torch.load(source, weights_only=True)
    change(content["state_dict"])
    torch.save(content, source)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("module.encoder_q.layer2.1.conv2.weight"), "1 missing: layer2.1.conv2.weight"),
        (lambda s: s.update({"module.predictor.weight": torch.ones(1)}), "1 left over: predictor.weight"),
        (lambda s: s["module.encoder_q.bn1.bias"].fill_(torch.nan), r"not finite .*: bn1.bias"),
    ],
)
def test_broken_source(source, output, change, message):
    break_states(source, change)
    with pytest.raises(ValueError, match=message):
        convert(source, output)
    assert not output.exists()


def test_recorded_arch_must_agree(tmp_path, output, resnet18):
    content = own_checkpoint(resnet18, resnet18)
    content["moco_det"]["arch"] = "resnet34"
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="resnet34.*resnet18"):
        convert(tmp_path / "a.pth", output)


@pytest.mark.parametrize(
    "name, message",
    [
        ("backbone.txt", "must end in '.pkl' or '.pth' or '.safetensors' for --to detectron2"),
        ("absent/backbone.pkl", "folder of output .* does not exist"),
    ],
)
def test_unusable_output(tmp_path, source, name, message):
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / name)


def test_output_must_not_be_the_source(tmp_path, source):
    source.rename(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").symlink_to(tmp_path / "a.pkl")
    for output in ("a.pkl", "b.pkl"):
        with pytest.raises(ValueError, match="same file"):
            convert(tmp_path / "a.pkl", tmp_path / output)


def test_missing_source(tmp_path, output):
    with pytest.raises(ValueError, match="source '.*absent.pth' is no file"):
        convert(tmp_path / "absent.pth", output)


# ---- The command line ---------------------------------------------------------------------------------------


def test_command_line(source, output):
    command = [
        sys.executable,
        REPOSITORY / "tools/convert_to_d2.py",
        source.name,
        output.name,
        "--encoder",
        "key",
    ]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=True)
    assert output.is_file()
    for line in (
        "source   checkpoint_0199.pth.tar (moco, key encoder, resnet18)",
        "kept     100 tensors, renamed for detectron2",
        "dropped  4 projection head: encoder_k.fc.0.weight, encoder_k.fc.0.bias, encoder_k.fc.2.weight and 1 more",
        "dropped  2 dictionary: queue, queue_ptr",
        "dropped  entries that are no weights: epoch, arch, optimizer",
        "proof    features differ by res2 ",
        "written  backbone.pkl (44.8 MB)",
        "         backbone.yaml; next: tools/train_net.py --config-file RECIPE --init backbone.yaml",
    ):
        assert line in done.stdout


def test_errors_are_one_line(tmp_path, output, capsys, resnet18):
    torch.save(resnet18, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth"), str(output), "--encoder", "key"])
    error = capsys.readouterr().err
    assert error.startswith("error: --encoder is 'key', but a torchvision file") and error.count("\n") == 1


def test_trust_pickle_is_offered_and_works(tmp_path, output, capsys, resnet18):
    torch.save({"state_dict": resnet18, "args": Path("somewhere")}, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth"), str(output)])
    assert "pass --trust-pickle" in capsys.readouterr().err and not output.exists()
    main([str(tmp_path / "a.pth"), str(output), "--trust-pickle"])
    assert_holds(output, resnet18)


# ---- detectron2 takes the file --------------------------------------------------------------------------------


def detector(recipe, **resnets):
    cfg = model_zoo.get_config(recipe)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.update(STRIDE_IN_1X1=False, **resnets)
    return build_model(cfg)


def assert_detector_has(model, tensors, place):
    states = model.state_dict()
    changed = [name for name, array in tensors.items() if not np.array_equal(states[place(name)], array)]
    assert changed == []
    # ... and no part of the detector's backbone keeps its random start.
    own = {name for name in states if re.search(r"(stem|res[2-5])\.", name) and "num_batches" not in name}
    assert own == set(map(place, tensors))


def test_detectron2_loads_resnet50(tmp_path, output, resnet50):
    """Official layout at full size, into R50-FPN, and into R50-C4, whose res5 is in the head."""
    torch.save(official_moco(resnet50, resnet50), tmp_path / "moco_v2_800ep_pretrain.pth.tar")
    assert len(convert(tmp_path / "moco_v2_800ep_pretrain.pth.tar", output).kept) == 265
    tensors = read_backbone(output).tensors
    fpn = detector("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", NORM="BN")
    DetectionCheckpointer(fpn).load(str(output))
    assert_detector_has(fpn, tensors, lambda name: f"backbone.bottom_up.{name}")
    c4 = detector("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")
    DetectionCheckpointer(c4).load(str(output))
    assert_detector_has(c4, tensors, lambda n: f"roi_heads.{n}" if n.startswith("res5") else f"backbone.{n}")


def test_detectron2_loads_resnet18(source, output):
    convert(source, output)
    fpn = detector("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", DEPTH=18, RES2_OUT_CHANNELS=64, NORM="BN")
    DetectionCheckpointer(fpn).load(str(output))
    assert_detector_has(fpn, read_backbone(output).tensors, lambda name: f"backbone.bottom_up.{name}")
