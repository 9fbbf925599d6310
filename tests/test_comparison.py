"""Runs side by side: seeds are replicates, differences are paired, and what does not compare is said."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from framp_private.comparison import compare, holm, read_comparison, write_comparison
from framp_private.errors import RunError


def run(folder: Path, config: dict[str, Any], local: float, epsilon: float | None = None) -> Path:
    """A finished run's folder with what a comparison reads."""
    folder.mkdir(parents=True)
    table = {"1": local, "mean": local}
    nothing = {
        "epsilon": None,
        "delta": None,
        "relation": "add/remove",
        "trust_model": "none",
        "scope": "this run alone",
    }
    claim = {**nothing, "epsilon": epsilon, "delta": 1e-5, "trust_model": "any server"} if epsilon else nothing
    summary = {
        "method": config.get("method", "framp"),
        "dataset": "digits",
        "seed": config["seed"],
        "clients": config.get("clients", 20),
        "unseen_clients": 0,
        "accuracy": {
            "local": table,
            "union": table,
            "after_local_training": dict.fromkeys(table),
            "unseen": dict.fromkeys(table),
        },
        "by_client": {"a": {"local": local - 0.1, "after_local_training": None}},
        "privacy": {"record": claim, "client": nothing},
        "traffic": {"up": {"update": 10}, "down": {"update": 20}},
        "seconds": {"rounds": 1.0},
        "server_view": {"update": {"protection": "LocalGaussian", "granularity": "client", "trust": "nobody"}},
        "provenance": {"config_sha256": "c" * 64, "code_sha256": "d" * 64, "data_commitment": None},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


RATES = {0.1: [0.5, 0.6, 0.7], 0.2: [0.62, 0.7, 0.83], 0.4: [0.4, 0.9, 0.5]}


def folders(root: Path) -> list[Path]:
    found = []
    for rate, values in RATES.items():
        for seed, value in enumerate(values):
            config = {"seed": seed, "learning_rate": rate, "threads": seed + 1, "privacy": {"epsilon": 2.0}}
            found.append(run(root / f"{rate}-{seed}", config, value, 2.0))
    return found


def made(root: Path) -> dict[str, Any]:
    return compare([*folders(root), run(root / "open", {"seed": 0, "privacy": "none", "learning_rate": 0.1}, 0.9)])


def test_runs_that_differ_in_their_seed_alone_are_replicates(tmp_path: Path) -> None:
    found = compare(folders(tmp_path))
    assert [setting["differs"] for setting in found["settings"]] == [{"learning_rate": rate} for rate in RATES]
    for setting, values in zip(found["settings"], RATES.values(), strict=True):
        mean = setting["means"]["local/mean"]
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        ends = max(low, 0), min(high, 1)  # of an accuracy
        assert (mean["mean"], mean["low"], mean["high"], mean["n"]) == pytest.approx((np.mean(values), *ends, 3))
        assert setting["seeds"] == ["0", "1", "2"] and setting["unit"] == "record"
    assert found["comparable"] == []


def test_differences_are_paired_over_common_seeds_and_corrected(tmp_path: Path) -> None:
    found = compare(folders(tmp_path)[:-1])
    first, second = (row["measures"]["local/mean"] for row in found["differences"])
    expected = stats.ttest_rel(RATES[0.2], RATES[0.1])
    assert first["p"] == pytest.approx(expected.pvalue) and first["mean"] == pytest.approx(0.35 / 3)
    assert second["seeds"] == ["0", "1"] and second["n"] == 2
    assert second["p"] == pytest.approx(stats.ttest_rel(RATES[0.4][:2], RATES[0.1][:2]).pvalue)
    for measure, pair in ((first, (0.2, 0.1)), (second, (0.4, 0.1))):
        values = [RATES[rate][: measure["n"]] for rate in pair]
        low, high = stats.ttest_rel(*values).confidence_interval(0.95)
        assert (measure["low"], measure["high"]) == pytest.approx((max(low, -1), min(high, 1)))
    some = folders(tmp_path / "x")
    single = compare([some[0], some[3]])["differences"][0]["measures"]["local/mean"]
    assert single["p"] is None and single["low"] is None and "p_holm" not in single


def test_p_is_corrected_over_all_measures_and_settings_together(tmp_path: Path) -> None:
    """Four accuracies and the worst client's, which are one number, of two settings: ten tests, five of each p."""
    found = compare(folders(tmp_path))
    tested = [m for row in found["differences"] for m in row["measures"].values() if m["p"] is not None]
    assert len(tested) == 10 and found["differences"][0]["measures"]["bytes"]["p"] is None
    assert [m["p_holm"] for m in tested] == pytest.approx(closed([m["p"] for m in tested]))
    first, second = (row["measures"]["local/mean"] for row in found["differences"])
    assert first["p"] < second["p"] and first["p_holm"] == pytest.approx(10 * first["p"]) and first["p_holm"] < 1
    assert second["p_holm"] == pytest.approx(min(1, 5 * second["p"]))
    assert not any("p_holm" in m for row in found["differences"] for m in row["measures"].values() if m["p"] is None)


def closed(values: list[float]) -> list[float]:
    """Adjusted p by the closure principle: the worst Bonferroni p of all sets of hypotheses that one is in."""
    places = range(len(values))
    sets = [chosen for size in range(1, len(values) + 1) for chosen in itertools.combinations(places, size)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(values[place] for place in chosen)) for chosen in sets}
    return [max(p for chosen, p in bonferroni.items() if place in chosen) for place in places]


