"""`framp-private report` and `framp-private compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer
from rich.console import Console

from framp_private.checkpoint import write_atomically
from framp_private.comparison import FILE, compare, read_comparison, write_comparison
from framp_private.errors import RunError
from framp_private.report.as_json import as_json
from framp_private.report.comparison import comparison_document
from framp_private.report.document import Document
from framp_private.report.folder import report_of_run
from framp_private.report.html import render_html
from framp_private.report.markdown import render_markdown
from framp_private.report.pdf import write_pdf
from framp_private.report.sweep import sweep_document
from framp_private.report.sweep_shape import COMPARISON, check, check_summary, readable
from framp_private.sweep.folder import SweepFolder
from framp_private.terminal import comparison_table
from framp_private.version import __version__

Format = Literal["html", "pdf", "json", "md"]
RENDER: dict[Format, Callable[[Document], bytes]] = {
    "html": lambda document: render_html(document).encode(),
    "json": lambda document: json.dumps(as_json(document), indent=1).encode(),
    "md": lambda document: render_markdown(document).encode(),
}


def document_of(folder: Path) -> Document:
    """The report of a run, a sweep or a comparison, whichever the folder holds.

    Raises:
        RunError: none of them, an unfinished one, or one whose files were altered or are of another version.
    """
    if SweepFolder(folder).begun:
        cure = f"framp-private sweep {quote(str(folder / 'sweep.yaml'))} --out {quote(str(folder))} --resume"
        with readable(folder / "summary.json", f"run `{cure}`, which writes it anew"):
            summary = SweepFolder(folder).summary()
            check_summary(summary)
            return sweep_document(summary, __version__, folder)
    if (folder / FILE).is_file():
        cure = f"framp-private compare RUN RUN ... --out {quote(str(folder))}"
        with readable(folder / FILE, f"run `{cure}` with the same runs, which writes it anew"):
            found = read_comparison(folder)
            check(found, COMPARISON)
            return comparison_document(found, __version__)
    return report_of_run(folder)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's, a sweep's or a comparison's folder.")],
    form: Annotated[Format, typer.Option("--format", help="html, pdf, json or md.")] = "html",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default DIR/report.FORMAT.")] = None,
) -> None:
    """Write the report of a run, a sweep or a comparison; an audit found in the folder is in it."""
    path = out if out is not None else folder / f"report.{form}"
    document = document_of(folder)
    try:
        if form == "pdf":
            write_pdf(render_html(document, opened=True), path)
        else:
            write_atomically(path, RENDER[form](document))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error}") from error
    typer.echo(str(path))


def compare_runs(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of finished runs.")],
    out: Annotated[Path | None, typer.Option("--out", help="Also write comparison.json and report.html there.")] = None,
    print_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Runs side by side; those that differ in their seed alone are averaged, and differences are tested over seeds."""
    found = compare(folders)
    if out is not None:
        write_comparison(found, out)
        write_atomically(out / "report.html", render_html(comparison_document(found, __version__)).encode())
    typer.echo(json.dumps(found, indent=1)) if print_json else Console().print(comparison_table(found))
    if out is not None and not print_json:
        typer.echo(f"report: {out / 'report.html'}")
