#!/usr/bin/env python
"""Check that what the documents name exists: links, anchors, paths, tests, and commands with their options.

Part of `make lint`. Commands are parsed by the parsers that they have, so a renamed option is found where it is
documented. Tables between markers, which hold commands that were run once, are left out.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from moco_det_cli.command import COMMANDS  # noqa: E402
from moco_det_cli.parsers.studies import own_parser  # noqa: E402
from moco_det_cli.places import get_config_file, get_init_file  # noqa: E402

DOCUMENTS = ("*.md", "docs/**/*.md", "projects/**/*.md", "results/*.md")
FOLDERS = ("configs", "docker", "docs", "moco_det", "moco_det_cli", "projects", "tests", "tools")
SCRIPT = re.compile(r"run\(\"([\w-]+)\"\)")  # what a script of tools/ says of its command
PROJECT_SCRIPTS = {"pretrain.py": "pretrain", "train_net.py": "train"}
GENERATED = re.compile(r"<!-- ([\w-]+:[\w-]+) -->.*?<!-- /\1 -->", re.DOTALL)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# A file of ours in a block of code; a command's recipe is looked at with the command.
IN_BLOCK = re.compile(
    rf"(?<![\w/.-])(?<!--config-file )(?:{'|'.join(FOLDERS)})/[\w./-]+\.(?:md|py|sh|yaml)\b"
)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^()\s]+)\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
PLACEHOLDER = re.compile(r"…|\.\.\.|<\w+>|\bNAME\b|\bN\b|\bX\b")


def slugs(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        slug = base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while slug in found:
            number += 1
            slug = f"{base}-{number}"
        found.add(slug)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def expand(word: str) -> Iterator[str]:
    """``a{b,c}`` as ``ab`` and ``ac``."""
    braces = re.search(r"\{([^{}]*,[^{}]*)\}", word)
    if braces is None:
        yield word
        return
    for choice in braces[1].split(","):
        yield from expand(word[: braces.start()] + choice + word[braces.end() :])


def check_links(document: Path, text: str) -> Iterator[str]:
    for match in LINK.finditer(SPAN.sub("", FENCE.sub("", text))):
        link = match[1] or match[2]
        if re.match(r"\w+:", link):
            continue  # another site; looked at by a reader
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists():
            yield f"link {link}: there is no {path}"
        elif anchor and anchor not in slugs(text if target == document else target.read_text()):
            yield f"link {link}: {target.name} has no heading #{anchor}"


def _exists(word: str, folders: tuple[Path, ...]) -> bool:
    return any(any(folder.glob(word)) or any(folder.glob(f"{word}.yaml")) for folder in folders)


def check_paths(document: Path, text: str) -> Iterator[str]:
    """Paths in code spans: below the root, the document's folder, or a recipe's name below ``configs``."""
    recipes = {path.name for path in ROOT.glob("configs/*/")} | {
        p.name for p in ROOT.glob("projects/*/configs/*/")
    }
    folders = (ROOT, document.parent, ROOT / "configs", *ROOT.glob("projects/*/configs"))
    tests = ""
    for span in SPAN.findall(FENCE.sub("", text)):
        for word in shlex.split(span.replace("'", "").replace('"', "")):
            path, _, test = word.strip(",;:()[]").rstrip(".").partition("::")
            if path.startswith(("tests/", "projects/")) and path.endswith(".py") and (ROOT / path).is_file():
                tests += (ROOT / path).read_text()
            if test.startswith("test_") and not re.search(rf"^def {test}\b", tests, re.MULTILINE):
                yield f"`{span}`: no file named before has this test"
            first = path.partition("/")[0]
            known = "/" in path and first in (*FOLDERS, *recipes)
            if not (known or re.fullmatch(r"[A-Z][\w.-]*\.md", path)) or re.search(r"NAME|<", path):
                continue
            for one in expand(path.replace("…", "*").rstrip("/")):
                if not _exists(one, folders):
                    yield f"`{span}`: there is no {one}"
    for _, _, block in FENCE.findall(text):
        yield from (
            f"block: there is no {path}" for path in IN_BLOCK.findall(block) if not _exists(path, folders)
        )


def _commands(block: str) -> Iterator[list[str]]:
    """The words of each command of a block of shell lines."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    for line in lines:
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=";|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word and set(word) <= set(";|&"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def find_commands(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The commands in a line, also behind ``python``, ``torchrun`` or another's ``--``, each with its words."""
    for index, word in enumerate(words):
        rest = words[index + 1 :]
        if word == "moco-det" and rest:
            yield rest[0], rest[1:]
        elif word.startswith("moco-det-"):
            yield word.removeprefix("moco-det-"), rest
        elif word.startswith("projects/") and Path(word).name in PROJECT_SCRIPTS:
            yield PROJECT_SCRIPTS[Path(word).name], rest
        elif word.startswith("tools/") and word.endswith(".py") and (ROOT / word).is_file():
            yield from ((name, rest) for name in SCRIPT.findall((ROOT / word).read_text()))


