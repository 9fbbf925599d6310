"""What whole runs give away, what is left of it under protection, and who sees what."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from framp_private import (
    FederatedDataset,
    Pullback,
)
from framp_private.models.psi import HypernetworkShape
from tests.threat_models.runs import made, simulated
from tests.tiny import tiny_dataset, tiny_federation, tiny_method
from threat_models import metrics
from threat_models.adversaries import Coalition, CuriousClient, ExternalUser, HonestServer, MaliciousServer
from threat_models.attacks import updates
from threat_models.audit import AuditPlan, run_audit
from threat_models.auditing import masks_check
from threat_models.catalogue import CATALOGUE
from threat_models.errors import AuditError, NotInView
from threat_models.sources import subject_of_folder
from threat_models.trials import TRIALS, Subject, attack_run
from threat_models.trials.subject import References
from threat_models.view import View

# -- an unprotected run


def test_what_an_unprotected_run_gives_away(open_run) -> None:
    subject, claim = subject_of_folder(open_run)
    assert math.isinf(claim.epsilon)
    found = {(row.id, row.asset): row for row in attack_run(subject, ["A2", "A3", "A5", "A12"])}
    tracing = found["A2", "record membership"]
    formula = float(tracing.words.rsplit(" ", 1)[-1])
    assert tracing.value == pytest.approx(formula, abs=0.03)
    single = found["A3", "single record"]
    assert single.value == 1.0 and float(single.words.rsplit(" ", 1)[-1]) >= 1 - 1e-6
    assert found["A5", "label distribution"].value == pytest.approx(1.0, abs=1e-6)
    assert found["A12", "classes held, by rows"].value == 1.0
    assert found["A12", "classes held, by size"].leak == "none"
    assert {row.leak for key, row in found.items() if not key[1].endswith("by size")} == {"open"}


@pytest.mark.slow
def test_membership_in_an_overfitted_run(tmp_path) -> None:
    settings = {"network": "perceptron", "clients": 30, "unseen_clients": 0, "alpha": 10, "learning_rate": 0.3}
    folder = made(tmp_path / "fit", "digits", rounds=4, local_steps=150, budgets=[1.0], **settings)
    subject, _ = subject_of_folder(folder)
    found = [row for row in attack_run(subject, ["A1"]) if "FedMIA" in row.words]
    assert found[0].value >= 0.75 and found[0].leak == "open"
    # a weakened copy, which looks at one record's own model alone, misses the floor
    x, y, member = subject.candidates(next(iter(subject.dataset.clients.values())))
    own = updates.confidences(subject.facts.network, subject.updates[-30], x, y)
    assert metrics.auc(own, member).value < 0.75


def test_a_contribution_in_phi_space_is_the_update_to_the_last_bit() -> None:
    dataset = tiny_dataset(3, 0)
    shape = HypernetworkShape(trunk="random", hidden=8, chunk=16, rank=4, standardise="own")
    method = replace(tiny_method(), hypernetwork=shape, step=replace(tiny_method().step, start=0.0))
    seen = {}
    for pullback in (Pullback.SERVER, Pullback.CLIENT):
        federation = tiny_federation(dataset, replace(method, pullback=pullback), rounds=1)
        view, _ = simulated(federation, dataset)
        seen[pullback] = {update.client: update.delta for update in view.updates()}
    for name in dataset.clients:
        assert (seen[Pullback.SERVER][name] - seen[Pullback.CLIENT][name]).abs().max() == 0
        assert seen[Pullback.SERVER][name].abs().max() > 0


# -- protected runs


def test_under_protection_no_attack_is_over_its_ceiling(private_run) -> None:
    subject, claim = subject_of_folder(private_run)
    assert claim.epsilon == pytest.approx(8, abs=0.02) and claim.mechanism == "gaussian"
    results = attack_run(replace(subject, references=References(4)))
    assert "violation" not in {row.leak for row in results}
    runs = subject.ceiling(["update"]).auc_of_runs
    assert all(row.low <= runs for row in results if row.asset == "record membership" and row.value is not None)
    shown = {row.words.split(",")[0] for row in results if row.id == "E1"}
    assert shown >= {"LOSS", "LiRA online", "BaVarIA", "Attack-R", "RMIA", "quantile regression", "label-only"}
    assert all(row.ceiling is not None for row in results if row.asset == "record membership" and row.value is not None)


def test_a_secure_run_shows_the_server_no_value(secure_run) -> None:
    subject, _ = subject_of_folder(secure_run)
    for asked in (subject.server.updates, subject.server.class_sums, subject.server.descriptors):
        with pytest.raises(NotInView):
            list(asked())
    ids = {row.id for row in attack_run(subject, ["honest server"]) if row.value is not None}
    assert ids <= {"A12"}
    payload = b"".join(each.data for _, each in subject.log if each.direction == "up" and len(each.data) > 2000)
    counts = np.bincount(np.frombuffer(payload, np.uint8), minlength=256) / len(payload)
    entropy = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
    assert entropy > 7.5  # floats of weights have about 7
    floats = np.frombuffer(payload[: len(payload) // 4 * 4], "<f4")
    small = np.isfinite(floats) & (np.abs(floats) > 1e-4) & (np.abs(floats) < 10)
    assert small.mean() < 0.15  # of random words 8 %; of an open update nearly all


def test_masks_are_drawn_once_and_a_reused_one_is_found(secure_run, tmp_path, monkeypatch) -> None:
    subject, _ = subject_of_folder(secure_run)
    assert masks_check.masked(subject.facts) and masks_check.check_masks(subject.server) == []
    one = next(iter(masks_check._vectors(subject.server).values()))
    assert chisquare(np.bincount(np.concatenate(one), minlength=256)).pvalue > 1e-6
    from framp_private.protections.secagg import client, server

    for module in (client, server):
        monkeypatch.setattr(module, "self_seed", lambda seed, context, channel: bytes(31) + b"s")
        monkeypatch.setattr(module, "pair_seed", lambda agreed, context, channel: bytes(31) + b"p")
    folder = made(tmp_path / "reused", "digits-secure", rounds=2, clients=6)
    reused, claim = subject_of_folder(folder)
    assert {finding.check for finding in masks_check.check_masks(reused.server)} == {"masks"}
    assert run_audit(reused, claim, AuditPlan(canary_run=False, attacks=["A12"])).refuted


def test_an_open_update_would_have_been_seen_there(open_run) -> None:
    subject, _ = subject_of_folder(open_run)
    payload = b"".join(each.data for _, each in subject.log if each.direction == "up" and len(each.data) > 2000)
    floats = np.frombuffer(payload[: len(payload) // 4 * 4], "<f4")
    assert (np.isfinite(floats) & (np.abs(floats) > 1e-4) & (np.abs(floats) < 10)).mean() > 0.15


# -- views


def test_who_sees_what(open_run) -> None:
    subject, _ = subject_of_folder(open_run)
    first, second = list(subject.dataset.clients)[:2]
    client = View.of(CuriousClient(first), subject.facts, subject.log, subject.released)
    assert {each.client for _, each in client.log} == {first} and not client.released
    with pytest.raises(NotInView):
        client.require("uploads")
    pair = View.of(Coalition((first, second), with_server=False), subject.facts, subject.log, subject.released)
    assert {each.client for _, each in pair.log} == {first, second}
    user = View.of(ExternalUser(), subject.facts, subject.log, subject.released)
    assert not user.log and set(user.released) == set(subject.dataset.clients)
    for asked in (user.descriptors, user.updates, user.class_sums, user.sizes, user.totals, user.generated):
        with pytest.raises(NotInView, match="external user has no capability"):
            list(asked())
    both = View.of(Coalition((first,)), subject.facts, subject.log, subject.released)
    assert len(both.log) == len(subject.log) and "own_records" in both.adversary.capabilities


def test_every_attack_of_the_catalogue_asks_for_what_its_adversary_has() -> None:
    have = {
        each.name: each.capabilities for each in (HonestServer(), MaliciousServer(), CuriousClient("a"), ExternalUser())
    }
    have["coalition"] = Coalition(("a",)).capabilities
    for attack in CATALOGUE:
        assert attack.adversary == "operator" or set(attack.requires) <= have[attack.adversary], attack.id
        assert bool(attack.requires) is (attack.adversary != "operator")
    assert {id: entry.adversary for id, entry in TRIALS.items()}.items() <= {
        a.id: a.adversary for a in CATALOGUE
    }.items()
    for entry in TRIALS.values():  # who lacks a capability cannot run the trial
        lacking = [name for name, able in have.items() if not set(entry.requires) & able]
        assert entry.adversary not in lacking and lacking


def test_a_view_that_was_cut_is_refused(open_run) -> None:
    subject, _ = subject_of_folder(open_run)
    data = View.of(CuriousClient("client-00"), subject.facts, subject.log).to_bytes()
    for cut in (data[:-1], data[:5]):
        with pytest.raises(AuditError, match="truncated"):
            View.from_bytes(cut, HonestServer(), subject.server.facts)
    for head, body in ((b"[]", b""), (b"{}", b""), (b'{"released": "a"}', b"abc"), (b"no json", b"")):
        made_up = b"".join(struct.pack("<Q", len(part)) + part for part in (head, body))
        with pytest.raises(AuditError, match="altered"):
            View.from_bytes(made_up, HonestServer(), subject.server.facts)


def noised_in_the_clear(dataset: FederatedDataset) -> Subject:
    from tests import private

    federation = private.federation(dataset, rounds=3)
    view, simulation = simulated(federation, dataset, 3)
    released = {
        name: simulation.serves(name, data, federation.budgets[name]).weights.numpy()
        for name, data in dataset.clients.items()
    }
    return Subject(federation, dataset, view.log, released)


def test_noised_prototypes_in_the_clear_keep_every_attack_under_its_ceiling() -> None:
    results = attack_run(noised_in_the_clear(tiny_dataset(6, 0)))
    assert {"A1", "A9", "E1"} <= {row.id for row in results if row.ceiling is not None}
    assert "violation" not in {row.leak for row in results}


def test_single_records_and_sources_keep_under_the_ceiling_of_identification() -> None:
    clients = {}  # of one class each client has a single record
    for name, data in tiny_dataset(6, 0, records=60).clients.items():
        rare = torch.where(data.y[data.train] == 2)[0][1:]
        clients[name] = replace(data, train=data.train[torch.isin(torch.arange(data.n_train), rare, invert=True)])
    subject = noised_in_the_clear(replace(tiny_dataset(6, 0), clients=clients))
    results = {row.id: row for row in attack_run(subject, ["A3", "A9"])}
    for row in results.values():
        assert row.baseline < row.ceiling < 1 and row.leak == "bounded"
    natural = attack_run(replace(subject, natural=True), ["A3", "A9"])
    assert {row.ceiling for row in natural} == {None}


def test_test_records_of_another_mix_are_no_non_members(private_run) -> None:
    subject, _ = subject_of_folder(private_run)
    assert subject.exchangeable and subject.ceiling(["update"]).bounded
    clients = {}
    for name, data in subject.dataset.clients.items():
        rare = data.y[data.test] == data.y[data.train].mode().values
        clients[name] = replace(data, test=data.test[~rare] if bool((~rare).any()) else data.test)
    other = type(subject)(subject.facts, replace(subject.dataset, clients=clients), subject.log, subject.released)
    assert not other.exchangeable and not other.ceiling(["update"]).bounded


def test_everything_imported_is_a_public_name() -> None:
    import ast

    import framp_private as package

    public = {"framp_private", "framp_private.errors", "framp_private.protections"}
    for path in (Path(package.__file__).parent.parent / "threat_models").rglob("*.py"):
        if path.parent.name == "protocol":  # who crafts messages has to speak the protocols' own language
            continue
        allowed = public
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("framp_private"):
                assert node.module in allowed, f"{path.name}: {node.module}"
                if node.module == "framp_private":
                    assert all(hasattr(package, alias.name) for alias in node.names), path.name
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("framp_private") for alias in node.names), path.name
