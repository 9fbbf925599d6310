"""What a person sees in the terminal: plan, progress, final table. Everything fits 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from framp_private.data.base import FederatedDataset
from framp_private.privacy.calibrate import Calibration, Releases
from framp_private.privacy.claims import statement
from framp_private.report.given import claims_of
from framp_private.report.points import letter_of
from framp_private.report.words import KINDS
from framp_private.transcript import TRAFFIC_KEYS

WIDTH = 80


@contextmanager
def progress(console: Console, rounds: int) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """A bar with rounds, the last measured accuracy and the time left; yields the callback that moves it."""
    columns = (
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(22),
        TextColumn("local accuracy {task.fields[accuracy]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("rounds", total=rounds, accuracy="  –  ")

        def on_round(done: int, row: Mapping[str, Any]) -> None:
            shown = (
                f"{row['accuracy']['test']['mean']:.3f}" if row.get("accuracy") else bar.tasks[task].fields["accuracy"]
            )
            bar.update(task, completed=done, accuracy=shown)

        yield on_round


def plan_table(plan: Mapping[str, Any]) -> RenderableType:
    """Method, sizes, and what each channel does, before the run."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row(
        "method",
        f"{plan['method']} on {plan['dataset']}, {plan['clients'] or 'your'} clients, {plan['rounds']} rounds, "
        f"pullback on the {plan['pullback']}",
    )
    if plan["parameters"] is not None:
        sizes = plan["parameters"]
        lines.add_row(
            "parameters",
            f"target {sizes['target']:,}, of which a budget counts {sizes['maskable']:,}; phi {sizes['phi']:,}",
        )
        rows = list(plan["per_round"].values())
        if rows and rows[0]["protocol_up"]:
            down, up = _size(rows[0]["protocol_down"]), _size(rows[0]["protocol_up"])
            lines.add_row("secure sum", f"keys, shares, signatures: {down} down, {up} up, per client and round")
        for budget, row in plan["per_round"].items():
            lines.add_row(
                f"budget {budget}",
                f"{_size(row['down'])} down (mask {_size(row['mask'])}), {_size(row['up'])} up, per client and round",
            )
        channels = ", ".join(f"{channel} {protection}" for channel, protection in plan["channels"].items())
        lines.add_row("channels", channels or "none: nothing is sent")
    for name, row in (plan["epsilon_by_channel"] or {}).items():
        noise = "" if row["noise_multiplier"] is None else f", noise multiplier {row['noise_multiplier']:.3f}"
        spent = "none" if row["epsilon"] is None else f"{row['epsilon']:.3f}"
        lines.add_row(f"epsilon {name}", f"{spent} alone, {row['releases']} releases{noise}")
    if plan["seconds"] is not None:
        lines.add_row("estimate", f"{plan['seconds']:.0f} s for the rounds")
    return Group(lines, _claim(plan["privacy"]))


def final_table(summary: Mapping[str, Any], folder: Path) -> RenderableType:
    """Accuracy by budget, bytes by channel, seconds by phase, and the claim."""
    budgets = [name for name in summary["accuracy"]["local"] if name != "mean"]
    accuracy = Table(title="accuracy by budget", title_justify="left", title_style="bold", width=WIDTH)
    accuracy.add_column("model")
    for name in (*budgets, "mean"):
        accuracy.add_column(name, justify="right")
    for key, label, _ in KINDS:
        row = summary["accuracy"][key]
        accuracy.add_row(label, *("–" if row[name] is None else f"{row[name]:.3f}" for name in (*budgets, "mean")))
    traffic = Table(title="traffic, whole run", title_justify="left", title_style="bold", width=WIDTH)
    traffic.add_column("")
    for name in TRAFFIC_KEYS:
        traffic.add_column(name, justify="right")
    for way in ("down", "up"):
        traffic.add_row(way, *(_size(summary["traffic"][way][name]) for name in TRAFFIC_KEYS))
    parts: list[RenderableType] = [accuracy, Text(_worst(summary["by_client"]))]
    if summary["table"]:
        auroc, balanced = _share(summary["table"]["auroc"]), summary["table"]["balanced_accuracy"]
        parts.append(Text(f"AUROC {auroc}, balanced accuracy {balanced:.3f}"))
    seconds = " · ".join(f"{phase} {value:.1f}" for phase, value in summary["seconds"].items())
    if summary["channels"]:
        parts.append(_privacy_table(summary))
    parts += [
        traffic,
        Text(f"seconds: {seconds}"),
        _claim(statement(claims_of(summary))),
        Text(f"report: {folder / 'report.html'}", overflow="fold"),
    ]
    return Group(*parts)