def test_holm_is_the_step_down_rule_and_the_closure_of_bonferronis() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 8):
        values = (rng.random(n) ** 4).tolist()
        adjusted = holm(values)
        assert adjusted == pytest.approx(closed(values))
        order = sorted(values)
        for place, value in enumerate(values):
            rank = order.index(value)
            slow = max(min(1.0, (n - k) * order[k]) for k in range(rank + 1))
            assert adjusted[place] == pytest.approx(slow)
    assert holm([]) == []


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    open_, private = {"seed": 0, "privacy": "none"}, {"seed": 0, "privacy": {"epsilon": 1}}
    found = compare([run(tmp_path / "a", open_, 0.5), run(tmp_path / "b", {**private, "clients": 9}, 0.5, 1.0)])
    assert any("different data" in words for words in found["comparable"])
    assert any("their epsilons do not compare" in words for words in found["comparable"])
    assert [row["runs"][0]["folder"] for row in found["settings"]] == ["a", "b"]
    assert found["settings"][0]["runs"][0]["code_sha256"] == "d" * 64
    assert found["settings"][1]["server_view"]["update"]["granularity"] == "client"
    first, second = (setting["differs"] for setting in found["settings"])  # what one lacks is not said of it
    assert first == {"privacy": "none"} and second == {"privacy.epsilon": 1, "clients": 9}
    assert found["settings"][0]["claim"] is None and found["settings"][1]["claim"]["epsilon"] == 1.0


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = run(tmp_path / "a", {"seed": 0}, 0.5)
    with pytest.raises(RunError, match="at least two different"):
        compare([one])
    with pytest.raises(RunError, match="at least two different"):
        compare([one, tmp_path / "." / "a"])
    with pytest.raises(RunError, match="repeats seed 0"):
        compare([one, run(tmp_path / "b", {"seed": 0}, 0.6)])
    (tmp_path / "c").mkdir()
    with pytest.raises(RunError, match="holds no"):
        compare([one, tmp_path / "c"])


def test_it_is_written_and_read_back(tmp_path: Path) -> None:
    found = compare(folders(tmp_path / "runs"))
    write_comparison(found, tmp_path / "out")
    assert read_comparison(tmp_path / "out") == json.loads(json.dumps(found))
    write_comparison(found, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RunError, match="not empty"):
        write_comparison(found, tmp_path / "full")
    assert not any(math.isnan(row["mean"]) for row in found["settings"][0]["means"].values())
