"""The commands of docs/OTHER_IMAGES.md, as they stand there, on few images for a step or two."""

import importlib.util
import json
import os
import re
import shlex

import numpy as np
import pytest
import torch
import yaml
from checkpoint_examples import random_states
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from moco_det.classify.command import main as classify
from moco_det.convert.command import main as convert
from moco_det.data.datasets import own as own_datasets
from moco_det.data.image_format import ImageFormat
from moco_det.finetune.command import main as train
from moco_det.pretrain.command import main as pretrain
from moco_det.pretrain.stats import main as compute_stats
from moco_det.report.report import main as report
from moco_det.testing.core import REPOSITORY
from moco_det.toyworld.bands import main as make_bands
from moco_det.weights.backbone_file import read_backbone

if importlib.util.find_spec("tifffile") is None:
    pytest.skip("the extra moco_det[bands] is not installed", allow_module_level=True)

TEXT = (REPOSITORY / "docs/OTHER_IMAGES.md").read_text().split("\n## RGB images unlike")[0]
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if not line.startswith("pip install")
]
TOOLS = {
    "compute_stats.py": compute_stats,
    "pretrain_moco.py": pretrain,
    "convert_to_d2.py": convert,
    "train_net.py": train,
    "train_classifier.py": classify,
    "make_report.py": report,
    "python": lambda words: make_bands(words[2:]),
}
SMALLER = {
    "python": "--num-unlabeled 8 --num-per-class 1 --num-train 12 --num-test 12 --image-size 64",
    "compute_stats.py": "--num-workers 0",
    "pretrain_moco.py": "SOLVER.EPOCHS 1 SOLVER.IMS_PER_BATCH 8 MODEL.ENCODER.BN_GROUP_SIZE 4 "
    "DATALOADER.NUM_WORKERS 0 "
    "MODEL.MOCO.QUEUE_SIZE 8 INPUT.VIEWS.SIZE 32 INPUT.SHOWN_CHANNELS (3,1,0) INPUT.VIEWS.CHANNEL_DROPOUT 0.2",
    "train_net.py": "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS () TEST.PRECISE_BN.ENABLED False "
    "INPUT.MIN_SIZE_TRAIN (48,) INPUT.MIN_SIZE_TEST 48 DATALOADER.NUM_WORKERS 0 INPUT.SHOWN_CHANNELS (3,1,0) "
    "MODEL.RPN.PRE_NMS_TOPK_TEST 50 MODEL.RPN.POST_NMS_TOPK_TEST 5 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 8",
    "train_classifier.py": "SOLVER.EPOCHS 1 SOLVER.IMS_PER_BATCH 4 SOLVER.STEP_EPOCHS () INPUT.VIEWS.SIZE 32 "
    "DATALOADER.NUM_WORKERS 0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder in which all commands of the page were run, in their order."""
    folder, before = tmp_path_factory.mktemp("user"), os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        for catalog in (DatasetCatalog, MetadataCatalog):
            patch.setattr(catalog, "data", dict(catalog.data))
        patch.setattr(own_datasets, "_registered", {})
        os.chdir(folder)
        os.makedirs("output")
        torch.save(random_states("resnet18"), "r18.pth")
        try:
            for tool, *words in COMMANDS:
                name = os.path.basename(tool)
                TOOLS[name]([*words, *SMALLER.get(name, "").split()])
        finally:
            os.chdir(before)
    return folder


def test_the_page_has_the_commands_that_this_file_runs():
    names = [os.path.basename(words[0]) for words in COMMANDS]
    assert names[:6] == [*TOOLS][-1:] + [*TOOLS][:3] + ["train_net.py"] * 2
    assert names[6:] == ["make_report.py", "train_classifier.py", "convert_to_d2.py"]


def test_the_settings_travel_to_the_detector(folder):
    stats = yaml.safe_load((folder / "bands_stats.yaml").read_text())
    assert stats["INPUT"]["CHANNELS"] == 4 and len(stats["INPUT"]["RANGE"]) == 8
    record = read_backbone(folder / "output/bands_r18.pkl").preprocessing
    detector = yaml.safe_load((folder / "output/bands_detector/config.yaml").read_text())
    for keys in (stats, yaml.safe_load((folder / "output/bands_r18.yaml").read_text()), detector):
        assert tuple(keys["INPUT"]["RANGE"]) == record.range and keys["INPUT"]["CHANNELS"] == 4
        assert tuple(keys["MODEL"]["PIXEL_MEAN"]) == record.pixel_mean
    assert read_backbone(folder / "output/bands_r18.pkl").tensors["stem.conv1.weight"].shape == (64, 4, 7, 7)
    for run in ("bands_detector", "bands_random"):
        metrics = json.loads((folder / "output" / run / "run.json").read_text())["metrics"]
        assert "bbox/AP" in metrics
    assert read_backbone(folder / "r18_4.pkl").preprocessing.range == (0.0, 4095.0)


def test_pictures_show_the_chosen_channels(folder):
    """The fourth band in red, and three views of it in the report."""
    views = np.asarray(Image.open(folder / "output/bands_moco/sample_views.png"))
    assert views.ndim == 3 and views.shape[2] == 3 and (views[..., 0] != views[..., 2]).any()
    assert (folder / "output/bands_report/report.html").exists()


def test_three_channels_are_refused_with_the_fix(folder, capsys):
    words = ["--config-file", "toy/pretrain_moco_v2_R_18", "--num-gpus", "0", "--images"]
    words += [str(folder / "bands/unlabeled"), *SMALLER["pretrain_moco.py"].split()]
    with pytest.raises(SystemExit, match="2"):
        pretrain([*words, "OUTPUT_DIR", str(folder / "three")])
    assert "has 4 channels" in (said := capsys.readouterr().err) and "give INPUT.CHANNELS 4" in said


def test_a_detector_that_reads_otherwise_is_refused(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    command = next(words for words in COMMANDS if "output/bands_detector" in words)[1:-1]
    for pairs, message in (
        (["INPUT.RANGE", "(0,4095)"], "INPUT.RANGE is"),
        (["INPUT.CHANNELS", "3"], "INPUT.CHANNELS is 3 and MODEL.PIXEL_MEAN has 4 numbers"),
        (["INPUT.FORMAT", "BGR"], "INPUT.FORMAT is BGR, expected RGB"),
    ):
        with pytest.raises(SystemExit, match="2"):
            train([*command, "output/other", *SMALLER["train_net.py"].split(), *pairs])
        assert message in capsys.readouterr().err


def test_gray_images_of_12_bits_are_those_of_8(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "8.png")
    Image.fromarray(gray.astype(np.uint16) * 16).save(tmp_path / "12.png")
    eight = ImageFormat(1, (), "L").decode(str(tmp_path / "8.png"))
    assert torch.equal(ImageFormat(1, (0.0, 4080.0), "L").decode(str(tmp_path / "12.png")), eight)