def comparison_table(found: Mapping[str, Any]) -> RenderableType:
    """Settings, their means over seeds, and differences to the first with p corrected for their number."""
    parts: list[RenderableType] = [Text(f"mind: {words}", style="yellow") for words in found["comparable"]]
    for place, setting in enumerate(found["settings"]):
        differs = ", ".join(f"{key}={value}" for key, value in setting["differs"].items()) or "the same settings"
        seeds = ", ".join(setting["seeds"])
        parts.append(
            Text(f"{letter_of(place).upper()}: {setting['method']} on {setting['dataset']}, {differs}; seeds {seeds}")
        )
    table = Table(title="means over seeds, 95 % intervals", title_justify="left", title_style="bold", width=WIDTH)
    table.add_column("measure")
    for place, _ in enumerate(found["settings"]):
        table.add_column(letter_of(place).upper(), justify="right")
    names = dict.fromkeys(name for setting in found["settings"] for name in setting["means"])
    for name in names:
        form = ".3f" if "/" in name else ",.0f"
        table.add_row(
            name.replace("_", " "), *(_mean(setting["means"].get(name), form) for setting in found["settings"])
        )
    parts.append(table)
    tests = Table(title="minus A, over common seeds", title_justify="left", title_style="bold", width=WIDTH)
    for column in ("setting", "measure", "mean", "interval", "p", "p corrected"):
        tests.add_column(column, justify="left" if column in ("setting", "measure") else "right")
    for row in found["differences"]:
        for name, measure in row["measures"].items():
            if name.endswith("/mean") or name.startswith("worst"):
                interval = "–" if measure["low"] is None else f"{measure['low']:+.3f} to {measure['high']:+.3f}"
                p, adjusted = measure["p"], measure.get("p_holm")
                ps = ("–" if value is None else f"{value:.2g}" for value in (p, adjusted))
                tests.add_row(
                    letter_of(row["setting"]).upper(), name.replace("_", " "), f"{measure['mean']:+.3f}", interval, *ps
                )
    return Group(*parts, *([tests] if tests.row_count else []))


def _mean(row: Mapping[str, Any] | None, form: str) -> str:
    if row is None:
        return "–"
    ends = "" if row["low"] is None else f" [{row['low']:{form}}, {row['high']:{form}}]"
    return f"{row['mean']:{form}}{ends}"


def calibration_table(found: Calibration, channels: Mapping[str, Releases]) -> RenderableType:
    """Noise multipliers by channel, and what each alone and all together spend."""
    table = Table(width=WIDTH)
    for name in ("channel", "releases", "sampling", "noise multiplier", "epsilon alone"):
        table.add_column(name, justify="left" if name == "channel" else "right")
    for name, each in channels.items():
        noise, alone = found.multipliers[name], found.channel_epsilons[name]
        table.add_row(name, str(each.count), f"{each.sampling:g}", f"{noise:.4f}", f"{alone:.3f}")
    total = (
        f"together: epsilon {found.epsilon:.4f} at delta {found.delta:g}, unit record, add/remove, any server: each "
        "client adds its own noise, scope: one run; channel epsilons do not add up"
    )
    return Group(table, Text(total))


def ledger_table(rows: Sequence[Mapping[str, Any]], delta: float) -> RenderableType:
    """What each account has spent."""
    table = Table(title=f"spent, at delta {delta:g}", title_justify="left", title_style="bold", width=WIDTH)
    for name in ("owner", "unit", "relation", "releases", "epsilon"):
        table.add_column(name, justify="left" if name in ("owner", "unit", "relation") else "right")
    for row in rows:
        spent = "none" if row["epsilon"] is None else f"{row['epsilon']:.4f}"
        table.add_row(row["owner"], row["unit"], row["relation"], str(row["releases"]), spent)
    terms = dict.fromkeys(f"trust model: {row['trust_model']}; scope: {row['scope']}" for row in rows)
    return Group(table, *(Text(line) for line in terms))


