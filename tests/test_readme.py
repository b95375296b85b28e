"""README's commands as a user types them, in an empty folder: its recipes, ResNet-50, one or two steps."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.testing.core import REPOSITORY, write_random_images
from moco_det.toyworld.make import make_toyworld

README = (REPOSITORY / "README.md").read_text()
# What makes each command small; everything else is as README has it.
SMALLER = {
    "pretrain_moco.py": "SOLVER.IMS_PER_BATCH 4 MODEL.ENCODER.BN_GROUP_SIZE 2 MODEL.MOCO.QUEUE_SIZE 8 "
    "INPUT.VIEWS.SIZE 32 SOLVER.EPOCHS 1 DATALOADER.NUM_WORKERS 0",
    "train_net.py": "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 3 SOLVER.STEPS (2,) INPUT.MIN_SIZE_TRAIN (64,) "
    "INPUT.MIN_SIZE_TEST 64 TEST.PRECISE_BN.NUM_ITER 1 DATALOADER.NUM_WORKERS 0 "
    "MODEL.RPN.PRE_NMS_TOPK_TEST 50 MODEL.RPN.POST_NMS_TOPK_TEST 5 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 8",
}


def blocks(language: str, heading: str) -> list[str]:
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def commands() -> list[list[str]]:
    (block,) = blocks("bash", "Your own images and detector")
    return [
        shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.startswith("tools/")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: the repository's tools and configs, some images, and data sets in VOC's layout."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("tools", "configs"):
        (folder / name).symlink_to(REPOSITORY / name)
    write_random_images(folder / "DIR/deeper", 8)
    voc = (
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "dog",
        "horse",
    )
    names = {f"<name>{toy}<": f"<name>{real}<" for toy, real in zip(TOY_CLASSES, voc, strict=True)}
    world = folder / "datasets/toyworld"
    make_toyworld(
        world, num_unlabeled=1, num_per_class_train=1, num_per_class_test=1, num_train=12, num_test=12
    )
    for year in ("2007", "2012"):
        (folder / f"datasets/VOC{year}").symlink_to(world / "VOC2007")
    for annotation in (world / "VOC2007/Annotations").iterdir():
        text = annotation.read_text()
        annotation.write_text(re.sub("<name>.*?<", lambda found: names[found.group()], text))
    return folder


def test_readme_has_the_commands_that_this_file_runs():
    tools = [os.path.basename(words[0]) for words in commands()]
    assert tools == [
        "pretrain_moco.py",
        "convert_to_d2.py",
        "train_net.py",
        "train_net.py",
        "make_report.py",
    ]
    assert "make demo" in README[:2500] and "make test" in README[:2500]


def without_comments(text: str) -> list[str]:
    """The lines of all code blocks."""
    found = re.findall(r"```(?:bash|python)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.partition("#")[0].rstrip() for block in found for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_chinese_readme_has_the_same_commands_tables_and_links():
    chinese = (REPOSITORY / "README.zh-CN.md").read_text(encoding="utf-8")
    assert without_comments(chinese) == without_comments(README) and len(without_comments(README)) > 15
    links = [re.findall(r"\]\(([^)]+)\)", text) for text in (README, chinese)]
    assert {*links[0]} - {*links[1]} == {"README.zh-CN.md"} and {*links[1]} - {*links[0]} == {"README.md"}
    numbers = [re.findall(r"1e-\d+|\d+ (?:families|类权重)|±", text) for text in (README, chinese)]
    assert [n.split()[0] for n in numbers[0]] == [n.split()[0] for n in numbers[1]]


def test_the_commands_of_the_readme(folder):
    """The commands run in their order, since each reads what the one before wrote."""
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(folder / "datasets"),
        "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
    }
    for words in commands():
        line = shlex.join(words).replace("--num-gpus 8", "--num-gpus 0")
        line += " " + " ".join(map(shlex.quote, SMALLER.get(os.path.basename(words[0]), "").split()))
        done = subprocess.run(
            shlex.split(line),  # the tools are executable and take the python of the environment
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for run, init in (("voc_moco", "moco"), ("voc_random", "random")):
        record = json.loads((folder / "output" / run / "run.json").read_text())
        assert record["extra"]["init"] == init and "bbox/AP" in record["metrics"]
    page = (folder / "output/report/report.html").read_text()
    assert "moco" in page and "random" in page


def test_the_lines_for_plain_detectron2(folder, monkeypatch):
    """They give a model whose backbone is the file's, with the classes of detectron2 alone."""
    if not (folder / "output/backbone.pkl").exists():
        test_the_commands_of_the_readme(folder)
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    (block,) = blocks("python", "Weights without this package")
    if importlib.util.find_spec("pkg_resources") is None:  # as the README says
        block = block.replace("from detectron2 import", "from moco_det.model_zoo.detectron2_zoo import")
    monkeypatch.chdir(folder)
    names = {}
    exec(block, names)
    cfg = names["cfg"]
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    before = model.backbone.bottom_up.res4[0].conv1.weight.clone()
    content = DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    assert not before.equal(model.backbone.bottom_up.res4[0].conv1.weight)
    record = content["moco_det"]["preprocessing"]
    assert record["format"] == cfg.INPUT.FORMAT and record["pixel_std"] == cfg.MODEL.PIXEL_STD
    assert record["pixel_mean"] == cfg.MODEL.PIXEL_MEAN
    assert record["stride_in_1x1"] == cfg.MODEL.RESNETS.STRIDE_IN_1X1
