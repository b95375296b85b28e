"""backbone.pkl without moco_det: README's lines for plain detectron2 train from it."""

import os
import re
import subprocess
import sys

import numpy as np
import torch
from detectron2.modeling import build_model

from moco_det.model_zoo import get_config
from moco_det.testing.core import REPOSITORY
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, write_backbone

SCRIPT = """
import sys
sys.modules["moco_det"] = None  # importing it is an error from here on
import pickle, torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

names = {}
exec(sys.argv[1], names)
cfg = names["cfg"]
cfg.MODEL.DEVICE = "cpu"
torch.manual_seed(0)
model = build_model(cfg).train()
DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
state = model.backbone.bottom_up.state_dict()
file = pickle.load(open(cfg.MODEL.WEIGHTS, "rb"))["model"]
for name, value in file.items():
    assert torch.equal(state[name], torch.from_numpy(value)), name
truth = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])), gt_classes=torch.tensor([3]))
truth.gt_masks = PolygonMasks([[[8.0, 8, 40, 8, 40, 40, 8, 40]]])
image = torch.randint(0, 256, (3, 64, 64))
with EventStorage():
    loss = sum(model([{"image": image, "instances": truth}] * 2).values())
loss.backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
assert torch.isfinite(loss), loss
unmoved = [n for n, v in file.items() if torch.equal(state[n], torch.from_numpy(v))]
assert not unmoved, unmoved  # neither a parameter nor a running statistic
assert not any(name.startswith("moco_det") and module for name, module in sys.modules.items())
print("trained", len(file), "tensors")
"""


def lines_of_readme(weights):
    """The block of README, which tests/test_readme.py runs too, with ``weights`` for its file."""
    section = (REPOSITORY / "README.md").read_text().split("\n## Weights without this package\n")[1]
    block = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]
    assert block.count('"output/backbone.pkl"') == 1
    return block.replace('"output/backbone.pkl"', repr(str(weights)))


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
    command = [sys.executable, "-c", SCRIPT, lines_of_readme(path)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trained 265 tensors" in done.stdout
