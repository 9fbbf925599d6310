"""What a report says, apart from how it looks: frozen values that renderers turn into HTML, Markdown and JSON.

::

    Document ── Section ── blocks: Text, Facts, Table, Figure, Gap, Items, Notice, Code, Details, or a Section again
                              └── pieces: str, Number, Gap, Strong, Link

Words are written by whoever makes a document; every number is a `Number` that names its source (`sources.number`).
Whatever comes out of a file (a name, a hash, a quoted sentence) is one, too: its value is a string then.

    >>> from framp_private.report.sources import Data, number
    >>> plain(text("mean ", number(Data("summary", {"accuracy": {"mean": 0.8123}}), "accuracy.mean", ".3f")))
    'mean 0.812'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Value = float | int | str | None
Tone = Literal["plain", "soft", "good", "bad", "caution"]
"""How a paragraph or a notice is meant: a guarantee is good, its absence bad; soft explains; caution warns."""


@dataclass(frozen=True)
class Number:
    """A value that was read from somewhere.

    Args:
        value: as it stands there; None for null. text: as shown, `format(value, format)`, a dash for null.
        source: where it stands, for `sources.resolve`. format: a format specification of Python.
    """

    value: Value
    text: str
    source: str
    format: str = ""


@dataclass(frozen=True)
class Gap:
    """What a run cannot know, visibly marked. what: `to be filled by ...`, or why it is missing."""

    kind: ClassVar[str] = "gap"
    what: str

    @property
    def text(self) -> str:
        """As shown."""
        return f"gap: {self.what}"


def to_fill(by: str) -> Gap:
    """A gap that somebody outside of the run must fill."""
    return Gap(f"to be filled by {by}")


@dataclass(frozen=True)
class Strong:
    """A word that stands out."""

    text: str


@dataclass(frozen=True)
class Link:
    """A link inside the report (`#id`) or to a file beside it. Raises `ValueError` for any other address."""

    text: str
    target: str

    def __post_init__(self) -> None:
        if self.target.startswith(("/", "\\")) or ":" in self.target.split("#", maxsplit=1)[0]:
            raise ValueError(f"target={self.target!r} leaves the report's folder: reports link to files beside them")


Piece = str | Number | Gap | Strong | Link


@dataclass(frozen=True)
class Text:
    """A paragraph, or what stands in a cell."""

    kind: ClassVar[str] = "text"
    pieces: tuple[Piece, ...]
    tone: Tone = "plain"


Cell = Piece | Text


def text(*pieces: Piece | Text, tone: Tone = "plain") -> Text:
    """A paragraph of these pieces; those of a `Text` among them are taken over."""
    return Text(tuple(piece for given in pieces for piece in pieces_of(given)), tone)


def joined(parts: Sequence[Cell], between: str) -> Text:
    """Parts with the same words between each two."""
    return text(*(piece for place, part in enumerate(parts) for piece in ((between, part) if place else (part,))))


def pieces_of(cell: Cell) -> tuple[Piece, ...]:
    """What a cell is made of."""
    return cell.pieces if isinstance(cell, Text) else (cell,)


def plain(cell: Cell) -> str:
    """A cell as a string."""
    return "".join(piece if isinstance(piece, str) else piece.text for piece in pieces_of(cell))


@dataclass(frozen=True)
class Facts:
    """Terms and what stands for each."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of a row is its header. Raises `ValueError` unless all rows are as long as `header`."""

    kind: ClassVar[str] = "table"
    caption: Cell
    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        wrong = [plain(row[0]) if row else "" for row in self.rows if len(row) != len(self.header)]
        if wrong:
            raise ValueError(f"{len(self.header)} columns, but other numbers of cells in the rows of {wrong}")

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, and gaps and blanks at most beside them: it is set flush right."""
        cells = [row[column] for row in self.rows if row[column] != "" and not isinstance(row[column], Gap)]
        return bool(cells) and all(isinstance(c, Number) and not isinstance(c.value, str) for c in cells)


@dataclass(frozen=True)
class Picture:
    """An SVG and its caption, which says what it shows to those who cannot see it."""

    title: str
    svg: str
    caption: Text

    @property
    def text(self) -> str:
        """The caption as a string."""
        return plain(self.caption)


@dataclass(frozen=True)
class Figure:
    """A picture in its place."""

    kind: ClassVar[str] = "figure"
    picture: Picture


@dataclass(frozen=True)
class Items:
    """A list of points."""

    kind: ClassVar[str] = "items"
    items: tuple[Cell, ...]


@dataclass(frozen=True)
class Notice:
    """A box: one line that must not be missed, and what there is to say about it."""

    kind: ClassVar[str] = "notice"
    tone: Tone
    title: Cell
    body: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Code:
    """Text kept as it is, from a file. label: what it is."""

    kind: ClassVar[str] = "code"
    label: str
    content: str


@dataclass(frozen=True)
class Details:
    """Blocks that stay folded on a screen until they are asked for; printed in full."""

    kind: ClassVar[str] = "details"
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """A part with a heading; a section among its blocks is a part of the part. id: for links, unique in a document."""

    kind: ClassVar[str] = "section"
    title: str
    blocks: tuple[Block, ...]
    id: str


Block = Text | Facts | Table | Figure | Gap | Items | Notice | Code | Details | Section


@dataclass(frozen=True)
class Document:
    """A report. Raises `ValueError` if two sections have one id."""

    title: Cell
    subtitle: Cell
    sections: tuple[Section, ...]
    footer: Cell = field(default="")

    def __post_init__(self) -> None:
        ids = [block.id for block in blocks_of(self.sections) if isinstance(block, Section)]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"two sections have the id {', '.join(twice)}: links could not tell them apart")


def blocks_of(blocks: tuple[Block, ...]) -> Iterator[Block]:
    """All blocks in reading order, those inside of others after these."""
    for block in blocks:
        yield block
        if isinstance(block, Section | Details):
            yield from blocks_of(block.blocks)


def cells_of(block: Block) -> Iterator[Cell]:
    """The cells of one block in reading order, without those of blocks inside."""
    match block:
        case Text() | Gap():
            yield block
        case Facts():
            yield from (cell for row in block.rows for cell in row)
        case Table():
            yield block.caption
            yield from block.header
            yield from (cell for row in block.rows for cell in row)
        case Figure():
            yield block.picture.caption
        case Items():
            yield from block.items
        case Notice():
            yield block.title
            yield from block.body


def numbers_of(document: Document) -> list[Number]:
    """Every number of a document in reading order."""
    cells = [document.title, document.subtitle]
    cells += [cell for block in blocks_of(document.sections) for cell in cells_of(block)]
    return [piece for cell in (*cells, document.footer) for piece in pieces_of(cell) if isinstance(piece, Number)]
