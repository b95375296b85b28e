"""The table of families: each is known by its content, gives the right encoder, and explains every tensor."""

import pytest
import torch
from checkpoint_examples import random_states
from family_examples import (
    EXAMPLES,
    backbone,
    caffe2_names,
    children_names,
    detectron2_names,
    huggingface_names,
    linear,
    mmengine,
)

from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING
from moco_det.weights.backbone_tensors import check_backbone, expected_shapes
from moco_det.weights.sources import FAMILIES, agreed_arch, agreed_preprocessing, locate_backbone
from moco_det.weights.sources.families import MSRA, SWAV, UNIT
from moco_det.weights.sources.layouts import IDENTITY_VAR

BY_NAME = {family.name: family for family in FAMILIES}


def same(found: dict, states: dict) -> bool:
    """The very tensors, not copies, and no others; step counters and ``fc`` are no part of a backbone."""
    names = set(expected_shapes("resnet18"))
    return set(found) == names and all(
        torch.as_tensor(found[n]).data_ptr() == states[n].data_ptr() for n in names
    )


def test_every_family_has_an_example_and_a_name_of_its_own():
    assert sorted(EXAMPLES) == sorted(BY_NAME) and len(BY_NAME) == len(FAMILIES)
    assert all(family.checked for family in FAMILIES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_family_is_recognized_and_its_encoders_are_found(name, resnet18, other_resnet18):
    family = BY_NAME[name]
    content = EXAMPLES[name](resnet18, other_resnet18)
    states = {"query": resnet18, "key": other_resnet18}
    for encoder in (None, *family.prefixes):
        source = locate_backbone(content, encoder)
        assert source.family == name
        assert same(source.backbone, states[encoder or family.default])
        assert source.encoder == ((encoder or family.default) if len(family.prefixes) > 1 else "")
        assert source.renamed.keys() == source.backbone.keys()
    check_backbone(source.backbone, agreed_arch(source))
    assert agreed_preprocessing(source) == (source.record.preprocessing or family.preprocessing)


@pytest.mark.parametrize("name", EXAMPLES)
def test_exactly_one_family_needs_no_help(name, resnet18, other_resnet18):
    """Whatever stands first in the table: the patterns themselves tell the families apart."""
    content = EXAMPLES[name](resnet18, other_resnet18)
    assert locate_backbone(content, family=name).family == name
    reordered = locate_backbone(dict(reversed(content.items())))
    assert reordered.family == name


def test_preprocessing_where_a_family_differs():
    assert {name for name, family in BY_NAME.items() if family.preprocessing == SWAV} == {"swav"}
    assert {name for name, family in BY_NAME.items() if family.preprocessing == UNIT} == {
        "simclr",
        "simclr_sthalles",
    }
    assert {name for name, family in BY_NAME.items() if family.preprocessing == MSRA} == {"caffe2"}
    assert SWAV.pixel_std[0] == pytest.approx(0.228 * 255) and MSRA.stride_in_1x1 and MSRA.format == "BGR"


def test_timm_and_huggingface_configs_are_read(resnet18):
    timm = locate_backbone(EXAMPLES["timm"](resnet18, None)).record.preprocessing
    assert timm.pixel_mean == (127.5,) * 3 and timm.pixel_std == (63.75,) * 3 and not timm.stride_in_1x1
    content = EXAMPLES["huggingface"](resnet18, None)
    content["config.json"] = {"downsample_in_bottleneck": True}
    content["preprocessor_config.json"] = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    found = locate_backbone(content).record.preprocessing
    assert found.stride_in_1x1 and found.pixel_std == TORCHVISION_PREPROCESSING.pixel_std


def test_openmmlab_config_is_read(resnet18):
    content = mmengine(backbone(resnet18, "backbone.") | linear("neck.fc"))
    content["meta"]["cfg"] = (
        "img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1, 1, 1], to_rgb=False)\n"
        "model = dict(backbone=dict(type='ResNet', style='caffe'))"
    )
    assert locate_backbone(content).record.preprocessing == MSRA


@pytest.mark.parametrize("config", [{"mean": [1, 2], "std": [1, 1, 1]}, {"mean": "x", "std": [1, 1, 1]}])
def test_damaged_hub_config_is_refused(resnet18, config):
    content = {"state_dict": resnet18, "config.json": {"pretrained_cfg": config}}
    with pytest.raises(ValueError, match="record of a timm file is damaged"):
        locate_backbone(content)


# ---- Ambiguity ----------------------------------------------------------------------------------------


def test_families_whose_backbones_stand_elsewhere_are_never_settled_by_the_preprocessing(
    resnet18, other_resnet18
):
    content = backbone(resnet18, "encoder.") | backbone(other_resnet18, "backbone.")
    for preprocessing in (None, UNIT):
        with pytest.raises(ValueError, match="differently: pycontrast, .*barlow_twins"):
            locate_backbone(content, preprocessing=preprocessing)


def test_ambiguous_content_is_refused_with_the_candidates(resnet18):
    bare = backbone(resnet18, "encoder.")
    with pytest.raises(
        ValueError,
        match=r"normalized: pycontrast, pixpro, simsiam, simclr, smp, solo_learn_1.0; "
        r"say it with .*--preprocessing unit \(simclr\)",
    ) as error:
        locate_backbone(bare)
    assert "--preprocessing torchvision (pycontrast, pixpro, simsiam, smp, solo_learn_1.0)" in str(
        error.value
    )
    for preprocessing in (UNIT, SWAV):
        settled = locate_backbone(bare, preprocessing=preprocessing)
        assert (
            same(settled.backbone, resnet18) and agreed_preprocessing(settled, preprocessing) == preprocessing
        )
    # Where the encoder is named, the family is one of these, and the preprocessing says which.
    for preprocessing, family in ((UNIT, "simclr"), (SWAV, "pycontrast")):
        assert locate_backbone(bare, "query", preprocessing=preprocessing).family == family
    source = locate_backbone(bare, family="simclr")
    assert (
        source.family == "simclr" and source.record.preprocessing == UNIT and same(source.backbone, resnet18)
    )


def test_stripped_heads_need_no_help_where_all_agree(resnet18):
    source = locate_backbone({"model": backbone(resnet18, "base_encoder.")})
    assert source.family == "moco_v3" and same(source.backbone, resnet18)
    assert same(locate_backbone(children_names(resnet18, "student_backbone."), "query").backbone, resnet18)


def test_jax_weights_are_refused_by_their_padding():
    with pytest.raises(ValueError, match=r"JAX or TensorFlow.*\('SAME'\)"):
        locate_backbone({"res_net50/~/initial_conv/w": torch.ones(7, 7, 3, 64)})


# ---- Layouts -------------------------------------------------------------------------------------------


def test_whole_detectors_of_detectron2(resnet18):
    """FPN keeps all in backbone.bottom_up; C4 has res5 in its head."""
    names = detectron2_names(resnet18)
    rest = (
        linear("proposal_generator.rpn_head.conv")
        | linear("roi_heads.box_head.fc1")
        | linear("backbone.fpn_output2")
    )
    fpn = {"model": {f"backbone.bottom_up.{name}": v for name, v in names.items()} | rest, "iteration": 3}
    c4 = {("roi_heads." if name.startswith("res5") else "backbone.") + name: v for name, v in names.items()}
    for content in (fpn, {"model": c4 | rest}):
        source = locate_backbone(content)
        assert source.family == "detectron2" and same(source.backbone, resnet18)
        with pytest.raises(ValueError, match="does not say how .* --preprocessing torchvision"):
            agreed_preprocessing(source)
        assert agreed_preprocessing(source, MSRA) == MSRA


def test_two_backbones_in_one_detector_are_refused(resnet18):
    names = detectron2_names(resnet18)
    twice = names | {f"backbone.bottom_up.{name}": value for name, value in names.items()}
    with pytest.raises(ValueError, match="holds two backbones"):
        locate_backbone({"model": twice})


def test_fused_caffe2_norms_become_an_identity(resnet18):
    blobs = {n: v for n, v in caffe2_names(resnet18).items() if not n.endswith(("_rm", "_riv"))}
    source = locate_backbone({"blobs": blobs})
    tensors, _ = check_backbone(source.backbone, "resnet18")
    assert torch.all(tensors["bn1.running_mean"] == 0) and "FrozenBN" in source.notes[0]
    assert torch.all(tensors["layer4.0.downsample.1.running_var"] == torch.tensor(IDENTITY_VAR))


def test_split_statistics_are_folded_as_the_evaluation_mode_does(resnet18):
    split = {
        name: torch.stack([value - 1, value + 3]).flatten()
        if name.endswith(("running_mean", "running_var"))
        else value
        for name, value in resnet18.items()
    }
    source = locate_backbone(split)
    assert source.notes == ("the statistics of split batch norm were averaged over its 2 splits",)
    for name in ("bn1.running_mean", "layer3.1.bn2.running_var"):
        assert torch.allclose(source.backbone[name], resnet18[name] + 1)
    assert torch.equal(source.backbone["bn1.weight"], resnet18["bn1.weight"])


def test_one_statistic_of_another_length_is_damage(resnet18):
    broken = {**resnet18, "bn1.running_var": torch.ones(128)}
    source = locate_backbone(broken)
    with pytest.raises(ValueError, match="1 of another shape: bn1.running_var"):
        check_backbone(source.backbone, "resnet18")


# ---- What detectron2 cannot represent --------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra, feature",
    [
        ({"conv1.0.weight": 1}, "a deep stem"),
        ({"layer2.0.downsample.2.weight": 1}, "average pooling in the shortcut"),
        ({"layer2.0.conv3.0.filt": 1}, "anti-aliasing"),
        ({"layer1.0.se.fc1.weight": 1}, "squeeze-and-excitation"),
        ({"layer1.0.conv2.fc1.weight": 1}, "split attention"),
        ({"layer1.0.convs.0.weight": 1}, "Res2Net"),
        ({"layer1.0.bn1.IN.weight": 1}, "instance normalization"),
        ({"layer1.0.conv2_offset.weight": 1}, "deformable convolutions"),
        ({"layer1.0.conv1.bias": 1}, "convolutions with a bias"),
        ({"attnpool.k_proj.weight": 1}, "attention pooling"),
        ({"stage2.0.fuse_layers.0.1.0.weight": 1, "conv2.weight": 1}, "branches of an HRNet"),
        ({"conv1.weight": torch.ones(64, 3, 3, 3)}, r"a 3x3 stem \(for small images\)"),
    ],
)
def test_features_are_refused_by_name(resnet18, extra, feature):
    with pytest.raises(ValueError, match=f"cannot represent .*{feature}"):
        locate_backbone({**resnet18, **extra})


