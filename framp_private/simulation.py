"""A federation simulated in this process, between two rounds: it can be stepped, saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framp_private import evaluation
from framp_private.checkpoint import Checkpoint
from framp_private.data.base import FederatedDataset
from framp_private.engines.in_process import Drops, InProcess, keep_nothing, nobody_drops
from framp_private.errors import BelowThreshold, CheckpointError, ReleaseLost
from framp_private.evaluation import Serving
from framp_private.federated.accounts import Accounts
from framp_private.federated.client import Client, ClientState, Plant
from framp_private.federated.federation import Federation, Parties
from framp_private.federated.key_holder import InMemory, KeyHolder, encrypted_sums, new_pins, pins_of_clients
from framp_private.federated.messages import SignedHead
from framp_private.federated.prototypes import GlobalPrototypes
from framp_private.federated.pullback import StepState
from framp_private.federated.round import enrol, run_round
from framp_private.federated.seats import Pins
from framp_private.federated.server import ServerState
from framp_private.federated.trips import with_contexts
from framp_private.federated.witness import Witness, WitnessedClient
from framp_private.home import HomeTraining
from framp_private.models.submodel import Moments
from framp_private.protections import Channel
from framp_private.protections.base import Exchange, Pin
from framp_private.protections.homomorphic.messages import KEY_HOLDER
from framp_private.randomness import Entropy
from framp_private.run_folder import ClientStore, HolderStore
from framp_private.transcript import Transcript


class Observed:
    """Running means of what clients measured, by channel and name: the experimenter's view, no part of the protocol."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, channel: str, name: str, value: float) -> None:
        """Takes one measurement."""
        total, count = self._sums.get((channel, name), (0.0, 0))
        self._sums[channel, name] = (total + value, count + 1)

    def mean(self, channel: str, name: str) -> float | None:
        """The mean so far, None if nothing was measured."""
        total, count = self._sums.get((channel, name), (0.0, 0))
        return total / count if count else None


