"""Fields of a data-protection impact assessment (GDPR Art. 35(7)); what only a controller can say is a gap."""

from __future__ import annotations

from framp_private.report.document import Block, Cell, Facts, Gap, Link, Section, Table, text, to_fill
from framp_private.report.given import Given
from framp_private.report.sources import number
from framp_private.report.words import NOT_AUDITED, listed, statement_of

LEAKING = ("violation", "open", "unclear")
INTRO = text(
    "A frame for the assessment under Art. 35(7) of Regulation (EU) 2016/679, filled with what the run can say. It is "
    "no assessment before the gaps are filled and somebody has decided.",
    tone="soft",
)


def impact(given: Given) -> Section:
    """The four parts of Art. 35(7), and what surrounds them."""
    parts: tuple[tuple[str, str, tuple[Block, ...]], ...] = (
        ("Systematic description, Art. 35(7)(a)", "dpia-description", (_description(given),)),
        ("Necessity and proportionality, Art. 35(7)(b)", "dpia-necessity", (_necessity(given),)),
        ("Risks to the rights and freedoms of people, Art. 35(7)(c)", "dpia-risks", _risks(given)),
        ("Measures, Art. 35(7)(d)", "dpia-measures", (_measures(given),)),
        ("Advice and decision", "dpia-decision", (_decision(),)),
    )
    return Section(
        "Data-protection impact assessment",
        (INTRO, *(Section(title, blocks, name) for title, name, blocks in parts)),
        "dpia",
    )


def _description(given: Given) -> Facts:
    clients, rounds = given.number("clients"), given.number("rounds")
    doing = text(
        clients, " clients train a model together in ", rounds, " rounds. Records stay where they are; ", *_sent(given)
    )
    rows: tuple[tuple[str, Cell], ...] = (
        ("Processing", doing),
        ("Purposes", to_fill("the controller")),
        ("Controller, joint controllers, processors", to_fill("the controller")),
        (
            "Data and data subjects",
            text(given.number("dataset"), "; ", to_fill("the controller: categories, numbers, special categories")),
        ),
        ("Recipients", text("the server, clients, and whoever gets a model; ", to_fill("the controller: names"))),
        ("Retention", to_fill("the controller: of records, models, ledgers and keys")),
        ("Transfers to third countries", to_fill("the controller")),
    )
    return Facts(rows)


def _sent(given: Given) -> tuple[Cell, ...]:
    names = [name for name, size in given.summary["traffic"]["up"].items() if size and name != "protocol"]
    if not names:
        return ("nothing is sent.",)
    return (f"what is sent is named {listed(names)}, see ", Link("what the server sees", "#server"), ".")


def _necessity(given: Given) -> Facts:
    minimal = (
        "records are not collected in one place, and the protocol has no other channels than those named here"
        if not given.silent
        else "records are not collected in one place and nothing is sent"
    )
    rows: tuple[tuple[str, Cell], ...] = (
        ("Legal basis, Art. 6 and Art. 9", to_fill("the controller")),
        ("Data minimisation", minimal),
        ("Accuracy of results", text("see ", Link("accuracy and utility", "#utility"))),
        ("Less intrusive means", to_fill("the controller: why this processing, and not less of it")),
        ("Information and rights of data subjects", to_fill("the controller")),
        (
            "Withdrawal and erasure",
            text("a model keeps what it learned; ", to_fill("the controller: how requests are met")),
        ),
    )
    return Facts(rows)


def _risks(given: Given) -> tuple[Block, ...]:
    blocks: list[Block] = [
        Facts((("Bound on what anybody learns", statement_of(given)), ("At the server", _at_server(given))))
    ]
    if given.audit is None:
        blocks.append(NOT_AUDITED)
    else:
        blocks.append(_leaks(given))
    likely = to_fill("the controller: likelihood and severity for the people concerned")
    return (*blocks, Facts((("Likelihood and severity", likely), ("Other risks", to_fill("the controller")))))


def _at_server(given: Given) -> Cell:
    if given.silent:
        return "nothing arrives"
    if not given.summary.has("server_view"):
        return Gap("not in the summary: the run was made by an older version")
    views = given.summary["server_view"]
    single = [name for name, row in views.items() if row["granularity"] == "client"]
    summed = [name for name in views if name not in single]
    parts = [f"single values of {listed(single)}"] if single else []
    parts += [f"sums over clients of {listed(summed)}"] if summed else []
    return "; ".join(parts)


def _leaks(given: Given) -> Block:
    """Attacks that were over chance and under no ceiling."""
    audit = given.audit
    rows: list[tuple[Cell, ...]] = []
    for place, row in enumerate(audit["attacks"] if audit is not None else ()):
        if audit is not None and row["value"] is not None and row["leak"] in LEAKING:
            at = ("attacks", place)
            what = text(number(audit, (*at, "asset")), ", by ", number(audit, (*at, "adversary")))
            value = text(number(audit, (*at, "statistic")), " ", number(audit, (*at, "value"), ".3f"))
            rows.append((what, number(audit, (*at, "id")), value, str(row["leak"])))
    if not rows:
        return text("No attack that was made was over chance beyond what the claim allows. Others may be.")
    caption = "What attacks learned beyond what the claim bounds; all of them stand under attacks."
    return Table(caption, ("what, by whom", "attack", "reached", "leak"), tuple(rows))


def _measures(given: Given) -> Facts:
    guarantee: Cell = statement_of(given) if given.bounded else "none in this run"
    rows: tuple[tuple[str, Cell], ...] = (
        ("Differential privacy", guarantee),
        ("Protections by channel", text("see ", Link("what the server sees", "#server"))),
        ("Accountability", "each release is in a chained and signed ledger before it leaves a client"),
        ("Verification", "framp-private ledger verify, framp-audit run"),
        ("Organisation", to_fill("the controller: access, training, incident response")),
        ("Residual risk", to_fill("the controller")),
    )
    return Facts(rows)


def _decision() -> Facts:
    rows: tuple[tuple[str, Cell], ...] = (
        ("Advice of the data protection officer, Art. 35(2)", to_fill("the data protection officer")),
        ("Views of data subjects, Art. 35(9)", to_fill("the controller")),
        ("Prior consultation, Art. 36", to_fill("the controller")),
        ("Decision, date and signature", to_fill("the controller")),
        ("Review, Art. 35(11)", to_fill("the controller")),
    )
    return Facts(rows)
