"""The house keeps its rules: stages apart, configs that load, documented names that exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.modeling import build_model

from moco_det import model_zoo
from moco_det.config import get_cfg, known_keys, merge_config
from moco_det.config.key import PRETRAIN
from moco_det.config.rules import ROWS, check_values, refuse_keys
from moco_det.pretrain.method import method_class
from moco_det.testing.core import REPOSITORY

# Rooms import rooms before them alone; stages import rooms, and never one another.
ROOMS = ("utils", "config", "model_zoo", "data", "modeling", "weights", "engine")
STAGES = ("pretrain", "convert", "finetune", "classify", "report", "toyworld")
# Above the stages: a benchmark ends with a report and starts all else as processes; the measurements of
# speed and the tests' helpers call what they measure and test.
ABOVE = {"benchmark": {"report"}, "speed": set(STAGES), "testing": {"pretrain", "convert"}}
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY)) for where in ("*.md", "docs/*.md") for path in REPOSITORY.glob(where)
)


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_parts(path: Path) -> set[str]:
    """The rooms and stages that a file imports."""
    parts = (name.split(".") for name in imported_modules(path) if name.startswith("moco_det."))
    return {part[1] for part in parts if part[1] in (*ROOMS, *STAGES, *ABOVE)}


def allowed(part: str) -> set[str]:
    """What a room, a stage, or what stands above them may import beside itself."""
    if part in ROOMS:
        return set(ROOMS[: ROOMS.index(part)])
    return set(ROOMS) | ABOVE.get(part, set())


def test_the_package_has_rooms_and_stages_alone():
    package = REPOSITORY / "moco_det"
    assert {path.name for path in package.glob("*.py")} == {"__init__.py", "version.py"}
    assert {path.parent.name for path in package.glob("*/__init__.py")} == {*ROOMS, *STAGES, *ABOVE}


@pytest.mark.parametrize("part", [*ROOMS, *STAGES, *ABOVE])
def test_imports_point_downwards(part):
    for path in (REPOSITORY / "moco_det" / part).rglob("*.py"):
        assert imported_parts(path) - {part} <= allowed(part), path


def test_the_package_imports_what_it_requires():
    """Nothing that only its tests need, such as pytest."""
    setup = (REPOSITORY / "setup.py").read_text()
    needed = {
        re.split("[<>=]", name)[0]
        for name in re.findall(r'"([\w<>=.-]+)"', setup.split("install_requires")[1])
    }
    needed = {{"pillow": "PIL", "faster-coco-eval": "faster_coco_eval"}.get(name, name) for name in needed}
    # detectron2 is the user's choice (INSTALL.md), and brings yaml with it.
    allowed = {*needed, *sys.stdlib_module_names, "moco_det", "moco_det_cli", "detectron2", "yaml"}
    for path in (REPOSITORY / "moco_det").rglob("*.py"):
        foreign = {name.partition(".")[0] for name in imported_modules(path)} - allowed
        assert not foreign, f"{path} imports {foreign}"


def test_contributors_are_told_of_every_room_and_stage():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text().replace("\n  ", " ")
    (stages,) = re.findall(r"((?:`\w+`,? (?:and )?)+)never import one another", text)
    (rooms,) = re.findall(r"the rooms, lowest first: ((?:`\w+`,? ?(?:and )?)+)", text)
    assert set(re.findall(r"\w+", stages)) - {"and"} == set(STAGES)
    assert [name for name in re.findall(r"\w+", rooms) if name != "and"] == list(ROOMS)


def test_the_import_check_sees_an_import(tmp_path):
    (tmp_path / "x.py").write_text("def f():\n    from moco_det.pretrain import moco\n")
    assert imported_parts(tmp_path / "x.py") == {"pretrain"} and "pretrain" not in allowed("report")
    assert allowed("model_zoo") == {"utils", "config"}


@pytest.mark.parametrize("name", [n for n in model_zoo.list_configs() if "retrain" in n])
def test_recipes_of_pretraining_build_and_hold_only_what_applies(name):
    cfg = get_cfg()
    set_keys = merge_config(cfg, model_zoo.get_config_file(name), [])
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.NUM_IMAGES = 100  # which the trainer counts
    build_model(cfg)
    assert cfg.MODEL.META_ARCHITECTURE == "MoCo"
    refuse_keys(cfg, set_keys, (), PRETRAIN, method_class(cfg).uses)
    check_values(cfg, PRETRAIN, method_class(cfg).uses)


@pytest.mark.parametrize("document", ["docs/REPRODUCIBILITY.md", "docs/RELIABILITY.md"])
def test_the_tests_that_hold_the_promises_exist(document):
    """A document's "…::name" is a test of one of the files that it names."""
    text = (REPOSITORY / document).read_text()
    files = [REPOSITORY / path for path in set(re.findall(r"tests/[\w/]+\.py", text))]
    names = re.findall(r"::(test_\w+)", text)
    defined = {
        name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(names) > 10 and set(names) <= defined, set(names) - defined


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_config_keys_that_exist(document):
    """tools/check_documents.py looks for paths, links and options."""
    text = (REPOSITORY / document).read_text()
    text = re.sub(
        r"<!-- (\w+:[\w-]+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL
    )  # commands that were run once
    keys = set(known_keys(get_cfg())) | {row.was for row in ROWS.values() if document == "docs/CONFIG.md"}
    for key in re.findall(r"\b(?:MODEL|SOLVER|INPUT|DATASETS|DATALOADER|TEST)\.[A-Z0-9_.]*[A-Z0-9]\b", text):
        assert any(known == key or known.startswith(key + ".") for known in keys), key


def test_importing_the_package_registers_what_recipes_name():
    """This runs in a process of its own, since other tests import more."""
    code = (
        "import moco_det; from detectron2.data import DatasetCatalog;"
        "from detectron2.modeling import META_ARCH_REGISTRY;"
        "from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY;"
        "assert 'MoCo' in META_ARCH_REGISTRY and 'Res5ROIHeadsExtraNorm' in ROI_HEADS_REGISTRY;"
        "assert {'toy_voc_2007_test', 'toy_coco_train', 'imagenet_train'} <= set(DatasetCatalog.list())"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
