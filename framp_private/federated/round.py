"""One round of FRAMP, top to bottom. Nothing else orchestrates.

::

    server                                          client i
    ------                                          --------
    theta_i = h(z_i, budget_i; phi)
    mask_i  = the int(budget_i P) largest |theta_i|
        ── theta_i[mask_i], mask_i, prototypes ──>  train: cross entropy + lambda * alignment
                                                    delta_i = given - trained, on the mask
                                                    class sums of representations, and counts
        <── protect(delta_i), protect(sums) ──────
    total = sum_i J_i^T delta_i
    phi        <- phi - step(total)
    prototypes <- summed sums / summed counts

`pullback='client'` moves the first two lines and J_i^T to the client: phi travels down, J_i^T delta_i up.
Whatever leaves a client does so in a named channel that the plan protects. A client that does not answer has
dropped out; the protections decide whether the survivors are enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from framp_private.crypto.keys import PublicIdentity
from framp_private.errors import ProtocolError
from framp_private.federated import server, trips
from framp_private.federated.federation import Federation
from framp_private.federated.messages import EnrolReply, EnrolRequest, TrainReply
from framp_private.federated.seats import NO_PINS, Pins
from framp_private.federated.server import ServerState
from framp_private.protections.base import Channel, Exchange
from framp_private.wire import decode, encode

NOBODY: Mapping[str, PublicIdentity] = MappingProxyType({})
UPLOADS: tuple[Channel, ...] = ("update", "prototypes")
"""The channels that carry a value in every round."""


@dataclass(frozen=True)
class RoundReport:
    """What happened: who was asked, who answered, and what the protections measured."""

    round_index: int
    cohort: tuple[str, ...]
    survivors: tuple[str, ...]
    measurements: dict[str, float]


def enrol(federation: Federation, state: ServerState, exchange: Exchange) -> ServerState:
    """Collects every client's descriptor, once, where the server generates models from it.

    Raises:
        ProtocolError: a client did not answer, or sent a descriptor of the wrong length.
    """
    if "descriptor" not in federation.channels:
        return state
    request = encode(EnrolRequest(federation.digest))
    protection, size = federation.plan.protection("descriptor"), federation.descriptor.size(federation.network)
    descriptors = {}
    for client, reply in exchange(dict.fromkeys(federation.budgets, request)):
        value = protection.reveal(decode(reply, EnrolReply).descriptor)
        if value.shape != (size,):
            raise ProtocolError(f"client {client!r} sent a descriptor of shape {value.shape}, must be ({size},)")
        descriptors[client] = federation.descriptor_of(value, federation.declared_by(client))
    missing = sorted(set(federation.budgets) - set(descriptors))
    if missing and federation.randomised:  # spent and lost in a crash: never drawn again, so nothing is known of them
        descriptors |= {client: torch.zeros(size) for client in missing}
    elif missing:
        raise ProtocolError(
            f"no descriptor from {', '.join(missing)}: every client must answer once before the first round"
        )
    rows = torch.stack([descriptors[client] for client in federation.budgets])
    phi = federation.generator.calibrate(state.phi, rows, torch.tensor(list(federation.budgets.values())))
    return replace(state, descriptors=descriptors, phi=phi)


def run_round(
    federation: Federation,
    state: ServerState,
    exchange: Exchange,
    roster: Mapping[str, PublicIdentity] = NOBODY,
    pins: Pins = NO_PINS,
) -> tuple[ServerState, RoundReport]:
    """One round: returns the moved state, or raises and leaves the given one untouched.

    Args:
        roster: the clients' pinned keys, for secure sums. pins: of encrypted sums, by channel.

    Raises:
        BelowThreshold: too few clients answered. ProtocolError, WireError: a reply that must be refused.
    """
    channels = [channel for channel in UPLOADS if channel in federation.channels]
    cohort = server.draw_cohort(federation, state.round_index)
    requests = server.make_requests(federation, state, cohort)
    lifts, sizes = server.lifts(requests), server.value_sizes(federation)
    meetings = trips.meetings(federation, state.round_index, channels, roster, exchange, pins, requests)

    # Before the values travel: protocols that need keys or shares first make their trips here.
    sessions = {
        channel: server.protection(federation, state, channel).open(
            cohort, sizes[channel], lifts[channel], exchange, meetings[channel]
        )
        for channel in channels
    }

    # Clients generate or receive their submodel, train, protect, answer.
    survivors = []
    for client, data in exchange(trips.briefed(federation, requests, sessions)):
        reply = decode(data, TrainReply)
        if (reply.federation, reply.round_index) != (federation.digest, state.round_index):
            raise ProtocolError(f"client {client!r} answered for another federation or round than {state.round_index}")
        for channel, session in sessions.items():
            session.add(client, getattr(reply, channel))
        survivors.append(client)

    # Only totals come out of the sessions, and only they move the state.
    totals = {channel: session.close(exchange) for channel, session in sessions.items()}
    measurements = {
        f"{channel}.{name}": value for channel, total in totals.items() for name, value in total.measurements.items()
    }
    return server.apply(federation, state, totals), RoundReport(
        state.round_index, cohort, tuple(survivors), measurements
    )
