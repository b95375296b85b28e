import codecs
import errno
import os
import pickle
import pickletools
from collections import OrderedDict

import numpy as np
import pytest
import torch

from moco_det.weights.backbone_file import (
    TORCHVISION_PREPROCESSING,
    Preprocessing,
    UnsafePickleError,
    read_backbone,
    restricted_load,
    write_backbone,
)

PROVENANCE = {
    "source": "moco",
    "file": "a.pth",
    "sha256": "0",
    "encoder": "query",
    "arch": "resnet18",
    "config": "",
}
TENSORS = {
    "stem.conv1.weight": np.arange(12, dtype=np.float32).reshape(2, 2, 3),
    "x.norm.bias": np.ones(3, "f4"),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "backbone.pkl"


def dump(path, content, **kwargs):
    path.write_bytes(pickle.dumps(content, **kwargs))
    return path


# ---- Preprocessing -----------------------------------------------------------------------------------


def test_torchvision_preprocessing_is_imagenet_times_255():
    assert np.allclose(TORCHVISION_PREPROCESSING.pixel_mean, np.multiply(255, (0.485, 0.456, 0.406)))
    assert np.allclose(TORCHVISION_PREPROCESSING.pixel_std, np.multiply(255, (0.229, 0.224, 0.225)))
    assert TORCHVISION_PREPROCESSING.format == "RGB" and TORCHVISION_PREPROCESSING.stride_in_1x1 is False


def test_preprocessing_round_trip():
    record = {
        "format": "BGR",
        "pixel_mean": [1.0, 2.0, 3.0],
        "pixel_std": [4.0, 5.0, 6.0],
        "stride_in_1x1": True,
    }
    preprocessing = Preprocessing.from_dict(record)
    assert preprocessing == Preprocessing("BGR", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), True)
    assert preprocessing.to_dict() == record


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "CMYK"}, "format is 'CMYK'; expected 'RGB' or 'BGR' or 'L' for 3 channels"),
        (
            {"pixel_mean": [1.0], "pixel_std": [1.0]},
            "format is 'RGB'; expected 'L' for 1 channels",
        ),
        ({"pixel_mean": [1.0, 2.0]}, "pixel_mean has 2 numbers and pixel_std 3"),
        ({"pixel_std": ["a", "b", "c"]}, "pixel_std is .* expected one number per channel"),
        ({"pixel_std": 1.0}, "pixel_std is 1.0; expected one number per channel"),
        ({"pixel_std": []}, r"pixel_std is \[\]; expected one number per channel"),
        ({"stride_in_1x1": 0}, "stride_in_1x1 is 0; expected True or False"),
        ({"more": 1}, "record has .*'more'.*; expected"),
    ],
)
def test_strange_preprocessing_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict({**TORCHVISION_PREPROCESSING.to_dict(), **change})


@pytest.mark.parametrize("record", [None, {}, {"format": "RGB"}])
def test_incomplete_preprocessing_is_refused(record):
    with pytest.raises(ValueError, match="the preprocessing record has"):
        Preprocessing.from_dict(record)


def test_other_channels_get_the_averages():
    gray = TORCHVISION_PREPROCESSING.for_channels(1)
    assert gray == Preprocessing(
        "L", (114.495,), (57.63,), False
    )  # 255 times 0.449 and 0.226, as gray is wont
    four = TORCHVISION_PREPROCESSING.for_channels(4)
    assert (four.format, four.pixel_mean, four.pixel_std) == ("RGB", (114.495,) * 4, (57.63,) * 4)
    assert TORCHVISION_PREPROCESSING.for_channels(3) is TORCHVISION_PREPROCESSING
    assert all(Preprocessing.from_dict(record.to_dict()) == record for record in (gray, four))


# ---- Writing -------------------------------------------------------------------------------------------


