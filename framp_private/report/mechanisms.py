"""Where a run's noise is added, what each channel costs, and how the whole is composed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framp_private.report.document import Block, Cell, Facts, Gap, Strong, Table, Text, joined, text
from framp_private.report.given import OLD, Given
from framp_private.report.sources import Data, derived, number
from framp_private.report.words import WHERE_NOISED

COLUMNS = (
    ("epsilon", ".4f"),
    ("releases", ""),
    ("clip_norm", ".3f"),
    ("noise_multiplier", ".3f"),
    ("sampling_probability", ".3g"),
    ("clip_fraction", ".3f"),
    ("saturated", ".3f"),
    ("signal_to_noise", ".3f"),
)
HEADS = {
    "clip_fraction": "clipped",
    "saturated": "cut off",
    "signal_to_noise": "signal / noise",
    "sampling_probability": "sampling rate",
}
MEASURED = text(
    Strong("Clipped"),
    ": share of records whose gradient was longer than the clip norm. ",
    Strong("Signal / noise"),
    ": norm of a client's clipped sum over the expected norm of the noise on it, which under noise in shares is the "
    "noise of all clients on the sum of all. ",
    Strong("Cut off"),
    ": share of values beyond the bound of a secure or encrypted sum. All three are data: they are shown in "
    "simulation and stay home in a deployment.",
    tone="soft",
)


def mechanisms(given: Given) -> tuple[Block, ...]:
    """Where noise is added, and each channel alone."""
    if given.silent:
        return (text("Nothing was sent: no mechanism was needed."),)
    blocks: list[Block] = [_where(given)]
    if given.summary["channels"]:
        blocks += [_channels(given), MEASURED]
    else:
        blocks.append(text("No channel has an epsilon."))
    return tuple(blocks)


def _where(given: Given) -> Facts | Gap:
    """Where noise is added, by channel."""
    if not given.summary.has("server_view"):
        return OLD
    rows: list[tuple[str, Cell]] = []
    for name, row in given.summary["server_view"].items():
        made = ("; trained by ", given.number(("server_view", name, "trainer"))) if row["trainer"] else ()
        where = WHERE_NOISED[row["noise"]] if row["noise"] else "nowhere: no noise is added"
        counted = "" if row["guarantee"] or not row["noise"] else "; no guarantee follows from it"
        carrier = ("; carried by ", given.number(("server_view", name, "protection")))
        rows.append((f"Noise on {name}", text(where, counted, *made, *carrier)))
    home = [name for name in given.summary["channels"] if name not in given.summary["server_view"]]
    rows += [(f"Noise on {name}", "at each client, once; the value itself is never sent") for name in home]
    return Facts(tuple(rows))


def _channels(given: Given) -> Table:
    """Each channel's cost alone, its noise, and what was measured of both."""
    names = given.summary.keys("channels")
    header = ("channel", "unit", *(HEADS.get(key, key.replace("_", " ")) for key, _ in COLUMNS))
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        values = (given.number(("channels", name, key), form) for key, form in COLUMNS)
        rows.append((name, given.number(("channels", name, "unit")), *values))
    first = ("channels", names[0])
    terms = (given.number((*first, "relation")), ", delta ", given.number((*first, "delta"), "g"), ", ")
    caption = text(
        "Each channel alone, for a client that takes part in every round; ",
        *terms,
        given.number((*first, "trust_model")),
        ". Channel epsilons do not add up: the claim composes them.",
    )
    return Table(caption, header, tuple(rows))


def composition(given: Given) -> tuple[tuple[str, Cell], ...]:
    """What is counted, and how it adds up."""
    scope = [given.number(("privacy", claim.unit, "scope")) for claim in (given.held or given.claims)[:1]]
    over = (
        "releases to different clients' records are composed in parallel: the federation's loss is the largest of its "
        "clients'. Channels and rounds are composed one after the other"
    )
    how = (
        "privacy loss distributions and Renyi divergences, the smaller of the two; Renyi alone for noise in shares and "
        "for a ledger that several runs continue"
    )
    after = (
        "models, masks and generated weights are functions of released values and cost nothing more. A model that was "
        "trained further at home has no guarantee outside of it"
    )
    rows: list[tuple[str, Cell]] = [("Scope", text(*scope))]
    if given.bounded:
        releases: Cell = derived("sum", given.summary, "channels.*.releases", ",")
        rows += [
            ("Releases", text(releases, " of a client that takes part in every round, over all channels")),
            ("Accountant", how),
            ("Over clients and channels", over),
            ("Post-processing", after),
        ]
    if given.ledger is not None:
        count, spent = number(given.ledger, "rows", ","), number(given.ledger, "releases", ",")
        rows.append(("Ledger", text("the federation's has ", count, " rows, ", spent, " of them releases")))
    return tuple(rows)


def declared_plan(given: Given) -> tuple[Block, ...]:
    """What the ledger says was going to be released, before the first release."""
    ledger = given.ledger
    if ledger is None or not ledger["plan"]:
        return ()
    rows = []
    for place, event in enumerate(ledger["plan"]):
        at = ("plan", place)
        values = (number(ledger, (*at, "count"), ","), number(ledger, (*at, "noise_values"), ","))
        note = number(ledger, (*at, "note")) if event["note"] else ""
        rows.append((_mechanism(ledger, (*at, "mechanism")), *values, note))
    caption = "The plan that the federation's ledger declared before its first release; names are of dp_accounting."
    return (Table(caption, ("mechanism", "at most", "noise values each", "note"), tuple(rows)),)


def _mechanism(ledger: Data, at: tuple[str | int, ...]) -> Text:
    """A mechanism of the ledger with its parameters, and those inside of it."""
    row: Mapping[str, Any] = ledger[at]
    parts: list[Cell] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            parts.append(_mechanism(ledger, (*at, key)))
        elif isinstance(value, list):
            inner = [
                _mechanism(ledger, (*at, key, place))
                for place in range(len(value))
                if isinstance(value[place], Mapping)
            ]
            parts.append(joined(list(inner), ", "))
        elif key != "kind":
            form = ".4g" if isinstance(value, float) else ""
            parts.append(text(f"{key.replace('_', ' ')} ", number(ledger, (*at, key), form)))
    return text(number(ledger, (*at, "kind")), *((" (", joined(parts, ", "), ")") if parts else ()))
