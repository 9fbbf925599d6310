"""A run's claims in words, and the words that several parts of a report share."""

from __future__ import annotations

from framp_private.privacy.claims import Claim
from framp_private.report.document import Cell, Gap, Text, joined, text
from framp_private.report.given import Given

KINDS = (
    ("local", "local", "the model served to a client, on its own test records"),
    ("union", "union", "the same models on everybody's test records"),
    ("unseen", "unseen", "clients that never trained, from their descriptor alone"),
    ("after_local_training", "after local training", "the served model trained further at home"),
)
MEANINGS = {
    "record": "Everything that left a client is distributed nearly as if any one of its records had not been there: no "
    "test of whether it was can do better than epsilon and delta allow, whoever makes the test. For a person with "
    "records at several clients the epsilons add up.",
    "client": "Everything that the server released is distributed nearly as if any one client had not taken part.",
}
"""A claim in words, by unit."""
SEEN = (
    " The server itself saw each client's contribution and is trusted with it.",
    " The server itself saw noised sums over clients and no client's contribution, if it follows the protocol.",
)
"""What the server of a client-level run saw: of a trusted one, and of one that clients noise their sums against."""
SHARED = (
    "Every sum that was opened, and everything that came of it, is distributed nearly as if any one of the records had "
    "not been there: no test of whether it was can do better than epsilon and delta allow, whoever sees the sums. For "
    "a person with records at several clients the epsilons add up."
)
"""A claim for records that hide behind noise from many clients."""
EXPERIMENTER = (
    "Accuracies below, of single clients too, are the experimenter's own view of a simulation: exact, in no channel, "
    "and not covered by the claim. A deployment does not have them. Numbers of records are those that clients declared."
)
NOT_AUDITED = Gap("not audited: framp-private train --audit, or framp-audit run DIR")
WHERE_NOISED = {
    "client": "at each client, before anything leaves it",
    "shares": "in shares by all clients, before their sum",
    "server": "by the server, to the sum that it sees",
    "earlier": "before the run's first message; what is sent is computed from noised values alone",
}


def meaning_of(claim: Claim) -> str:
    """A claim in words."""
    if claim.unit == "record" and claim.trust_model.startswith("honest-but-curious"):
        return SHARED + SEEN[1]
    trusted = claim.trust_model.startswith("trusted server")
    return MEANINGS[claim.unit] + (SEEN[0 if trusted else 1] if claim.unit == "client" else "")


def statement_of(given: Given) -> Text:
    """What `privacy.claims.statement` says, with the source of each number."""
    if not given.held:
        why = [text(": ", given.number(("privacy", claim.unit, "why"))) for claim in given.claims if claim.why]
        return text("privacy: none, epsilon = infinite", *why[:1])
    return joined([text("privacy: ", _terms(given, claim)) for claim in given.held], "; ")


def _terms(given: Given, claim: Claim) -> Text:
    at = ("privacy", claim.unit)
    epsilon, delta = given.number((*at, "epsilon"), ".3g"), given.number((*at, "delta"), "g")
    terms = ("epsilon = ", epsilon, ", delta = ", delta, ", unit ", unit_of(given, claim), ", ", claim.relation, ", ")
    return text(*terms, given.number((*at, "trust_model")), ", scope: ", given.number((*at, "scope")))


def unit_of(given: Given, claim: Claim) -> Cell:
    """A claim's unit, and what one is where that needs saying."""
    if not claim.protects:
        return claim.unit
    return text(f"{claim.unit} (", given.number(("privacy", claim.unit, "protects")), ")")


def listed(names: list[str], last: str = "and") -> str:
    """Names with commas and one word before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