def secagg_table(found: Mapping[str, Any], values: int, bits: int) -> RenderableType:
    """A design of secure aggregation: its graph, its failures, and what one client pays in a round."""
    lines, near = Table.grid(padding=(0, 2)), found["neighbours"]
    graph = "everybody" if near >= found["cohort"] - 1 else f"{near} neighbours of {found['cohort']:,} clients"
    lines.add_row("graph", f"k = {near}: each client shares with {graph}")
    lines.add_row("threshold", f"{found['threshold']} of the {near + 1} in a neighbourhood, itself included")
    signed = "all are looked at" if near >= found["cohort"] - 1 else f"{found['sample']} are drawn and looked at"
    lines.add_row("quorum", f"{found['quorum']} members sign a sum before it is opened; {signed}")
    lines.add_row("honest-but-curious", f"stands {found['honest_but_curious']} corrupt members of a neighbourhood")
    lines.add_row("cheating server", f"stands {found['cheating']} corrupt members of the cohort (2 quorum - n - 1)")
    for name, meaning in (
        ("privacy", "the corrupt open a client's vector"),
        ("completeness", "too few survive near some client"),
        ("separation", "parts are summed by themselves"),
        ("sample", "too few signed, and a client goes on"),
    ):
        chance = f"{found['failure'][name]:.1e}" if found["failure"][name] else "0"
        lines.add_row(f"P({name} fails)", f"at most {chance} a round: {meaning}")
    costs = Table(title=f"one client, one round, {values:,} values of {bits} bits", title_justify="left", width=WIDTH)
    for name in ("trip", "down", "up"):
        costs.add_column(name, justify="left" if name == "trip" else "right")
    for trip, row in found["bytes"].items():
        costs.add_row(trip, _size(row["down"]), _size(row["up"]))
    total = {way: sum(row[way] for row in found["bytes"].values()) for way in ("down", "up")}
    costs.add_row("together", _size(total["down"]), _size(total["up"]), style="bold")
    spent = " · ".join(f"{kind} {1000 * value:.1f}" for kind, value in found["seconds"].items())
    return Group(lines, costs, Text(f"milliseconds on this machine, one thread: {spent}"))


def partition_table(dataset: FederatedDataset) -> RenderableType:
    """Records of each client by split, and training records by class (up to ten columns)."""
    shown = min(dataset.schema.n_classes, 10)
    table = Table(
        title=f"{dataset.name}: {len(dataset.clients)} clients, {len(dataset.unseen)} unseen",
        title_justify="left",
        padding=(0, 0, 0, 1),
    )
    table.add_column("client")
    for name in ("train", "val", "test"):
        table.add_column(name, justify="right")
    for label in range(shown):
        table.add_column(str(label), justify="right", style="cyan")
    for name, data in {**dataset.clients, **dataset.unseen}.items():
        counts = data.class_counts(dataset.schema.n_classes)[:shown].tolist()
        sizes = (data.n_train, len(data.validation), len(data.test))
        table.add_row(name, *(str(size) for size in sizes), *(str(count) if count else "·" for count in counts))
    return table


def _worst(by_client: Mapping[str, Mapping[str, Any]]) -> str:
    """The worst client, before and after training at home."""
    served = min(row["local"] for row in by_client.values())
    home = [row["after_local_training"] for row in by_client.values() if row["after_local_training"] is not None]
    return f"worst client: local {served:.3f}" + (f", after local training {min(home):.3f}" if home else "")


def _privacy_table(summary: Mapping[str, Any]) -> Table:
    """Each channel alone: its cost, its noise, and what was measured of both."""
    table = Table(title="privacy by channel", title_justify="left", title_style="bold", width=WIDTH)
    for name in ("channel", "unit", "epsilon", "noise", "clipped", "signal/noise"):
        table.add_column(name, justify="left" if name in ("channel", "unit") else "right")
    for channel, row in summary["channels"].items():
        spent = "none" if row["epsilon"] is None else f"{row['epsilon']:.3f}"
        noise = "–" if row["noise_multiplier"] is None else f"{row['noise_multiplier']:.3f}"
        table.add_row(channel, row["unit"], spent, noise, _share(row["clip_fraction"]), _share(row["signal_to_noise"]))
    table.caption = "each channel alone, under the terms of the claim below; channel epsilons do not add up"
    table.caption_justify = "left"
    return table


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _claim(text: str) -> Text:
    return Text(text, style="bold red" if "infinite" in text else "bold green")


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
