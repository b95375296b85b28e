"""Two hundred damaged or foreign files: each a clear error and exit code 2, and nothing is written.

The tensors are views of one number, so that a file of any shapes has a few kilobytes, and is refused quickly.
"""

import os
import pickle
import random
import re

import numpy as np
import pytest
import torch
import torchvision

from moco_det.convert.command import main
from moco_det.modeling.encoder import build_resnet
from moco_det.weights.backbone_tensors import expected_shapes

HALF = torch.full((), 0.5)


def hollow(shapes: dict) -> dict[str, torch.Tensor]:
    return {name: HALF.expand(shape) for name, shape in shapes.items()}


def states_of(arch: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build_resnet(arch).state_dict().items()}
    return hollow(shapes)


RESNET18 = states_of("resnet18")
NAMES = list(expected_shapes("resnet18"))


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def missing_layers(rng, count=50):
    for _ in range(count):
        gone = rng.sample(NAMES, rng.randint(1, 5))
        yield f"without {gone[0]}", {name: v for name, v in RESNET18.items() if name not in gone}


def wrong_shapes(rng, count=40):
    for name in rng.sample([n for n in NAMES if n != "conv1.weight"], count):
        shape = list(RESNET18[name].shape)
        shape[rng.randrange(len(shape))] += rng.choice((-1, 1, 7))
        yield f"shape of {name}", {**RESNET18, name: HALF.expand(shape)}


def permuted_names(rng, count=20):
    """Two tensors of different shapes change names; of equal shapes, no file can tell."""
    while count:
        one, other = rng.sample(NAMES, 2)
        if RESNET18[one].shape != RESNET18[other].shape:
            yield f"{one} and {other}", {**RESNET18, one: RESNET18[other], other: RESNET18[one]}
            count -= 1


def wrong_values(rng):
    for name, value in (
        ("bn1.bias", torch.nan),
        ("layer4.1.bn2.running_var", torch.inf),
        ("conv1.weight", -torch.inf),
    ):
        yield f"{value} in {name}", {**RESNET18, name: torch.full((), value).expand(RESNET18[name].shape)}
    for dtype in (torch.int8, torch.int64, torch.bool, torch.complex64):
        yield f"{dtype}", {**RESNET18, "bn1.weight": torch.ones((), dtype=dtype).expand(64)}
    for value in ("text", None, [0.5] * 64, {"weight": 1}):
        yield f"a {type(value).__name__}", {**RESNET18, "bn1.weight": value}


def other_architectures(rng):
    detectors = ("fcn_resnet50", "deeplabv3_resnet50", "ssd300_vgg16", "fasterrcnn_mobilenet_v3_large_fpn")
    mobile = ("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_0")
    older = ("alexnet", "vgg11", "vgg16_bn", "googlenet", "inception_v3", "densenet121")
    newer = ("convnext_tiny", "efficientnet_b0", "efficientnet_v2_s", "efficientnet_b1", "convnext_small")
    attention = ("swin_t", "swin_v2_t", "vit_b_32", "maxvit_t", "mvit_v1_b")
    for name in (*detectors, *mobile, *older, *newer, *attention, "r3d_18"):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        options |= {"weights_backbone": None} if name in detectors else {}
        with torch.device("meta"):
            model = torchvision.models.get_model(name, **options)
        yield name, hollow({n: v.shape for n, v in model.state_dict().items()})