class Simulation:
    """The server's state, the engine with its clients, and the way back to a checkpoint.

    `exchanges` False trains each client at home instead, and nothing is sent. `threads` clients answer side by side,
    one at a time where the network draws random numbers. `plants`: an auditor's canaries, by client. `mark`: what a
    checkpoint says of the data's fingerprint, a keyed hash of it where it is stored. `nonce`: of this run; fresh if
    none is given.
    """

    def __init__(
        self,
        federation: Federation,
        dataset: FederatedDataset,
        *,
        exchanges: bool = True,
        drops: Drops = nobody_drops,
        transcript: Transcript | None = None,
        threads: int = 1,
        accounts: Accounts | None = None,
        store: ClientStore | None = None,
        holder_store: HolderStore | None = None,
        entropy: Entropy | None = None,
        plants: Mapping[str, Plant] = MappingProxyType({}),
        mark: Callable[[str], str] = str,
        nonce: bytes = b"",
    ) -> None:
        self.dataset, self.exchanges = dataset, exchanges
        self._mark = mark
        self.accounts = accounts or Accounts(federation)
        self.observed = Observed()
        self.accounts.seeded = entropy is not None and entropy.seeded
        self._store = store if federation.randomised else None
        used = holder_store if encrypted_sums(federation) else None
        if used is not None:
            used.check()
        pins = new_pins(federation, used.folder if used is not None else None)
        self.pins: Pins = {name: Pin(pin.digest) for name, pin in pins.items()}
        parties = _parties(self.accounts, pins, nonce or Entropy().bytes(16))
        self.federation = federation = replace(federation, parties=parties)
        self.witness = Witness(self.accounts.server, self.accounts.roster)
        self.engine = InProcess(
            self._clients(pins_of_clients(federation, pins), entropy, plants),
            drops=drops,
            transcript=transcript,
            threads=1 if federation.network.stochastic else threads,
            store=self._store.save if self._store is not None else keep_nothing,
            parties={KEY_HOLDER: KeyHolder(federation, pins, self.accounts.roster, Entropy(), used or InMemory())}
            if pins
            else {},
        )
        self.state = ServerState.initial(federation)
        self.home = HomeTraining(federation, dataset) if not exchanges else None
        self._descriptors: dict[str, Tensor] = {}

    def _clients(self, pins: Pins, entropy: Entropy | None, plants: Mapping[str, Plant]) -> dict[str, WitnessedClient]:
        """Every client, behind envelopes."""
        accounts, found = self.accounts, {}
        for name, data in self.dataset.clients.items():
            client = Client(
                name,
                data,
                self.federation,
                entropy or Entropy(),
                accounts.clients[name],
                self.observed.add,
                accounts.identities[name],
                accounts.roster,
                pins,
                plants.get(name),
            )
            found[name] = WitnessedClient(client, accounts.server.public)
        return found

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels this run sends on."""
        return self.federation.channels if self.exchanges else ()

    @cached_property
    def epsilons(self) -> dict[str, float]:
        """What each client has spent at the end of the run; infinite without a guarantee, 0 if nothing left it."""
        return self.accounts.epsilons() if self.exchanges else dict.fromkeys(self.dataset.clients, 0.0)

    @property
    def traffic(self) -> dict[str, dict[str, int]]:
        """Bytes carried so far, by direction and channel."""
        return self.engine.traffic.totals

    @property
    def serves(self) -> evaluation.Served:
        """The models clients have now."""
        if self.federation.home_descriptor is not None:  # what clients noised at home is what their models are made of
            known = {name: state.descriptor for name, state in self.engine.states.items() if len(state.descriptor)}
            self._descriptors |= {name: torch.from_numpy(value) for name, value in known.items()}
        return self.home or Serving(self.federation, self.state, self._descriptors)

    def may_serve(self, client: str) -> bool:
        """Whether a client's model is made of what was released, or of nothing private: else it is never served.

        Where a noised descriptor stays home it is drawn, and spent, with a client's first reply. One that never replied
        has none, and a descriptor drawn only now would be a release that no account holds, new at each call.
        """
        if not self.exchanges or self.federation.home_descriptor is None:
            return True
        state = self.engine.states.get(client)
        return state is not None and len(state.descriptor) > 0

    def enrol(self) -> None:
        """What happens once, before the first round."""
        if self.exchanges:
            self.accounts.spend_enrolment()
            self.engine.begin(-1)
            self.state = enrol(self.federation, self.state, self._exchange)

    @property
    def _exchange(self) -> Exchange:
        return self.witness.around(self.engine.exchange)

    def settle(self) -> None:
        """What happens once, after the last round: every client gets its last receipt."""
        if self.exchanges:
            self.engine.begin(-1, "settlement")
            self.witness.settle(self.engine.exchange)

    def step(self) -> dict[str, Any]:
        """One round; returns its row for metrics.jsonl."""
        index = self.state.round_index
        if self.home is not None:
            self.home.step(index)
            self.state = ServerState(index + 1, self.state.phi, self.state.step, self.state.prototypes)
            return {"round": index + 1, "cohort": len(self.dataset.clients), "survivors": len(self.dataset.clients)}
        self.engine.begin(index)
        try:
            self.accounts.spend_round(index)
            roster = self.accounts.roster
            self.pins = with_contexts(self.federation, index, roster, self._exchange, self.pins)
            self.state, report = run_round(self.federation, self.state, self._exchange, roster, self.pins)
        except (BelowThreshold, ReleaseLost):  # nothing is opened; what was spent stays spent; the next round is tried
            self.state = replace(self.state, round_index=index + 1)
            return {"round": index + 1, "cohort": self.federation.cohort, "survivors": 0, "failed": True}
        return {
            "round": index + 1,
            "cohort": len(report.cohort),
            "survivors": len(report.survivors),
            **report.measurements,
        }

    def accuracies(self) -> dict[str, Any]:
        """Local test and validation accuracy now, by budget."""
        return {
            split: evaluation.by_budget(self.federation.budgets, values) if values else None
            for split, values in (
                (split, evaluation.local_accuracies(self.federation, self.serves, self.dataset, split))
                for split in ("test", "validation")
            )
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every array of the run."""
        state = self.state
        found = {
            "phi": state.phi,
            "step.first": state.step.first,
            "step.second": state.step.second,
            "prototypes.values": state.prototypes.values,
            "prototypes.present": state.prototypes.present,
        }
        if state.average is not None:
            found["average"] = state.average
        if state.moments is not None:
            found |= {"moments.first": state.moments.first, "moments.second": state.moments.second}
        found |= {f"descriptor/{name}": value for name, value in state.descriptors.items()}
        if self.home is not None:
            return found | {f"home/{name}": value for name, value in self.home.weights.items()}
        states = {
            name: np.frombuffer(replace(value, receipt=b"", request=b"", federation=b"").to_bytes(), np.uint8).copy()
            for name, value in self.engine.states.items()
        }
        return found | {f"client/{name}": torch.from_numpy(value) for name, value in states.items()}

    def restore(self, checkpoint: Checkpoint, *, look: bool = False) -> None:
        """Goes back to a checkpoint of the same run, to `look` at it or else to go on.

        Raises:
            CheckpointError: it is of another run, or to go on of other keys.
        """
        found, facts = checkpoint.tensors, checkpoint.facts
        if (facts["federation"], facts["data"]) != (self.federation.facts.hex(), self._mark(self.dataset.fingerprint)):
            raise CheckpointError("the checkpoint belongs to another run: its settings or its data differ from these")
        if not look and facts["run"] != self.federation.digest.hex():
            raise CheckpointError(
                "the checkpoint belongs to another run, or keys of its parties were replaced: restore private/keys, "
                "private/key-holder and run_id from a copy"
            )

        def named(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

        moments = Moments(found["moments.first"], found["moments.second"]) if "moments.first" in found else None
        self.state = ServerState(
            checkpoint.round_index,
            found["phi"],
            StepState(found["step.first"], found["step.second"], facts["step_count"]),
            GlobalPrototypes(found["prototypes.values"], found["prototypes.present"]),
            moments,
            named("descriptor/"),
            found.get("average"),
            facts["averaged"],
            facts["clip"],
        )
        if self.exchanges:
            self.accounts.replay(checkpoint.round_index)
        self.engine.states |= {
            name: replace(
                ClientState.from_bytes(value.numpy().tobytes()),
                receipt=bytes.fromhex(facts["receipts"][name]),
                request=bytes.fromhex(facts["requests"][name]),
                federation=bytes.fromhex(facts["run"]),
            )
            for name, value in named("client/").items()
        }
        self.witness.known = {name: _head(row) for name, row in facts["witnessed"].items()}
        self.recover()
        self.engine.traffic.totals = {way: dict(sizes) for way, sizes in facts["traffic"].items()}
        if self.home is not None:
            self.home.weights |= named("home/")

    def recover(self) -> None:
        """What clients stored after the last checkpoint counts: those replies are resent, not drawn again."""
        if self._store is not None:
            stored = {name: self._store.load(name) for name in self.dataset.clients}
            found = {name: state for name, state in stored.items() if state is not None}
            self.engine.states |= found
            for name, state in found.items():
                if state.receipt:  # the server may have countersigned more than its checkpoint knows
                    self.witness.learn(name, state.receipt)

    def facts(self) -> dict[str, Any]:
        """Everything of the run that is no array."""
        return {
            "federation": self.federation.facts.hex(),
            "run": self.federation.digest.hex(),
            "data": self._mark(self.dataset.fingerprint),
            "step_count": self.state.step.count,
            "averaged": self.state.averaged,
            "clip": self.state.clip,
            "traffic": self.engine.traffic.totals,
            "signers": {name: key.key.hex() for name, key in self.accounts.signers.items()},
            "ledgers": {name: asdict(head) for name, head in self.accounts.heads().items()},
            # signatures, keys and nonces differ between equal runs, whose tensors do not
            "receipts": {name: state.receipt.hex() for name, state in self.engine.states.items()},
            "requests": {name: state.request.hex() for name, state in self.engine.states.items()},
            "witnessed": {name: _row(head) for name, head in self.witness.known.items()},
        }


def _parties(accounts: Accounts, pins: Pins, nonce: bytes) -> Parties:
    roster = {name: key.key for name, key in accounts.roster.items()}
    digests = {name: pin.digest for name, pin in pins.items()}
    return Parties(nonce, accounts.server.public.key, roster, digests)


def _row(head: SignedHead) -> dict[str, Any]:
    return {**asdict(head), "hash": head.hash.hex(), "signature": head.signature.hex()}


def _head(row: Mapping[str, Any]) -> SignedHead:
    return SignedHead(row["owner"], row["rows"], bytes.fromhex(row["hash"]), bytes.fromhex(row["signature"]))
