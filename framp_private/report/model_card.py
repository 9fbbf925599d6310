"""A model card (Mitchell et al. 2019, *Model cards for model reporting*), filled from the run where the run knows."""

from __future__ import annotations

from framp_private.report.document import Cell, Facts, Link, Section, text, to_fill
from framp_private.report.given import Given
from framp_private.report.sources import number
from framp_private.report.words import statement_of

OUT_OF_SCOPE = (
    "people and sites unlike those whose records were trained on; decisions about single persons without a human; "
    "serving a model that was trained further at home to anybody but its owner"
)
METRICS = "accuracy on test records, by client and budget; unweighted means over clients, and the worst beside them"
OPEN = "records that need protection: the run gives no guarantee. "


def model_card(given: Given) -> Section:
    """The card; what only people know is a gap."""
    out = OUT_OF_SCOPE if given.bounded or given.silent else f"{OPEN}Also {OUT_OF_SCOPE}"
    rows: tuple[tuple[str, Cell], ...] = (
        ("Model", _model(given)),
        ("Developed by", to_fill("the controller: who trained it, when, whom to ask")),
        ("Licence", to_fill("the controller")),
        ("Intended use and users", to_fill("the controller: the question the model answers, and for whom")),
        ("Out of scope", out),
        (
            "Factors",
            text(
                "budget (share of the network that a client holds) and client; ",
                to_fill("the controller: groups of people"),
            ),
        ),
        ("Metrics", METRICS),
        ("Training data", _training_data(given)),
        ("Origin of the data", to_fill("the controller: source, period, population, consent, labels and who set them")),
        ("Evaluation data", _evaluation_data(given)),
        ("Results", _results(given)),
        ("Privacy", text(statement_of(given), "; see ", Link("the privacy statement", "#privacy"))),
        ("Ethical considerations", to_fill("the controller")),
        ("Limits", _limits(given)),
    )
    return Section("Model card", (Facts(rows),), "card")


def _model(given: Given) -> Cell:
    network = (", network ", number(given.config, "network")) if given.config.has("network") else ()
    personal = "; each client is served its own submodel"
    sizes = (", ", given.number("parameters.target", ","), " parameters")
    return text(given.number("method"), *network, *sizes, personal)


def _training_data(given: Given) -> Cell:
    what = (given.number("dataset"), ": records of ", given.number_or_gap("classes"), " classes at ")
    clients = (given.number("clients"), " clients")
    low, high = given.over_clients("min", "declared", ","), given.over_clients("max", "declared", ",")
    if low.value is None:
        return text(*what, *clients, *_partition(given))
    each = (low,) if low.value == high.value else (low, " to ", high)
    return text(*what, *clients, ", which declared ", *each, " training records each", *_partition(given))


def _partition(given: Given) -> tuple[Cell, ...]:
    """How the records were dealt out, where settings say so."""
    if not given.config.has("partition"):
        return ()
    return (", partition ", number(given.config, "partition"))


def _evaluation_data(given: Given) -> Cell:
    unseen = (given.number("unseen_clients"), " clients that never trained")
    return text("test records of the same clients, held out before the run; ", *unseen)


def _results(given: Given) -> Cell:
    mean = given.number("accuracy.local.mean", ".3f")
    worst = given.number(("by_client", str(given.worst("local")), "local"), ".3f")
    return text(
        "mean local accuracy ", mean, ", worst client ", worst, "; see ", Link("accuracy and utility", "#utility")
    )


def _limits(given: Given) -> Cell:
    seed = given.number("seed")
    return text(
        "one run with one seed (", seed, "): no spread over seeds is shown. Tests are of the same sites and time"
    )
