"""Parties that do not follow the protocol: each is caught on a mutant of the code, and finds nothing on the code as it is.

A mutant takes one check away. The adversary that the check is against then reaches what it is after, and says so; with
the check in its place it is silent, on every seed: refusals are certain, so there is no rate of false alarms.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framp_private import FederatedDataset, Options, make_config, run_config, run_folder, summary, train, training
from framp_private.privacy.events import Budget
from framp_private.protections import BFVSum, CKKSSum, SecAgg
from framp_private.protections.homomorphic import client as encrypting
from framp_private.protections.secagg import cohort as checks
from framp_private.protections.secagg import server as summing
from framp_private.protections.secagg import statements
from framp_private.simulation import Simulation
from tests import private
from tests.federated.test_gradient_sum import DATASET as SHARED_DATASET
from tests.federated.test_gradient_sum import made as shared_noise
from tests.tiny import CLASSES, blobs
from threat_models.audit import AuditPlan, run_audit
from threat_models.auditing.replay import Finding
from threat_models.protocol import ADVERSARIES, check_protocol
from threat_models.protocol.crafted import chosen_neighbourhood, phantom_survivors, replaced_context, split_models
from threat_models.protocol.leftovers import run_folder_thief, unpaid_models
from threat_models.sources import subject_of_folder

SEEDS = 200
COHORTS = [7, 20, 70]
"""The last one shares on a sparse graph."""


def secure(n: int) -> SecAgg:
    return SecAgg(survivors=0.8, dropout=0.1) if n <= 64 else SecAgg(dropout=0.1)


def phantoms(seed: int, folder: Path | None = None) -> list[Finding]:
    return phantom_survivors(secure(7), 7, seed=seed)


def neighbourhood(seed: int, folder: Path | None = None) -> list[Finding]:
    return chosen_neighbourhood(secure(7), 7, seed=seed)


def models(seed: int, folder: Path | None = None) -> list[Finding]:
    return split_models(secure(7), 7, seed=seed)


def context(seed: int, folder: Path | None = None) -> list[Finding]:
    return replaced_context((BFVSum if seed % 2 else CKKSSum)(), 7, seed=seed)


def unpaid(seed: int, folder: Path | None = None) -> list[Finding]:
    return unpaid_models(shared_noise(), SHARED_DATASET)


def thief(seed: int, folder: Path | None = None) -> list[Finding]:
    """A run whose clients hold other numbers of records for each seed, and what lies in its folder afterwards."""
    assert folder is not None
    rng = np.random.default_rng(seed)
    clients = {f"site-{place}": blobs(int(rng.integers(31, 60)), int(rng.integers(10**6))) for place in range(3)}
    dataset = FederatedDataset.from_arrays(clients, n_classes=CLASSES)
    declared = {name: 10 * -(-(data.n_train + 1) // 10) for name, data in dataset.clients.items()}
    federation = replace(private.federation(dataset=dataset, rounds=1), declared=declared)
    options = Options(home_steps=1, budget=Budget(50.0, 1e-5), record_transcript=True)
    train(federation, dataset, out=folder, options=options)
    return run_folder_thief(folder, federation, dataset)


Adversary = Callable[[int, Path | None], list[Finding]]
ALL: list[Adversary] = [phantoms, neighbourhood, models, context, unpaid, thief]

# -- mutants


def no_signature_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "confirmed", lambda *given: True)


def few_keys_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SecAgg.terms
    monkeypatch.setattr(SecAgg, "terms", lambda self, n: replace(real(self, n), present=1))


def masks_stand_on_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    real = statements.anchor
    for module in (checks, summing):
        monkeypatch.setattr(module, "anchor", lambda run, root, present, asked: real(run, root, present, b""))


def no_majority_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SecAgg.terms
    monkeypatch.setattr(SecAgg, "terms", lambda self, n: replace(real(self, n), survivors=2, threshold=2))


class Anything(bytes):
    """Equal to whatever it is held against."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def any_context_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypting, "_pin", lambda member: Anything(32))


def everybody_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulation, "may_serve", lambda self, client: True)


def _more_in_the_summary(monkeypatch: pytest.MonkeyPatch, more: Callable[[Simulation, str], object]) -> None:
    real = summary._by_client

    def rows(simulation: Simulation, *given: object) -> dict[str, dict[str, object]]:
        found = real(simulation, *given)  # type: ignore[arg-type]
        return {name: {**row, "n_train": more(simulation, name)} for name, row in found.items()}

    monkeypatch.setattr(summary, "_by_client", rows)


def class_counts_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    _more_in_the_summary(monkeypatch, lambda it, name: it.dataset.clients[name].class_counts(CLASSES).tolist())


def record_numbers_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    _more_in_the_summary(monkeypatch, lambda it, name: it.dataset.clients[name].n_train)


def _after_the_clients_page(monkeypatch: pytest.MonkeyPatch, more: Callable[[Path, object], object]) -> None:
    real = run_folder.RunFolder.write_clients

    def write(self: run_folder.RunFolder, rows: dict[str, object], page: str) -> None:
        real(self, rows, page)
        more(self.path, rows)

    monkeypatch.setattr(run_folder.RunFolder, "write_clients", write)


def counts_beside_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    _after_the_clients_page(monkeypatch, lambda path, rows: (path / "clients.json").write_text(json.dumps(rows)))


