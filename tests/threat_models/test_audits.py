"""Canaries through whole runs, and the audit made of them: verdicts, gates, plans, bad input."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from framp_private import (
    Options,
    RunFolder,
    load_setup,
    make_config,
    read_transcript,
    reopened_totals,
    run_config,
)
from framp_private.cli import main as framp_private
from framp_private.errors import PlanError
from framp_private.federated import per_sample
from framp_private.privacy.noise import standard_gaussian
from framp_private.randomness import SeededEntropy
from tests.threat_models.mechanisms import TIGHT
from tests.threat_models.runs import accuracy, made, simulated, unguarded
from tests.tiny import tiny_dataset
from threat_models.attacks.released import artefacts
from threat_models.audit import AuditPlan, run_audit
from threat_models.auditing import canaries, canary_scores, f_dp, one_run, parametric, planted, registration
from threat_models.auditing.gaussian import mu_of
from threat_models.auditing.mislabelled import mislabel
from threat_models.claims import PrivacyClaim
from threat_models.cli import main as framp_audit
from threat_models.errors import AuditError
from threat_models.sources import subject_of_folder
from threat_models.trials import attack_run

# -- canaries


@pytest.mark.parametrize(("epsilon", "m", "one", "curve", "white"), TIGHT)
def test_tightness_through_the_real_prototype_path(epsilon, m, one, curve, white) -> None:
    """Canaries over ten clients' independently noised uploads of one round, against that round's epsilon."""
    dataset = tiny_dataset(10, 0)
    federation = unguarded(dataset, epsilon, -(-m // 30))
    found = []
    for seed in range(5):
        planted = canaries.plant(federation, "prototypes", m, seed=seed)
        assert len(planted.coins) == m
        view, _ = simulated(federation, dataset, plants=planted.clients)
        scores, coins = canary_scores.scores(planted, view), planted.coins
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


COSTS = {
    "update": lambda federation, dataset: {"plants": canaries.plant(federation, "update", 3000, seed=1).clients},
    "prototypes": lambda federation, dataset: {
        "plants": canaries.plant(federation, "prototypes", 3000, seed=2).clients
    },
    "mislabelled": lambda federation, dataset: {"trained": mislabel(dataset, 200, seed=1).dataset},
}


AT_MOST = {"update": 0.01, "prototypes": 0.01, "mislabelled": 0.04}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(COSTS))
def test_canaries_cost_about_a_point_and_false_labels_a_few(kind: str) -> None:
    """In the mean, of which six draws tell within six standard errors (Student, .1 %); false labels cost more.

    Over 24 draws: update -1.2 +- .9 points, prototypes -.7 +- .4, mislabelled -3.8 +- .6.
    """
    settings = {"rounds": 8, "network": "perceptron", "alignment": {"weight": 0.05}}
    split = {"update": 0.8, "prototypes": 0.05, "descriptor": 0.15}
    setup = load_setup(make_config(preset="digits-private", assignments={**settings, "privacy": {"split": split}}))
    federation, dataset = setup.federation, setup.dataset
    more = COSTS[kind](federation, dataset)
    changed = [
        accuracy(federation, dataset, 8, seed, **more) - accuracy(federation, dataset, 8, seed) for seed in range(6)
    ]
    error = np.std(changed, ddof=1) / len(changed) ** 0.5
    assert np.mean(changed) > -AT_MOST[kind] - 6 * error, changed


def test_canaries_where_they_cannot_be_are_refused(open_run) -> None:
    subject, _ = subject_of_folder(open_run)
    with pytest.raises(AuditError, match="no bound on one record"):
        canaries.plant(subject.facts, "update", 10, seed=0)
    with pytest.raises(AuditError, match="not noised"):
        canaries.plant(subject.facts, "prototypes", 10, seed=0)
    with pytest.raises(AuditError, match="no descriptor is noised"):
        canaries.plant(subject.facts, "descriptor", 10, seed=0)


@pytest.mark.parametrize("channel", ["update", "prototypes"])
def test_canaries_in_a_sum_over_clients_have_coordinates_of_their_own(channel) -> None:
    made_ = canaries.plant(load_setup(make_config(preset="digits-secure")).federation, channel, 500, seed=0)
    places = np.concatenate([each.places for each in made_.clients.values()])
    assert len(set(places.tolist())) == len(places) >= 490
    assert len(made_.clients) == 20  # those without canaries too: what they put in comes off


def a_tenth_of(channel, monkeypatch) -> None:
    """A channel of the default run draws a tenth of its noise; what it is said to cost stays as it was."""
    from framp_private.protections import distributed, gaussian

    if channel == "descriptor":
        whole = gaussian.add_gaussian
        monkeypatch.setattr(gaussian, "add_gaussian", lambda x, deviation, entropy: whole(x, deviation / 10, entropy))
        return
    kind = distributed.DistributedGaussian
    right = kind.share

    def less(self, size, cohort, entropy):
        drawn = right(self, size, cohort, entropy)
        return drawn // 10 if (self.clip_norm > 1) == (channel == "prototypes") else drawn

    monkeypatch.setattr(kind, "share", less)


@pytest.mark.parametrize("channel", ["update", "prototypes", "descriptor"])
def test_every_channel_of_the_default_that_spends_is_held_to_its_noise(channel, monkeypatch) -> None:
    """By canaries: nothing is refuted as it is, and where one channel has a tenth of its noise that one is, alone.

    A true claim is called refuted once in 10^4 audits, of which there are two. One estimator may refuse scores that look
    unlike a Gaussian's by chance; the others show enough without it.
    """
    config = make_config(preset="digits-secure", assignments={"rounds": 6, "evaluate_every": 6, "home_steps": 1})
    setup = load_setup(config)
    for expected in (set(), {channel}):
        if expected:
            a_tenth_of(channel, monkeypatch)
        found, _ = planted.audit_channels(
            setup.federation, setup.dataset, delta=1e-5, alpha=1e-4, canaries=2000, seed=3
        )
        assert set(found) == {"update", "prototypes", "descriptor"} and all(each.bounds for each in found.values())
        assert {name for name, each in found.items() if each.verdict.state == "refuted"} == expected


@pytest.mark.parametrize("preset", ["digits-secure", "digits-encrypted", "digits-distributed"])
def test_what_the_server_opened_opens_again_from_the_transcript(preset, tmp_path, monkeypatch) -> None:
    """The very sums, of every channel and round; with a client's vector changed nothing comes out."""
    from framp_private.federated import server

    seen: list[dict[str, np.ndarray]] = []
    real = server.apply
    monkeypatch.setattr(
        server,
        "apply",
        lambda federation, state, totals: (
            seen.append({name: total.value.copy() for name, total in totals.items()}) or real(federation, state, totals)
        ),
    )
    config = make_config(
        preset=preset, assignments={"rounds": 3, "clients": 12, "dropout": 0.1, "home_steps": 1, "evaluate_every": 3}
    )
    run = run_config(config, out=tmp_path / "run", options=Options(record_transcript=True))
    log = list(read_transcript(tmp_path / "run" / "private" / "transcript"))
    federation = run.simulation.federation
    found = reopened_totals(federation, log)
    kept = [row["round"] - 1 for row in RunFolder(tmp_path / "run").metrics() if not row.get("failed")]
    assert {index for index, _ in found} == set(kept) and len(kept) == len(seen) > 0
    for index, totals in zip(kept, seen, strict=True):
        for channel, value in totals.items():
            assert np.array_equal(found[index, channel], value)
    with pytest.raises(PlanError, match="parties are known"):
        reopened_totals(replace(federation, parties=None), log)


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    (out / "audit.html.partial").symlink_to(elsewhere)
    assert framp_audit(arguments) == 0 and elsewhere.read_text() == "mine"  # removed, and not followed
    assert stat.S_IMODE((out / "audit.json").stat().st_mode) == 0o600
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
        pytest.param("digits-distributed", {"rounds": 8, "clients": 60}, discrete_third, marks=pytest.mark.slow),
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
    assert rows["channels"]["prototypes"]["canaries"] == 640 and rows["channels"]["descriptor"]["canaries"] == 200
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
    (copy / "private" / "transcript" / "round-000002.bin").unlink()
    with pytest.raises(RunError, match="lacks 1 of 4 rounds"):
        subject_of_folder(copy)


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


