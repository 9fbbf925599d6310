"""A document as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from framp_private.report.document import Cell, Document, Piece, Table, Value, pieces_of, plain

TEMPLATE = "template.html"
HASH = re.compile(r"[0-9a-f]{32,}")
WORDY = 26
"""Characters from which on a column of a table is broken into lines."""


def render_html(document: Document, *, opened: bool = False) -> str:
    """The page. Each number in it is `<data value=... data-source=... data-format=...>`.

    Args:
        opened: show what is folded, as on paper.
    """
    environment = Environment(
        loader=PackageLoader("framp_private.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "pieces": pieces_of, "value": _value, "kind": _kind, "hash": _is_hash}
    environment.filters["columns"] = _columns
    prefixes = _prefixes()
    environment.filters["picture"] = lambda svg: _alone(svg, next(prefixes))
    return environment.get_template(TEMPLATE).render(document=document, opened=opened)


def _kind(piece: Piece | Cell) -> str:
    return type(piece).__name__


def _value(value: Value) -> str:
    return "" if value is None else str(value)


def _is_hash(value: Value) -> bool:
    return isinstance(value, str) and HASH.fullmatch(value) is not None


def _columns(table: Table) -> list[str]:
    """A style for each column: numbers flush right, long words in lines, others as they are."""
    longest = [max((len(plain(row[place])) for row in table.rows), default=0) for place in range(len(table.header))]
    return [
        "number" if table.numeric(place) else "wordy" if length >= WORDY else "short"
        for place, length in enumerate(longest)
    ]


def _prefixes() -> Iterator[str]:
    return (f"picture{place}-" for place in count(1))


def _alone(svg: str, prefix: str) -> Markup:
    """The SVG with ids that no other picture of the page has."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL))
