"""A report as plain blocks, so that the page and the Markdown file say the same thing."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Text:
    """A paragraph; ``lead``: the answer, in larger letters."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a title above and a caption below; ``quiet`` numbers rows to set back (the paper's)."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    quiet: frozenset[int] = frozenset()
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG with a caption that says how to read it; ``name`` is its file name without the ending.

    ``content`` is for those who do not see it: what it shows, by default the caption's first sentence.
    """

    name: str
    png: bytes
    caption: str
    content: str = ""

    @property
    def alt(self) -> str:
        return self.content or self.caption.partition(". ")[0].rstrip(".") + "."


@dataclass(frozen=True)
class Lines:
    """Something long to unfold: commands, folders, notes."""

    title: str
    lines: tuple[str, ...]


Block = Text | Table | Picture | Lines


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


def markdown_table(table: Table) -> str:
    """The table as Markdown, first column to the left, numbers to the right."""
    marks = ["---", *["---:"] * (len(table.header) - 1)]
    lines = [table.header, marks, *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def markdown(title: str, sections: list[Section], lead: Sequence[str] = ()) -> str:
    """The whole report as Markdown, ``lead`` before its sections; pictures are links to ``figures/<name>.png``."""
    parts = [f"# {title}", *lead]
    for section in sections:
        parts += [f"## {section.title}", *map(_markdown_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Text():
            return block.text
        case Table():
            title = f"### {block.title}" if block.title else ""
            return "\n\n".join(filter(None, (title, markdown_table(block), block.caption)))
        case Picture():
            return f"![{block.alt}](figures/{block.name}.png)\n\n{block.caption}"
        case Lines():
            return f"{block.title}:\n\n" + "\n".join(f"- {line}" for line in block.lines)


def terminal_table(table: Table) -> str:
    """The table in aligned plain text, first column to the left, numbers to the right."""
    sides = ["left", *["right"] * (len(table.header) - 1)]
    return tabulate(table.rows, table.header, "simple", colalign=sides, disable_numparse=True)
