"""Checkpoints that the packages themselves make: their network's features are those of detectron2's after it.

This closes the one gap of the proof, which takes the source's tensors under the names that our table gives them.
"""

import argparse
import json

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from moco_det.convert.convert import convert
from moco_det.convert.verify import TOLERANCE, detectron2_resnet
from moco_det.model_zoo.detectron2_zoo import model_zoo
from moco_det.weights.sources import read_checkpoint
from moco_det.weights.sources.families import PREPROCESSINGS

STAGES = ("res2", "res3", "res4", "res5")


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and statistic another; in evaluation mode."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(1 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.add_(torch.randn(tensor.shape, generator=generator) / 10)
    return model.eval()


def images() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def assert_same_features(backbone, arch, expected):
    content = read_checkpoint(backbone)
    model = detectron2_resnet(arch, content["moco_det"]["preprocessing"]["stride_in_1x1"])
    states = {name: torch.as_tensor(value).double() for name, value in content["model"].items()}
    model.load_state_dict(states, assign=True, strict=False)
    with torch.no_grad():
        found = model.eval()(images())
    for stage, features in zip(STAGES, expected, strict=True):
        assert (found[stage] - features).abs().max() <= TOLERANCE * features.abs().max(), stage


def stages_of(model: torch.nn.Module) -> list[torch.Tensor]:
    """The outputs of layer1 to layer4, wherever the package keeps them."""
    outputs = []
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        getattr(model, layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        model.double()(images())
    return outputs


@pytest.mark.parametrize("name", ["resnet50", "wide_resnet50_2"])
def test_torchvision(tmp_path, name):
    model = randomised(torchvision.models.get_model(name))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    assert_same_features(tmp_path / "b.pkl", done.provenance["arch"], stages_of(model))


def test_detectron2(tmp_path):
    """A whole detector, saved by detectron2's own checkpointer."""
    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.update(STRIDE_IN_1X1=False, DEPTH=18, RES2_OUT_CHANNELS=64, NORM="BN")
    model = randomised(build_model(cfg))
    DetectionCheckpointer(model, str(tmp_path)).save("model_final")
    done = convert(
        tmp_path / "model_final.pth", tmp_path / "b.pkl", preprocessing=PREPROCESSINGS["torchvision"]
    )
    assert done.provenance["source"] == "detectron2" and "other parts of the detector" in done.dropped
    with torch.no_grad():
        expected = model.backbone.bottom_up.double()(images())
    assert_same_features(tmp_path / "b.pkl", "resnet18", [expected[stage] for stage in STAGES])


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_timm(tmp_path, name):
    timm = pytest.importorskip("timm")
    model = randomised(timm.create_model(name))
    folder = tmp_path / "hub"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config = {
        "architecture": name,
        "pretrained_cfg": {"mean": model.pretrained_cfg["mean"], "std": model.pretrained_cfg["std"]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    done = convert(folder, tmp_path / "b.pkl")
    assert done.provenance["source"] == "timm" and done.preprocessing.pixel_mean == (123.675, 116.28, 103.53)
    assert_same_features(tmp_path / "b.pkl", done.provenance["arch"], stages_of(model))


@pytest.mark.parametrize(
    "name, feature",
    [
        ("resnet50d", "deep stem|average pooling"),
        ("seresnet50", "squeeze-and-excitation"),
        ("ecaresnet50d", "deep stem|attention"),
        ("resnest14d", "deep stem|split attention"),
        ("skresnet18", "selective kernels|attention"),
        ("res2net50_26w_4s", "Res2Net"),
        ("resnet50_gn", "group norm"),
        ("resnetv2_50", "pre-activation"),
        ("resnetblur50", "anti-aliasing"),
        ("resnetaa50", "anti-aliasing"),
    ],
)
def test_what_timm_has_and_detectron2_has_not(tmp_path, name, feature):
    """A model is recognized by content where it shows, else by the recorded name."""
    timm = pytest.importorskip("timm")
    with torch.device("cpu" if name.startswith("resnetv2") else "meta"):  # it rewrites its own initial values
        states = timm.create_model(name).state_dict()
    states = {n: torch.zeros(()).expand(value.shape) for n, value in states.items()}
    torch.save({"state_dict": states, "arch": name}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"cannot represent .*({feature})"):
        convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    assert not (tmp_path / "b.pkl").exists()


@pytest.mark.parametrize("encoder", ["query", "key"])
def test_timm_training(tmp_path, encoder):
    """A checkpoint of timm's own saver, as its train.py uses it: the trained network and its average."""
    pytest.importorskip("timm")
    import timm.utils

    trained = randomised(timm.create_model("resnet18"))
    average = timm.utils.ModelEmaV3(trained)
    for tensor in average.parameters():
        tensor.data.mul_(1.5)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    arguments = argparse.Namespace(model="resnet18", lr=0.1)
    saver = timm.utils.CheckpointSaver(
        trained, optimizer, arguments, average, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(3, metric=0.5)
    done = convert(tmp_path / "last.pth.tar", tmp_path / "b.pkl", encoder)
    assert (done.provenance["source"], done.provenance["encoder"]) == ("timm_training", encoder)
    model = trained if encoder == "query" else average.module
    assert_same_features(tmp_path / "b.pkl", "resnet18", stages_of(model.eval()))


@pytest.mark.parametrize("in_1x1", [False, True])
def test_huggingface(tmp_path, in_1x1):
    """Both places of the stride: the config beside the weights says which."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    config = transformers.ResNetConfig(downsample_in_bottleneck=in_1x1)
    model = randomised(transformers.ResNetModel(config))
    model.save_pretrained(tmp_path / "hub")
    done = convert(tmp_path / "hub", tmp_path / "b.pkl")
    assert done.provenance["source"] == "huggingface" and done.preprocessing.stride_in_1x1 is in_1x1
    with torch.no_grad():
        expected = model.double()(images(), output_hidden_states=True).hidden_states[1:]
    assert_same_features(tmp_path / "b.pkl", "resnet50", expected)


def test_huggingface_basic_blocks(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"
    )
    model = randomised(transformers.ResNetForImageClassification(config))
    model.save_pretrained(tmp_path / "hub")
    convert(tmp_path / "hub", tmp_path / "b.pkl")
    with torch.no_grad():
        expected = model.resnet.double()(images(), output_hidden_states=True).hidden_states[1:]
    assert_same_features(tmp_path / "b.pkl", "resnet18", expected)


def test_lightly(tmp_path):
    """Its examples save the children of a torchvision network, under split batch norm, with its own heads."""
    heads = pytest.importorskip("lightly.models.modules.heads")
    split_norm = pytest.importorskip("lightly.models.batchnorm")
    resnet = torchvision.models.resnet18(norm_layer=lambda channels: split_norm.SplitBatchNorm(channels, 4))
    model = torch.nn.Module()
    model.backbone = torch.nn.Sequential(*list(resnet.children())[:-1])
    model.projection_head = heads.MoCoProjectionHead(512, 512, 128)
    with torch.no_grad():  # statistics that differ between the splits
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(
                    torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(name))) + 0.5
                )
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, tmp_path / "last.ckpt")
    done = convert(tmp_path / "last.ckpt", tmp_path / "b.pkl")
    assert done.provenance["source"] == "lightly" and "averaged over its 4 splits" in done.notes[0]
    # In float32 its evaluation mode averages float32 statistics: the file holds what it computes with.
    expected = stages_of(resnet.train().eval())
    assert_same_features(tmp_path / "b.pkl", "resnet18", expected)


def test_timm_loads_what_we_write(tmp_path):
    timm = pytest.importorskip("timm")
    model = randomised(torchvision.models.resnet18())
    torch.save(model.state_dict(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "t.pth", target="timm")
    theirs = timm.create_model("resnet18", num_classes=0)
    theirs.load_state_dict(torch.load(tmp_path / "t.pth", weights_only=True))  # strictly
    expected, found = stages_of(model), stages_of(theirs.eval())
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(expected, found, strict=True))
