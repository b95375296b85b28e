"""tools/check_docs.py finds each kind of fault in a document, and nothing in what is right."""

import importlib.util

import pytest

from moco_det.testing.core import REPOSITORY

spec = importlib.util.spec_from_file_location("check_docs", REPOSITORY / "tools/check_docs.py")
check_docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_docs)

TRAIN = "tools/train_net.py --config-file configs/toy/mask_rcnn_R_18_FPN.yaml"
RIGHT = [
    "## The `--plan` option, twice\n## The `--plan` option, twice\n[a](#the---plan-option-twice-1)",
    "[a](docs/BENCHMARK.md), [b](https://no.where/x.md), `[c](no.md)`",
    "`configs/toy/{mask,keypoint}_rcnn_R_18_FPN.yaml` `tests/test_documents.py::test_x` `tools/run_*.py`",
    "`output/backbone.pkl`, `projects/…/configs`, `moco_det/`",
    f"```bash\nCUDA_VISIBLE_DEVICES=0 {TRAIN} \\\n    --init moco SOLVER.MAX_ITER 9 | tee log  # it's said\n```",
    "```bash\ntools/make_report.py …\npython tools/doctor.py\npython elsewhere.py --what\n```",
    "```\ntools/train_net.py --no-such-option\n```",
    "<!-- table:x -->\n`tools/gone.py`\n<!-- /table:x -->",
]
WRONG = {
    "## A heading\n[a](#another-heading)": "no such heading",
    "[a](docs/BENCHMARK.md#no-heading)": "no such heading",
    "```bash\n# A comment\n```\n[a](#a-comment)": "no such heading",
    "[a](docs/GONE.md)": "no such file",
    "`tools/gone.py`": "tools/gone.py: no such file",
    "`GONE.md`": "GONE.md: no such file",
    "`configs/toy/{mask,no}_rcnn_R_18_FPN.yaml`": "no such file",
    "```yaml\n_BASE_: configs/gone.yaml\n```": "configs/gone.yaml: no such file",
    f"```bash\n{TRAIN} --inits moco x\n```": "unrecognized arguments: --inits",
    "```bash\npython tools/make_report.py --outputs x\n```": "unrecognized arguments: --outputs",
    "```bash\nexport A=b\nmoco-det rapport runs\n```": "no command rapport",
    "```bash\nmoco-det benchmark own --output x --shares none\n```": "expected a percentage",
    f"```bash\n{TRAIN} SOLVER.MAX_ITER 9 --init moco\n```": "--init stands after KEY VALUE pairs",
    "```bash\ntools/train_net.py --config-file toy/no_recipe\n```": "no_recipe",
    f"```bash\n{TRAIN} --init moko\n```": "moko",
}


def faults(text: str, tmp_path) -> list[str]:
    """Those of a text as it would stand in the repository's root."""
    for path in check_docs.FOLDERS:
        (tmp_path / path).symlink_to(REPOSITORY / path)
    document = tmp_path / "PAGE.md"
    document.write_text(text)
    return check_docs.check(tmp_path, [document])


@pytest.mark.parametrize("text", RIGHT)
def test_nothing_is_wrong_with(text, tmp_path):
    assert not faults(text, tmp_path)


@pytest.mark.parametrize("text, said", WRONG.items())
def test_a_fault_is_said(text, said, tmp_path):
    (fault,) = faults(text, tmp_path)
    assert fault.startswith("PAGE.md: ") and said in fault


def test_the_documents_of_this_repository():
    paths = check_docs.documents(REPOSITORY)
    names = {str(path.relative_to(REPOSITORY)) for path in paths}
    assert {"README.md", "docs/BENCHMARK.md", "projects/DenseCL/README.md", "results/README.md"} <= names
    assert sum(len(list(check_docs.commands(path.read_text("utf-8")))) for path in paths) > 100
    assert not check_docs.check(REPOSITORY, paths)
