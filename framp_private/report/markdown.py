"""A document as Markdown with pipe tables. The sources of its numbers stand at the end, in the order of the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from framp_private.report.document import (
    Block,
    Cell,
    Code,
    Details,
    Document,
    Facts,
    Figure,
    Gap,
    Items,
    Link,
    Notice,
    Number,
    Piece,
    Section,
    Strong,
    Table,
    Text,
    numbers_of,
    pieces_of,
)


def render_markdown(document: Document) -> str:
    """The whole text; figures by their captions."""
    parts = [f"# {_cell(document.title)}", _cell(document.subtitle)]
    for section in document.sections:
        parts += _block(section, 2)
    numbers = "\n".join(f"{_line(each.text)} = {each.source}" for each in numbers_of(document))
    parts += [_cell(document.footer), "## Sources of the numbers", "As they appear above, in order.", _fenced(numbers)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, level: int) -> Iterator[str]:
    match block:
        case Text():
            yield _cell(block)
        case Gap():
            yield _piece(block)
        case Facts():
            yield "\n".join(f"- **{_escaped(term)}**: {_cell(cell)}" for term, cell in block.rows)
        case Table():
            yield _cell(block.caption)
            yield _table(block)
        case Figure():
            yield f"**Figure: {_escaped(block.picture.title)}.** {_cell(block.picture.caption)}"
        case Items():
            yield "\n".join(f"- {_cell(cell)}" for cell in block.items)
        case Notice():
            yield "\n>\n".join(f"> {line}" for line in (f"**{_cell(block.title)}**", *map(_cell, block.body)))
        case Code():
            yield f"{_escaped(block.label)}:"
            yield _fenced(block.content)
        case Details() | Section():
            yield f"{'#' * min(level, 6)} {_escaped(block.title)}"
            for inner in block.blocks:
                yield from _block(inner, level + 1)


def _table(table: Table) -> str:
    lines = [[_cell(cell) for cell in row] for row in (table.header, *table.rows)]
    rule = ["---:" if table.numeric(column) else "---" for column in range(len(table.header))]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return "".join(_piece(piece) for piece in pieces_of(cell))


def _piece(piece: Piece) -> str:
    match piece:
        case str():
            return _escaped(piece)
        case Number():
            return _escaped(piece.text)
        case Gap():
            return f"**[{_escaped(piece.text)}]**"
        case Strong():
            return f"**{_escaped(piece.text)}**"
        case Link():
            return f"[{_escaped(piece.text)}](<{re.sub(r'[<>]', '', _line(piece.target))}>)"


def _escaped(words: str) -> str:
    """Text that no Markdown reader takes for markup, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", _line(words))


def _line(words: str) -> str:
    return " ".join(words.split("\n"))


def _fenced(content: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content.rstrip()}\n{fence}"
