"""What a checkpoint family is, and how some of their files tell their preprocessing; ``table.py`` lists them."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing

# SwAV's transforms have 0.228 where all others have 0.229; SimCLR's images are only scaled to [0, 1]; Caffe's are
# BGR, not scaled, and its bottlenecks have their stride in the first 1x1.
SWAV = dataclasses.replace(TORCHVISION_PREPROCESSING, pixel_std=(58.14, 57.12, 57.375))
UNIT = dataclasses.replace(TORCHVISION_PREPROCESSING, pixel_mean=(0.0,) * 3, pixel_std=(255.0,) * 3)
MSRA = Preprocessing("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), True)
PREPROCESSINGS = {"torchvision": TORCHVISION_PREPROCESSING, "msra": MSRA, "swav": SWAV, "unit": UNIT}


@dataclasses.dataclass(frozen=True)
class Record:
    """What a file says about itself besides its tensors; None where nobody says.

    ``stride_in_1x1`` is what a file shows, so that no word of the user changes it.
    """

    preprocessing: Preprocessing | None = TORCHVISION_PREPROCESSING
    arch: str | None = None
    config: str = ""
    encoder: str | None = None
    stride_in_1x1: bool | None = None


def assumed(content: Mapping, preprocessing: Preprocessing | None) -> Record:
    """What the table says; a file that this project wrote under another library's names says it itself."""
    return read_own(content, preprocessing) if "moco_det" in content else Record(preprocessing)


def read_own(content: Mapping, preprocessing: Preprocessing | None) -> Record:
    record = content["moco_det"]
    origin = record.get("provenance", record)  # backbone.pkl has its facts one level deeper than a checkpoint
    config = content.get("config", origin.get("config", ""))
    encoder = record.get("encoder")  # which one is the result of the method
    if encoder not in (None, "query", "key"):
        raise ValueError(f"its 'encoder' is {encoder!r}; expected 'query' or 'key'")
    return Record(Preprocessing.from_dict(record["preprocessing"]), origin["arch"], config, encoder)


def read_detectron2(content: Mapping, preprocessing: Preprocessing | None) -> Record:
    """detectron2's own conversions of torchvision's weights name their author; other files say nothing."""
    return Record(TORCHVISION_PREPROCESSING if content.get("__author__") == "torchvision" else None)


def read_timm(content: Mapping, preprocessing: Preprocessing) -> Record:
    config = content["config.json"]["pretrained_cfg"]
    return Record(_scaled(config.get("mean"), config.get("std"), preprocessing))


def read_huggingface(content: Mapping, preprocessing: Preprocessing) -> Record:
    processor = content.get("preprocessor_config.json", {})
    found = _scaled(processor.get("image_mean"), processor.get("image_std"), preprocessing)
    in_1x1 = content.get("config.json", {}).get("downsample_in_bottleneck", False)
    return Record(dataclasses.replace(found, stride_in_1x1=in_1x1))


def _scaled(mean: Any, std: Any, otherwise: Preprocessing) -> Preprocessing:
    """Mean and std of images in [0, 1], in the units of 8-bit images; rounded, since 0.485 * 255 is not exact."""
    if mean is None or std is None:
        return otherwise
    mean, std = ([round(255 * value, 6) for value in values] for values in (mean, std))
    return Preprocessing.from_dict({**otherwise.to_dict(), "pixel_mean": mean, "pixel_std": std})


def openmmlab_config(content: Mapping) -> str:
    """The text of the config in OpenMMLab's checkpoints, or ""."""
    meta = content.get("meta")
    return "".join(str(meta.get(key, "")) for key in ("config", "cfg")) if isinstance(meta, Mapping) else ""


def read_openmmlab(content: Mapping, preprocessing: Preprocessing) -> Record:
    """Stride, mean and std from the config's text, which OpenMMLab's checkpoints carry under ``meta``."""
    text = openmmlab_config(content)
    found = dataclasses.replace(preprocessing, stride_in_1x1=bool(re.search(r"style=['\"]caffe['\"]", text)))
    numbers = {
        field: re.search(rf"\b{word}=[\[(]([\d.eE,\s+-]+)[\])]", text)
        for field, word in (("pixel_mean", "mean"), ("pixel_std", "std"))
    }
    if all(numbers.values()) and re.search(r"to_rgb=", text):
        rgb = "RGB" if re.search(r"to_rgb=True", text) else "BGR"
        values = {
            field: [float(v) for v in match[1].split(",") if v.strip()] for field, match in numbers.items()
        }
        return Record(Preprocessing.from_dict({**found.to_dict(), **values, "format": rgb}))
    return Record(found)


def read_onnx_record(content: Mapping, preprocessing: Preprocessing) -> Record:
    """The graph shows where the stride is; what it does to the images before, ``onnx_graph.py`` does not read."""
    record = content["onnx"]
    return Record(None if record["before"] else preprocessing, stride_in_1x1=record["stride_in_1x1"])


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    Attributes:
        name: for ``--family``, the provenance and messages.
        checked: the source of the layout: repository@commit file, or package and version.
        needs: patterns, each of which some name must begin with. Besides the tensors (without wrappers), the
            names are the file's top entries, as ``<entry>``.
        lacks: patterns with which no name may begin.
        prefixes: where the backbone is, by ``--encoder``; a family with one network has only "query".
        default: the encoder that is taken when none is named.
        layout: how the names behind the prefix are made, see ``layouts.py``.
        head: what the tensors ``fc.*`` next to the backbone are.
        others: (pattern, what it is) of further tensors that are no backbone; matched at the name's start.
        preprocessing: how the family normalizes, where stride lies; None: nobody says, so the user must.
        record: reads what the file itself says.
    """

    name: str
    checked: str
    needs: tuple[str, ...]
    prefixes: Mapping[str, str]
    lacks: tuple[str, ...] = ()
    default: str = "query"
    layout: str = "torchvision"
    head: str = "classifier"
    others: tuple[tuple[str, str], ...] = ()
    preprocessing: Preprocessing | None = TORCHVISION_PREPROCESSING
    record: Callable[[Mapping, Preprocessing | None], Record] = assumed

    def recognizes(self, lines: str) -> bool:
        """Does every ``needs`` and no ``lacks`` begin a name? The names are one per line, which is quick."""
        return all(begins(pattern, lines) for pattern in self.needs) and not any(
            begins(pattern, lines) for pattern in self.lacks
        )


def begins(pattern: str, lines: str) -> bool:
    """Whether some line begins with the pattern."""
    return re.search(f"^(?:{pattern})", lines, re.MULTILINE) is not None
