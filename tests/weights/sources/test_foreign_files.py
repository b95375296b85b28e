"""Files that are no checkpoints are called what they are, with what to do; and odd checkpoints are read."""

import gzip
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torchvision

from moco_det.convert.command import main
from moco_det.weights.sources import locate_backbone, read_checkpoint

TENSORFLOW_GRAPH = b"\x0a\x2f\x0a\x07input_1\x12\x0bPlaceholder*\x0b\x0a\x05dtype\x12\x02\x30\x01" + bytes(40)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102502400\n"

# Name, first bytes, and what the message must say.
FOREIGN = [
    ("a.pth", b"<!DOCTYPE html><html><title>Virus scan warning</title></html>", "is a web page"),
    ("a.pth", b"\n\n  <HTML lang=en>", "is a web page"),
    ("a.pth", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML text"),
    ("a.pth", LFS, "is a pointer of git-lfs.*git lfs pull"),
    ("saved_model.pb", b"\x08\x01\x12\xd8\x13\x0a\x12\x0a\x08" + bytes(50), "is a SavedModel of TensorFlow"),
    ("frozen.pb", TENSORFLOW_GRAPH, "is a frozen graph of TensorFlow"),
    ("graph.pb", b"\x0a\x03abc" + bytes(20), "is a graph of TensorFlow"),
    ("m.ckpt.data-00000-of-00001", bytes(range(1, 200)), "is a part of a TensorFlow checkpoint"),
    ("m.ckpt.index", b"\x00\x00\x1b\x08\x01" + bytes(90), "is a part of a TensorFlow checkpoint"),
    (
        "checkpoint",
        b'model_checkpoint_path: "m.ckpt-3"\n',
        "is the list of a folder's checkpoints that TensorFlow writes",
    ),
    ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, as Keras"),
    ("a.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(100), "is a model of TensorFlow Lite"),
    ("flax", b"\x81\xa6params\x81\xa5dense" + bytes(30), "is a msgpack file, as Flax writes"),
    ("a.params", b"\x12\x01\x00\x00\x00\x00\x00\x00" + bytes(30), "is a parameter file of MXNet"),
    ("a.caffemodel", b"\x0a\x09ResNet-50\xa2\x06" + bytes(30), "is a file of Caffe"),
    ("a.pth", gzip.compress(b"something" * 50), "is compressed with gzip.*unpack it"),
    ("a.pth", b"\x28\xb5\x2f\xfd" + bytes(30), "is compressed with zstd"),
    ("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr'" + bytes(30), "is one array of NumPy"),
    ("a.gguf", b"GGUF\x03\x00\x00\x00" + bytes(30), "is a GGUF file"),
    ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "is an image"),
    ("a.pdf", b"%PDF-1.7\n" + bytes(30), "is a PDF document"),
    ("a.engine", b"ptrt\x00\x01" + bytes(30), "is an engine of TensorRT"),
    ("__0_0.distcp", b"\x00\x01\x02\x03" + bytes(30), "is one shard of a distributed checkpoint of torch"),
    ("config.yaml", b"MODEL:\n  DEPTH: 50\n", "is a YAML file"),
    ("a.json", b'{"error": "Repository not found"}', 'is a text that begins with \'{"error"'),
    ("a.pth", b"", "is empty"),
]


@pytest.mark.parametrize("name, content, message", FOREIGN)
@pytest.mark.parametrize("trust", [False, True])
def test_what_it_is(tmp_path, name, content, message, trust):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_checkpoint(tmp_path / name, trust)


def test_zip_files_that_torch_did_not_write(tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.ones(2))
    with pytest.raises(ValueError, match="is a file of NumPy arrays .*torch.save"):
        read_checkpoint(tmp_path / "a.npz")
    for inner, message in (
        ("model.weights.h5", "is a model of Keras"),
        ("readme.txt", "without a checkpoint of torch"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr(inner, "x")
        with pytest.raises(ValueError, match=message):
            read_checkpoint(tmp_path / "a.zip")


def test_torchscript_says_how_to_get_its_tensors(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    for trust in (False, True):
        with pytest.raises(
            ValueError, match=r"is a TorchScript program.*torch.jit.load\('a.pt'\).state_dict"
        ):
            read_checkpoint(tmp_path / "a.pt", trust)


@pytest.mark.parametrize(
    "name, message",
    [("saved_model.pb", "SavedModel of TensorFlow"), (".metadata", "distributed checkpoint of torch")],
)
def test_folders_of_other_kinds(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path)


def test_no_torch_pickle_or_safetensors_file_is_taken_for_another(tmp_path):
    """The beginnings above are tried first: a file that could be read must pass them."""
    from safetensors.torch import save_file

    content = {"conv1.weight": torch.ones(3)}
    torch.save(content, tmp_path / "zip")
    torch.save(content, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    save_file(content, tmp_path / "safetensors")
    arrays = {"conv1.weight": np.ones(3)}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"pickle{protocol}").write_bytes(pickle.dumps(arrays, protocol))
    files = list(tmp_path.iterdir())
    assert len(files) == 9
    for file in files:
        found = read_checkpoint(file)
        assert np.array_equal(found.get("state_dict", found)["conv1.weight"], np.ones(3)), file


def test_a_whole_pickled_network_is_read_where_it_is_trusted(tmp_path):
    model = torchvision.models.resnet18()
    for content in (model, {"model": model, "epoch": 3}):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="asks for torchvision.models.resnet.ResNet.*--trust-pickle"):
            read_checkpoint(tmp_path / "a.pth")
        source = locate_backbone(read_checkpoint(tmp_path / "a.pth", trust_pickle=True))
        assert torch.equal(source.backbone["conv1.weight"], model.conv1.weight)


def test_the_message_is_one_line_at_the_command(tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(LFS)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth"), str(tmp_path / "b.pkl")])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not (tmp_path / "b.pkl").exists()
