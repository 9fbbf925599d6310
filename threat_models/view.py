"""What one adversary has: logged bytes, the public facts of the federation, and released models. Nothing else.

An attack is a function of a `View` and of auxiliary data that it declares as arguments (a gallery, reference records,
the records whose membership is asked). It never gets a client, a data set or the run. `to_bytes` is all of a view, so
that an attack can run in another process: what is not in those bytes cannot reach a score.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framp_private import Delivery, Federation, decode, decode_mask, messages
from framp_private.errors import PlanError
from threat_models.adversaries import Adversary, Capability
from threat_models.errors import AuditError, NotInView
from threat_models.facts import PublicFacts

Log = Sequence[tuple[str, Delivery]]
"""(phase, delivery) in order; phases are `enrolment` and `round-NNNNNN`, as `read_transcript` gives them."""

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, eq=False)
class Update:
    """What a client uploaded on the update channel in a round, where it can be seen.

    mask: (n,) bool. given: (n,) float32 weights it was sent, None where it made them itself. delta: (n,) given minus
    trained, zero outside the mask. near: (n,) what is known of the given weights: they, or theta_0 on the mask.
    """

    round_index: int
    client: str
    mask: Tensor
    given: Tensor | None
    delta: Tensor
    near: Tensor

    @property
    def trained(self) -> Tensor:
        """(n,) the weights after training. Raises `NotInView` where the given ones are not known."""
        if self.given is None:
            raise NotInView("the client generated its own weights: the server knows only how it would move them")
        return self.given - self.delta


@dataclass(frozen=True, eq=False)
class ClassSums:
    """What a client uploaded on the prototype channel: (n_classes, d) sums of representations, (n_classes,) counts."""

    round_index: int
    client: str
    sums: np.ndarray
    counts: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(n_classes, d) prototypes; zero where a count is not positive."""
        known = self.counts > 0
        return np.where(known[:, None], self.sums / np.where(known, self.counts, 1.0)[:, None], 0.0)


