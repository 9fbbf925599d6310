"""A document as JSON: all words, numbers and sources; pictures by their captions."""

from __future__ import annotations

from typing import Any

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
    pieces_of,
)

SCHEMA = "framp-report/1"


def as_json(document: Document) -> dict[str, Any]:
    """What `json.dumps` takes. A cell is a list of pieces: strings, and objects whose first key says what they are."""
    return {
        "schema": SCHEMA,
        "title": _cell(document.title),
        "subtitle": _cell(document.subtitle),
        "sections": [_block(section) for section in document.sections],
        "footer": _cell(document.footer),
    }


def _block(block: Block) -> dict[str, Any]:
    content: dict[str, Any]
    match block:
        case Text():
            content = {"tone": block.tone, "pieces": _cell(block)}
        case Gap():
            content = {"gap": block.what}
        case Facts():
            content = {"rows": [{"term": term, "pieces": _cell(cell)} for term, cell in block.rows]}
        case Table():
            rows = [[_cell(cell) for cell in row] for row in (block.header, *block.rows)]
            content = {"caption": _cell(block.caption), "header": rows[0], "rows": rows[1:]}
        case Figure():
            content = {"title": block.picture.title, "caption": _cell(block.picture.caption)}
        case Items():
            content = {"items": [_cell(cell) for cell in block.items]}
        case Notice():
            content = {"tone": block.tone, "title": _cell(block.title), "body": [_cell(cell) for cell in block.body]}
        case Code():
            content = {"label": block.label, "content": block.content}
        case Details():
            content = {"title": block.title, "blocks": [_block(inner) for inner in block.blocks]}
        case Section():
            content = {"id": block.id, "title": block.title, "blocks": [_block(inner) for inner in block.blocks]}
    return {"kind": block.kind, **content}


def _cell(cell: Cell) -> list[Any]:
    return [_piece(piece) for piece in pieces_of(cell)]


def _piece(piece: Piece) -> Any:
    match piece:
        case str():
            return piece
        case Number():
            return {"number": piece.value, "text": piece.text, "source": piece.source, "format": piece.format}
        case Gap():
            return {"gap": piece.what}
        case Strong():
            return {"strong": piece.text}
        case Link():
            return {"link": piece.target, "text": piece.text}
