"""Says what a file is that is no checkpoint: a web page, a pointer of git-lfs, a TensorFlow file and others."""

import re
import zipfile
from pathlib import Path

_EXPORT = "take the PyTorch checkpoint of this model instead"
_UNPACK = "unpack it and give the file in it"

# How files begin (a pattern over their first bytes), what they are, and what to do.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"(\xef\xbb\xbf)?\s*(?i:<(!doctype html|html|head|script))", "a web page", "the download "
     "asked for a login or a confirmation, or it was of a page about the file: download the file itself"),
    (rb"\s*<(\?xml|Error>)", "an XML text, as servers answer when they refuse a download", "download it again"),
    (rb"version https://git-lfs\.github\.com", "a pointer of git-lfs, which stands for the file", "fetch "
     "the file itself: git lfs pull"),
    (rb"\x08\x01\x12", "a SavedModel of TensorFlow", _EXPORT),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write", _EXPORT),
    (rb"....TFL3", "a model of TensorFlow Lite", _EXPORT),
    (rb"\x0a.{1,2}\x0a.{0,40}\x12.{0,2}(Placeholder|Const)", "a frozen graph of TensorFlow", _EXPORT),
    (rb"(all_)?model_checkpoint_path:", "the list of a folder's checkpoints that TensorFlow writes", _EXPORT),
    (rb"\x12\x01\x00\x00\x00\x00\x00\x00", "a parameter file of MXNet", _EXPORT),
    (rb"[\x81-\x8f][\xa1-\xbf]\w|\xde\x00.[\xa1-\xbf]\w", "a msgpack file, as Flax writes", _EXPORT),
    (rb"GGUF|ggml", "a GGUF file", _EXPORT),
    (rb"\x93NUMPY", "one array of NumPy (.npy)", "expected a state dict: save it with torch.save"),
    (rb"\x1f\x8b", "compressed with gzip", _UNPACK),
    (rb"BZh\d", "compressed with bzip2", _UNPACK),
    (rb"\xfd7zXZ", "compressed with xz", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c|Rar!", "a 7z or RAR archive", _UNPACK),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\x00|MM\x00\*", "an image", "expected a checkpoint"),
    (rb"%PDF", "a PDF document", "expected a checkpoint"),
    (rb"\x7fELF|MZ", "a program", "expected a checkpoint"),
    (rb"SQLite format 3", "an SQLite database", "expected a checkpoint"),
)  # fmt: skip
# By the ends of names, for files whose beginnings tell little.
_NAMES = (
    (r".*\.data-\d+-of-\d+|.*\.index|.*\.ckpt\.meta", "a part of a TensorFlow checkpoint", _EXPORT),
    (r".*\.pb|.*\.pbtxt", "a graph of TensorFlow", _EXPORT),
    (r".*\.caffemodel|.*\.prototxt", "a file of Caffe", _EXPORT),
    (r".*\.(engine|plan|trt)", "an engine of TensorRT", _EXPORT),
    (r".*\.(mlmodel|mlpackage)", "a model of Core ML", _EXPORT),
    (r".*\.distcp|\.metadata", "one shard of a distributed checkpoint of torch", "join them: python -m "
     "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER checkpoint.pth"),
    (r".*\.ya?ml", "a YAML file", "expected the checkpoint that it belongs to"),
)  # fmt: skip
# An ONNX file begins with its version (field 1); then comes its producer (2), graph (7) or operators (8).
_ONNX = re.compile(rb"\x08[\x03-\x1f][\x12\x3a\x42\x1a]", re.DOTALL)


def is_onnx(start: bytes, name: str) -> bool:
    """Whether a file that begins so is ONNX's."""
    return _ONNX.match(start) is not None or name.endswith(".onnx")


def refuse_foreign(path: Path, start: bytes) -> None:
    """Refuse a file whose beginning shows that it is no checkpoint.

    Raises:
        ValueError: says what it is and what to do.
    """
    if not start:
        raise ValueError(f"{path}: is empty, so damaged; download or save it again")
    for pattern, what, advice in _BEGINNINGS:
        if re.match(pattern, start, re.DOTALL):
            raise ValueError(f"{path}: is {what}, not a checkpoint; {advice}")
    if start.startswith(b"PK"):
        _refuse_foreign_zip(path)


def _refuse_foreign_zip(path: Path) -> None:
    """torch's files are zip files too, with a pickle ``data.pkl`` in them; so are others."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return  # damaged: torch says how
    if any(re.fullmatch(r"[^/]+/code/.*|[^/]+/constants\.pkl", name) for name in names):
        raise ValueError(
            f"{path}: is a TorchScript program, not a checkpoint; save its tensors: torch.save("
            f"torch.jit.load({path.name!r}).state_dict(), 'checkpoint.pth')"
        )
    if any(name.endswith("data.pkl") for name in names):
        return
    what, advice = "a zip archive without a checkpoint of torch in it", _UNPACK
    if any(name.endswith("model.weights.h5") for name in names):
        what, advice = "a model of Keras", _EXPORT
    elif names and all(name.endswith(".npy") for name in names):
        arrays = "{name: torch.from_numpy(a) for name, a in numpy.load(FILE).items()}"
        what, advice = (
            "a file of NumPy arrays",
            f"make a state dict of it: torch.save({arrays}, 'checkpoint.pth')",
        )
    raise ValueError(f"{path}: is {what} ({', '.join(names[:3]) or 'empty'}); {advice}")


def refuse_by_name_or_text(path: Path, start: bytes) -> None:
    """For a file that could not be read: refuse it by the end of its name, or as a text.

    Raises:
        ValueError: says what it is and what to do.
    """
    for pattern, what, advice in _NAMES:
        if re.fullmatch(pattern, path.name):
            raise ValueError(f"{path}: is {what}, not a checkpoint; {advice}")
    text = start.decode("utf-8", errors="ignore")
    if len(text) > len(start) - 4 and all(letter.isprintable() or letter.isspace() for letter in text):
        line = " ".join(text.split())[:40]
        raise ValueError(
            f"{path}: is a text that begins with {line!r}, not a checkpoint; download or save it again"
        )


def refuse_folder(path: Path) -> None:
    """Refuse a folder that is a checkpoint of another kind.

    Raises:
        ValueError: says what it is and what to do.
    """
    if (path / "saved_model.pb").is_file():
        raise ValueError(f"the folder {str(path)!r} is a SavedModel of TensorFlow; {_EXPORT}")
    if any(path.glob("*.distcp")) or (path / ".metadata").is_file():
        raise ValueError(
            f"the folder {str(path)!r} is a distributed checkpoint of torch (FSDP); join its shards: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} checkpoint.pth"
        )
