import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from checkpoint_examples import official_moco, own_checkpoint

from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING
from moco_det.weights.sources import locate_backbone, read_checkpoint


class Attack:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def save_zip(content, path):
    torch.save(content, path)


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def save_tar(content, path):
    inner = path.with_suffix(".inner")
    save_pickle(content, inner)
    with tarfile.open(path, "w") as tar:
        tar.add(inner, "pickle")


# ---- Reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_torch_files_are_known_by_content(tmp_path, save):
    save({"conv1.weight": torch.arange(3.0)}, tmp_path / "weights.anything")
    assert read_checkpoint(tmp_path / "weights.anything")["conv1.weight"].tolist() == [0, 1, 2]


def test_pickle_of_arrays_is_read(tmp_path):
    save_pickle({"conv1.weight": np.arange(3.0)}, tmp_path / "weights.pth")
    assert read_checkpoint(tmp_path / "weights.pth")["conv1.weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle, save_tar])
def test_no_foreign_code_runs(tmp_path, save):
    save({"state_dict": {"conv1.weight": 1}, "extra": Attack(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="--trust-pickle") as error:
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
    if save is not save_tar:
        assert f"asks for {os.mkdir.__module__}.mkdir" in str(error.value)


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
def test_trusted_code_runs(tmp_path, save):
    """The attack of the test above works where code is trusted."""
    save({"extra": Attack(tmp_path / "ran")}, tmp_path / "bad.pth")
    read_checkpoint(tmp_path / "bad.pth", trust_pickle=True)
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
@pytest.mark.parametrize("share", [0, 0.1, 0.5])
@pytest.mark.parametrize("trust", [False, True])
def test_damaged_files_are_refused(tmp_path, save, share, trust):
    path = tmp_path / "cut.pth"
    save({"conv1.weight": torch.ones(2000) if save is not save_pickle else np.ones(2000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="cut.pth: .*damaged"):
        read_checkpoint(path, trust)


def test_text_is_refused(tmp_path):
    (tmp_path / "notes.pth").write_text("not a checkpoint at all")
    with pytest.raises(ValueError, match="'not a checkpoint at all'"):
        read_checkpoint(tmp_path / "notes.pth")


# ---- Recognizing and locating ------------------------------------------------------------------------


def test_own_checkpoint(resnet18, other_resnet18):
    content = own_checkpoint(resnet18, other_resnet18)
    source = locate_backbone(content, "key")
    assert (source.family, source.encoder, source.record.arch) == ("moco_det", "key", "resnet18")
    assert source.record.preprocessing.pixel_std == (50.0, 51.0, 52.0)
    assert source.record.config == "SEED: 1\n"
    assert source.backbone["conv1.weight"] is other_resnet18["conv1.weight"]
    assert source.bookkeeping == ["optimizer", "iteration", "config", "moco_det"]
    assert {reason: len(names) for reason, names in source.dropped.items()} == {
        "query encoder": len(resnet18),
        "batch-norm step counter": 20,
        "projection head": 2,
        "dictionary": 2,
    }


@pytest.mark.parametrize(
    "record", [{}, {"arch": "resnet18"}, {"arch": "resnet18", "preprocessing": {"format": "RGB"}}]
)
def test_damaged_own_record_is_refused(record):
    with pytest.raises(ValueError, match="'moco_det' record is damaged"):
        locate_backbone({"model": {"encoder_q.conv1.weight": torch.ones(1)}, "moco_det": record})


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("encoder", ["query", "key"])
def test_official_moco_under_every_wrapper(resnet18, other_resnet18, prefix, encoder):
    source = locate_backbone(official_moco(resnet18, other_resnet18, prefix), encoder)
    expected = resnet18 if encoder == "query" else other_resnet18
    assert (source.family, source.encoder) == ("moco", encoder)
    assert source.record.preprocessing == TORCHVISION_PREPROCESSING
    assert len(source.backbone) == 100 and all(
        value is expected[name] for name, value in source.backbone.items()
    )
    assert {reason: len(names) for reason, names in source.dropped.items()} == {
        ("key" if encoder == "query" else "query") + " encoder": 124,
        "batch-norm step counter": 20,
        "projection head": 4,
        "dictionary": 2,
    }
    assert source.bookkeeping == ["epoch", "arch", "optimizer"]


def test_encoder_compiled_alone():
    states = {"module.encoder_q._orig_mod.conv1.weight": torch.ones(1)}
    assert list(locate_backbone({"state_dict": states}).backbone) == ["conv1.weight"]


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 1}, lambda s: {"model": s}]
)
def test_torchvision_bare_or_nested(resnet18, wrap):
    source = locate_backbone(wrap(resnet18))
    assert (source.family, source.encoder) == ("torchvision", "")
    assert len(source.backbone) == 100
    assert source.dropped["classifier"] == ["fc.weight", "fc.bias"]


def test_torchvision_has_no_key_encoder(resnet18):
    with pytest.raises(ValueError, match="--encoder is 'key', .*torchvision"):
        locate_backbone(resnet18, "key")


def test_unknown_encoder_is_refused(official):
    with pytest.raises(ValueError, match=r"--encoder is 'teacher', but a moco file holds \['query', 'key'\]"):
        locate_backbone(official, "teacher")


def test_absent_encoder_is_refused(official):
    states = {name: value for name, value in official["state_dict"].items() if "encoder_k" not in name}
    with pytest.raises(ValueError, match="no tensor of the key encoder .*'encoder_k.'"):
        locate_backbone({"state_dict": states}, "key")


def test_unexplained_tensors_stay_for_the_check(official):
    states = {**official["state_dict"], "module.predictor.weight": torch.ones(1)}
    assert "predictor.weight" in locate_backbone({"state_dict": states}).backbone


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"features.0.conv.weight": torch.ones(1)},
            "no known family .*first names are features.0.conv.weight",
        ),
        ({}, "its first names are none"),
        ([1, 2], "holds a list; expected a dict"),
        (
            {"encoder_q.fc.bias": 1, "module.encoder_q.fc.bias": 2},
            "two tensors are called 'encoder_q.fc.bias'",
        ),
    ],
)
def test_what_is_no_source_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        locate_backbone(content)
