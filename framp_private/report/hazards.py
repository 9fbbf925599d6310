"""What can spoil a differential privacy guarantee in practice, and what of it applies to a run."""

from __future__ import annotations

from framp_private.report.document import Cell, Facts, text
from framp_private.report.given import Given
from framp_private.report.words import listed

ABORTS = (
    "no client fails because of what its records are: values are clipped, records that are not finite count as zero, "
    "empty batches and clients of one class proceed"
)
RANDOMNESS = (
    "noise, keys and masks come from the operating system; the seed moves initialisation, sampling of public cohorts "
    "and batches without a guarantee. Whoever controls the machine's randomness controls the noise"
)
SIDE = (
    "not covered: how long a step takes may show how many records a sample had; power and memory of the training "
    "machine were not looked at. Sizes of messages do not depend on records under a guarantee"
)
GRID = (
    "Gaussian noise in floating point lies on a grid and its tail ends: the ledger takes the tail's mass off delta; "
    "the grid is not removed"
)
EXACT = "noise in shares is made of integers, exactly: no floating point is involved in it"
TUNING = (
    "the settings were given. If they were chosen by looking at results on these records, that choice is a release "
    "which the claim does not count"
)
PERSONS = (
    "the unit is one record. A person with several records at one client is protected less, by about as many times "
    "epsilon; for one with records at several clients the epsilons add up"
)
CLIENTS = "the unit is a whole client: however many records a person has at one client, they are covered together"
BARE = "not looked at: channels without noise show more than any count, loss or size"
SAMPLED = (
    "the guarantee counts on nobody but the server knowing who took part in a round: round reports, traffic and the "
    "transcript are not to be passed on"
)
METRICS = "no counts, losses or accuracies leave the clients in the protocol: the metrics channel is empty"
EVALUATION = (
    "this report's accuracies are computed from private records, without noise: the claim does not "
    "cover them, and they are not to be passed on"
)
ROUNDING = "what is shown of epsilon is rounded; the summary holds all digits"


def hazards(given: Given) -> Facts:
    """Hazards, and what the run has against each."""
    rows: list[tuple[str, Cell]] = [
        ("Side channels", SIDE),
        ("Floating-point noise", _floating(given)),
        ("Source of randomness", RANDOMNESS),
        ("Data-dependent failure", ABORTS if given.bounded else "nothing is claimed that a failure could spoil"),
        ("Choice of settings", TUNING),
        ("Several records of a person", _persons(given)),
        ("Unprotected channels", _unprotected(given)),
        ("Side uploads", METRICS if given.bounded or given.silent else BARE),
        ("Further runs", _further(given)),
        *([("Sampling of clients", SAMPLED)] if _sampled(given) else []),
        ("Evaluation", EVALUATION),
        ("Rounding", ROUNDING),
    ]
    return Facts(tuple(rows))


def _sampled(given: Given) -> bool:
    return any("who alone knows" in claim.trust_model for claim in given.held)


def _floating(given: Given) -> Cell:
    if not given.bounded:
        return "no noise is relied on"
    views = given.summary["server_view"] if given.summary.has("server_view") else {}
    noises = {row["noise"] for row in views.values()}
    home = set(given.summary["channels"]) - set(views)
    shares = [f"{EXACT}. "] if "shares" in noises else []
    return text(*shares, GRID if noises != {"shares"} or home else "No other noise is used")


def _persons(given: Given) -> Cell:
    if not given.bounded:
        return "nothing is claimed for any number of them"
    return " ".join(PERSONS if claim.unit == "record" else CLIENTS for claim in given.held)


def _unprotected(given: Given) -> Cell:
    """Channels that no guarantee covers, of those that were used."""
    if given.silent:
        return "none: nothing was sent"
    if not given.summary.has("server_view"):
        return "none, as the claim covers every channel" if given.bounded else "all"
    bare = [name for name, row in given.summary["server_view"].items() if not row["guarantee"]]
    if not bare:
        return "none: every channel in use carries a guarantee"
    covered = ", of noised values alone" if given.bounded else ""
    return f"{listed(bare)}{covered}"


def _further(given: Given) -> Cell:
    if not given.bounded:
        return "nothing is claimed for this run or any other"
    scope = given.number(("privacy", given.held[0].unit, "scope"))
    return text("the claim counts ", scope, ": each run outside of it on the same records adds its own loss")
