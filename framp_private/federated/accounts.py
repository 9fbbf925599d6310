"""Accounts: whose ledger a release is spent on, and what the spent epsilons add up to as a claim."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from framp_private.crypto.keys import Identity, PublicIdentity
from framp_private.crypto.secret_files import private_of
from framp_private.errors import LedgerError, ReleaseLost
from framp_private.federated.federation import Federation
from framp_private.federated.row_signer import RowSigner
from framp_private.federated.server import sample_cohort
from framp_private.privacy.chain import Head
from framp_private.privacy.claims import THIS_RUN, UNITS, Claim, no_guarantee, nothing_released
from framp_private.privacy.events import Budget, Event, unprotected
from framp_private.privacy.ledger import Ledger
from framp_private.randomness import Entropy

SERVED = "not the models that clients are served: each is made of its client's own descriptor, and tells it"
"""What a guarantee for whole clients leaves out where no descriptor is noised: phi is covered, these are not."""

EVERYTHING = "all channels, all rounds"
"""Label of the one row that stands for every release without a guarantee: nothing can make infinity larger."""


@dataclass(frozen=True, eq=False)
class Account:
    """A ledger seen from one run.

    Args:
        ledger: where spends go. run: prefix of every label, so that one ledger can serve many runs.
    """

    ledger: Ledger
    run: str = ""

    def spend(self, releases: Mapping[str, Event], *, seeded: bool = False, resend: bool = False) -> None:
        """Spends the releases of one reply together, before it is made.

        Args:
            seeded: the noise can be repeated, so nothing of it is private.
            resend: the reply is a function of the request, so that making it again is no new release.

        Raises:
            ReleaseLost: the same releases were spent before and must not be drawn again.
            PrivacyBudgetExhausted, LedgerError: see `Ledger.spend`.
        """
        if seeded:
            releases = {EVERYTHING: unprotected(self.ledger.unit, "not private: seeded noise")}
        elif any(not event.private for event in releases.values()):
            first = next(event for event in releases.values() if not event.private)
            releases = {EVERYTHING: unprotected(self.ledger.unit, first.note)}
        if EVERYTHING in releases and self.ledger.has(f"{self.run}{EVERYTHING}"):
            return  # whatever the reason was that came first
        fresh = self.ledger.spend_all({f"{self.run}{label}": event for label, event in releases.items()})
        if not fresh and not resend and EVERYTHING not in releases:
            raise ReleaseLost(
                f"{', '.join(releases)} of {self.ledger.owner!r} was spent before and its reply is gone: "
                "it stays spent and is not drawn again; the client sits this round out"
            )

    def knows(self, label: str) -> bool:
        """Whether a release was spent."""
        return self.ledger.has(f"{self.run}{label}")

    def require(self, releases: Mapping[str, Event]) -> None:
        """Raises `LedgerError` unless these releases, or everything, were spent."""
        missing = [label for label in releases if not self.ledger.has(f"{self.run}{label}")]
        if missing and not self.ledger.has(f"{self.run}{EVERYTHING}"):
            raise LedgerError(
                f"the ledger of {self.ledger.owner!r} does not know {', '.join(missing)}, whose reply is stored: "
                "rows were lost; restore the ledger from a copy"
            )


def claim_of(federation: Federation, epsilon: float, delta: float | None, scope: str) -> Claim:
    """The claim behind a spent epsilon; none where it is infinite or no delta was asked for."""
    if delta is None or not math.isfinite(epsilon):
        return no_guarantee(federation.unit, scope, federation.why)
    if federation.unit == "client" and federation.personalised and federation.plan.descriptor is None:
        scope = f"{scope}; {SERVED}"
    return Claim(federation.unit, epsilon, delta, federation.relation, federation.trust, scope, federation.record)


class Accounts:
    """All accounts of a simulated run: each client's, and the federation's, which stands for the client asked most.

    Record accounts of different clients are about different records, so the federation's epsilon is the largest of
    theirs, not the sum: it spends when some client is asked more often than any was before.

    Args:
        federation: whose releases are planned. delta, budget: of the guarantee, None without one.
        folder: where the ledgers are, and in `private/keys/` the keys that sign them; None keeps them in memory. run:
            prefix of this run's labels.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        budget: Budget | None = None,
        folder: Path | None = None,
        run: str = "",
        scope: str = THIS_RUN,
    ) -> None:
        self._federation, self._scope, self._budget = federation, scope, budget
        self.seeded = False
        self._asked: Counter[str] = Counter()

        def identity(key: str) -> Identity:
            if folder is None:
                return Identity.new(Entropy())
            return Identity.of_file(private_of(folder) / "keys" / key, Entropy())

        def opened(path: str, owner: str, key: Identity) -> Account:
            ledger = Ledger.open(
                folder / path if folder is not None else None,
                unit=federation.unit,
                relation=federation.relation,
                owner=owner,
                budget=budget,
                signer=RowSigner(key),
            )
            return Account(ledger, run)

        self.server = identity("server.key")
        self.identities = {name: identity(f"clients/{name}.key") for name in federation.budgets}
        self.federation = opened("ledger.jsonl", "federation", self.server)
        self.clients = {name: opened(f"ledgers/{name}.jsonl", name, key) for name, key in self.identities.items()}
        for name, account in self.clients.items():
            self._declare(account, name)
        self._declare(self.federation, self._largest)

    def _declare(self, account: Account, client: str) -> None:
        plan = self._federation.planned(client)
        if self._federation.channels and all(event.private for event, _ in plan):
            account.ledger.declare(plan, account.run or "this run")

    @property
    def roster(self) -> dict[str, PublicIdentity]:
        """Every client's public key."""
        return {name: identity.public for name, identity in self.identities.items()}

    @property
    def signers(self) -> dict[str, PublicIdentity]:
        """Whose key signs each ledger, by owner."""
        return {"federation": self.server.public, **self.roster}

    @property
    def _largest(self) -> str:
        """The client whose releases draw the most noise values: the others cost no more."""
        budgets = self._federation.budgets
        return max(budgets, key=lambda name: budgets[name])

    @property
    def delta(self) -> float | None:
        """Of the guarantee, None without one."""
        return self._budget.delta if self._budget is not None else None

    def spend_enrolment(self) -> None:
        """The server's rows for what comes before the first round, before it asks for anything."""
        federation = self._federation
        for label, event in federation.at_home(self._largest).items():
            self._spend({label: event})
        if "descriptor" in federation.channels:
            self._spend({"enrolment/descriptor": federation.event("descriptor", self._largest)})

    def spend_round(self, index: int) -> None:
        """The server's row for a round, before its first request.

        Where a sample of clients is part of the guarantee every round costs all clients alike, asked or not.

        Raises:
            PrivacyBudgetExhausted: too little is left. ReleaseLost: the server noised this round's total before.
        """
        events = self._federation.round_events(self._largest)
        if self._federation.sampled:
            self._spend({f"round {index}/{name}": event for name, event in events.items()})
            return
        before = max(self._asked.values(), default=0)
        self._asked.update(sample_cohort(self._federation, index))
        if max(self._asked.values()) > before:
            self._spend({f"round {before}/{name}": event for name, event in events.items()})

    def _spend(self, releases: Mapping[str, Event]) -> None:
        """A total that the server noised once is never noised again, even from an older checkpoint."""
        once = any(self._federation.plan.protection(name).noises_total for name in self._federation.channels)
        self.federation.spend(releases, seeded=self.seeded, resend=not once)

    def replay(self, rounds: int) -> None:
        """Remembers who was asked in the first rounds, after a restart."""
        for index in range(0 if self._federation.sampled else rounds):
            self._asked.update(sample_cohort(self._federation, index))

    def heads(self) -> dict[str, Head]:
        """Row count and hash of every ledger, by owner."""
        return {name: account.ledger.head for name, account in self._all()}

    def check(self, heads: Mapping[str, Head]) -> None:
        """Raises `LedgerError` if a ledger does not go on from a head that was known before."""
        for name, account in self._all():
            account.ledger.verify(heads.get(name))

    def epsilons(self) -> dict[str, float]:
        """What each client has spent at the budget's delta; infinite without a guarantee.

        Where clients are sampled, a round costs also those who were not asked: what the federation has spent.
        """
        delta = self.delta
        if delta is not None and self._federation.sampled:
            return dict.fromkeys(self.clients, self.federation.ledger.epsilon(delta))
        return {
            name: account.ledger.epsilon(delta) if delta is not None else math.inf
            for name, account in self.clients.items()
        }

    def claims(self, exchanges: bool) -> tuple[Claim, ...]:
        """What the run may say for each unit, from what its ledgers hold."""
        if not exchanges:
            return tuple(nothing_released(unit) for unit in UNITS)
        unit, delta = self._federation.unit, self.delta
        spent = max(self.epsilons().values())
        return tuple(
            claim_of(self._federation, spent, delta, self._scope) if name == unit else no_guarantee(name, self._scope)
            for name in UNITS
        )

    def _all(self) -> list[tuple[str, Account]]:
        return [("federation", self.federation), *self.clients.items()]
