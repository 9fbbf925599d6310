"""Summaries of sweeps and comparisons that hold all that their reports can show."""

from __future__ import annotations

from typing import Any

from framp_private.sweep import Sweep, sweep_of
from framp_private.sweep.record import Record
from framp_private.sweep.results import summarise

VIEW = {
    "update": {
        "protection": "PlainSum",
        "granularity": "client",
        "trust": "nobody",
        "metadata": ["sizes"],
        "noise": "client",
    }
}
ACCOUNTS = [
    {
        "unit": "record",
        "relation": "add/remove",
        "runs": 9,
        "without_guarantee": 1,
        "outside": 3,
        "trust_models": ["any server"],
        "delta": 1e-5,
        "epsilon": None,
        "epsilon_with_guarantee": 11.5,
        "ledger": {"rows": 10, "hash": "ab" * 32, "file": "ledgers/record-add-remove.jsonl"},
    },
    {
        "unit": "client",
        "relation": "add/remove",
        "runs": 3,
        "without_guarantee": 0,
        "outside": 0,
        "trust_models": ["trusted server"],
        "delta": 1e-5,
        "epsilon": 7.25,
        "epsilon_with_guarantee": 7.25,
        "ledger": {"rows": 4, "hash": "cd" * 32, "file": "ledgers/client-add-remove.jsonl"},
    },
]
WRITTEN: dict[str, Any] = {
    "name": "shown",
    "axes": {
        "guarantee": {"own <noise>": {"preset": "digits-private"}, "trusted": {"preset": "digits-client-private"}},
        "privacy.epsilon": [1, 4],
    },
    "references": {"open": {"preset": "digits"}, "at home": {"method": "local"}},
    "seeds": [0, 1],
    "objectives": ["local", "epsilon", "bytes"],
}


def row(unit: str | None, epsilon: float | None, local: float, seed: int = 0) -> dict[str, Any]:
    """What a study keeps of a run that reached so much at full budget."""
    table = {"1": local, "1/4": local - 0.1, "mean": local}
    claim = {
        "epsilon": epsilon,
        "delta": 1e-5,
        "relation": "add/remove",
        "trust_model": "any server",
        "scope": "this run alone",
    }
    return {
        "seed": seed,
        "accuracy": dict.fromkeys(("local", "union", "after_local_training"), table),
        "worst_client": local - 0.2,
        "unit": unit,
        "epsilon": epsilon,
        "privacy": {"record": claim, "client": claim},
        "bytes": 12345,
        "seconds": 1.5,
        "server_view": VIEW if epsilon != 0 else {},
        "provenance": {"versions": {"python": "3.11", "torch": "2.9"}, "code_sha256": "0" * 64},
    }


def shown_summary(written: dict[str, Any] | None = None, **choosing: Any) -> dict[str, Any]:
    """Two references, two guarantees at two epsilons, two seeds; one trial failed and one point pruned."""
    sweep: Sweep = sweep_of(written or WRITTEN)
    trials = []
    for number in range(12):
        place, seed = number % 6, number // 6
        point = None if place < 2 else list(sweep.grid())[place - 2]
        unit = None if place < 2 else ("record", "client")[(place - 2) // 2]
        epsilon = (None, 0.0)[place] if place < 2 else float(point["privacy.epsilon"]) if point else None
        local = 0.4 + 0.05 * place + 0.02 * seed
        found = row(unit, epsilon, local, seed)
        values = (local, epsilon if epsilon is not None else float("inf"), 12345.0)
        reference = list(sweep.references)[place] if place < 2 else None
        record = Record(number, "complete", place, seed, False, reference, point or {}, values, found)
        if number == 11:
            record = Record(number, "failed", place, seed, params=point or {}, error="ValueError: <b>no</b>\nTraceback")
        trials.append(record)
    return summarise(sweep, trials, {"records": "private", "publish": "all", "accounts": ACCOUNTS, **choosing})


def chosen_summary() -> dict[str, Any]:
    """Three repetitions of which one is published."""
    written = {
        "name": "best",
        "axes": {"privacy.epsilon": [1, 2]},
        "sampler": "random",
        "choosing": {"publish": "best", "mean": 3},
        "objectives": ["local"],
    }
    trials = [
        Record(
            at,
            "complete",
            at,
            0,
            params={"privacy.epsilon": "1"},
            values=(0.5 + at / 10,),
            result=row("record", 1.0, 0.5, 0),
        )
        for at in range(3)
    ]
    choosing = {"records": "private", "publish": "best", "accounts": [{**ACCOUNTS[1], "unit": "record"}]}
    return summarise(sweep_of(written), trials, choosing)
