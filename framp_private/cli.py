"""`framp-private`: train, list presets, look at data.

Exit status: 0 done, 1 failed or not verified, 2 bad input, 3 a claim refuted by `--audit`, 4 privacy budget exhausted,
130 interrupted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from framp_private.assemble import make_config
from framp_private.audit_gate import REFUTED, audit, refuted
from framp_private.config import Config, read_assignments, read_split
from framp_private.datasets import CATALOGUE, check, data_root, load_dataset
from framp_private.errors import FrampError, RunError
from framp_private.estimate import describe_plan
from framp_private.inspect_ledgers import ledger_rows, verify_ledgers
from framp_private.presets import DEFAULT, PRESETS, name_of
from framp_private.privacy.calibrate import Releases, calibrate
from framp_private.privacy.events import Budget
from framp_private.protections.secagg.planning import design
from framp_private.report.figures import class_mix
from framp_private.reports_cli import compare_runs, report
from framp_private.run_folder import RunFolder
from framp_private.runs import new_folder, run_config
from framp_private.secagg_costs import client_costs
from framp_private.sweep_cli import sweep_app
from framp_private.terminal import (
    calibration_table,
    final_table,
    ledger_table,
    partition_table,
    plan_table,
    progress,
    secagg_table,
)
from framp_private.training import Options

INTERRUPTED = 130
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold records, or a password
    help="Private, personalised federated learning with FRAMP.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what is known, what is here, how it is partitioned.")
app.add_typer(data_app, name="data")
ledger_app = typer.Typer(no_args_is_help=True, help="Ledgers: what was spent, and whether they are whole.")
app.add_typer(ledger_app, name="ledger")
secagg_app = typer.Typer(no_args_is_help=True, help="Secure aggregation: neighbours, thresholds and what they cost.")
app.add_typer(secagg_app, name="secagg")
app.add_typer(sweep_app, name="sweep")
app.command("report")(report)
app.command("compare")(compare_runs)

ConfigFile = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Settings; see `presets` for starting points.")
]
Preset = Annotated[str | None, typer.Option("--preset", help="Named settings; default `digits-secure`.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, dotted for nested keys; repeatable."),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="A data set's name, or a folder with one CSV or NPZ per site.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Of data, initialisation and sampling.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Where data sets are; else FRAMP_DATA, else ./data.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is missing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]


@app.command()
def train(
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Set = None,
    dataset: Dataset = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/PRESET-UTCSTAMP-xxxx.")] = None,
    root: Root = None,
    download: Download = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    record_transcript: Annotated[
        bool, typer.Option("--record-transcript", help="Keep every message that was delivered.")
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", help="Continue the ledgers in this folder over several runs on the same data."),
    ] = None,
    audited: Annotated[
        bool, typer.Option("--audit", help="Attack the finished run; exit status 3 if a claim is refuted.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan, sizes and estimated seconds; touch no data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train personalised, budget-sized models across clients."""
    settings = _config(config, preset, assignments, dataset, seed, out if resume else None)
    if dry_run:
        plan = describe_plan(settings)
        typer.echo(json.dumps(plan, indent=1)) if as_json else Console().print(plan_table(plan))
        return
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out, the folder to go on in")
    if resume and out is not None and not (out / "config.yaml").is_file():
        raise RunError(f"out={out} holds no run to go on with: check the path, or leave --resume away")
    chosen = dataset is not None or "dataset" in read_assignments(assignments or [])
    named = preset or (config.stem if config else _name_of_data(settings) if chosen else DEFAULT)
    folder = out if out is not None else new_folder(named)
    if resume and RunFolder(folder).finished:
        summary: Any = RunFolder(folder).summary()
    else:
        console = Console(stderr=True, quiet=as_json)
        console.print(plan_table(describe_plan(settings, measure=False)))
        with progress(console, settings.rounds) as on_round:
            options = Options(record_transcript=record_transcript or audited, ledger=ledger, on_round=on_round)
            summary = run_config(
                settings, out=folder, data_root=root, download=download, resume=resume, options=options
            ).summary
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **summary}, indent=1))
    else:
        Console().print(final_table(summary, folder))
    if audited:
        _gate(folder, root, as_json)


def _gate(folder: Path, root: Path | None, quiet: bool) -> None:
    """Ends with status 3, and the reasons, if the audit refutes a claim; the run and both reports stay."""
    reasons = refuted(audit(folder, root, quiet=quiet))
    for reason in reasons:
        typer.secho(f"claim refuted, {reason}", fg="red", err=True)
    if reasons:
        raise typer.Exit(REFUTED)


@app.command()
def presets(as_json: AsJson = False) -> None:
    """List the named settings."""
    if as_json:
        typer.echo(
            json.dumps(
                {name_of(preset): make_config(preset=name_of(preset)).model_dump(mode="json") for preset in PRESETS},
                indent=1,
            )
        )
        return
    for preset in PRESETS:
        typer.echo(f"{name_of(preset):<22}{(preset.__doc__ or '').strip().splitlines()[0]}")