def test_file_is_the_contract(path):
    """Plain pickle reads nothing but arrays and plain values, under the keys that detectron2 needs."""
    write_backbone(path, TENSORS, TORCHVISION_PREPROCESSING, PROVENANCE)
    content = pickle.loads(path.read_bytes())
    model = content.pop("model")
    assert content == {
        "__author__": "moco_det",
        "matching_heuristics": True,
        "moco_det": {
            "preprocessing": {
                "format": "RGB",
                "pixel_mean": [123.675, 116.28, 103.53],
                "pixel_std": [58.395, 57.12, 57.375],
                "stride_in_1x1": False,
            },
            "provenance": PROVENANCE,
        },
    }
    assert list(model) == list(TENSORS)
    assert all(type(model[n]) is np.ndarray and model[n].dtype == np.float32 for n in model)
    assert not any(
        isinstance(arg, str) and "torch" in arg for _, arg, _ in pickletools.genops(path.read_bytes())
    )


def test_round_trip(path):
    write_backbone(path, TENSORS, TORCHVISION_PREPROCESSING, PROVENANCE)
    file = read_backbone(path)
    assert file.preprocessing == TORCHVISION_PREPROCESSING and file.provenance == PROVENANCE
    assert file.tensors.keys() == TENSORS.keys()
    assert all(np.array_equal(file.tensors[name], TENSORS[name]) for name in TENSORS)
    assert file.tensors["stem.conv1.weight"].flags.writeable


def test_file_takes_the_usual_permissions(path):
    write_backbone(path, TENSORS, TORCHVISION_PREPROCESSING, PROVENANCE)
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


def full_disk(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def not_allowed(*args):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def refuse(written):
    assert read_backbone(written).tensors.keys() == TENSORS.keys()  # the whole file is there to be checked
    raise ValueError("not good")


@pytest.mark.parametrize("before", [None, b"the old file"])
@pytest.mark.parametrize(
    "function, replacement, check, message",
    [
        ("fsync", full_disk, None, "cannot write '.*backbone.pkl': No space left on device"),
        ("replace", not_allowed, None, "cannot write '.*backbone.pkl': Permission denied"),
        ("fsync", os.fsync, refuse, "not good"),
    ],
)
def test_failure_leaves_the_folder_as_it_was(
    path, monkeypatch, before, function, replacement, check, message
):
    if before:
        path.write_bytes(before)
    monkeypatch.setattr(os, function, replacement)
    with pytest.raises((OSError, ValueError), match=message):
        write_backbone(path, TENSORS, TORCHVISION_PREPROCESSING, PROVENANCE, *filter(None, [check]))
    assert [p.read_bytes() for p in path.parent.iterdir()] == ([before] if before else [])


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot write '.*absent/b.pkl': No such file or directory"):
        write_backbone(tmp_path / "absent" / "b.pkl", TENSORS, TORCHVISION_PREPROCESSING, PROVENANCE)


# ---- Reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "holds a list; expected"),
        ({"weights": 1, "epoch": 2}, "no weights under 'model' .*'weights', 'epoch'.*tools/convert_to_d2.py"),
        ({}, "no weights under 'model' .*none"),
        ({"model": {}}, "no weights under 'model'"),
        ({"model": [1]}, "no weights under 'model'"),
        ({"model": {"a": np.ones(1), "b": 3}}, "'b' is no array"),
        ({"model": TENSORS, "moco_det": {}}, "'moco_det' record is damaged"),
        (
            {"model": TENSORS, "moco_det": {"preprocessing": {}, "provenance": {}}},
            "'moco_det' record is damaged",
        ),
        ({"model": TENSORS, "moco_det": 3}, "'moco_det' record is damaged"),
    ],
)
def test_what_is_no_backbone_is_refused(path, content, message):
    with pytest.raises(ValueError, match=message):
        read_backbone(dump(path, content))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04", b"PK\x03\x04 a torch file"])
def test_what_is_no_pickle_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="backbone.pkl: not a pickle"):
        read_backbone(path)


def test_absent_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"backbone\.pkl"):
        read_backbone(path)


def test_foreign_detectron2_file_has_no_preprocessing(path):
    file = read_backbone(
        dump(path, {"model": TENSORS, "__author__": "torchvision", "matching_heuristics": True})
    )
    assert file.preprocessing is None and file.provenance == {} and file.tensors.keys() == TENSORS.keys()