@pytest.mark.parametrize(
    "arch, feature",
    [("resnetblur50", "anti-aliasing"), ("resnetaa50", "anti-aliasing"), ("resnet50d", "deep stem")],
)
def test_features_without_tensors_are_refused_by_the_recorded_name(resnet18, arch, feature):
    with pytest.raises(ValueError, match=f"cannot represent .*{feature}.*calls its architecture '{arch}'"):
        locate_backbone({"state_dict": resnet18, "arch": arch})


@pytest.mark.parametrize(
    "arch", ["resnet50", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "resnet152", "tv_resnet50"]
)
def test_plain_names_are_not_refused(resnet18, arch):
    locate_backbone({"state_dict": resnet18, "arch": arch})


def test_norms_without_statistics_are_refused(resnet18):
    plain = {name: value for name, value in resnet18.items() if "running" not in name}
    with pytest.raises(ValueError, match="norms without running statistics"):
        locate_backbone(plain)


def test_bottlenecks_of_huggingface_and_caffe2(resnet50):
    """The examples above have basic blocks: here the third convolution too."""
    for content in ({"state_dict": huggingface_names(resnet50)}, caffe2_names(resnet50)):
        source = locate_backbone(content)
        assert agreed_arch(source) == "resnet50"
        tensors, _ = check_backbone(source.backbone, "resnet50")
        assert all(torch.equal(tensors[name], resnet50[name]) for name in expected_shapes("resnet50"))


def test_random_states_differ_between_tensors_of_one_shape():
    """What the comparisons above rest on."""
    states = random_states("resnet18")
    assert not torch.equal(states["layer1.0.conv1.weight"], states["layer1.0.conv2.weight"])