def a_key_beside_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    _after_the_clients_page(
        monkeypatch,
        lambda path, rows: (path / "server.key").write_bytes((path / "private" / "keys" / "server.key").read_bytes()),
    )


def a_private_folder_that_others_may_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    _after_the_clients_page(monkeypatch, lambda path, rows: (path / "private").chmod(0o755))


def a_private_file_that_others_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    _after_the_clients_page(monkeypatch, lambda path, rows: (path / "private" / "clients.json").chmod(0o644))


def a_checkpoint_beside_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    _after_the_clients_page(
        monkeypatch,
        lambda path, rows: [
            (path / each.name).write_bytes(each.read_bytes())
            for each in (path / "private" / "checkpoint").glob("*.safetensors")
        ],
    )


def a_plain_hash_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.summarise
    monkeypatch.setattr(training, "summarise", lambda it, *more: {**real(it, *more), "data": it.dataset.fingerprint})


def descriptors_beside_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.summarise

    def with_raw(it: Simulation, *more: object) -> dict[str, object]:
        found = real(it, *more)  # type: ignore[arg-type]
        raw = {name: it.federation.describe(name, data) for name, data in it.dataset.clients.items()}
        folder = next(path for path in Path(it._store.folder).parents if (path / "config.yaml").is_file())  # type: ignore[union-attr]
        (folder / "descriptors.bin").write_bytes(b"".join(np.asarray(each, "<f4").tobytes() for each in raw.values()))
        return found

    monkeypatch.setattr(training, "summarise", with_raw)


MUTANTS: list[tuple[Adversary, Callable[[pytest.MonkeyPatch], None]]] = [
    (phantoms, no_signature_is_counted),
    (neighbourhood, few_keys_are_enough),
    (models, masks_stand_on_no_request),
    (models, no_majority_is_needed),
    (context, any_context_will_do),
    (unpaid, everybody_is_served),
    (thief, class_counts_in_the_summary),
    (thief, record_numbers_in_the_summary),
    (thief, counts_beside_the_report),
    (thief, a_key_beside_the_report),
    (thief, a_private_folder_that_others_may_enter),
    (thief, a_private_file_that_others_may_read),
    (thief, a_checkpoint_beside_the_report),
    (thief, a_plain_hash_of_the_data),
    (thief, descriptors_beside_the_report),
]


@pytest.mark.parametrize(("adversary", "mutant"), MUTANTS)
def test_each_adversary_is_caught_where_its_check_is_gone(
    adversary: Adversary,
    mutant: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert adversary(1, tmp_path / "right") == []
    mutant(monkeypatch)
    found = adversary(1, tmp_path / "wrong")
    assert found and {each.check for each in found} < set(ADVERSARIES)


def test_a_thief_makes_nothing_of_other_peoples_files(tmp_path: Path) -> None:
    assert thief(0, tmp_path / "run") == []
    rng = np.random.default_rng(0)
    clients = {f"site-{place}": blobs(int(rng.integers(31, 60)), place) for place in range(3)}
    dataset = FederatedDataset.from_arrays(clients, n_classes=CLASSES)
    for name, content in (("notes.json", b"{no json"), ("empty.json", b""), ("picture.bin", bytes(1000))):
        (tmp_path / "run" / name).write_bytes(content)
    (tmp_path / "run" / "private" / "keys" / "empty.key").touch(mode=0o600)
    assert run_folder_thief(tmp_path / "run", private.federation(dataset=dataset), dataset) == []


@pytest.mark.parametrize("n", COHORTS)
@pytest.mark.parametrize("crafted", [phantom_survivors, chosen_neighbourhood, split_models])
def test_crafted_servers_reach_nothing_at_any_size(crafted: Callable[..., list[Finding]], n: int) -> None:
    assert crafted(secure(n), n, seed=n) == []


def test_few_seeds_are_silent(tmp_path: Path) -> None:
    assert not [found for seed in range(3) for each in ALL for found in each(seed, tmp_path / str(seed))]


@pytest.mark.slow
@pytest.mark.parametrize("adversary", ALL)
def test_two_hundred_seeds_are_silent(adversary: Adversary, tmp_path: Path) -> None:
    assert [found for seed in range(SEEDS) for found in adversary(seed, tmp_path / str(seed))] == []


@pytest.mark.parametrize("preset", ["digits-secure", "digits-encrypted", "digits-private", "digits-client-private"])
def test_an_audit_plays_the_adversaries_that_a_run_has_something_for(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"rounds": 2, "clients": 8, "home_steps": 1, "evaluate_every": 2, "unseen_clients": 0}
    config = make_config(preset=preset, assignments=small)
    run_config(config, out=tmp_path / "run", options=Options(record_transcript=True))
    subject, claim = subject_of_folder(tmp_path / "run")
    plan = AuditPlan(attacks=["A12"], canaries=0, canary_run=False, replays=False)
    assert run_audit(subject, claim, plan).findings == []
    (tmp_path / "run" / "private").chmod(0o755)
    assert [each.check for each in run_audit(subject, claim, plan).findings] == ["run-folder thief"]
    (tmp_path / "run" / "private").chmod(0o700)
    if preset == "digits-secure":
        no_signature_is_counted(monkeypatch)
        assert check_protocol(subject.facts, subject.dataset, seed=1)[0].check == "phantom survivors"
        assert run_audit(subject, claim, plan).refuted
