"""What replays must show: checks of one client's real code, on made-up neighbours of its records.

calls          the sequence of draws does not depend on the records
sensitivity    one record moves no release by more than is declared, whatever it is: huge, or not finite
everywhere     no coordinate of a noised release is the same under other draws
fresh          every release draws, as much as the first one did, and no two are the same
precision      released values are no coarser than float32
sampling       batch sizes have a binomial's spread
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from framp_private import ClientData, Federation
from framp_private.errors import FrampError
from threat_models.auditing.replay import Finding, Release, bounds, neighbours, play, requests_of, resting
from threat_models.errors import AuditError
from threat_models.facts import sampling_of

ROOM = 1 + 1e-4
"""float32 sums of long vectors may be off by so much."""

_STREAM = (32, 16)
"""Bytes of the key and of the counter that open a stream of noise, drawn one after the other."""


def check_neighbours(federation: Federation, client: str, data: ClientData, *, seed: int = 0) -> list[Finding]:
    """calls and sensitivity, over pairs of neighbours; one local step: later ones go on from what it moved."""
    found: list[Finding] = []
    one_step = replace(federation, trainer=_one_step(federation))
    sampled = sampling_of(federation.trainer) < 1
    for rested, made in ((False, one_step), (True, resting(one_step))):
        declared = bounds(made, client)
        wanted = [name for name in declared if (name == "prototypes") == rested]
        requests = requests_of(made, client, 1)
        for words, one, other in neighbours(data):
            try:
                pair = [play(made, client, records, requests, seed) for records in (one, other)]
            except FrampError as error:  # whoever sees that a client fails because of its records has been told of them
                found.append(Finding("sensitivity", "all", f"{words} makes the client fail: {error}"))
                continue
            for first, second in zip(*pair, strict=True):
                found += _calls(first, second, words, [len(records.train) * sampled for records in (one, other)])
                for channel in wanted:
                    if channel in first.values:
                        found += _sensitivity(channel, first, second, declared[channel], words)
    return found


def _one_step(federation: Federation) -> Any:
    trainer: Any = federation.trainer
    if hasattr(trainer, "fiarse"):  # a public factor on what was noised
        trainer = replace(trainer, fiarse=False)
    return replace(trainer, steps=1) if hasattr(trainer, "sampling_probability") else trainer


def mechanism(federation: Federation) -> Federation:
    """One step of the same federation on all records: what noise is sized for, whatever sampling then amplifies."""
    trainer = _one_step(federation)
    if hasattr(trainer, "sampling_probability"):
        trainer = replace(trainer, sampling_probability=1.0, momentum=0.0)
    return replace(federation, trainer=trainer)


def _calls(first: Release, second: Release, words: str, sampled: Sequence[int]) -> Iterable[Finding]:
    """The draw of 8 bytes a record that decides who is sampled, at home, may follow the records; it comes first."""

    def public(calls: tuple[int, ...], records: int) -> list[int]:
        left = list(calls)
        if records and 8 * records in left:
            left.remove(8 * records)
        return [count for count in left if count]

    if public(first.calls, sampled[0]) != public(second.calls, sampled[1]):
        yield Finding("calls", "all", f"the sequence of draws depends on {words}")


def _sensitivity(channel: str, first: Release, second: Release, declared: float, words: str) -> Iterable[Finding]:
    one, other = first.values[channel], second.values[channel]
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        yield Finding("sensitivity", channel, f"{words} makes the release not finite")
        return
    moved = float(np.linalg.norm(one.astype(float) - other.astype(float)))
    # both were rounded to float32 next to noise of their own size
    room = declared * ROOM + 2.0**-23 * float(np.linalg.norm(one))
    if moved > room:
        yield Finding("sensitivity", channel, f"{words} moves the release by {moved:.4g}, declared is {declared:.4g}")


def check_noise(
    federation: Federation, client: str, data: ClientData, *, rounds: int = 3, seed: int = 1
) -> list[Finding]:
    """everywhere, fresh and precision, over two seeds and some rounds."""
    requests = requests_of(federation, client, min(rounds, federation.rounds))
    plays = [play(federation, client, data, requests, seed) for seed in (seed, seed + 1)]
    noised = set(bounds(federation, client))
    found: list[Finding] = []
    for first, second in zip(*plays, strict=True):
        for channel in noised & set(first.values):
            one, other = (_noised_part(federation, channel, each.values[channel]) for each in (first, second))
            same = int((one == other).sum())
            if same > 1 + 1e-5 * one.size:  # float32 values of one size agree by chance once in 2^22
                found.append(Finding("everywhere", channel, f"{same} of {one.size} values are equal under other draws"))
            coarse = np.asarray(one, np.float32)
            if (coarse.astype(np.float16).astype(np.float32) == coarse).mean() > 0.5:
                found.append(Finding("precision", channel, "values lie on the grid of float16"))
    trained = [release for release in plays[0] if "update" in release.values]
    keys = [sum(pair == _STREAM for pair in pairwise(release.calls)) for release in trained]
    if not keys or min(keys) == 0 or len(set(keys[1:])) > 1 or keys[0] < keys[-1]:  # the first may noise a descriptor
        found.append(
            Finding("fresh", "all", f"rounds open {keys} streams of noise, each must open as many as the first")
        )
    for channel in noised:
        values = [release.values[channel] for release in trained if channel in release.values]
        for one, other in pairwise(values):
            if one.shape == other.shape and np.array_equal(one, other):
                found.append(Finding("fresh", channel, "two rounds released the very same values"))
    return found


def _noised_part(federation: Federation, channel: str, value: np.ndarray) -> np.ndarray:
    """A contribution without the mask behind it, which is public."""
    counted = channel == "update" and federation.pullback.value == "client" and federation.step.counted
    return value[: -federation.network.n_parameters] if counted else value


def check_sampling(
    federation: Federation, client: str, data: ClientData, *, draws: int = 60, alpha: float = 1e-3, first: int = 0
) -> list[Finding]:
    """The spread of batch sizes, from what one step moves: all records are made equal, and the noise taken off.

    Batches of one size, as a shuffled data set gives, have none. Two-sided, at quantiles of simulated binomials.
    """
    trainer = federation.trainer
    q = sampling_of(trainer)
    if q >= 1:
        return []
    made = replace(federation, trainer=_one_step(federation))
    requests = requests_of(made, client, 1)
    alike = data.train[:1].repeat(data.n_train)
    x, y = data.x.clone(), data.y.clone()
    x[data.train], y[data.train] = data.x[alike], data.y[alike]
    equal, nothing = replace(data, x=x, y=y), replace(data, train=data.train[:0])
    sizes = []
    for seed in range(first, first + draws):
        whole, noise = (
            play(made, client, records, requests, seed)[-1].values["update"] for records in (equal, nothing)
        )
        sizes.append(float(np.linalg.norm(whole.astype(float) - noise)))
    unit = _move_of_one(made, client, equal)
    if unit == 0:
        raise AuditError("the made-up records move nothing: sampling cannot be seen")
    spread = float(np.var(np.array(sizes) / unit, ddof=1))
    simulated = np.random.default_rng(0).binomial(data.n_train, q, (20_000, draws)).var(1, ddof=1)
    low, high = np.quantile(simulated, [alpha / 2, 1 - alpha / 2])
    if low <= spread <= high:
        return []
    share = spread / (data.n_train * q * (1 - q))
    return [Finding("sampling", "update", f"batch sizes have {share:.2f} times a binomial's variance")]


def _move_of_one(federation: Federation, client: str, equal: ClientData) -> float:
    """What one of the equal records moves where it is taken: a batch of it alone against an empty one."""
    trainer: Any = federation.trainer
    whole = replace(federation, trainer=replace(trainer, sampling_probability=1.0))
    asked = requests_of(whole, client, 1)
    parts = [replace(equal, train=equal.train[:count]) for count in (1, 0)]
    one, none = (play(whole, client, records, asked, 0)[-1].values["update"].astype(float) for records in parts)
    return float(np.linalg.norm(one - none)) / float(trainer.sampling_probability)
