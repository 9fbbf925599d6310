"""`framp-private sweep`: run a sweep, go on with it, and look how far it is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from framp_private.errors import ConfigError, StorageError
from framp_private.sweep import Machine, Sweep, read_sweep, run_sweep
from framp_private.sweep.folder import SweepFolder
from framp_private.sweep.opening import find_study
from framp_private.sweep.record import STATES
from framp_private.sweep.storage import open_storage
from framp_private.sweep.trial import check_root
from framp_private.sweep.view import final_table, live, plan_table, progress_table

STORAGE = "FRAMP_STORAGE"
"""Environment variable that stands for `--storage`: an address with a password is better not in a command line."""


class _RunByDefault(TyperGroup):
    """`sweep FILE` is `sweep run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the command in where a file stands in its place."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweep_app = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, help="Sweeps over settings and seeds: what privacy costs, as a frontier."
)

Storage = Annotated[
    str | None,
    typer.Option("--storage", help=f"Database that machines share, postgresql://... or mysql://...; else {STORAGE}."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]


@sweep_app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="What varies; see docs/sweeps.md.")],
    out: Annotated[Path | None, typer.Option("--out", help="The sweep's folder; default sweeps/NAME.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; default one per core.")] = None,
    storage: Storage = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was interrupted.")] = False,
    root: Annotated[Path | None, typer.Option("--data-root", help="Where data sets are; else FRAMP_DATA.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the points and what they would claim.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep on this machine. The same command elsewhere, with the same --storage, joins it."""
    sweep = read_sweep(file)
    if dry_run:
        Console().print(plan_table(sweep))
        return
    folder = out if out is not None else Path("sweeps") / sweep.name
    console = Console(stderr=True, quiet=as_json)
    with live(console, sweep) as on_change:
        machine = replace(
            _machine(workers),
            data_root=check_root(root),
            storage=storage or os.environ.get(STORAGE),
            on_change=on_change,
        )
        summary = run_sweep(sweep, folder, machine=machine, resume=resume)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **summary}, indent=1))
        return
    Console().print(final_table(sweep, summary))
    typer.echo(f"report: {folder / 'report.html'}")
    if summary["trials"]["failed"]:
        typer.secho(
            f"{summary['trials']['failed']} trials failed: their reasons are in summary.json", fg="red", err=True
        )


@sweep_app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="A sweep's folder.")], storage: Storage = None, as_json: AsJson = False
) -> None:
    """How far a sweep is; changes nothing."""
    files = SweepFolder(folder)
    sweep: Sweep = files.sweep()
    address = storage or os.environ.get(STORAGE) or files.located()
    if isinstance(address, str) and "***" in address:
        raise ConfigError(f"the trials are in {address}: name it with its password by --storage or {STORAGE}")
    opened = open_storage(address, patience=5.0, look=True)
    try:
        study = find_study(opened, sweep)
        if study.identity != files.identity:
            raise StorageError(
                f"{opened.shown} holds another sweep of the name {sweep.name!r}: restore the folder's own"
            )
        trials = study.trials()
    finally:
        opened.close()
    if as_json:
        counts = {state: sum(trial.state == state for trial in trials) for state in STATES}
        typer.echo(json.dumps({"sweep": sweep.name, "trials": {"planned": len(trials), **counts}}))
    else:
        Console().print(progress_table(sweep, trials))


def _machine(workers: int | None) -> Machine:
    """This machine's cores, shared out over its workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers if workers is not None else cores
    return Machine(workers=count, threads=max(1, cores // max(1, count)))
