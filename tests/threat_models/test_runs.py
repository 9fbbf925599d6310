"""Audits of whole runs: what an unprotected one gives away, and what is left of it under protection."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from framp_private import (
    FederatedDataset,
    Options,
    PlainSum,
    Plan,
    Pullback,
    TargetNetwork,
    federate,
    framp,
    load_setup,
    make_config,
    run_config,
)
from framp_private.cli import main as framp_private
from framp_private.federated import per_sample
from framp_private.federated.prototypes import PrototypeBound
from framp_private.models.psi import HypernetworkShape
from framp_private.privacy.noise import standard_gaussian
from framp_private.protections import LocalGaussian
from framp_private.randomness import SeededEntropy
from framp_private.simulation import Simulation
from tests.threat_models.mechanisms import TIGHT
from tests.tiny import CLASSES, tiny_dataset, tiny_federation, tiny_method
from threat_models import metrics
from threat_models.adversaries import Coalition, CuriousClient, ExternalUser, HonestServer, MaliciousServer
from threat_models.attacks import updates
from threat_models.attacks.released import artefacts
from threat_models.audit import AuditPlan, run_audit
from threat_models.auditing import canaries, f_dp, masks_check, one_run, parametric, registration
from threat_models.auditing.gaussian import mu_of
from threat_models.auditing.mislabelled import mislabel
from threat_models.catalogue import CATALOGUE
from threat_models.claims import PrivacyClaim
from threat_models.cli import main as framp_audit
from threat_models.errors import AuditError, NotInView
from threat_models.sources import subject_of_folder
from threat_models.trials import TRIALS, Subject, attack_run
from threat_models.trials.subject import References
from threat_models.view import View


def made(folder: Path, preset: str, **settings) -> Path:
    config = make_config(preset=preset, assignments={"evaluate_every": 100, "home_steps": 1, **settings})
    run_config(config, out=folder, options=Options(record_transcript=True))
    return folder


@pytest.fixture(scope="module")
def open_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "open", "digits", rounds=4, unseen_clients=0)


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "private", "digits-private", rounds=10)


@pytest.fixture(scope="module")
def secure_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs") / "secure", "digits-secure", rounds=3)


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
        view, _ = _simulated(federation, dataset)
        seen[pullback] = {update.client: update.delta for update in view.updates()}
    for name in dataset.clients:
        assert (seen[Pullback.SERVER][name] - seen[Pullback.CLIENT][name]).abs().max() == 0
        assert seen[Pullback.SERVER][name].abs().max() > 0


def _simulated(federation, dataset, rounds: int = 1, **more):
    """The honest server's view of some rounds in memory, and the simulation."""
    from framp_private.transcript import Delivery

    log: list = []

    class Keep:
        def begin(self, name: str) -> None:
            self.name = name

        def write(self, delivery: Delivery) -> None:
            log.append((self.name, delivery))

    simulation = Simulation(federation, dataset, transcript=Keep(), **more)
    simulation.enrol()
    for _ in range(rounds):
        simulation.step()
    return View.of(HonestServer(), federation, log), simulation


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


# -- canaries


def wide(dataset: FederatedDataset, epsilon: float, features: int):
    """One round of class sums in 3 x `features` coordinates, noised for an epsilon."""
    z = 1 / mu_of(epsilon, 1e-5)
    method = replace(framp(), hypernetwork=None)
    network = TargetNetwork(lambda: nn.Sequential(nn.Linear(6, features), nn.ReLU(), nn.Linear(features, CLASSES)))
    return federate(
        replace(method, trainer=replace(method.trainer, steps=1, batch_size=8)),
        network,
        list(dataset.clients),
        rounds=1,
        plan=Plan(None, PlainSum(), LocalGaussian(2.0, z), None),
        prototype_bound=PrototypeBound(2.0, count_share=0.02),
        declared={name: data.n_train for name, data in dataset.clients.items()},
    )


