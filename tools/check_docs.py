#!/usr/bin/env python
"""Check the documents: links, anchors, paths of repository files, and that commands parse: `tools/check_docs.py`.

Of Python's standard library alone. Text between the markers of generated tables is left out: it records
commands that were run once.
"""

import contextlib
import io
import itertools
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # it runs before anything is installed

from moco_det_cli.command import COMMANDS  # noqa: E402
from moco_det_cli.places import get_config_file, get_init_file  # noqa: E402

DOCUMENTS = ("*.md", "docs/*.md", "projects/**/README.md", "results/README.md")
FOLDERS = ("configs", "docker", "docs", "moco_det", "moco_det_cli", "projects", "results", "tests", "tools")
WRITTEN_LATER = ("results/ablations", "results/own-NAME", "results/speed/gpu.json")  # by commands of a reader
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
GENERATED = re.compile(r"<!-- (\w+:[\w-]+) -->.*?<!-- /\1 -->", re.DOTALL)
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./*{{}},…-]*|[A-Z_]+\.md")


def documents(root: Path) -> list[Path]:
    """The documents that are checked, below a checkout's folder."""
    return sorted({path for pattern in DOCUMENTS for path in root.glob(pattern)})


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *#*$", BLOCK.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        twins = found.count(name)
        found += [name, f"{name}-{twins}"] if twins else [name]
    return set(found) | set(re.findall(r"<a (?:name|id)=\"([^\"]+)\"", text))


def broken_links(document: Path, text: str) -> Iterator[str]:
    """What is wrong with a document's relative links, in words."""
    prose = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))
    for link in re.findall(r"\]\(((?!https?:|mailto:)[^)\s]+)", prose):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists():
            yield f"link to {link}: no such file"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8")):
            yield f"link to {link}: no such heading"


def expand_braces(pattern: str) -> list[str]:
    """The words of a pattern such as ``a_{b,c}.yaml``."""
    parts = [part.split(",") for part in re.split(r"{([^{}]*)}", pattern)]
    for plain in range(0, len(parts), 2):
        parts[plain] = [",".join(parts[plain])]
    return ["".join(words) for words in itertools.product(*parts)]


def missing_paths(root: Path, document: Path, text: str) -> Iterator[str]:
    """Repository files that a document's code names and that do not exist."""
    spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)) + [code for _, code in BLOCK.findall(text)]
    words = {word for span in spans for word in re.split(r"[\s\"'=():;,]+(?![^{]*})", span)}
    for word in sorted(words):
        found = PATH.fullmatch(word.partition("::")[0].removeprefix("./").rstrip("."))
        for path in expand_braces(found[0]) if found else ():
            pattern = path.replace("…", "*").rstrip("/")
            found_in = (place for place in (root, document.parent) if any(place.glob(pattern)))
            if pattern not in WRITTEN_LATER and not any(found_in):
                yield f"{word}: no such file"


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of this package in a document's bash blocks: its name first."""
    for language, block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if language == "bash" else ():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            words = list(itertools.takewhile(lambda word: word not in ("|", "||", "&&", ">", ";"), words))
            if words[:1] in (["python"], ["python3"]):
                del words[0]
            tool = re.fullmatch(r"tools/\w+\.py", words[0]) if words else None
            if tool or words[:1] == ["moco-det"]:
                yield words


def command_name(root: Path, tool: str) -> str | None:
    """The command that a script of tools/ starts; None for a script of its own."""
    path = root / tool
    found = re.search(r"\brun\(\"([\w-]+)\"\)", path.read_text("utf-8")) if path.is_file() else None
    return found[1] if found else None


def wrong_commands(root: Path, text: str) -> Iterator[str]:
    """Commands that their parser refuses, and recipes that they name and that do not exist."""
    for words in commands(text):
        if words[0] == "moco-det":
            name, rest = (words[1:2] or ["--help"])[0], words[2:]
        else:
            name, rest = command_name(root, words[0]), words[1:]
        if name is None or name.startswith("-"):
            continue
        if fault := command_fault(name, rest[:-1] if rest[-1:] == ["…"] else rest):
            yield f"{shlex.join(words)}: {fault}"


def command_fault(name: str, words: list[str]) -> str:
    """What is wrong with a command, in words; empty when nothing is."""
    if name not in COMMANDS:
        return f"no command {name}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            args = COMMANDS[name].parser(name).parse_args(words)
    except SystemExit as end:
        return said.getvalue().strip().splitlines()[-1] if end.code else ""
    options = [word for word in getattr(args, "opts", None) or () if re.match("--[a-z]", word)]
    if options:
        return f"{options[0]} stands after KEY VALUE pairs, and would be taken for a key"
    try:
        if (recipe := getattr(args, "config_file", "")) and re.search("[a-z]", recipe):  # else a placeholder
            get_config_file(recipe)
        if (init := getattr(args, "init", "")) and not Path(init).suffix:
            get_init_file(init)
    except ValueError as error:
        return str(error)
    return ""


def check(root: Path, paths: Iterable[Path]) -> list[str]:
    """What is wrong with the documents, a line each."""
    faults = []
    for path in paths:
        text = GENERATED.sub("", path.read_text("utf-8"))
        found = itertools.chain(
            broken_links(path, text), missing_paths(root, path, text), wrong_commands(root, text)
        )
        faults += [f"{path.relative_to(root)}: {fault}" for fault in found]
    return faults


if __name__ == "__main__":
    sys.exit("\n".join(check(ROOT, documents(ROOT))) or 0)
