"""The client: `handle(request, state) -> (reply, state)` on bytes, with no other input or output.

What it holds between requests is `ClientState`, a message like any other, so the same code runs in one process
or wakes up from a file at a real site. A reply is made once per round: the same request again gets the same
reply, another request for a round already answered is refused, because two different releases would leak more
than the one that was accounted.

It keeps its own account: what a reply will cost is spent, and on disk, before anything of it is computed, and a release
that would exceed the account's budget is refused here, whatever the server thinks is left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from framp_private.crypto.keys import Identity, PublicIdentity
from framp_private.data.base import ClientData
from framp_private.errors import ProtocolError
from framp_private.federated.accounts import Account
from framp_private.federated.federation import Federation
from framp_private.federated.local_training import AtHome, Observe, Summing
from framp_private.federated.messages import (
    Briefed,
    EnrolReply,
    EnrolRequest,
    PhiRequest,
    Request,
    TrainReply,
    TrainRequest,
    Trip,
    TripReply,
    read_request,
)
from framp_private.federated.prototypes import GlobalPrototypes, local_prototypes
from framp_private.federated.pullback import Pullback, contributions
from framp_private.federated.seats import Pins, answer_trip, asked_alike, take_briefs
from framp_private.models.mask_coding import decode_mask
from framp_private.models.submodel import Moments
from framp_private.privacy.events import Event, no_cost
from framp_private.protections.base import Channel, Member, Seat
from framp_private.randomness import Entropy
from framp_private.wire import decode, encode


class Plant(Protocol):
    """What an auditor puts into a client's values before they are noised: canaries, whose presence it then guesses.

    A run with canaries spends what any run spends: each stands for one more record, within its bounds.
    """

    def value(self, channel: Channel, round_index: int, value: np.ndarray) -> np.ndarray:
        """What is protected in place of a channel's value."""

    def step(self, round_index: int, clipped: Tensor) -> Tensor:
        """What is noised in place of the (n_parameters,) clipped sum of a step of DP-SGD."""


@dataclass(frozen=True)
class ClientState:
    """What a client keeps.

    descriptor: (d,) float32, empty before it is computed. answered: last round answered, -1 at first.
    request: SHA-256 of the last request. reply: the last reply where it holds noise, else empty: it can be made again.
    receipt: the last ledger head that the server countersigned, empty at first. federation: the digest that the first
    request was answered under, with everybody's keys in it. secret: by channel, what protocols hold between the
    messages of one round: secrets, which are never stored.
    """

    descriptor: np.ndarray
    answered: int
    request: bytes
    reply: bytes
    receipt: bytes
    federation: bytes
    secret: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def new(cls) -> ClientState:
        """The state of a client that has answered nothing."""
        return cls(np.zeros(0, np.float32), -1, b"", b"", b"", b"", {})

    def to_bytes(self) -> bytes:
        """The stored form, without what a protocol holds during a round: who restarts has dropped out of it."""
        return encode(replace(self, secret={}))

    @classmethod
    def from_bytes(cls, data: bytes) -> ClientState:
        """Reads the stored form; raises `WireError`."""
        return decode(data, cls)


