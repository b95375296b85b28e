"""docs/CONVERTING.md says what the code does: its table is the code's, its example is a family that works."""

import re

import torch

from moco_det.testing.core import REPOSITORY
from moco_det.weights.sources import FAMILIES, Family, locate_backbone, table
from moco_det.weights.sources.families import PREPROCESSINGS

DOCUMENT = (REPOSITORY / "docs/CONVERTING.md").read_text()
INPUTS = {value: name for name, value in PREPROCESSINGS.items()}


def row(family: Family) -> str:
    order = sorted(family.prefixes, key=lambda encoder: encoder != family.default)
    places = ", ".join(
        f"`{family.prefixes[e] or '(none)'}`" + (f" ({e})" if len(order) > 1 else "") for e in order
    )
    wanted = INPUTS[family.preprocessing] if family.preprocessing else "must be given"
    own = "" if family.record.__name__ == "assumed" else "; the file's own first"
    return f"| `{family.name}` | {places} | {family.layout} | {wanted}{own} | {family.checked} |"


def test_table_of_the_document_is_that_of_the_code():
    """When it differs: paste these rows."""
    rows = [row(family) for family in FAMILIES]
    found = [line for line in DOCUMENT.splitlines() if re.match(r"\| `\w[\w.]*` \| `", line)]
    assert found == rows, "\n" + "\n".join(rows)


def test_example_of_a_new_family_works(monkeypatch, resnet18):
    """The page's two code blocks, run: the entry, and the checkpoint that its test makes."""
    entry, test = re.findall(r"```python\n(.*?)```", DOCUMENT.split("## Add a family")[1], re.DOTALL)
    assert len(entry.splitlines()) <= 10
    names = {**vars(table), "torch": torch}
    family = eval(f"(\n{entry}\n)", names)[0]  # our own document; the comma at its end makes it a tuple
    monkeypatch.setattr("moco_det.weights.sources.recognize.FAMILIES", (*FAMILIES, family))
    from family_examples import backbone, linear

    examples = eval("{" + test + "}", {"backbone": backbone, "linear": linear, "torch": torch})
    source = locate_backbone(examples[family.name](resnet18, resnet18))
    assert source.family == family.name and len(source.backbone) == 100