@pytest.mark.parametrize(("epsilon", "m", "one", "curve", "white"), TIGHT)
def test_tightness_through_the_real_prototype_path(epsilon, m, one, curve, white) -> None:
    """Canaries over ten clients' independently noised uploads of one round, against that round's epsilon."""
    dataset = tiny_dataset(10, 0)
    federation = _unguarded(dataset, epsilon, -(-m // 30))
    found = []
    for seed in range(5):
        planted = canaries.plant(federation, "prototypes", m, seed=seed)
        assert len(planted.coins) == m
        view, _ = _simulated(federation, dataset, plants=planted.clients)
        scores, coins = canaries.scores(planted, view), planted.coins
        r = registration._best(m, mu_of(epsilon, 1e-5), 1e-5, 0.05)
        v = one_run.right_guesses(scores, coins, r)
        found.append(
            (
                one_run.lower_bound(m, r, v, delta=1e-5, alpha=0.05),
                f_dp.lower_bound(m, r, v, declared="gaussian", delta=1e-5, alpha=0.05),
                parametric.lower_bound(scores, coins, declared="gaussian", delta=1e-5, alpha=0.05),
            )
        )
    for median, (low, high) in zip(np.median(found, 0), (one, curve, white)):
        assert low <= median <= high


def _unguarded(dataset, epsilon: float, features: int):
    """Prototypes alone are noised; updates are sent under DP-SGD, as the plan demands."""
    from framp_private.federated.dp_sgd import DpSGD

    base = wide(dataset, epsilon, features)
    trainer = DpSGD(1, 1.0, 1.0, 3.0, 0.1, alignment=base.trainer.alignment)
    return replace(base, trainer=trainer)


def test_the_coins_of_canaries_are_fair_and_independent_and_their_set_has_a_name(private_run) -> None:
    federation = load_setup(make_config(preset="digits-private", assignments={"rounds": 10})).federation

    def planted(seed: int, count: int = 500) -> canaries.Canaries:
        return canaries.plant(federation, "update", count, seed=seed)

    assert len(planted(1).digest) == 64 and planted(1).digest == planted(1).digest != planted(2).digest
    coins = np.concatenate([planted(seed).coins for seed in range(20)])
    assert abs(coins.mean() - 0.5) < 0.02
    assert np.std([int(planted(seed).coins.sum()) for seed in range(20)]) > 5  # Bernoulli, not balanced halves
    runs = 1 + int((coins[1:] != coins[:-1]).sum())
    assert abs(runs - len(coins) / 2) < 4 * math.sqrt(len(coins)) / 2


def accuracy(federation, dataset, rounds: int, seed: int, **more) -> float:
    """Of served models on the clients' own training records, canaries not among them; noise by a seed."""
    trained = more.pop("trained", dataset)
    _, simulation = _simulated(federation, trained, rounds, entropy=SeededEntropy(seed), **more)
    right = []
    for client, data in dataset.clients.items():
        federation.network.load(simulation.serves(client, data, federation.budgets[client]).weights)
        with torch.no_grad():
            said = federation.network.forward(data.x[data.train])[0].argmax(1)
        right.append(float((said == data.y[data.train]).float().mean()))
    return float(np.mean(right))


COSTS = {
    "update": lambda federation, dataset: {"plants": canaries.plant(federation, "update", 3000, seed=1).clients},
    "prototypes": lambda federation, dataset: {
        "plants": canaries.plant(federation, "prototypes", 3000, seed=2).clients
    },
    "mislabelled": lambda federation, dataset: {"trained": mislabel(dataset, 200, seed=1).dataset},
}


@pytest.mark.parametrize("kind", list(COSTS))
def test_canaries_cost_less_than_a_point(kind: str) -> None:
    """In the mean over six draws of noise; a single pair of runs differs by more than that for its noise alone."""
    settings = {"rounds": 8, "network": "perceptron", "alignment": {"weight": 0.05}}
    split = {"update": 0.8, "prototypes": 0.05, "descriptor": 0.15}
    setup = load_setup(make_config(preset="digits-private", assignments={**settings, "privacy": {"split": split}}))
    federation, dataset = setup.federation, setup.dataset
    more = COSTS[kind](federation, dataset)
    changed = [
        accuracy(federation, dataset, 8, seed, **more) - accuracy(federation, dataset, 8, seed) for seed in range(6)
    ]
    assert abs(np.mean(changed)) < 0.01, changed


def test_canaries_where_they_cannot_be_are_refused(open_run) -> None:
    subject, _ = subject_of_folder(open_run)
    with pytest.raises(AuditError, match="no bound on one record"):
        canaries.plant(subject.facts, "update", 10, seed=0)
    with pytest.raises(AuditError, match="not noised"):
        canaries.plant(subject.facts, "prototypes", 10, seed=0)


# -- the audit


PLAN = AuditPlan(canaries=1000, attacks=["A9", "E1"], seed=5)


def test_a_true_claim_is_consistent_and_the_report_is_complete(private_run, tmp_path) -> None:
    subject, claim = subject_of_folder(private_run)
    report = run_audit(subject, claim, PLAN)
    rows = json.loads(report.to_json())
    assert not report.refuted and report.findings == []
    assert rows["schema"] == 1 and rows["source"] == "transcript" and rows["version"]
    assert rows["claims"][0]["state"] in ("consistent", "cannot_refute")
    update = next(row for row in rows["claims"] if row.get("channel") == "update")
    assert {bound["estimator"] for bound in update["bounds"]} >= {"one-run tight", "parametric"}
    assert all({"alpha", "r", "assumption", "m"} <= set(bound) for bound in update["bounds"])
    assert update["unit"] == "record" and update["adjacency"] == "add/remove" and update["canaries"]["digest"]
    for row in rows["attacks"]:
        assert {"id", "adversary", "asset", "statistic", "value", "low", "high", "baseline", "ceiling", "leak"} <= set(
            row
        )
    data = next(iter(subject.dataset.clients.values()))
    assert artefacts(rows, [], data.x[data.train].flatten(1).numpy()[:10]) == []


def test_the_same_transcript_and_seed_give_the_same_bytes(private_run) -> None:
    plan = replace(PLAN, canary_run=False, replays=False)  # whose noise is fresh
    made_twice = [run_audit(*subject_of_folder(private_run), plan).to_json() for _ in range(2)]
    assert made_twice[0] == made_twice[1]


def test_with_the_same_noise_so_does_the_run_with_canaries(private_run, monkeypatch) -> None:
    """Noise is the system's; with a seeded source in its place nothing else is left that could differ."""
    import framp_private.simulation
    from threat_models.auditing import noise_check

    for module in (framp_private.simulation, noise_check):
        monkeypatch.setattr(module, "Entropy", lambda: SeededEntropy(7))
    plan = replace(PLAN, canaries=500, attacks=["A9"])
    made_twice = [run_audit(*subject_of_folder(private_run), plan).to_json() for _ in range(2)]
    assert made_twice[0] == made_twice[1] and '"bounds"' in made_twice[0]
    assert run_audit(*subject_of_folder(private_run), replace(plan, seed=6)).to_json() != made_twice[0]


def test_half_the_noise_is_refuted_and_ends_with_status_three(private_run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(per_sample, "standard_gaussian", lambda count, entropy: 0.5 * standard_gaussian(count, entropy))
    status = framp_audit(["run", str(private_run), "--attack", "A9", "--canaries", "1500", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert status == 3 and "refuted" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    rows = json.loads((tmp_path / "audit.json").read_text())
    assert "refuted" in {row["state"] for row in rows["claims"]}
    assert {row["check"] for row in rows["findings"]} >= {"scale"}
    page = (tmp_path / "audit.html").read_text()
    assert "refuted" in page and "<script" not in page and "http" not in page.replace("http://www.w3.org", "")
    assert framp_audit(["report", str(tmp_path)]) == 0


def test_a_gated_run_ends_with_the_audit_s_verdict(tmp_path, monkeypatch, capsys) -> None:
    arguments = ["train", "--preset", "digits-private", "--set", "rounds=2", "--set", "clients=4", "--audit"]
    folder = tmp_path / "gated"
    assert framp_private([*arguments, "--out", str(folder)]) == 0
    assert (folder / "audit.json").is_file() and (folder / "audit.html").is_file()
    from framp_private import cli

    broken = {"claims": [{"state": "refuted", "scope": "this run alone", "words": "refuted by a test"}]}
    monkeypatch.setattr(cli, "audit", lambda *more, **rest: broken)
    assert framp_private([*arguments, "--out", str(tmp_path / "second")]) == 3
    assert "refuted by a test" in capsys.readouterr().err
    assert (tmp_path / "second" / "report.html").is_file()


def test_a_gated_run_with_half_its_noise_ends_with_status_three(tmp_path) -> None:
    """Run and audit are processes of their own, in whose interpreters the noise is halved."""
    (tmp_path / "sitecustomize.py").write_text(
        "from framp_private.federated import per_sample\n"
        "real = per_sample.standard_gaussian\n"
        "per_sample.standard_gaussian = lambda count, entropy: 0.5 * real(count, entropy)\n"
    )
    program = "import sys; from framp_private.cli import main; sys.exit(main())"
    arguments = ["train", "--preset", "digits-private", "--set", "rounds=2", "--set", "clients=4", "--audit"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--out", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    rows = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert rows["claims"][0]["state"] == "refuted" and (tmp_path / "run" / "report.html").is_file()


def test_a_link_where_a_report_should_be_is_replaced_and_not_followed(private_run, tmp_path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "audit.html").symlink_to(elsewhere)
    arguments = ["run", str(private_run), "--attack", "A12", "--canaries", "0", "--no-replays", "--out", str(out)]
    assert framp_audit(arguments) == 0
    assert elsewhere.read_text() == "mine" and not (out / "audit.html").is_symlink()
    assert "fingerprint" not in (out / "audit.json").read_text() + (out / "audit.html").read_text()


def discrete_third(monkeypatch) -> None:
    from framp_private.protections import distributed

    real = distributed.discrete_gaussian
    monkeypatch.setattr(
        distributed, "discrete_gaussian", lambda size, deviation, entropy: real(size, 0.35 * deviation, entropy)
    )


def central_third(monkeypatch) -> None:
    from framp_private.protections import central

    real = central.add_gaussian
    monkeypatch.setattr(
        central, "add_gaussian", lambda value, deviation, entropy: real(value, 0.35 * deviation, entropy)
    )


@pytest.mark.parametrize(
    ("preset", "settings", "patch"),
    [
        ("digits-secure", {"rounds": 4, "clients": 8}, discrete_third),
        ("digits-distributed", {"rounds": 8, "clients": 60}, discrete_third),
        ("digits-client-private", {"rounds": 8, "clients": 60}, central_third),
    ],
)
def test_a_third_of_the_noise_that_clients_share_or_a_server_adds_is_refuted(
    preset, settings, patch, tmp_path, monkeypatch
):
    """By canaries alone: the claim, the masks and the clients' own parts are as they should be."""
    subject, claim = subject_of_folder(made(tmp_path / "run", preset, unseen_clients=0, **settings))
    plan = AuditPlan(attacks=["A12"], replays=False)
    whole = run_audit(subject, claim, plan)
    assert not whole.refuted and whole.channels["update"].refused == ()  # scores are Gaussian: every background is off
    patch(monkeypatch)
    found = run_audit(subject, claim, plan)
    assert found.channels["update"].verdict.state == "refuted" and found.refuted


def test_the_secure_default_passes_its_audit_and_a_bug_in_a_part_is_found(secure_run, monkeypatch) -> None:
    subject, claim = subject_of_folder(secure_run)
    plan = AuditPlan(canary_run=False, attacks=["A12"])
    assert run_audit(subject, claim, plan).findings == []
    from framp_private.federated import gradient_sum

    real = gradient_sum.summed_clipped
    monkeypatch.setattr(
        gradient_sum,
        "summed_clipped",
        lambda network, mask, loss, clip, mode: real(network, mask, loss, 2 * clip, mode),
    )
    found = run_audit(subject, claim, plan)
    assert found.refuted and {finding.check for finding in found.findings} == {"sensitivity"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing-of-the-kind"], "is not known"),
        (["run", "digits", "--attack", "Z9"], "no attack and no adversary"),
        (["report", "."], "no audit.json"),
        (["run", "digits", "--attack", "B1"], "see attacks.malicious"),
        (["run", "digits-private", "--alpha", "2"], "alpha=2.0 must lie"),
        (["run", "digits-private", "--canaries", "-3"], "canaries=-3"),
        (["plan", "digits-private", "--canaries", "-5"], "at least 8"),
        (["membership", "--model", "x.pt", "--members", "a.npz", "--non-members", "b.npz"], "cannot be loaded"),
    ],
)
def test_bad_input_is_one_line_and_status_two(arguments, words, capsys) -> None:
    assert framp_audit(arguments) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_plans_and_lists_fit_the_terminal(capsys) -> None:
    assert framp_audit(["plan", "digits-private"]) == 0
    assert framp_audit(["attacks"]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
    assert framp_audit(["plan", "digits-secure", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    update = rows["channels"]["update"]
    assert update["canaries"] == 650 and update["reach"] < 7 and 0 < rows["seconds"] < 600
    assert update["power"]["0.5"] == 1.0 >= update["power"]["0.7"] >= update["power"]["0.9"]
    assert 0 < update["expected"]["parametric"] < update["epsilon"] and update["interference"] == 0


def test_a_plan_shares_alpha_as_the_audit_does(private_run, capsys) -> None:
    assert framp_audit(["plan", str(private_run), "--canaries", "500", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["channels"]
    subject, claim = subject_of_folder(private_run)
    report = run_audit(subject, claim, AuditPlan(canaries=500, attacks=["A12"], replays=False))
    found = {bound.estimator: bound for bound in report.channels["update"].bounds}
    assert sum(bound.alpha for bound in found.values()) == pytest.approx(planned["update"]["alpha"])
    assert {name: bound.r for name, bound in found.items() if bound.r} == planned["update"]["guesses"]
    assert report.channels["update"].by_round[-1][:2] == (10, pytest.approx(planned["update"]["epsilon"], rel=1e-3))
    spent = [row[1] for row in report.channels["update"].by_round]
    assert spent == sorted(spent) and len(spent) == 4


def test_partial_participation_and_cohorts_that_differ(tmp_path) -> None:
    folder = made(tmp_path / "few", "digits", rounds=10, clients_per_round=2, clients=8, unseen_clients=0)
    subject, _ = subject_of_folder(folder)
    rows = attack_run(subject)
    assert {row.id for row in rows} >= {"A1", "A2", "A3", "A10", "E1"}
    report = run_audit(subject, subject_of_folder(folder)[1], AuditPlan(attacks=["A5"]))
    assert report.verdict.state == "not_claimed" and "NOT DP" in report.to_json()


def test_a_transcript_without_its_rounds_is_refused(open_run, tmp_path) -> None:
    import shutil

    from framp_private.errors import RunError

    copy = tmp_path / "copy"
    shutil.copytree(open_run, copy)
    (copy / "transcript" / "round-000002.bin").unlink()
    with pytest.raises(RunError, match="lacks 1 of 4 rounds"):
        subject_of_folder(copy)


def noised_in_the_clear(dataset: FederatedDataset) -> Subject:
    from tests import private

    federation = private.federation(dataset, rounds=3)
    view, simulation = _simulated(federation, dataset, 3)
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


def test_an_attack_over_its_ceiling_refutes() -> None:
    from threat_models.audit import _verdict
    from threat_models.metrics import Estimate
    from threat_models.results import judged, shared

    claim = PrivacyClaim(1.0, 1e-5, "record", "add/remove", "gaussian", "this run alone")
    over = judged(
        "A1", "honest server", "record membership", "AUC", Estimate(0.9, 0.87, 0.93), baseline=0.5, ceiling=0.575
    )
    under = judged(
        "A1", "honest server", "record membership", "AUC", Estimate(0.6, 0.56, 0.64), baseline=0.5, ceiling=0.575
    )
    assert (over.leak, under.leak) == ("violation", "bounded")
    leaks = [
        judged("A8", "x", "y", "AUC", Estimate(v, v - 0.1, v + 0.1), baseline=0.5, ceiling=None).leak
        for v in (0.45, 0.52, 0.58, 0.61)
    ]
    assert leaks == ["none", "none", "unclear", "open"]
    close = judged(
        "A1", "honest server", "record membership", "AUC", Estimate(0.615, 0.585, 0.645), baseline=0.5, ceiling=0.575
    )
    assert [row.leak for row in shared([close] * 20, 0.025)] == [
        "bounded"
    ] * 20  # 2.6 deviations, and twenty tests take 3.0
    assert [row.leak for row in shared([close], 0.025)] == ["violation"]
    assert _verdict(claim, {}, [over], [], AuditPlan()).state == "refuted"
    assert _verdict(claim, {}, [under], [], AuditPlan()).state == "estimate_only"


def test_test_records_of_another_mix_are_no_non_members(private_run) -> None:
    subject, _ = subject_of_folder(private_run)
    assert subject.exchangeable and subject.ceiling(["update"]).bounded
    clients = {}
    for name, data in subject.dataset.clients.items():
        rare = data.y[data.test] == data.y[data.train].mode().values
        clients[name] = replace(data, test=data.test[~rare] if bool((~rare).any()) else data.test)
    other = type(subject)(subject.facts, replace(subject.dataset, clients=clients), subject.log, subject.released)
    assert not other.exchangeable and not other.ceiling(["update"]).bounded


def test_a_claim_of_client_level_names_its_unit(tmp_path) -> None:
    folder = made(tmp_path / "clients", "digits-client-private", rounds=2)
    subject, claim = subject_of_folder(folder)
    assert claim.unit == "client"
    report = run_audit(subject, claim, AuditPlan(attacks=["A10"]))
    assert not report.refuted
    update = report.channels["update"]
    assert update.claim.unit == "client" and update.claim.scope == "update, one round"
    wrong = PrivacyClaim(claim.epsilon, claim.delta, "record", claim.adjacency, "other", "this run alone")
    assert run_audit(subject, wrong, AuditPlan(attacks=["A10"], canary_run=False)).refuted


def test_everything_imported_is_a_public_name() -> None:
    import ast

    import framp_private as package

    allowed = {"framp_private", "framp_private.errors", "framp_private.protections"}
    for path in (Path(package.__file__).parent.parent / "threat_models").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("framp_private"):
                assert node.module in allowed, f"{path.name}: {node.module}"
                if node.module == "framp_private":
                    assert all(hasattr(package, alias.name) for alias in node.names), path.name
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("framp_private") for alias in node.names), path.name
