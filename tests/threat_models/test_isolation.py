"""What can reach a score: the bytes of a view, and nothing of the truth; under shuffled truth attacks are at chance."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from threat_models.adversaries import CuriousClient, ExternalUser, HonestServer
from threat_models.sources import subject_of_folder
from threat_models.trials import Subject, attack_run
from threat_models.view import View

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def subject(open_run) -> Subject:
    return subject_of_folder(open_run)[0]


def scores(subject: Subject, adversary, log=None) -> dict[str, bytes]:
    """Of every attack of an adversary on one client's records, made in a process of its own."""
    name = list(subject.dataset.clients)[1]
    data = subject.dataset.clients[name]
    rows = torch.cat([data.train, data.test]).sort().values  # in an order that says nothing
    asked = {"client": name, "x": data.x[rows], "y": data.y[rows]}
    view = View.of(adversary, subject.facts, subject.log if log is None else log, subject.released)
    payload = pickle.dumps((view.to_bytes(), adversary, view.facts, asked))
    done = subprocess.run(
        [sys.executable, "-m", "tests.threat_models.isolated"],
        input=payload,
        capture_output=True,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    return pickle.loads(done.stdout)


SERVER, USER, CLIENT = HonestServer(), ExternalUser(), CuriousClient("client-00")


@pytest.fixture(scope="module")
def whole(subject: Subject) -> dict[str, dict[str, bytes]]:
    return {adversary.name: scores(subject, adversary) for adversary in (SERVER, USER, CLIENT)}


@pytest.mark.parametrize("adversary", [SERVER, USER, CLIENT])
def test_attacks_have_the_bytes_of_their_view_alone(subject: Subject, whole, adversary) -> None:
    # the truth changes and no bit of any score does: members and non-members of every client trade places
    flipped = {name: replace(data, train=data.test, test=data.train) for name, data in subject.dataset.clients.items()}
    other = replace(subject, dataset=replace(subject.dataset, clients=flipped))
    assert scores(other, adversary) == whole[adversary.name]


def poisoned(log):
    """The last round's messages carry the values of the round before."""
    before = {(each.client, each.direction, each.trip): each.data for phase, each in log if phase == "round-000002"}
    return [
        (phase, replace(each, data=before[each.client, each.direction, each.trip]) if phase == "round-000003" else each)
        for phase, each in log
    ]


def test_what_is_in_the_bytes_does_reach_them(subject: Subject, whole) -> None:
    before, changed = whole[SERVER.name], scores(subject, SERVER, poisoned(subject.log))
    assert {name for name in before if changed[name] != before[name]} >= {"A1", "FedMIA", "A2", "A3"}
    assert scores(subject, CLIENT, poisoned(subject.log)) != whole[CLIENT.name]
    noised = {name: weights + 0.1 for name, weights in subject.released.items()}
    assert scores(replace(subject, released=noised), USER) != whole[USER.name]


def test_a_view_carries_no_seed_and_no_weights_that_others_loaded(subject: Subject) -> None:
    facts = subject.server.facts
    assert not hasattr(facts, "streams")
    assert str(subject.facts.streams).encode() not in pickle.dumps(facts)
    subject.facts.network.load(torch.full((subject.facts.network.n_parameters,), 7.0))
    assert float(View.of(HonestServer(), subject.facts, subject.log).facts.network.weights.abs().max()) < 7


# -- shuffled truth


def shuffled(subject: Subject) -> Subject:
    """Each client's records are split anew, without a look at who was trained on."""
    rng, clients = np.random.default_rng(0), {}
    for name, data in subject.dataset.clients.items():
        rows = torch.cat([data.train, data.test])[torch.from_numpy(rng.permutation(data.n_train + len(data.test)))]
        clients[name] = replace(data, train=rows[: data.n_train], test=rows[data.n_train :])
    return replace(subject, dataset=replace(subject.dataset, clients=clients))


def at_chance(row) -> bool:
    """Within three standard deviations, of the statistic or of its chance."""
    return abs(row.value - row.baseline) <= 3 * (row.high - row.low) / 3.92


@pytest.mark.slow
def test_shuffled_membership_leaves_every_attack_at_chance(subject: Subject) -> None:
    rows = [row for row in attack_run(shuffled(subject)) if row.asset == "record membership" and row.value is not None]
    assert {row.id for row in rows} >= {"A1", "A2", "E1", "C3"} and len(rows) >= 9
    for row in rows:
        assert at_chance(row), row


def test_random_labels_leave_every_attack_on_members_at_chance(subject: Subject) -> None:
    """Labels drawn anew for all records after training: a model is no surer of what nobody told it."""
    rng = np.random.default_rng(1)
    clients = {
        name: replace(data, y=torch.from_numpy(rng.integers(0, 10, len(data.y))))
        for name, data in shuffled(subject).dataset.clients.items()
    }
    other = replace(subject, dataset=replace(subject.dataset, clients=clients))
    rows = [row for row in attack_run(other, ["A1", "E1", "C3"]) if row.asset == "record membership"]
    for row in [row for row in rows if row.value is not None]:
        assert at_chance(row), row


def test_clients_that_trade_places_leave_properties_and_sources_at_chance(subject: Subject) -> None:
    """Everybody's records under somebody else's name: who holds which class, and which record, cannot be known."""
    names = list(subject.dataset.clients)
    moved = dict(zip(names, [subject.dataset.clients[name] for name in names[7:] + names[:7]], strict=True))
    other = replace(subject, dataset=replace(subject.dataset, clients=moved))
    rows = {row.id: row for row in attack_run(other, ["A8", "A9", "A5"])}
    assert rows["A9"].value <= rows["A9"].baseline and rows["A5"].value < 0.9
    assert rows["A8"].low <= 0.5
    told = {row.id: row for row in attack_run(subject, ["A9", "A5"])}
    assert told["A9"].value > rows["A9"].value + 0.1 and told["A5"].value > 0.999