@dataclass(frozen=True, eq=False)
class View:
    """See the module.

    adversary: whose. facts: known to all parties, without the simulation's seeds. log: the messages it saw. released:
    name -> (n,) float32 weights.
    """

    adversary: Adversary
    facts: PublicFacts
    log: Log
    released: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        adversary: Adversary,
        facts: Federation | PublicFacts,
        log: Log,
        released: Mapping[str, np.ndarray] | None = None,
    ) -> View:
        """The part of a run that an adversary sees."""
        facts = facts if isinstance(facts, PublicFacts) else PublicFacts.of(facts)
        seen = [(phase, delivery) for phase, delivery in log if adversary.sees(delivery.client)]
        return cls(adversary, facts, seen, (released or {}) if "released_models" in adversary.capabilities else {})

    def to_bytes(self) -> bytes:
        """All of it but the public facts."""
        parts = []
        for phase, each in self.log:
            head = {"phase": phase, "trip": each.trip, "direction": each.direction, "client": each.client}
            parts += [json.dumps(head).encode(), each.data]
        for name, weights in self.released.items():
            parts += [json.dumps({"released": name}).encode(), np.asarray(weights, "<f4").tobytes()]
        return b"".join(_LENGTH.pack(len(part)) + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, adversary: Adversary, facts: PublicFacts) -> View:
        """Reads `to_bytes` back; raises `AuditError` if it was cut or altered in form."""
        pieces, at = [], 0
        while at < len(data):
            start = at + _LENGTH.size
            end = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else len(data) + 1
            if end > len(data):
                raise AuditError("a view is truncated")
            pieces.append(data[start:end])
            at = end
        log, released = [], {}
        try:
            for head, body in zip(pieces[::2], pieces[1::2], strict=True):
                row: dict[str, Any] = json.loads(head)
                if "released" in row:
                    released[row["released"]] = np.frombuffer(body, "<f4")
                else:
                    log.append((row["phase"], Delivery(row["trip"], row["direction"], row["client"], body)))
        except (ValueError, TypeError, KeyError) as error:
            raise AuditError("a view was altered") from error
        return cls(adversary, facts, log, released)

    def require(self, *capabilities: Capability) -> None:
        """Raises `NotInView` unless the adversary has one of some capabilities."""
        if not self.adversary.capabilities & set(capabilities):
            raise NotInView(f"{self.adversary.name} has no capability {' or '.join(map(repr, capabilities))}")

    def exchanges(self) -> Iterator[tuple[str, messages.Request, messages.Reply]]:
        """(client, request, reply) of enrolment and training, in order, as far as they were seen."""
        asked: dict[str, messages.Request] = {}
        for _, each in self.log:
            message = _inner(each)
            if isinstance(message, messages.EnrolRequest | messages.TrainRequest | messages.PhiRequest):
                asked[each.client] = message
            elif isinstance(message, messages.EnrolReply | messages.TrainReply) and each.client in asked:
                yield each.client, asked[each.client], message

    def updates(self, rounds: Collection[int] | None = None) -> Iterator[Update]:
        """Every update that is seen singly, of some rounds or of all.

        Raises:
            NotInView: the protection shows no client's value.
        """
        self.require("uploads", "own_records")
        n = self.facts.network.n_parameters
        for client, request, reply in self.exchanges():
            if not isinstance(reply, messages.TrainReply) or (rounds is not None and reply.round_index not in rounds):
                continue
            value = self._reveal("update", reply.update)
            if isinstance(request, messages.TrainRequest):
                mask = torch.from_numpy(decode_mask(request.mask, n))
                given, delta = torch.zeros(n), torch.zeros(n)
                given[mask], delta[mask] = torch.from_numpy(request.values), torch.from_numpy(value)
                yield Update(reply.round_index, client, mask, given, delta, given)
            else:
                delta = torch.from_numpy(value[:n].copy())
                counted = self.facts.step.counted
                mask = torch.from_numpy(value[-n:] > 0.5) if counted else delta != 0
                theta_0 = (
                    torch.from_numpy(request.phi[:n].copy()) if isinstance(request, messages.PhiRequest) else delta
                )
                yield Update(reply.round_index, client, mask, None, delta, theta_0 * mask)

    def class_sums(self) -> Iterator[ClassSums]:
        """Every prototype upload that is seen singly, counts in records. Raises `NotInView` as `updates`."""
        self.require("uploads", "own_records")
        network, bound = self.facts.network, self.facts.prototype_bound
        for client, _, reply in self.exchanges():
            if isinstance(reply, messages.TrainReply) and self.facts.aligns:
                rows = self._reveal("prototypes", reply.prototypes).reshape(network.n_classes, -1)
                weight = bound.count_weight if bound is not None else 1.0
                yield ClassSums(reply.round_index, client, rows[:, :-1], rows[:, -1] / weight)

    def descriptors(self) -> dict[str, np.ndarray]:
        """Every descriptor that was sent, as it arrived. Raises `NotInView` where none was."""
        self.require("uploads", "own_records")
        found = {
            client: self._reveal("descriptor", reply.descriptor)
            for client, _, reply in self.exchanges()
            if isinstance(reply, messages.EnrolReply)
        }
        if not found:
            raise NotInView("no descriptor left a client")
        return found

    def global_prototypes(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """round -> ((n_classes, d) prototypes, (n_classes,) bool present), as clients were sent them."""
        self.require("requests")
        found = {}
        for _, each in self.log:
            message = _inner(each)
            if isinstance(message, messages.TrainRequest | messages.PhiRequest) and message.prototypes.size:
                found[message.round_index] = (message.prototypes, message.present.astype(bool))
        if not found:
            raise NotInView("no prototypes were sent")
        return found

    def generated(self) -> dict[str, tuple[Tensor, Tensor]]:
        """client -> the last (weights, mask) that it was sent. Raises `NotInView` where clients made their own."""
        self.require("requests")
        n, found = self.facts.network.n_parameters, {}
        for _, each in self.log:
            message = _inner(each)
            if isinstance(message, messages.TrainRequest):
                mask = torch.from_numpy(decode_mask(message.mask, n))
                weights = torch.zeros(n)
                weights[mask] = torch.from_numpy(message.values)
                found[each.client] = (weights, mask)
        if not found:
            raise NotInView("no generated model was sent")
        return found

    def totals(self) -> dict[int, np.ndarray]:
        """round -> (n,) the opened total on theta_0, read off how phi moved between two requests.

        The total of the last round is not among them: nobody is sent what came of it.

        Raises:
            NotInView: phi did not travel, or theta_0 moves by counts that are not seen.
        """
        self.require("requests")
        facts, phis = self.facts, {}
        for _, each in self.log:
            message = _inner(each)
            if isinstance(message, messages.PhiRequest):
                phis[message.round_index] = message.phi[: facts.network.n_parameters].astype(np.float64)
        if not phis or facts.step.counted:
            raise NotInView("no total can be read off phi: it did not travel, or moves by a mean over unseen counts")
        scale = facts.cohort / facts.step.backbone_rate
        return {t: (phis[t] - phis[t + 1]) * scale for t in phis if t + 1 in phis}

    def sizes(self) -> dict[str, list[int]]:
        """client -> bytes of each of its replies, in order."""
        self.require("uploads", "own_records")
        found: dict[str, list[int]] = {}
        for _, each in self.log:
            if each.direction == "up":
                found.setdefault(each.client, []).append(len(each.data))
        return found

    def _reveal(self, channel: Any, payload: bytes) -> np.ndarray:
        try:
            return self.facts.plan.protection(channel).reveal(payload)
        except PlanError as error:
            raise NotInView(str(error)) from error


def _inner(delivery: Delivery) -> object:
    """The message in an envelope and in a brief; None for one that only carries a receipt."""
    known = (
        messages.EnrolRequest,
        messages.EnrolReply,
        messages.TrainRequest,
        messages.PhiRequest,
        messages.TrainReply,
        messages.Trip,
        messages.TripReply,
        messages.Briefed,
    )
    body = delivery.message
    if not body:
        return None
    message: object = decode(body, *known)
    return decode(message.request, *known) if isinstance(message, messages.Briefed) else message