def halved(dataset) -> dict:
    """Test records that are training records again: of one mix of classes."""
    return {name: replace(data, test=data.train) for name, data in dataset.clients.items()}


@pytest.mark.slow
def test_a_claim_of_client_level_names_its_unit(tmp_path) -> None:
    folder = made(tmp_path / "clients", "digits-client-private", rounds=2)
    subject, claim = subject_of_folder(folder)
    assert claim.unit == "client"
    report = run_audit(subject, claim, AuditPlan(attacks=["A10"]))
    assert not report.refuted
    # the server adds the noise itself: nothing bounds what it sees, and what others are sent is bounded all the same
    alike = replace(subject, dataset=replace(subject.dataset, clients=halved(subject.dataset)))
    assert alike.ceiling(["update"]).bounded and not alike.ceiling(["update"], server=True).bounded
    assert alike.identification(["update"], 0.1) is None
    assert {row.ceiling for row in attack_run(alike, ["E1"])} == {None}  # a client's own model is not in the claim
    update = report.channels["update"]
    assert update.claim.unit == "client" and update.claim.scope == "update, one round"
    wrong = PrivacyClaim(claim.epsilon, claim.delta, "record", claim.adjacency, "other", "this run alone")
    assert run_audit(subject, wrong, AuditPlan(attacks=["A10"], canary_run=False)).refuted
