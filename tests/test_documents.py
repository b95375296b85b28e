"""tools/check_documents.py finds what a document names and is not there, and lets stand what is."""

import importlib.util
import re

import pytest

from moco_det.testing.core import REPOSITORY

spec = importlib.util.spec_from_file_location("check_documents", REPOSITORY / "tools/check_documents.py")
documents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(documents)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](nowhere.md)", "there is no nowhere.md"),
        ('<img src="figures/none.png">', "there is no figures/none.png"),
        ("# One thing\n[a](#another-thing)", "no heading #another-thing"),
        ("[a](other.md#none)", "other.md has no heading #none"),
        ("see `tools/train_nett.py`", "there is no tools/train_nett.py"),
        ("`configs/Pretrain/{moco_v1_R_50_200ep,moco_v9}.yaml`", "there is no configs/Pretrain/moco_v9.yaml"),
        (
            "`PascalVOC-Detection/faster_rcnn_R_50_C5_24k`",
            "there is no PascalVOC-Detection/faster_rcnn_R_50_C5",
        ),
        ("`tests/test_layout.py::test_nothing`", "no file named before has this test"),
        ("```bash\ntools/make_report.py --outputs a\n```", "unrecognized arguments: --outputs"),
        ("```bash\nmoco-det report a --output b --figure c\n```", "unrecognized arguments: --figure"),
        ("```bash\ncd x && moco-det report a --output b --figure\n```", "unrecognized arguments: --figure"),
        ("```bash\nmoco-det pre-train\n```", "'pre-train' is no command"),
        (
            "```bash\ntools/train_net.py --config-file configs/toy/none.yaml \\\n  --init random\n```",
            "closest match",
        ),
        (
            "```bash\ntools/pretrain_moco.py --config-file toy/linear_R_18 SEED\n```",
            "expected KEY VALUE pairs",
        ),
        ("```bash\ntools/train_net.py --config-file toy/mask_rcnn_R_18_FPN --init moko\n```", "moko"),
        (
            "```bash\ntools/train_net.py --config-file toy/mask_rcnn_R_18_FPN SEED 1 --init moco\n```",
            "--init comes after KEY VALUE pairs",
        ),
        ("```bash\npython tools/gone.py --old\n```", "there is no tools/gone.py"),
        ("```yaml\n_BASE_: configs/toy/none.yaml\n```", "there is no configs/toy/none.yaml"),
        ("```\n$ tools/make_toyworld.py --outpu b\n  drawn\n```", "no option --outpu"),
        ("```bash\nif true; then\n```", "shell block"),
        ("```bash\nmake all\n```", "make all: no target"),
        ("`moco-det benchmark own --share 5`", "no option --share"),
        ("`tools/launch_slurm.py -- tools/train_net.py --gpus 1 …`", "no option --gpus"),
    ],
)
def test_what_is_not_there_is_found(text, fault, tmp_path):
    (tmp_path / "other.md").write_text("# Other\n")
    (tmp_path / "page.md").write_text(text)
    (found,) = documents.check(tmp_path / "page.md")
    assert fault in found


def test_what_is_there_stands(tmp_path):
    (tmp_path / "page.md").write_text(
        "# `Two` words, [a](page.md)\n## Again\n## Again\n"
        "[a](#two-words-a) [b](page.md#again-1) [c](https://x.org/y)\n"
        "`[x](y.md)` `tools/*.py` `moco-det pack --shorter-side 0` `configs/toy/`\n"
        "`toy/faster_rcnn_R_50_{C4,DC5}`\n"
        "`tests/test_documents.py::test_what_is_there_stands`, `…::test_what_is_not_there_is_found`\n"
        "```bash\nVENV=a python tools/make_report.py a --output b   # a comment\nmake test VENV=a\n"
        "tools/train_net.py --config-file … --init random MODEL.FPN.NORM ''\n```\n"
        "<!-- results:a -->\n```bash\ntools/gone.py --old\n```\n<!-- /results:a -->\n"
    )
    assert documents.check(tmp_path / "page.md") == []


def test_every_document_is_looked_at():
    tracked = {
        path.relative_to(REPOSITORY).as_posix()
        for pattern in documents.DOCUMENTS
        for path in REPOSITORY.glob(pattern)
    }
    assert {"README.md", "docs/CONFIG.md", "projects/README.md", "projects/BYOL/README.md"} <= tracked


def test_the_chinese_concepts_have_the_numbers_and_links_of_the_english_ones():
    english, chinese = (
        (REPOSITORY / "docs" / name).read_text(encoding="utf-8").split("\n\n", 2)[2]
        for name in ("CONCEPTS.md", "CONCEPTS.zh-CN.md")
    )
    for part, other in zip(english.split("\n## "), chinese.split("\n## "), strict=True):
        assert re.findall(r"\]\(([^)]+)\)", part) == re.findall(r"\]\(([^)]+)\)", other)
        assert re.findall(r"`([^`]+)`", part) == re.findall(r"`([^`]+)`", other)
        numbers = [sorted(re.findall(r"[+−]?\d[\d.,]*\d|\d", text)) for text in (part, other)]
        assert numbers[0] == numbers[1], part.partition("\n")[0]