def foreign_contents(rng):
    yield "empty", {}
    yield "a list", [torch.ones(2)]
    yield "a tensor", torch.ones(2)
    yield "a number", 7
    yield "text", "weights"
    yield "none", None
    yield "only an optimizer", {"optimizer": {"state": {}}, "epoch": 3}
    yield "an empty state dict", {"state_dict": {}}
    yield "tensors without names", {1: torch.ones(2), 2: torch.ones(3)}
    yield "twice the same", {**RESNET18, "module.conv1.weight": RESNET18["conv1.weight"]}
    yield (
        "a damaged record",
        {"model": {f"encoder_q.{n}": v for n, v in RESNET18.items()}, "moco_det": {"arch": 1}},
    )
    yield (
        "another arch recorded",
        {
            "model": {f"encoder_q.{n}": v for n, v in RESNET18.items()},
            "moco_det": {
                "arch": "resnet34",
                "preprocessing": {
                    "format": "RGB",
                    "pixel_mean": [0, 0, 0],
                    "pixel_std": [1, 1, 1],
                    "stride_in_1x1": False,
                },
            },
        },
    )
    yield "unexplained tensors", {**RESNET18, "something.else": torch.ones(2)}
    yield "two families", {f"encoder.{n}": v for n, v in RESNET18.items()}
    yield "key encoder alone", {f"momentum_{n}": v for n, v in RESNET18.items()}
    yield "two networks", {"one": RESNET18, "other": {n: 2 * v for n, v in RESNET18.items()}}
    yield (
        "a wider network",
        {n: HALF.expand([2 * s for s in v.shape]) for n, v in RESNET18.items()},
    )
    yield "jax", {"res_net50/~/initial_conv/w": np.ones(2)}


def attacks(folder):
    for number, call in enumerate(
        ((os.mkdir, str(folder / "ran")), (eval, "1"), (exec, "1"), (os.system, "true"))
    ):
        for protocol in (0, 2, 4):
            yield f"attack {number} in pickle {protocol}", pickle.dumps({"model": Attack(*call)}, protocol)


def broken_bytes(rng, folder):
    """Cut or changed files of each format; text, images and nothing at all."""
    whole = folder / "whole"
    saves = {
        "zip": lambda: torch.save(RESNET18, whole),
        "legacy": lambda: torch.save(RESNET18, whole, _use_new_zipfile_serialization=False),
        "pickle": lambda: whole.write_bytes(pickle.dumps({n: np.ones(3, np.float32) for n in NAMES})),
    }
    for name, save in saves.items():
        save()
        content = whole.read_bytes()
        for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
            yield f"{name} cut at {share}", content[: int(len(content) * share)]
        for start in (0, 2):
            yield (
                f"{name} overwritten at {start}",
                content[:start] + rng.randbytes(600) + content[start + 600 :],
            )
    whole.unlink()
    for name, content in {
        "nothing": b"",
        "one byte": b"x",
        "text": b"not a checkpoint at all",
        "html": b"<html><body>404: Not Found</body></html>",
        "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "gzip": b"\x1f\x8b" + bytes(100),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "an empty zip": b"PK\x05\x06" + bytes(18),
        "random bytes": rng.randbytes(5000),
        "safetensors cut": (500).to_bytes(8, "little") + b'{"a":',
        "safetensors of nothing": (2).to_bytes(8, "little") + b"{}",
    }.items():
        yield name, content


def test_two_hundred_files(tmp_path, capsys):
    rng = random.Random(0)
    work = tmp_path / "work"
    work.mkdir()
    contents = [
        case
        for make in (
            missing_layers,
            wrong_shapes,
            permuted_names,
            wrong_values,
            other_architectures,
            foreign_contents,
        )
        for case in make(rng)
    ]
    raw = [*attacks(tmp_path), *broken_bytes(rng, tmp_path)]
    count = 0
    for case, content in [*contents, *raw]:
        source = work / "bad.pth"
        source.unlink(missing_ok=True)
        if isinstance(content, bytes):
            source.write_bytes(content)
        else:
            torch.save(content, source)
        before = source.read_bytes()
        with pytest.raises(SystemExit) as end:
            main([str(source), str(work / "out.pkl")])
        error = capsys.readouterr().err
        assert end.value.code == 2, case
        assert re.match(r"error: .{25,}", error) and error.count("\n") == 1, (case, error)
        assert [path.name for path in work.iterdir()] == ["bad.pth"] and source.read_bytes() == before, case
        count += 1
    assert count >= 200 and not (tmp_path / "ran").exists()


def test_the_intact_file_would_pass(tmp_path):
    """Else the test above would show nothing."""
    torch.save(RESNET18, tmp_path / "good.pth")
    main([str(tmp_path / "good.pth"), str(tmp_path / "out.pkl")])
    assert (tmp_path / "out.pkl").is_file()
