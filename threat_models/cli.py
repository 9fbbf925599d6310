"""`framp-audit`: plan an audit, run one, read its report, attack any model.

Exit status: 0 done, 1 failed, 2 bad input, 3 a claim refuted, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from framp_private import RunFolder, load_setup, make_config, write_atomically
from framp_private.errors import FrampError
from threat_models import terminal
from threat_models.audit import SCHEMA, AuditPlan, AuditReport, OnStage, run_audit
from threat_models.catalogue import CATALOGUE
from threat_models.errors import AuditError
from threat_models.planning import plan_rows
from threat_models.report import render
from threat_models.scripts import Trained, attack_model
from threat_models.sources import is_public, subject_of_config, subject_of_folder
from threat_models.trials import TRIALS

REFUTED, INTERRUPTED = 3, 130
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Attack federated runs, and test what they claim.")

Root = Annotated[Path | None, typer.Option("--data-root", help="Where data sets are; else FRAMP_DATA, else ./data.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Where models' answers are kept: as secret as records.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Target = Annotated[str, typer.Argument(metavar="RUN_DIR|CONFIG.yaml|PRESET", help="What is audited.")]


@app.command()
def plan(
    target: Target,
    canaries: Annotated[int, typer.Option("--canaries")] = 3000,
    timing: Annotated[bool, typer.Option(help="Train up to three rounds to tell the time.")] = True,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """What an audit could refute, with how many canaries, at what cost, before it is run.

    Up to three rounds are trained on the records, in memory, to tell the time; --no-timing leaves that out.
    """
    setup = load_setup(_config(target), data_root=root)
    rows = plan_rows(setup.federation, setup.dataset, canaries, timed=timing)
    typer.echo(json.dumps(rows, indent=1)) if as_json else Console(width=terminal.WIDTH).print(
        terminal.plan_table(rows)
    )


@app.command()
def run(
    target: Target,
    attack: Annotated[list[str] | None, typer.Option("--attack", help="An id of the catalogue; repeatable.")] = None,
    adversary: Annotated[list[str] | None, typer.Option("--adversary", help="An adversary; repeatable.")] = None,
    canaries: Annotated[int, typer.Option("--canaries", help="On each channel, at most; 0 for none.")] = 3000,
    alpha: Annotated[float, typer.Option("--alpha", help="Chance of calling a true claim refuted.")] = 0.05,
    seed: Annotated[int, typer.Option("--seed", help="Of canaries, coins and replays.")] = 0,
    replays: Annotated[bool, typer.Option(help="Replay the real client on made-up neighbours.")] = True,
    references: Annotated[
        int, typer.Option("--references", help="Models to train for LiRA and its like, for each client; 0 for none.")
    ] = 8,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Where answers of reference models are kept: as secret as records.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where audit.json and audit.html go; default the run folder.")
    ] = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Attack a recorded run, or a run made from a config, and test its claim."""
    wanted = [*(attack or []), *(adversary or [])] or None
    _check_wanted(wanted)
    AuditPlan(alpha, canaries, references=references)  # refused before anything is run
    console = Console(stderr=True, quiet=as_json)
    folder = Path(target) if Path(target).is_dir() else None
    with _progress(console) as on_stage:
        if folder is not None and RunFolder(folder).transcript.is_dir():
            (subject, claim), source = subject_of_folder(folder, root), "transcript"
        else:
            config = _config(target)
            subject, claim = subject_of_config(config, root, lambda done, total: on_stage("run", done, total))
            source = "replay"
        named = RunFolder(folder).config()["dataset"] if folder is not None else config.dataset
        made = AuditPlan(alpha, canaries, seed, wanted, canaries > 0, replays, references, is_public(named))
        found = run_audit(subject, claim, made, source=source, cache=cache, on_stage=on_stage)
    place = out or folder or Path("audit")
    write(found, place)
    if as_json:
        typer.echo(found.to_json())
    else:
        Console(width=terminal.WIDTH).print(terminal.audit_table(found.as_rows(), place))
    if found.refuted:
        raise typer.Exit(REFUTED)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A folder with audit.json.")], as_json: AsJson = False) -> None:
    """Show an audit that was made, and draw its page again."""
    path = folder / "audit.json"
    rows = _read(path)
    write_atomically(folder / "audit.html", render(rows).encode(), secret=True)
    typer.echo(path.read_text()) if as_json else Console(width=terminal.WIDTH).print(terminal.audit_table(rows, folder))


