"""What users have of commit c586ef8 keeps working: a run, kept results, names of commands and recipes.

``tests/c586ef8`` was made by the code of that commit:

- ``run``: the folder of a pre-training run, 2 epochs of 16 images of 32 px in batches of 8, ResNet-18.
  In its checkpoint, tensors of more than one number are on torch's meta device, without values: :func:`filled`
  makes them by a formula;
- ``results``: kept runs; ``tables.md``: what its report made of them;
- ``names.json``: console commands, tools, recipes and inits.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_examples import random_tensor

from moco_det.classify.command import main as classify
from moco_det.convert.convert import convert
from moco_det.model_zoo import get_config_file, list_configs, list_inits
from moco_det.pretrain.command import main as pretrain
from moco_det.report.kept_results import load_results, render
from moco_det.testing.core import REPOSITORY, write_random_images
from moco_det.weights.backbone_file import read_backbone

THEN = Path(__file__).parent / "c586ef8"
NAMES = json.loads((THEN / "names.json").read_text())
# Of the run, in today's names.
SETTINGS = (
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.DIM", "8", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "4", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "2", "SOLVER.LOG_PERIOD", "1", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
)


def filled(value, name: str, generator: torch.Generator):
    """A copy with numbers for the tensors that have none."""
    if isinstance(value, dict):
        return {key: filled(part, str(key), generator) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, name, generator) for part in value]
    if isinstance(value, torch.Tensor) and value.is_meta:
        return random_tensor(name, value.shape, generator).to(value.dtype)
    return value


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("then") / "run"
    shutil.copytree(THEN / "run", folder)
    write_random_images(folder.parent / "images", 16)
    kept = torch.load(folder / "model_final.pth", weights_only=True)
    torch.save(filled(kept, "", torch.Generator().manual_seed(0)), folder / "model_final.pth")
    return folder


@pytest.mark.parametrize("encoder", ["query", "key"])
def test_its_checkpoint_converts(run, tmp_path, encoder):
    found = convert(run / "model_final.pth", tmp_path / "backbone.pkl", encoder)
    assert found.provenance["source"] == "moco_det" and found.provenance["arch"] == "resnet18"
    assert found.preprocessing.pixel_mean == (123.675, 116.28, 103.53) and len(found.kept) == 100
    saved = torch.load(run / "model_final.pth", weights_only=True)["model"]
    tensors = read_backbone(found.output).tensors
    for name, renamed in found.kept.items():
        assert torch.equal(torch.from_numpy(tensors[renamed]), saved[f"encoder_{encoder[0]}.{name}"]), name


def resume(run, *options):
    words = ["--config-file", "Pretrain/moco_v2_R_50_200ep", "--num-gpus", "0", "--resume"]
    words += ["--images", str(run.parent / "images"), *SETTINGS, "OUTPUT_DIR", str(run), *options]
    pretrain(words)


def test_its_run_resumes(run, tmp_path):
    """It resumes with the optimizer's state and the queue, and becomes longer."""
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run.parent / "images", tmp_path / "images")
    resume(tmp_path / "run", "SOLVER.EPOCHS", "3")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == list(range(6))
    before, after = (
        torch.load(folder / "model_final.pth", weights_only=True) for folder in (run, tmp_path / "run")
    )
    assert (before["iteration"], after["iteration"]) == (3, 5)
    assert before["model"].keys() == after["model"].keys()
    # m = 0.999: a restart would have made another encoder.
    name = "encoder_k.layer1.0.conv1.weight"
    torch.testing.assert_close(after["model"][name], before["model"][name], rtol=0.1, atol=0.01)


@pytest.mark.parametrize(
    "key, now, words",
    [
        ("MODEL.MOCO.QUEUE_SIZE", "24", "MODEL.MOCO.QUEUE_SIZE was 16, is 24"),
        ("MODEL.ENCODER.BN_GROUP_SIZE", "8", "MODEL.ENCODER.BN_GROUP_SIZE was 4, is 8"),  # renamed since
        ("MODEL.ENCODER.ARCH", "resnet34", "MODEL.ENCODER.ARCH was 'resnet18', is 'resnet34'"),
    ],
)
def test_its_run_is_not_continued_as_another(run, capsys, key, now, words):
    with pytest.raises(SystemExit):
        resume(run, key, now)
    assert words in capsys.readouterr().err


def test_classification_starts_from_its_checkpoint(run, capsys, tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            write_random_images(tmp_path / "images" / split / name, 4)
    words = ("--config-file", "ImageNet-Classification/linear_R_50_100ep", "--num-gpus", "0", "--dry-run")
    words += ("--images", str(tmp_path / "images"), "--weights", str(run / "model_final.pth"))
    words += ("CLASSIFY.ARCH", "resnet18", "SOLVER.IMS_PER_BATCH", "4", "OUTPUT_DIR", str(tmp_path / "out"))
    classify(words)
    assert "moco_det" in capsys.readouterr().out


def numbers(text: str) -> list[list[str]]:
    """The numbers of each line of a table; headers may be put in other words.

    Tables had the machine and the commit of each row, which stand in the files.
    """
    text = re.sub(r"\| [^|]+ cores \| \w{10} \|$", "|", text, flags=re.MULTILINE)
    return [re.findall(r"\d[\d.,]*", line) for line in text.splitlines() if line.startswith("| ")]


def test_its_results_make_the_same_tables():
    stages = [kept.stage for kept in load_results(THEN / "results", "photos")]
    assert sorted(stages) == ["classify", "finetune", "finetune", "finetune", "finetune", "pretrain"]
    assert len(load_results(THEN / "results", "ablations")) == 3
    tables = (THEN / "tables.md").read_text()
    assert len(numbers(tables)) > 15 and numbers(render(tables, THEN / "results")) == numbers(tables)


def test_its_commands_exist():
    scripts = re.findall(r'"(moco-det[\w-]*)=', (REPOSITORY / "setup.py").read_text())
    assert set(NAMES["console_scripts"]) <= set(scripts)
    assert set(NAMES["tools"]) <= {path.name for path in (REPOSITORY / "tools").glob("*.py")}


# Of ablations on the toy world's cut-outs, which Imagenette's replaced.
REMOVED = {"toy/ablations/moco_R_18", "toy/ablations/moco_v1_R_18"}


def test_its_recipes_exist():
    assert set(NAMES["recipes"]) - set(list_configs()) == REMOVED
    assert set(NAMES["inits"]) <= set(list_inits())
    for name in NAMES["project_recipes"]:
        get_config_file(name)
