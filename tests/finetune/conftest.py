"""A toy world of 64 px, a ResNet-18 backbone.pkl, and how to call the trainer on them in seconds."""

import logging
import os

import pytest
import torch
from detectron2.modeling import build_model

from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.finetune.command import make_parser, run
from moco_det.model_zoo import get_config
from moco_det.toyworld.make import make_toyworld
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, write_backbone

RECIPE = "toy/faster_rcnn_R_18_FPN"
SMALL = (
    *("INPUT.MIN_SIZE_TRAIN", "(48, 64)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.STEPS", "()", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "TEST.PRECISE_BN.NUM_ITER", "1"),
    *("SEED", "1"),
)


@pytest.fixture(scope="session", autouse=True)
def toyworld(tmp_path_factory):
    """The folder in which detectron2 finds the toy data sets during these tests."""
    root = tmp_path_factory.mktemp("datasets")
    counts = {"num_unlabeled": 1, "num_per_class_train": 1, "num_per_class_test": 1}
    make_toyworld(root / "toyworld", image_size=64, num_train=13, num_test=12, **counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        register_toy_datasets()
        yield root
    register_toy_datasets()


@pytest.fixture
def log(caplog):
    """What moco_det logs, from INFO on."""
    caplog.set_level(logging.INFO, logger="moco_det")
    return caplog


@pytest.fixture(scope="session")
def tiny_cfg():
    """Makes the small config of an init, on the CPU."""

    def make(init="random", recipe=RECIPE, **kwargs):
        cfg = get_config(recipe, init, **kwargs)
        cfg.merge_from_list(list(SMALL))
        cfg.MODEL.DEVICE = "cpu"
        return cfg

    return make


@pytest.fixture
def thin_c4_cfg():
    """The C4 recipe of VOC with a sixteenth of the channels."""
    cfg = get_config("PascalVOC-Detection/faster_rcnn_R_50_C4_24k", "random")
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.fixture(scope="session")
def backbone_tensors(tiny_cfg):
    """The tensors of a ResNet-18 under the file's names, with running statistics that are not the default."""
    generator = torch.Generator().manual_seed(0)
    state = build_model(tiny_cfg()).backbone.bottom_up.state_dict()
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    return {n: (v + 0.01 * torch.rand(v.shape, generator=generator)).numpy() for n, v in kept.items()}


@pytest.fixture
def backbone(tmp_path, backbone_tensors):
    """Path of a backbone.pkl that fits the toy recipes under ``--init moco``."""
    path = tmp_path / "backbone.pkl"
    write_backbone(path, backbone_tensors, TORCHVISION_PREPROCESSING, {"source": "test"})
    return str(path)


@pytest.fixture
def train(tmp_path):
    """Runs tools/train_net.py's function on the small recipe; returns OUTPUT_DIR."""

    def call(*words, output="out", recipe=RECIPE):
        """Flags come first in ``words``, then KEY VALUE pairs."""
        flags = 0
        while flags < len(words) and words[flags].startswith("--"):
            flags += 1 if words[flags] in ("--resume", "--eval-only", "--dry-run") else 2
        folder = tmp_path / output
        args = ["--config-file", recipe, "--num-gpus", "0", *words[:flags], *SMALL, *words[flags:]]
        run(make_parser().parse_args([*args, "OUTPUT_DIR", os.fspath(folder)]))
        return folder

    return call
