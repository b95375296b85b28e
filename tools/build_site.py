#!/usr/bin/env python
"""Build the documents as a site, in output/site: `make site`. Needs docs/requirements-site.txt alone.

The documents stay where GitHub shows them; copies go to output/site_pages, with a page of the API for each
room and stage. Links to files that are no document keep their text. A warning of mkdocs ends the build.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "output/site_pages"
DOCUMENTS = ("*.md", "docs/*.md", "projects/*.md", "projects/*/README.md", "results/README.md")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def convert(document: Path, known: set[Path]) -> str:
    """The text of a page: its links lead to pages, pictures are copied, other links become their text."""

    def link(match: re.Match) -> str:
        picture, label, address = match.groups()
        path, _, anchor = address.partition("#")
        target = (document.parent / path).resolve()
        if re.match(r"\w+:", address) or not path or target in known:
            return match[0]
        if target.is_dir() and target / "README.md" in known:
            return f"[{label}]({path.rstrip('/')}/README.md{'#' * bool(anchor)}{anchor})"
        if picture:
            copy = PAGES / target.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, copy)
            return match[0]
        return label

    parts = CODE.split(document.read_text(encoding="utf-8"))
    # a label may hold code, so links are looked for over the text whose blocks alone are taken out
    blocks = {f"\0{number}\0": part for number, part in enumerate(parts) if part.lstrip().startswith("```")}
    text = "".join(f"\0{n}\0" if f"\0{n}\0" in blocks else part for n, part in enumerate(parts))
    text = LINK.sub(link, text)
    return re.sub(r"\0\d+\0", lambda found: blocks[found[0]], text)


def write_api() -> None:
    """A page for each room and stage: its modules that have a docstring, in the order of their names."""
    for package in sorted(path.parent for path in (ROOT / "moco_det").glob("*/__init__.py")):
        modules = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in sorted(package.rglob("*.py"))
            if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        ]
        page = PAGES / "api" / f"{package.name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(
            f"# moco_det.{package.name}\n\n" + "\n\n".join(f"::: {name}" for name in modules) + "\n"
        )


def on_config(config):
    """mkdocs calls it: the pages that nav does not name one by one."""
    for title, pattern in (("Projects", "projects/**/*.md"), ("API", "api/*.md")):
        config.nav.append(
            {title: [path.relative_to(PAGES).as_posix() for path in sorted(PAGES.glob(pattern))]}
        )
    return config


def main() -> None:
    shutil.rmtree(PAGES, ignore_errors=True)
    documents = sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern))
    for document in documents:
        page = PAGES / document.relative_to(ROOT)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(convert(document, set(documents)), encoding="utf-8")
    write_api()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "mkdocs.yml"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # a notice of the theme's on mkdocs 2
    sys.exit(subprocess.run(command, cwd=ROOT, env=quiet).returncode)


if __name__ == "__main__":
    main()
