"""What the models are worth: accuracies by budget, the worst client and the worst budget, and every client alone."""

from __future__ import annotations

from framp_private.report import figures
from framp_private.report.document import (
    Block,
    Cell,
    Details,
    Facts,
    Figure,
    Section,
    Strong,
    Table,
    Text,
    joined,
    text,
)
from framp_private.report.given import Given
from framp_private.report.sources import named
from framp_private.report.words import EXPERIMENTER, KINDS


def utility(given: Given) -> Section:
    """Averages beside those whom averages hide."""
    blocks: list[Block] = [
        *([text(EXPERIMENTER, tone="soft")] if given.bounded else []),
        _accuracies(given),
        text(*(piece for key in KINDS for piece in (Strong(key[1].capitalize()), f": {key[2]}. ")), tone="soft"),
        *_others(given),
        Figure(figures.accuracy_by_budget(given.summary)),
        *_by_round(given),
        Section(
            "The worst off", (_worst_intro(), _worst(given), Figure(figures.client_histogram(given.summary))), "worst"
        ),
        Section("Every client", (_clients(given),), "clients"),
    ]
    return Section("Accuracy and utility", tuple(blocks), "utility")


def _budgets(given: Given) -> list[str]:
    return [name for name in given.summary.keys("accuracy.local") if name != "mean"]


def _accuracies(given: Given) -> Table:
    names = [*_budgets(given), "mean"]
    header: list[Cell] = ["model"]
    header += [text("budget ", named(given.summary, ("accuracy", "local", name))) for name in names[:-1]]
    rows: list[tuple[Cell, ...]] = [
        (label, *(given.number(("accuracy", key, name), ".3f") for name in names)) for key, label, _ in KINDS
    ]
    caption = "Simulated evaluation by the experimenter; unweighted means over clients."
    return Table(caption, (*header, "mean"), tuple(rows))


def _others(given: Given) -> list[Text]:
    """Metrics of tables, and other habits of reporting."""
    found = []
    if given.summary["table"]:
        auroc, balanced = given.number("table.auroc", ".3f"), given.number("table.balanced_accuracy", ".3f")
        found.append(text("Over all clients' own test records: AUROC ", auroc, ", balanced accuracy ", balanced, "."))
    if given.summary["selection"]:
        habits: list[Cell] = []
        for name in given.summary.keys("selection"):
            value, when = (
                given.number(("selection", name, "local", "mean"), ".3f"),
                given.number(("selection", name, "round")),
            )
            habits.append(text(f"{name.replace('_', ' ')} ", value, " (round ", when, ")"))
        optimistic = ". The maximum over test accuracies is optimistic."
        found.append(text("Other habits of reporting local accuracy: ", joined(habits, "; "), optimistic, tone="soft"))
    return found


def _by_round(given: Given) -> list[Block]:
    if not any(row.get("accuracy") for row in given.metrics.content):
        return []
    return [Figure(figures.accuracy_by_round(given.metrics))]


def _worst_intro() -> Text:
    return text(
        "A mean says nothing of anybody in particular. Noise, and small budgets, cost some clients more than others."
    )


def _worst(given: Given) -> Facts:
    rows: list[tuple[str, Cell]] = []
    for field, term in (
        ("local", "Worst client, as served"),
        ("after_local_training", "Worst client, after training at home"),
    ):
        name = given.worst(field)
        if name is not None:
            at = ("by_client", name)
            budget, value = given.number((*at, "budget"), "g"), given.number((*at, field), ".3f")
            rows.append((term, text(named(given.summary, at), " with budget ", budget, ": ", value)))
    means = {name: given.summary[("accuracy", "local", name)] for name in _budgets(given)}
    least = min(means, key=lambda name: means[name])
    at_budget = ("accuracy", "local", least)
    mean = text("budget ", named(given.summary, at_budget), ": mean ", given.number(at_budget, ".3f"))
    spread = text(
        given.over_clients("min", "local", ".3f"),
        " worst, ",
        given.over_clients("median", "local", ".3f"),
        " median, ",
        given.over_clients("max", "local", ".3f"),
        " best",
    )
    return Facts((*rows, ("Worst budget, as served", mean), ("Over clients", spread)))


def _clients(given: Given) -> Details:
    fields = (("budget", "g"), ("declared", ""), ("epsilon", ".3f"), ("local", ".3f"), ("union", ".3f"))
    columns = (*fields, ("after_local_training", ".3f"))
    rows = [
        (
            named(given.summary, ("by_client", name)),
            *(given.number_or_gap(("by_client", name, key), form) for key, form in columns),
        )
        for name in given.summary.keys("by_client")
    ]
    header = ("client", *(key.replace("_", " ") for key, _ in columns))
    caption = "Each client: its budget, training records as it declared them, epsilon spent, and accuracies."
    return Details("All clients in a table", (Table(caption, header, tuple(rows)),))
