"""ResNets under the names that users' own modules give are found and converted with proof."""

import pytest
import torch
from family_examples import backbone, children_names, detectron2_names, huggingface_names, linear

from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, read_backbone
from moco_det.weights.resnet_names import to_torchvision
from moco_det.weights.sources import locate_backbone
from moco_det.weights.sources.families import MSRA, UNIT
from moco_det.weights.sources.places import find_places, outer_prefixes


def assert_holds(path, states):
    tensors = {to_torchvision(n): torch.as_tensor(v) for n, v in read_backbone(path).tensors.items()}
    assert tensors.keys() == {n for n in backbone(states) if not n.endswith("num_batches_tracked")}
    assert all(torch.equal(value, states[name]) for name, value in tensors.items())


def byol_lightning(q, k):
    names = backbone(q, "learner.net.") | backbone(q, "learner.online_encoder.net.")
    return {
        "state_dict": names
        | backbone(k, "learner.target_encoder.net.")
        | linear("learner.online_predictor.net", 0)
    }


def wrapped_blocks(states):
    """FSDP around the whole and around blocks, which are checkpointed, too."""
    inside = "0._fsdp_wrapped_module._checkpoint_wrapped_module."
    return {"_fsdp_wrapped_module." + name.replace("0.", inside, 1): value for name, value in states.items()}


FILES = {
    "Lightning": lambda q, k: {"state_dict": backbone(q, "model.resnet."), "epoch": 9},
    "Lightning, heads beside it": lambda q, k: {
        "state_dict": backbone(q, "model.resnet.") | linear("model.resnet.fc") | linear("my_head", 0)
    },
    "FSDP": lambda q, k: {"model": backbone(q, "_fsdp_wrapped_module.trunk._fsdp_wrapped_module.")},
    "FSDP around blocks": lambda q, k: {"model": wrapped_blocks(q)},
    "FSDP around blocks, in an entry of any name": lambda q, k: {
        "ours": {"net": wrapped_blocks(q)},
        "epoch": 3,
    },
    "Fabric and torch.compile": lambda q, k: {"model": backbone(q, "_forward_module._orig_mod.trunk.")},
    "an entry net": lambda q, k: {"epoch": 3, "net": q, "best": 0.5},
    "an entry of any name in another": lambda q, k: {"weights": {"ours": {"deeper": q}}, "args": {"lr": 0.1}},
    "state_dict of something else": lambda q, k: {"state_dict": {"lr": 0.1}, "network": q},
    "nested in state_dict": lambda q, k: {"state_dict": {"model": {"net": q}}},
    "byol-pytorch in Lightning": byol_lightning,
    "moco in Lightning": lambda q, k: {
        "state_dict": backbone(q, "model.encoder_q.")
        | backbone(k, "model.encoder_k.")
        | {"model.queue": torch.ones(2, 8)}
    },
    "children": lambda q, k: {"state_dict": children_names(q, "model.features.")},
    "a Sequential of a ResNet and a head": lambda q, k: backbone(q, "0.") | linear("1"),
    "Hugging Face's in a module": lambda q, k: {"state_dict": huggingface_names(q, "model.encoder.resnet.")},
    "the same twice": lambda q, k: backbone(q, "net.") | backbone(q, "online.net."),
    "a detector of torchvision in Lightning": lambda q, k: {
        "state_dict": backbone(q, "detector.backbone.body.") | linear("detector.rpn.head.conv")
    },
}


@pytest.mark.parametrize("name", FILES)
def test_plain_resnets_are_found(tmp_path, name, resnet18, other_resnet18):
    """Each tensor of the file is kept or dropped, once."""
    content = FILES[name](resnet18, other_resnet18)
    torch.save(content, tmp_path / "a.ckpt")
    done = convert(tmp_path / "a.ckpt", tmp_path / "b.pkl")
    assert_holds(tmp_path / "b.pkl", resnet18)
    assert done.preprocessing == TORCHVISION_PREPROCESSING
    assert ("the same tensors are under 'online.net.' too" in done.notes) == (name == "the same twice")
    names = [*done.renamed, *(n for names in done.dropped.values() for n in names)]

    def count(value):
        return sum(map(count, value.values())) if isinstance(value, dict) else isinstance(value, torch.Tensor)

    assert len(names) == len(set(names)) == count(content)
    alone = name not in (
        "byol-pytorch in Lightning",
        "moco in Lightning",
        "a detector of torchvision in Lightning",
        "FSDP around blocks",
    )
    assert any("nothing in the file says" in note for note in done.notes) == (
        alone and name != "Hugging Face's in a module"
    )


def test_the_other_encoder_under_a_prefix(tmp_path, resnet18, other_resnet18):
    torch.save(byol_lightning(resnet18, other_resnet18), tmp_path / "a.ckpt")
    assert convert(tmp_path / "a.ckpt", tmp_path / "b.pkl", "key").provenance["source"] == "byol"
    assert_holds(tmp_path / "b.pkl", other_resnet18)


@pytest.mark.parametrize("family", ["byol", None])
def test_a_family_that_is_given_is_found_under_a_prefix(tmp_path, resnet18, other_resnet18, family):
    source = locate_backbone(byol_lightning(resnet18, other_resnet18), family=family)
    assert source.family == "byol" and source.backbone["conv1.weight"] is resnet18["conv1.weight"]