@app.command()
def attacks(as_json: AsJson = False) -> None:
    """List the attacks: what each needs, reaches and costs."""
    rows = [each.as_row() for each in CATALOGUE]
    typer.echo(json.dumps(rows, indent=1)) if as_json else Console(width=terminal.WIDTH).print(
        terminal.catalogue_table(rows)
    )


@app.command()
def membership(
    model: Annotated[str, typer.Option("--model", help="A TorchScript or exported file, or package.module:function.")],
    members: Annotated[Path, typer.Option("--members", help="NPZ with x and y.")],
    non_members: Annotated[Path, typer.Option("--non-members", help="NPZ with x and y.")],
    reference: Annotated[
        list[str] | None, typer.Option("--reference", help="A model without the members; repeatable.")
    ] = None,
    shadow_network: Annotated[
        str | None, typer.Option("--shadow-network", help="package.module:function, an untrained torch module.")
    ] = None,
    shadows: Annotated[int, typer.Option("--shadows", help="How many to train on halves of the records.")] = 16,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Where answers of shadows are kept: as secret as records.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    as_json: AsJson = False,
) -> None:
    """Membership inference on any model: LOSS, QMIA, label-only.

    With references also calibration, Attack-R, LiRA offline and RMIA; with shadow models, which are trained here, LiRA
    online and BaVarIA.
    """
    with _progress(Console(stderr=True, quiet=as_json)) as on_stage:
        trained = Trained(shadow_network, shadows, cache, lambda done, total: on_stage("shadow models", done, total))
        rows = attack_model(model, members, non_members, reference or [], trained, seed=seed)
    typer.echo(json.dumps(rows, indent=1)) if as_json else Console(width=terminal.WIDTH).print(
        terminal.membership_table(rows)
    )


def write(found: AuditReport, folder: Path) -> None:
    """`audit.json` and `audit.html`, for the operator alone: they were learned from the records."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "audit.json", found.to_json().encode(), secret=True)
        write_atomically(folder / "audit.html", render(found.as_rows()).encode(), secret=True)
    except OSError as error:
        raise AuditError(f"out={folder} cannot be written: {error}") from error


def _config(target: str) -> Any:
    path = Path(target)
    if path.is_dir():
        path = path / "config.yaml"
    return make_config(file=path) if path.suffix in (".yaml", ".yml") else make_config(preset=target)


def _check_wanted(wanted: list[str] | None) -> None:
    """Refuses names that no recorded run can be attacked by, and says where those are."""
    known = {*TRIALS, *(entry.adversary for entry in TRIALS.values())}
    elsewhere = {each.id: each.where for each in CATALOGUE}
    for name in wanted or []:
        if name in known:
            continue
        if name.startswith(("F", "G")):
            raise typer.BadParameter(
                f"{name} is part of every audit, with canaries, replays and crafted parties: not --attack"
            )
        if name in elsewhere:
            raise typer.BadParameter(f"{name} does not run on a recorded run by itself: see {elsewhere[name]}")
        raise typer.BadParameter(f"{name!r} is no attack and no adversary: `framp-audit attacks` lists them")


def _read(path: Path) -> dict[str, Any]:
    """The rows of an `audit.json` of this schema. Raises `AuditError`."""
    try:
        rows = json.loads(path.read_text())
        if rows["schema"] != SCHEMA:
            raise AuditError(f"{path} has schema {rows['schema']}, this release reads {SCHEMA}: audit the run again")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AuditError(f"{path} is no audit.json: make one with `framp-audit run {path.parent}`") from error
    return dict(rows)


@contextmanager
def _progress(console: Console) -> Iterator[OnStage]:
    columns = (TextColumn("{task.description:<18}"), MofNCompleteColumn(), BarColumn(30), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def on_stage(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=done)

        yield on_stage


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit status; deliberate errors become one line."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        status = app(arguments, standalone_mode=False)
    except FrampError as error:
        typer.secho(f"framp-audit: {error}", fg="red", err=True)
        return error.exit_status
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.secho("framp-audit: interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            typer.secho(f"framp-audit: {error.format_message()}", fg="red", err=True)
            return 2
        raise
    return status if isinstance(status, int) else 0


def script() -> None:
    """Entry point."""
    sys.exit(main())


if __name__ == "__main__":
    script()
