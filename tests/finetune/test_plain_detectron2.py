"""backbone.pkl without moco_det: a plain detectron2 script trains an R50-FPN from it."""

import os
import subprocess
import sys

import numpy as np
import torch
from detectron2.modeling import build_model

from moco_det.backbone_file import TORCHVISION_PREPROCESSING, write_backbone
from moco_det.model_zoo import get_config

SCRIPT = """
import sys
sys.modules["moco_det"] = None  # importing it is an error from here on
import pickle, torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

# The five lines of the README.
cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
cfg.MODEL.WEIGHTS = sys.argv[1]
cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = "RGB", False
cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "naiveSyncBN", "naiveSyncBN", 0

cfg.MODEL.DEVICE = "cpu"
model = build_model(cfg).train()
DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
state = model.backbone.bottom_up.state_dict()
for name, value in pickle.load(open(sys.argv[1], "rb"))["model"].items():
    assert torch.equal(state[name], torch.from_numpy(value)), name
before = state["res5.2.conv3.weight"].clone()
truth = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])), gt_classes=torch.tensor([3]))
image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0))
with EventStorage():
    sum(model([{"image": image, "instances": truth}] * 2).values()).backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
assert not torch.equal(model.backbone.bottom_up.state_dict()["res5.2.conv3.weight"], before)
assert not any(name.startswith("moco_det") and module for name, module in sys.modules.items())
print("trained from", sum(p.numel() for p in model.backbone.bottom_up.parameters()), "parameters")
"""


def test_a_plain_detectron2_script_trains_from_the_file(tmp_path):
    cfg = get_config("PascalVOC-Detection/faster_rcnn_R_50_C4_24k", "random")
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        state = build_model(cfg).state_dict()
    names = {n.removeprefix("backbone.").removeprefix("roi_heads."): v.shape for n, v in state.items()}
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.uniform(0.01, 0.03, shape).astype(np.float32)
        for name, shape in names.items()
        if name.startswith(("stem.", "res")) and not name.startswith("res5.norm") and "tracked" not in name
    }
    assert len(tensors) == 265
    path = tmp_path / "backbone.pkl"
    write_backbone(path, tensors, TORCHVISION_PREPROCESSING, {"source": "test"})
    command = [sys.executable, "-c", SCRIPT, str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trained from 23508032 parameters" in done.stdout
