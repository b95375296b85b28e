"""tools/build_site.py: what becomes of links, and that each document has its page. `make site` builds."""

import importlib.util
import re

import pytest

from moco_det.testing.core import REPOSITORY

spec = importlib.util.spec_from_file_location("build_site", REPOSITORY / "tools/build_site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("[a](b.md#c) [d](https://x.org) [e](#f)", "[a](b.md#c) [d](https://x.org) [e](#f)"),
        ("[`code`](../tools/doctor.py) stays", "`code` stays"),
        ("[folder](sub/) [folder](sub)", "[folder](sub/README.md) [folder](sub/README.md)"),
        ("```bash\n[x](none.py)\n```\n[y](none.py)", "```bash\n[x](none.py)\n```\ny"),
    ],
)
def test_links_lead_to_pages_or_become_their_text(text, page, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "ROOT", tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text(text)
    known = {tmp_path / name for name in ("a.md", "b.md", "sub/README.md")}
    assert site.convert(tmp_path / "a.md", known) == page


def test_pictures_are_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "PAGES", tmp_path / "pages")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/figure.png").write_bytes(b"png")
    (tmp_path / "a.md").write_text("![a [b]](results/figure.png)")
    assert site.convert(tmp_path / "a.md", set()) == "![a [b]](results/figure.png)"
    assert (tmp_path / "pages/results/figure.png").read_bytes() == b"png"


def test_nav_has_every_document_once():
    """mkdocs.yml names them one by one; those of projects/ and the API are added by the hook."""
    named = re.findall(r"- (?:[^:\n]+: )?(\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)
    documents = {
        path.relative_to(REPOSITORY).as_posix()
        for pattern in ("*.md", "docs/*.md")
        for path in REPOSITORY.glob(pattern)
    }
    assert len(named) == len(set(named)) and set(named) == documents | {"results/README.md"}