class _Refused(Exception):
    pass


def _refuse(_, message: str) -> None:
    raise _Refused(message)


def parse(name: str, words: list[str]) -> str:
    """What the command's own parser has against ``words``; empty when nothing."""
    if name not in COMMANDS:
        return (
            "" if name.startswith("-") or PLACEHOLDER.search(name) else f"{name!r} is no command of moco-det"
        )
    partial = any(map(PLACEHOLDER.fullmatch, words))
    # "…" stands for an option's value, or for words that are left out
    words = [
        w for b, w in zip(("", *words), words, strict=False) if b.startswith("--") or w not in ("…", "...")
    ]
    if "--help" in words:
        return ""
    original, argparse.ArgumentParser.error = argparse.ArgumentParser.error, _refuse
    try:
        args = COMMANDS[name].parser(name).parse_args(words)
    except _Refused as error:
        return "" if partial and "are required" in str(error) else str(error)
    finally:
        argparse.ArgumentParser.error = original
    recipe = getattr(args, "config_file", None)
    if recipe and not re.match(r"output/|[A-Z]+$|…|.*[$]", recipe):  # written before, or a variable
        try:
            get_config_file(recipe)
        except ValueError as error:
            return str(error).partition("; all:")[0]
    init = getattr(args, "init", None)
    if init and re.fullmatch(r"[a-z]\w*", init):  # a name; files are written before
        try:
            get_init_file(init)
        except ValueError as error:
            return str(error)
    pairs = getattr(args, "opts", None) or getattr(args, "options", None) or []
    if late := [word for word in pairs if word.startswith("--")]:
        return f"{late[0]} comes after KEY VALUE pairs, where it would be read as one"
    if len(pairs) % 2 and not partial:
        return f"expected KEY VALUE pairs, found {pairs}"
    return check_options(name, words)  # argparse also takes the beginning of an option, which says less


def check_options(name: str, words: list[str]) -> str:
    """For a command in a sentence, which is seldom whole: the options that it does not have."""
    parser = (
        own_parser() if words[:1] == ["own"] else COMMANDS[name].parser(name) if name in COMMANDS else None
    )
    if parser is None:
        return f"{name!r} is no command of moco-det"
    words = words[: words.index("--")] if "--" in words else words
    options = [word.partition("=")[0] for word in words if re.match(r"--\w", word)]
    unknown = [option for option in options if option not in parser._option_string_actions]
    return f"no option {', '.join(unknown)}" if unknown else ""


def check_commands(document: Path, text: str) -> Iterator[str]:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    blocks = []
    for _, language, block in FENCE.findall(text):
        if language in ("bash", "sh"):
            done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
            if done.returncode:
                yield f"shell block: {done.stderr.strip()}"
            blocks.append(block)
        elif not language:  # a session as it is seen, with its output
            shown = re.sub(r"\\\n\s*", " ", block)
            blocks.append("\n".join(line for line in shown.splitlines() if line.startswith("$ ")))
    spans = [
        span for span in SPAN.findall(FENCE.sub("", text)) if re.match(r"(tools/\S+|moco-det|make) ", span)
    ]
    found = [(words, parse) for block in blocks for words in _commands(block)]
    found += [(words, check_options) for span in spans for words in _commands(span)]
    for words, examine in found:
        if words[:1] == ["make"]:
            names = [word for word in words[1:] if "=" not in word and not PLACEHOLDER.search(word)]
            yield from (f"make {name}: no target of the Makefile" for name in names if name not in targets)
        for command in find_commands(words):
            if what := examine(*command):
                yield f"{shlex.join(words)}: {what}"


def check(document: Path) -> list[str]:
    """What a document names and is not there, one sentence each."""
    text = GENERATED.sub("", document.read_text(encoding="utf-8"))
    return [*check_links(document, text), *check_paths(document, text), *check_commands(document, text)]


def main() -> None:
    documents = sorted({path for pattern in DOCUMENTS for path in ROOT.glob(pattern)})
    faults = [f"{path.relative_to(ROOT)}: {fault}" for path in documents for fault in check(path)]
    print("\n".join(faults) or f"{len(documents)} documents: links, paths and commands exist")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
