"""Guarantees for whole clients and the models that they are served: outside of the claim, or inside at a price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from framp_private import make_config, run_config
from framp_private.errors import ConfigError, PlanError, PrivacyParameterError, RunError
from framp_private.federated.accounts import SERVED
from framp_private.privacy.chain import read_chain
from framp_private.privacy.events import from_row
from framp_private.protections import LocalGaussian
from framp_private.runs import load_setup

SMALL = {"clients": 12, "rounds": 2, "home_steps": 1, "evaluate_every": 2}
NOISED = {"protections": {"descriptor": "local-gaussian"}}


@pytest.mark.parametrize("preset", ["digits-client-private", "digits-distributed"])
def test_a_noised_descriptor_puts_served_models_into_the_claim(preset: str, tmp_path: Path) -> None:
    config = make_config(preset=preset, assignments={**SMALL, **NOISED})
    run = run_config(config, out=tmp_path / "run")
    claim = run.summary["privacy"]["client"]
    assert 7.9 < claim["epsilon"] <= 8.0 and SERVED not in claim["scope"]
    row = run.summary["channels"]["descriptor"]
    assert row["unit"] == "client" and row["releases"] == 1 and 0 < row["epsilon"] < claim["epsilon"]
    for name in run.simulation.federation.budgets:
        rows = read_chain(tmp_path / "run" / "ledgers" / f"{name}.jsonl")
        spent = [each for each in rows if each.get("label", "").endswith("home/descriptor")]
        assert len(spent) == 1 and spent[0]["unit"] == "client"
        assert from_row(spent[0]["mechanism"]).noise_multiplier == row["noise_multiplier"]
    first, again = (run.weights("client-00").weights for _ in range(2))
    assert torch.equal(first, again)  # one draw, whatever is served


def test_without_it_the_claim_says_that_served_models_are_outside() -> None:
    run = run_config(make_config(preset="digits-client-private", assignments=SMALL))
    assert SERVED in run.summary["privacy"]["client"]["scope"] and "descriptor" not in run.summary["channels"]


def test_a_whole_clients_descriptor_is_clipped_whatever_its_records_are() -> None:
    """Its largest size is what its absence moves, so that the noise is for that; no record number divides it."""
    setup = load_setup(make_config(preset="digits-client-private", assignments={**SMALL, **NOISED}))
    federation = setup.federation
    clip = federation.home_descriptor.clip_norm  # type: ignore[union-attr]
    for name, data in setup.dataset.clients.items():
        value = federation.describe(name, data)
        assert np.linalg.norm(value) <= clip * (1 + 1e-6)
        assert torch.equal(federation.descriptor_of(value, 7), torch.from_numpy(value.astype(np.float32)))
    huge = replace(federation, plan=replace(federation.plan, descriptor=LocalGaussian(1e-3, 2.0, unit="client")))
    name, data = next(iter(setup.dataset.clients.items()))
    assert np.linalg.norm(huge.describe(name, data)) == pytest.approx(1e-3, rel=1e-4)


def test_noise_of_another_unit_or_relation_is_refused() -> None:
    federation = load_setup(make_config(preset="digits-client-private", assignments=SMALL)).federation
    with pytest.raises(PlanError, match="unit='client'"):
        replace(federation, plan=replace(federation.plan, descriptor=LocalGaussian(1.0, 2.0)))
    with pytest.raises(PrivacyParameterError, match="unit"):
        LocalGaussian(1.0, 2.0, unit="household")  # type: ignore[arg-type]
    sampled = {**SMALL, **NOISED, "clients_per_round": 6}
    with pytest.raises((PlanError, ConfigError), match="poisson"):
        load_setup(make_config(preset="digits-client-private", assignments=sampled))


@pytest.mark.slow
def test_a_poisson_sample_of_clients_takes_a_noised_descriptor() -> None:
    settings = {**SMALL, **NOISED, "clients_per_round": 6, "cohorts": "poisson"}
    run = run_config(make_config(preset="digits-client-private", assignments=settings))
    assert run.summary["privacy"]["client"]["epsilon"] <= 8.0


def test_unseen_clients_have_no_descriptor_that_was_paid_for() -> None:
    run = run_config(make_config(preset="digits-client-private", assignments={**SMALL, **NOISED, "unseen_clients": 2}))
    with pytest.raises(RunError, match="never enrolled"):
        run.weights("unseen-00")
