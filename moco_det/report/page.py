"""The report as one self-contained HTML page: figures inside, no script, no network, one column."""

import base64
import re
from collections.abc import Sequence
from html import escape

from moco_det.report.document import Block, Lines, Picture, Section, Table, Text

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #2b2f36; --soft: #5b626c; --line: #dcdedb; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #e3e5e8; --soft: #a3aab4; --line: #363b43; }
}
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 44rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 1rem 0 .5rem; font-weight: 600; }
section:first-of-type h2 { border-top: 0; margin-top: 1rem; }
h3 { font-size: .95rem; margin: 1.75rem 0 0; font-weight: 600; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line);
     font-weight: 600; }
p { margin: .6rem 0; overflow-wrap: anywhere; }
p.lead { font-size: 1.1rem; font-weight: 600; }
.scroll { overflow-x: auto; margin: 1rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .4rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); }
td { white-space: nowrap; }
th:first-child, td:first-child { white-space: normal; text-align: left; padding-left: 0; }
tr.quiet td { color: var(--soft); font-style: italic; }
figure { margin: 1.25rem 0; }
figure img { display: block; width: 100%; max-width: 38rem; height: auto; margin: 0 auto; border-radius: 3px; }
figcaption, .caption { color: var(--soft); font-size: .88rem; line-height: 1.5; margin: .5rem 0 1rem; }
details { margin: 1rem 0; font-size: .88rem; }
summary { cursor: pointer; color: var(--soft); }
li { margin: .3rem 0; font-size: .82rem; overflow-wrap: anywhere; }
@media (max-width: 30rem) { table { font-size: .76rem; } th, td { padding: .35rem .22rem; } }
""".strip()


def html_page(title: str, sections: list[Section], lead: Sequence[str] = ()) -> str:
    """The whole page, ``lead`` before its sections; every text is escaped, every picture is a data URI."""
    answer = "".join(f'<p class="lead">{escape(sentence)}</p>\n' for sentence in lead)
    body = "\n".join(
        f"<section>\n<h2>{escape(section.title)}</h2>\n"
        + "\n".join(map(_html, section.blocks))
        + "\n</section>"
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}\n</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{answer}{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Text():
            start = '<p class="lead">' if block.lead else "<p>"
            return f"{start}{escape(block.text)}</p>"
        case Table():
            return _html_table(block)
        case Picture():
            data = base64.b64encode(block.png).decode()
            caption = escape(block.caption)
            return (
                f'<figure id="{escape(block.name)}">\n<img alt="{escape(block.alt)}" '
                f'src="data:image/png;base64,{data}">\n<figcaption>{caption}</figcaption>\n</figure>'
            )
        case Lines():
            items = "\n".join(f"<li>{escape(line)}</li>" for line in block.lines)
            return f"<details>\n<summary>{escape(block.title)}</summary>\n<ul>\n{items}\n</ul>\n</details>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    lines = [
        ("<tr class='quiet'>" if number in table.quiet else "<tr>")
        + "".join(f"<td>{_cell(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(table.rows)
    ]
    caption = f'\n<p class="caption">{escape(table.caption)}</p>' if table.caption else ""
    body = "\n".join(lines)
    title = f"<h3>{escape(table.title)}</h3>\n" if table.title else ""
    return (
        f'{title}<div class="scroll">\n<table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>{caption}"
    )


def _cell(text: str) -> str:
    # On a narrow screen a line may break in a name after "_", never between a number and its deviation or
    # inside an interval.
    return re.sub(r" (?=[±→+-])|(?<=[±→]) ", "&nbsp;", escape(text)).replace("_", "_<wbr>")