@app.command("calibrate")
def calibrate_noise(
    epsilon: Annotated[float, typer.Option("--epsilon", help="What all channels together may spend.")],
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds, all of which a client takes part in.")],
    delta: Annotated[float, typer.Option("--delta")] = 1e-5,
    local_steps: Annotated[int, typer.Option("--local-steps", help="DP-SGD steps per round.")] = 1,
    sampling: Annotated[float, typer.Option("--sampling", help="Poisson sampling probability of a record.")] = 1.0,
    split: Annotated[
        str, typer.Option("--split", help="Shares of mu^2 by channel; a channel left out is not used.")
    ] = "update=0.7,prototypes=0.25,descriptor=0.05",
    as_json: AsJson = False,
) -> None:
    """Noise multipliers for a wanted epsilon, and what each channel spends."""
    counts = {"update": rounds * local_steps, "prototypes": rounds, "descriptor": 1}
    rates = {"update": sampling}
    channels = {
        name: Releases(counts[name], share, rates.get(name, 1.0)) for name, share in read_split(split, counts).items()
    }
    found = calibrate(Budget(epsilon, delta), channels)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        Console().print(calibration_table(found, channels))


@ledger_app.command("show")
def ledger_show(folder: Path, delta: Annotated[float, typer.Option("--delta")] = 1e-5, as_json: AsJson = False) -> None:
    """What each account in a run's folder, a sweep's folder or a folder of ledgers has spent."""
    rows = ledger_rows(folder, delta)
    typer.echo(json.dumps(rows, indent=1)) if as_json else Console().print(ledger_table(rows, delta))


@ledger_app.command("verify")
def ledger_verify(folder: Path) -> None:
    """Check every chain and signature, the heads in a summary or checkpoint, and a sweep's trials."""
    for line in verify_ledgers(folder):
        typer.echo(line)


@data_app.command("list")
def data_list() -> None:
    """Name every known data set and the files it needs under the data root."""
    for name, entry in CATALOGUE.items():
        schema = entry.schema
        shape = "x".join(str(side) for side in schema.input_shape)
        typer.echo(
            f"{name:<12}{schema.kind:<7}{shape:<10}{schema.n_classes:>4} classes   "
            f"{', '.join(entry.files) or 'embedded'}"
        )


@data_app.command("check")
def data_check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; default all.")] = None, root: Root = None
) -> None:
    """Read each data set and say whether it is ready; exit status 1 if one that was named is not."""
    chosen = names or list(CATALOGUE)
    unknown = [name for name in chosen if name not in CATALOGUE]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not a data set: use one of {', '.join(CATALOGUE)}")
    failed = False
    for name in chosen:
        found = check(data_root(root), name, make_config(assignments={"dataset": name}))
        failed |= not found.startswith("ready")
        typer.echo(f"{name:<12}{found}")
    if failed and names:
        raise typer.Exit(1)


@data_app.command("partition")
def data_partition(
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Set = None,
    dataset: Dataset = None,
    seed: Seed = None,
    root: Root = None,
    download: Download = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also write the class mix as an SVG file.")] = None,
) -> None:
    """Show who holds what: records and classes of each client."""
    settings = _config(config, preset, assignments, dataset, seed, None)
    federated = load_dataset(settings, root, download)
    Console().print(partition_table(federated))
    if picture is not None:
        rows = {
            name: {"classes": data.class_counts(federated.schema.n_classes).tolist()}
            for name, data in federated.clients.items()
        }
        try:
            picture.write_text(class_mix(rows).svg)
        except OSError as error:
            raise RunError(f"--picture {picture} cannot be written: {error}") from error


@secagg_app.command("plan")
def secagg_plan(
    cohort: Annotated[int, typer.Option("--cohort", help="Clients asked in a round.")],
    dropout: Annotated[float, typer.Option("--dropout", help="Largest share of them that drops out.")] = 0.2,
    corrupt: Annotated[float, typer.Option("--corrupt", help="Largest share in league with the server.")] = 0.1,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Share of a neighbourhood that opens; the best one if left out.")
    ] = None,
    values: Annotated[int, typer.Option("--values", min=1, help="Numbers that each client sends.")] = 100_000,
    bits: Annotated[int, typer.Option("--bits", min=2, max=62, help="Width of the ring.")] = 20,
    as_json: AsJson = False,
) -> None:
    """How many neighbours and which threshold a cohort needs, what may go wrong, and what a client pays."""
    found = client_costs(design(cohort, threshold=threshold, dropout=dropout, corrupt=corrupt), values, bits)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        Console().print(secagg_table(found, values, bits))


def _name_of_data(settings: Config) -> str:
    name = Path(settings.dataset).name
    return name if settings.privacy is None else f"{name}-private"


def _config(
    file: Path | None,
    preset: str | None,
    assignments: list[str] | None,
    dataset: str | None,
    seed: int | None,
    resumed: Path | None,
) -> Config:
    given = read_assignments(assignments or [])
    if dataset is not None:
        given["dataset"] = (
            dataset if dataset in CATALOGUE or not Path(dataset).exists() else str(Path(dataset).resolve())
        )
    if seed is not None:
        given["seed"] = seed
    if resumed is not None and (resumed / "config.yaml").is_file() and not given and file is None and preset is None:
        return make_config(file=resumed / "config.yaml")
    return make_config(file=file, preset=preset, assignments=given)


def main(arguments: list[str] | None = None, run: Callable[..., Any] = app) -> int:
    """The console script: runs a command and returns its exit status."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        status = run(arguments, standalone_mode=False)
    except FrampError as error:
        typer.secho(f"framp-private: {error}", fg="red", err=True)
        return error.exit_status
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            typer.secho(f"framp-private: {error.format_message()}", fg="red", err=True)
            return 2
        raise
    if status == INTERRUPTED:
        typer.secho("framp-private: interrupted; a run or a sweep goes on with --resume", err=True)
    return status if isinstance(status, int) else 0


def script() -> None:
    """Entry point."""
    sys.exit(main())