@pytest.mark.parametrize("wrap", [lambda blobs: blobs, lambda blobs: {"blobs": blobs, "cfg": "text"}])
def test_caffe2_blobs(path, wrap):
    blobs = {
        "conv1_w": np.ones(2, "f4"),
        "res2_0_branch1_w": np.ones(1, "f4"),
        "conv1_w_momentum": np.ones(2, "f4"),
    }
    file = read_backbone(dump(path, wrap(blobs)))
    assert file.preprocessing is None and list(file.tensors) == ["conv1_w", "res2_0_branch1_w"]


# ---- The allow-list ------------------------------------------------------------------------------------

VALUES = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "double": np.linspace(0, 1, 5),
    "half": np.ones((2, 2), np.float16),
    "int": np.arange(3),
    "bool": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">i4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.float32),
    "zero-dimensional": np.array(3.0),
    "text": np.array(["a", "bc"]),
    "scalar": np.float32(1.5),
    "dtype": np.dtype("int16"),
    "plain": [1, (2.5, None, True), {"a": b"\xff\x00"}, "é"],
    "ordered": OrderedDict(a=np.ones(1)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values_come_back(path, protocol):
    loaded = restricted_load(dump(path, VALUES, protocol=protocol))
    assert loaded.keys() == VALUES.keys()
    for name, value in VALUES.items():
        if isinstance(value, np.ndarray | np.generic):
            assert type(loaded[name]) is type(value) and loaded[name].dtype == value.dtype, name
            assert np.array_equal(loaded[name], value) and loaded[name].shape == value.shape, name
        else:
            assert loaded[name] == value, name


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_both_names_of_numpys_core(path, core):
    content = pickle.dumps(np.arange(3.0), protocol=2)
    path.write_bytes(content.replace(b"numpy._core", core).replace(b"numpy.core", core))
    assert restricted_load(path).tolist() == [0, 1, 2]


def test_array_of_python_2(path):
    """Assembled by hand, as Python 2 with numpy 1 wrote weights: byte strings everywhere."""
    path.write_bytes(
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x08\x00\x00\x80\x3f\x00\x00\x80\xbftb."
    )
    loaded = restricted_load(path)
    assert loaded.tolist() == [1.0, -1.0] and loaded.dtype == np.float32


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_nothing_foreign_runs(tmp_path, path):
    dump(path, {"model": TENSORS, "extra": Call(os.mkdir, str(tmp_path / "ran"))})
    with pytest.raises(
        UnsafePickleError, match=rf"backbone.pkl: asks for {os.mkdir.__module__}.mkdir, which is neither"
    ):
        read_backbone(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())  # the attack is a real one
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (Call(eval, "1"), "asks for builtins.eval"),
        (Call(getattr, {}, "keys"), "asks for builtins.getattr"),
        (torch.ones(1), "asks for torch"),
        (np.array([{}]), "array of dtype 'O8'"),
        (np.zeros(2, dtype="f4,i4"), "array of dtype 'V8'"),
        (Call(codecs.encode, "a", "rot13"), "encodes text as 'rot13'"),
        (np.mean, "asks for numpy.mean"),
    ],
)
def test_what_is_not_allowed_is_named(path, content, message):
    with pytest.raises(UnsafePickleError, match=message):
        restricted_load(dump(path, content))


def test_bytes_never_become_pointers(path):
    """numpy's own constructor takes this: an array of objects over raw bytes."""
    with pytest.raises(ValueError, match="not a pickle"):
        restricted_load(dump(path, Call(np.ndarray, (1,), "O", bytes(8))))


def test_dtype_state_cannot_smuggle_objects_in(path):
    """numpy's dtype takes a state that makes objects of numbers; the stand-in takes its byte order only."""
    state = (3, "|", None, ("a",), {"a": (1, 0)}, 8, 1, 0)

    class Smuggled:
        def __reduce__(self):
            return np.dtype, ("f8", False, True), state

    assert restricted_load(dump(path, Smuggled())) == np.dtype("f8")