def test_networks_that_differ_need_the_prefix(tmp_path, resnet18, other_resnet18, capsys):
    states = backbone(resnet18, "model.") | backbone(other_resnet18, "ema.model.") | linear("head")
    torch.save({"state_dict": states}, tmp_path / "a.ckpt")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.ckpt"), str(tmp_path / "b.pkl")])
    error = capsys.readouterr().err
    assert (
        "holds 2 ResNets, under 'model.', 'ema.model.', and they differ" in error
        and "--prefix model." in error
    )
    for prefix, states in (
        ("ema.model", other_resnet18),
        ("model.", resnet18),
        ("module.ema.", other_resnet18),
    ):
        main([str(tmp_path / "a.ckpt"), str(tmp_path / "b.pkl"), "--prefix", prefix])
        assert_holds(tmp_path / "b.pkl", states)


def test_a_change_of_one_number_makes_two_networks_different(resnet18):
    changed = {**resnet18, "layer4.1.bn2.bias": resnet18["layer4.1.bn2.bias"] + 1e-6}
    with pytest.raises(ValueError, match="holds 2 ResNets"):
        locate_backbone(backbone(resnet18, "a.") | backbone(changed, "b."))


def test_a_prefix_that_is_not_there_names_those_that_are(resnet18):
    with pytest.raises(ValueError, match="--prefix 'encoder.'.*'model.'"):
        locate_backbone(backbone(resnet18, "model."), prefix="encoder")


def test_two_encoders_of_sthalles_byol_need_the_prefix(resnet18, other_resnet18):
    content = {"online_network_state_dict": resnet18, "target_network_state_dict": other_resnet18}
    with pytest.raises(ValueError, match="--prefix online_network_state_dict."):
        locate_backbone(content)
    source = locate_backbone(content, prefix="target_network_state_dict")
    assert source.backbone["conv1.weight"] is other_resnet18["conv1.weight"]
    assert len(source.dropped["outside 'target_network_state_dict.'"]) == len(resnet18)


def test_tensors_under_the_prefix_that_nothing_explains_are_refused(tmp_path, resnet18):
    torch.save(backbone(resnet18, "net.") | {"net.layer5.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="1 left over: layer5.weight"):
        convert(tmp_path / "a.pth", tmp_path / "b.pkl")
    assert not (tmp_path / "b.pkl").exists()


@pytest.mark.parametrize("preprocessing", ["unit", "torchvision", "msra"])
def test_the_preprocessing_settles_what_differs_in_nothing_else(tmp_path, resnet18, capsys, preprocessing):
    torch.save({"state_dict": backbone(resnet18, "backbone.") | linear("my_head")}, tmp_path / "a.pth")
    command = [str(tmp_path / "a.pth"), str(tmp_path / "b.pkl")]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "say it with --preprocessing " in capsys.readouterr().err
    main([*command, "--preprocessing", preprocessing])
    expected = {"unit": UNIT, "torchvision": TORCHVISION_PREPROCESSING, "msra": MSRA}[preprocessing]
    assert read_backbone(tmp_path / "b.pkl").preprocessing == expected
    assert_holds(tmp_path / "b.pkl", resnet18)


def test_detectron2_detectors_in_a_module_still_need_to_be_told(resnet18):
    states = {f"model.backbone.bottom_up.{n}": v for n, v in detectron2_names(resnet18).items()}
    source = locate_backbone(states | linear("model.proposal_generator.rpn_head.conv"))
    assert (
        source.family == "detectron2" and len(source.backbone) == 100 and source.record.preprocessing is None
    )


def test_what_lies_beside_a_named_family_is_no_feature_of_its_backbone(tmp_path, resnet18):
    """The decoder of segmentation_models_pytorch has names that a deep stem has too."""
    states = backbone(resnet18, "encoder.") | {"decoder.blocks.0.conv1.0.weight": torch.ones(4, 4, 3, 3)}
    torch.save(states, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="1 .*: decoder.blocks.0.conv1.0.weight"):
        convert(tmp_path / "a.pth", tmp_path / "b.pkl", family="pycontrast")
    states["encoder.conv1.0.weight"] = states.pop("encoder.conv1.weight")
    with pytest.raises(ValueError, match="deep stem.*conv1.0.weight"):
        locate_backbone(states, family="pycontrast")


def test_flattened_shards_are_called_so():
    with pytest.raises(ValueError, match="FSDP.*FULL_STATE_DICT"):
        locate_backbone({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}})


def test_dilated_segmenters_are_refused(resnet18):
    with pytest.raises(ValueError, match="segmenter of torchvision .* dilated"):
        locate_backbone(backbone(resnet18, "backbone.") | linear("aux_classifier", 0))
    content = {
        "state_dict": backbone(resnet18, "backbone.") | linear("decode_head.conv_seg"),
        "meta": {"config": "backbone=dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))"},
    }
    with pytest.raises(ValueError, match=r"dilated stages: .* dilations=\(1, 1, 2, 4\)"):
        locate_backbone(content)
    content["meta"]["config"] = "backbone=dict(dilations=(1, 1, 1, 1))"
    assert locate_backbone(content).family == "mmdet"


@pytest.mark.parametrize(
    "places, prefixes",
    [
        ([], [""]),
        ([""], [""]),
        (["a.b."], ["", "a.", "a.b."]),
        (["a.q.net.", "a.k.net."], ["", "a."]),
        (["a.", "ab."], [""]),
        (["a.", "a.b."], ["", "a."]),
    ],
)
def test_outer_prefixes(places, prefixes):
    assert outer_prefixes(places) == prefixes


def test_places_of_all_layouts():
    names = [
        "x.layer1.0.conv1.weight",
        "0.4.0.conv1.weight",
        "res2.0.conv1.weight",
        "mylayer1.0.conv1.weight",
    ]
    assert find_places(names) == ["x.", "0.", ""]