@dataclass(frozen=True, eq=False)
class Client:
    """One client: its name, its records, and the public facts of the federation it agreed to."""

    name: str
    data: ClientData
    federation: Federation
    entropy: Entropy
    account: Account | None = None
    observe: Observe | None = None
    identity: Identity | None = None
    roster: Mapping[str, PublicIdentity] = field(default_factory=dict)
    pins: Pins = field(default_factory=dict)
    plant: Plant | None = None

    def handle(self, request: bytes, state: ClientState) -> tuple[bytes, ClientState]:
        """Answers one request.

        Raises:
            WireError: the bytes are no request. ProtocolError: another federation, a round that was answered before
            with other bytes or lies in the past, or values that do not fit the network.
            LedgerError: a stored reply that the ledger does not know.
            PrivacyBudgetExhausted: the account has not enough left. ReleaseLost: this round's release was spent
            before, and its bytes were lost.
        """
        digest = hashlib.sha256(request).digest()
        message = read_request(request)
        state = self._begun(state)
        if isinstance(message, Trip):
            return self._trip(message, state)
        brief = message if isinstance(message, Briefed) else None
        if brief is not None:
            message = read_request(brief.request)
        if isinstance(message, Trip | Briefed):
            raise ProtocolError("a message that holds another one held one more")
        if state.reply and digest == state.request:
            self._require_spent(message)
            return state.reply, state
        if message.federation != self.federation.digest:
            raise ProtocolError(
                "the request belongs to another federation than the one this client agreed to: "
                "compare the configurations of both sides"
            )
        round_index = -1 if isinstance(message, EnrolRequest) else message.round_index
        repeated = digest == state.request
        if round_index < state.answered or (state.request and round_index == state.answered and not repeated):
            raise ProtocolError(f"round={round_index} was answered before: a client answers each round once")
        mask = self._check(message)
        if not isinstance(message, EnrolRequest):
            state = replace(
                state, secret=take_briefs(self.federation, self._member, brief, round_index, state.secret, self.pins)
            )
        state = self._without_lost(state)
        self._spend(message)
        reply, state = self._answer(message, mask, state, brief.request if brief is not None else request)
        return reply, replace(
            state, answered=round_index, request=digest, reply=reply if self.federation.randomised else b""
        )

    def _begun(self, state: ClientState) -> ClientState:
        """Settles on one federation with the first request: settings, roster and encryption keys stay as they were."""
        if state.federation not in (b"", self.federation.digest):
            raise ProtocolError(
                f"client {self.name!r} began with another federation: settings, keys of its members or of an encrypted "
                "sum were changed since; restore them, or start a new run"
            )
        return replace(state, federation=self.federation.digest)

    def _trip(self, message: Trip, state: ClientState) -> tuple[bytes, ClientState]:
        if self._member is None:
            raise ProtocolError(f"client {self.name!r} has no keys: a secure sum takes an identity and a roster")
        fresh = message.round_index > state.answered
        reply, secret = answer_trip(self.federation, self._member, message, state.secret, fresh, self.pins)
        return encode(TripReply(reply)), replace(state, secret=secret)

    @property
    def _member(self) -> Member | None:
        if self.identity is None:
            return None
        return Member(self.name, self.identity, self.roster, self.federation.digest, self.entropy)

    def descriptor(self, state: ClientState) -> tuple[Tensor, ClientState]:
        """This client's descriptor, computed at the first call and kept; noised then, where it needs to be."""
        if len(state.descriptor) == 0:
            value = self.federation.describe(self.name, self.data)
            if (noised := self.federation.home_descriptor) is not None:
                if self.plant is not None:
                    value = self.plant.value("descriptor", -1, value)
                released = noised.reveal(noised.protect(value, self.entropy))
                value = self.federation.descriptor_of(released, self.federation.declared_by(self.name)).numpy()
            state = replace(state, descriptor=value)
        return torch.from_numpy(state.descriptor), state

    def _without_lost(self, state: ClientState) -> ClientState:
        """A descriptor that was spent and then lost is not drawn again: nothing is known of this client."""
        lost = len(state.descriptor) == 0 and self.account is not None and self.account.knows("home/descriptor")
        if self.federation.home_descriptor is None or not lost:
            return state
        return replace(state, descriptor=np.zeros(self.federation.descriptor.size(self.federation.network), np.float32))

    def _check(self, message: Request) -> Tensor:
        """Refuses a request that does not fit the federation, before anything is spent on it; returns the mask sent."""
        none = torch.zeros(0, dtype=torch.bool)
        federation, network = self.federation, self.federation.network
        if isinstance(message, EnrolRequest):
            if "descriptor" not in federation.channels:
                raise ProtocolError("no descriptor was agreed on: this federation has no such channel")
            return none
        if (federation.pullback is Pullback.SERVER) != isinstance(message, TrainRequest):
            raise ProtocolError(
                f"pullback={federation.pullback.value!r} was agreed, the request is a {type(message).__name__}"
            )
        if not 0 <= message.round_index < federation.rounds:
            raise ProtocolError(f"round={message.round_index} must lie in 0 .. {federation.rounds - 1}")
        mask = none
        if isinstance(message, TrainRequest):
            mask = torch.from_numpy(decode_mask(message.mask, network.n_parameters))
            kept = int(mask.sum())
            fits = message.values.dtype == np.float32 and message.values.shape == (kept,)
            if not fits or not np.isfinite(message.values).all():
                raise ProtocolError(f"the request's values do not fit its mask of {kept} coordinates")
        elif (
            message.phi.dtype != np.float32
            or message.phi.shape != (federation.generator.n_phi,)
            or not np.isfinite(message.phi).all()
        ):
            raise ProtocolError(f"the request's phi must be {federation.generator.n_phi} finite float32 values")
        else:
            self._check_moments(message)
        self._check_clip(message)
        if message.prototypes.size and (
            message.prototypes.shape != (network.n_classes, network.feature_dim)
            or message.prototypes.dtype != np.float32
            or message.present.shape != (network.n_classes,)
            or message.present.dtype != np.uint8
            or not np.isfinite(message.prototypes).all()
        ):
            raise ProtocolError(
                f"the request's prototypes must be {network.n_classes} x {network.feature_dim} finite values"
            )

        return mask

    def _check_moments(self, message: PhiRequest) -> None:
        known = (network := self.federation.network).n_parameters if self.federation.submodel.needs_moments else 0
        for moment in (message.first, message.second):
            if moment.shape not in ((0,), (known,)) or moment.shape != message.first.shape:
                raise ProtocolError(f"the request's moments do not fit a network of {network.n_parameters} parameters")
            if moment.dtype != np.float32 or not np.isfinite(moment).all():
                raise ProtocolError("the request's moments must be finite float32 values")

    def _check_clip(self, message: TrainRequest | PhiRequest) -> None:
        start = self.federation.plan.protection("update").starting_clip
        clip = message.clip if isinstance(message, PhiRequest) else 0.0
        if clip != 0.0 if not start else not 0 < clip < float("inf"):
            raise ProtocolError(f"clip={clip} does not fit a federation whose clip begins with {start:g}")

    def _spend(self, message: Request) -> None:
        """Spends what the reply will cost, before it is computed."""
        if self.account is not None:
            resend, releases = not self.federation.randomised, self._releases(message)
            clear = any(not event.private for event in releases.values())
            if self.federation.secure and clear and not isinstance(message, EnrolRequest):
                # what is sent without a guarantee has no row for each round, and must not be in two sums of one either,
                # not even from a client whose other files are an older copy
                part = no_cost(self.federation.unit, self.federation.relation, "took part in a secure sum")
                self.account.spend({f"round {message.round_index}/sum": part})
            self.account.spend(releases, seeded=self.entropy.seeded, resend=resend)

    def _require_spent(self, message: Request) -> None:
        """A stored reply goes out again only if the ledger still knows that it was paid for."""
        if self.account is not None:
            self.account.require(self._releases(message))

    def _releases(self, message: Request) -> dict[str, Event]:
        """What the reply to a request costs, by label."""
        federation = self.federation
        first = federation.at_home(self.name)
        if isinstance(message, EnrolRequest):
            return {**first, "enrolment/descriptor": federation.event("descriptor", self.name)}
        rounds = range(message.round_index + 1) if federation.sampled else [message.round_index]
        each = federation.round_events(self.name)
        return {**first, **{f"round {index}/{name}": event for index in rounds for name, event in each.items()}}

    def _answer(self, message: Request, mask: Tensor, state: ClientState, asked: bytes) -> tuple[bytes, ClientState]:
        """The reply to a request, whose bytes are `asked`."""
        if isinstance(message, EnrolRequest):
            value = self.federation.describe(self.name, self.data)  # never stored: only what noise made of it is
            return encode(EnrolReply(self._protect("descriptor", value, state, asked, message))), state
        update, state = (
            self._train(message, mask, state, asked)
            if isinstance(message, TrainRequest)
            else self._train_phi(message, state, asked)
        )
        prototypes = b""
        if self.federation.aligns:
            prototypes = self._protect("prototypes", self._local_prototypes(message.round_index), state, asked, message)
        return encode(TrainReply(message.federation, message.round_index, update, prototypes, b"")), state

    def _train(
        self, message: TrainRequest, mask: Tensor, state: ClientState, asked: bytes
    ) -> tuple[bytes, ClientState]:
        """Trains the submodel that was sent; uploads given minus trained on the mask's coordinates."""
        network = self.federation.network
        given = torch.zeros(network.n_parameters)
        given[mask] = torch.from_numpy(message.values)
        delta = self._delta(given, mask, message)
        return self._protect("update", delta[mask].numpy(), state, asked, message), state

    def _train_phi(self, message: PhiRequest, state: ClientState, asked: bytes) -> tuple[bytes, ClientState]:
        """Generates and masks its own submodel from phi, trains it, uploads its contribution to the step on phi."""
        federation, budget = self.federation, self.federation.budgets[self.name]
        phi = torch.from_numpy(message.phi)
        descriptor, state = self.descriptor(state) if federation.personalised else (torch.zeros(0), state)
        moments = (
            Moments(torch.from_numpy(message.first), torch.from_numpy(message.second)) if len(message.first) else None
        )
        weights = federation.weights(phi, descriptor, budget)
        mask = federation.mask(weights, budget, moments)
        given = weights * mask
        delta = self._delta(given, mask, message)
        value = contributions(
            federation.generator,
            phi,
            descriptor[None],
            torch.tensor([budget]),
            delta[None],
            mask[None],
            resting=federation.rests(message.round_index),
            counted=federation.step.counted,
            moves=federation.step.moves,
        )
        return self._protect("update", value, state, asked, message), state

    def _delta(self, given: Tensor, mask: Tensor, message: TrainRequest | PhiRequest) -> Tensor:
        """Given minus trained weights."""
        federation, trainer = self.federation, self.federation.trainer
        prototypes = None
        if message.prototypes.size:
            prototypes = GlobalPrototypes(
                torch.from_numpy(message.prototypes), torch.from_numpy(message.present).bool()
            )
        planted = partial(self.plant.step, message.round_index) if self.plant is not None else None
        home = AtHome(self.entropy, federation.declared_by(self.name), self.observe, planted)
        if isinstance(trainer, Summing):
            return trainer.delta(federation.network, given, mask, self.data, prototypes, home)
        streams = federation.streams.child("local", self.name, message.round_index)
        progress = federation.progress(message.round_index)
        return given - trainer.train(federation.network, given, mask, self.data, prototypes, streams, progress, home)

    def _local_prototypes(self, round_index: int) -> np.ndarray:
        """Class sums under the weights that are loaded after training, over all training records or a fresh sample."""
        federation, rows = self.federation, self.data.train
        limit = federation.prototype_records
        if limit is not None and limit < len(rows):
            generator = federation.streams.child("prototypes", self.name, round_index).torch()
            rows = rows[torch.randperm(len(rows), generator=generator)[:limit]]
        return local_prototypes(federation.network, self.data, rows, federation.weighting, federation.prototype_bound)

    def _protect(
        self, channel: Channel, value: np.ndarray, state: ClientState, asked: bytes, message: Request
    ) -> bytes:
        protection = self.federation.plan.protection(channel)
        if isinstance(message, PhiRequest) and message.clip:
            protection = protection.at(message.clip)
        deviation = getattr(protection, "deviation", None)
        if self.observe is not None and protection.randomised and deviation is not None:
            self.observe(channel, "signal_to_noise", float(np.linalg.norm(value)) / (deviation * value.size**0.5))
        place = self.federation.seat_of(channel)
        round_index = -1 if isinstance(message, EnrolRequest) else message.round_index
        if self.plant is not None:
            value = self.plant.value(channel, round_index, value)
        member = replace(self._member, pin=self.pins.get(place)) if self._member is not None else None
        held = state.secret.get(place, b"")
        alike = asked_alike(self.federation, asked)
        saturated = partial(self.observe, channel, "saturated") if self.observe is not None else None
        return protection.protect(
            value, self.entropy, Seat(channel, self.federation.cohort, held, alike, round_index, member, saturated)
        )
