"""What encrypted sums open: the exact sum under BFV, the sum within its stated error under CKKS, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from framp_private import secure_sum
from framp_private.crypto.homomorphic import MOST_BITS
from framp_private.errors import BelowThreshold, PlanError, PrivacyParameterError, ProtocolError
from framp_private.protections import (
    BFVSum,
    CentralGaussian,
    CKKSSum,
    DistributedGaussian,
    LocalGaussian,
    SecAgg,
    chain,
)
from framp_private.protections.homomorphic import EncryptedSum
from framp_private.transcript import Transcript, read_transcript
from tests.homomorphic.harness import Round, values_of

HOLDERS = ("party", "clients")


@pytest.mark.parametrize("key_holder", HOLDERS)
@pytest.mark.parametrize("seed", range(15))
def test_bfv_sums_are_the_plain_sums_of_the_quantised_values(seed: int, key_holder: str) -> None:
    rng = np.random.default_rng(seed)
    n, size = int(rng.integers(3, 40)), int(10 ** rng.uniform(0, 4))
    values, protection = values_of(n, size, seed), BFVSum(key_holder=key_holder, survivors=0.5)  # type: ignore[arg-type]
    gone = tuple(name for name in values if rng.random() < 0.3)
    staying = [name for name in values if name not in gone]
    case = Round(values, protection)
    if len(staying) < protection.least_survivors(n):
        with pytest.raises(BelowThreshold):
            case.total(gone)
        return
    ring = protection.ring(n)
    plain = sum(ring.centred(ring.encode(values[name])) for name in staying) * ring.step
    total = case.total(gone)
    assert (total.value == plain).all() and total.count == len(staying)
    if not gone:
        assert (secure_sum(values, SecAgg()).value == total.value).all()


@pytest.mark.parametrize("n", [3, 20, 200, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_bounds_do_not_wrap_nor_drown(n: int, sign: int) -> None:
    """All clients at the bound: the largest sum there is, with the error of n ciphertexts."""
    values = {f"client-{i:04d}": np.full(3, float(sign)) for i in range(n)}
    assert (secure_sum(values, BFVSum()).value == sign * n).all()


@pytest.mark.parametrize("key_holder", HOLDERS)
def test_ckks_totals_lie_within_their_stated_error(key_holder: str) -> None:
    values, protection = values_of(12, 3000), CKKSSum(key_holder=key_holder)  # type: ignore[arg-type]
    found = Round(values, protection).total().value - sum(values.values())
    assert np.abs(found).max() < protection.stated_error(3000, 12)
    # the noise is what was declared, by a test with a false alarm in 10^6, and neither 2/3 nor 3/2 of it
    deviation = protection.holder_deviation(3000, 12)
    for factor, fits in ((1, True), (2 / 3, False), (1.5, False)):
        assert (stats.kstest(found / (deviation * factor), "norm").pvalue > 1e-6) == fits


def test_ckks_noise_is_the_holders_own_and_grows_with_what_one_key_opens() -> None:
    few, many = CKKSSum(decryptions=10), CKKSSum(decryptions=1000)
    assert many.holder_deviation(100, 5) == pytest.approx(few.holder_deviation(100, 5) * 10)
    assert replace(few, statistical_bits=40).holder_deviation(100, 5) == pytest.approx(
        few.holder_deviation(100, 5) * 2**5
    )
    case = Round(values_of(5, 100), few)
    first = case.total().value
    case.records = {}
    assert not np.array_equal(case.total().value, first)


def test_one_key_opens_no_more_sums_than_its_noise_was_sized_for() -> None:
    case = Round(values_of(4), CKKSSum(decryptions=2))
    for index in range(2):
        case = Round(case.values, case.protection, index=index, records=case.records, identities=case.identities)
        case.total()
    case = Round(case.values, case.protection, index=2, records=case.records, identities=case.identities)
    with pytest.raises(ProtocolError, match="take a new one"):
        case.total()


def test_a_value_beyond_the_bound_is_refused_or_clipped() -> None:
    for protection in (BFVSum(), CKKSSum()):
        for bad in (1.001, np.nan, np.inf):
            values = {**values_of(4), "client-02": np.array([0.0, bad, 0, 0, 0, 0, 0])}
            with pytest.raises(ProtocolError, match=r"bound|finite"):
                secure_sum(values, protection)
            clipped = secure_sum(values, replace(protection, beyond="clip")).value
            rest = sum(value for name, value in values.items() if name != "client-02")
            assert clipped[1] - rest[1] == pytest.approx(1.0 if bad == 1.001 else 0.0, abs=0.01)


def test_drops_at_every_stage() -> None:
    values, ring = values_of(8), BFVSum().ring(8)
    total = secure_sum(values, BFVSum(), drop={"client-01": "keys", "client-02": "masked", "client-03": "unmask"})
    staying = [name for name in values if name not in ("client-01", "client-02")]
    assert total.count == 6
    assert (total.value == sum(ring.centred(ring.encode(values[name])) for name in staying) * ring.step).all()
    with pytest.raises(BelowThreshold):
        secure_sum(values, BFVSum(), drop=dict.fromkeys(list(values)[:4], "masked"))


def test_noise_goes_in_before_encryption() -> None:
    values = {f"client-{i}": np.zeros(4000) for i in range(5)}
    found = secure_sum(values, chain(LocalGaussian(1.0, 0.1), BFVSum(bound=2.0, beyond="clip"))).value
    assert stats.kstest(found / (0.1 * 5**0.5), "norm").pvalue > 1e-6
    assert stats.kstest(found / (0.15 * 5**0.5), "norm").pvalue < 1e-6


@pytest.mark.parametrize("protection", [BFVSum(), CKKSSum(), BFVSum(key_holder="clients")])
def test_a_secure_transcript_holds_no_value_and_no_secret_key(protection: EncryptedSum, tmp_path) -> None:  # noqa: ANN001
    transcript = Transcript(tmp_path)
    values = {f"client-{i}": np.full(4000, 0.25 + i / 100) for i in range(4)}
    secure_sum(values, protection, transcript=transcript)
    parts = list(read_transcript(tmp_path))
    data = b"".join(delivery.data for _, delivery in parts)
    for value in values.values():
        for dtype in (np.float32, np.float64):
            assert value[:2].astype(dtype).tobytes() not in data
    # nothing that travels is a private context: a public one is the largest context there is
    largest = protection.parameters(4)
    for _, delivery in parts:
        assert b"Context" not in delivery.data[:20] or len(delivery.data) < 8 * largest.degree * (
            2 * (len(largest.primes) + 1)
        )


@pytest.mark.parametrize("cohort", [3, 20, 1000, 10_000])
@pytest.mark.parametrize("protection", [BFVSum(), BFVSum(bound=100.0, step=1e-3), BFVSum(step=1e-6), CKKSSum()])
def test_parameters_keep_128_bits_and_hold_the_worst_sum(protection: EncryptedSum, cohort: int) -> None:
    found = protection.parameters(cohort)
    modulus = 2.0 ** sum(bits - 1 for bits in found.primes)
    assert sum(found.primes) + found.special <= MOST_BITS[found.degree]
    if isinstance(protection, BFVSum):
        levels = protection.ring(cohort).levels
        assert found.plain_modulus > 2 * cohort * levels
        assert cohort * (found.fresh_error + 2) < modulus / (2 * found.plain_modulus)
        if len(found.primes) == 1:  # and two bits less would not do
            assert cohort * (found.fresh_error + 2) > modulus / 4 / (2 * found.plain_modulus)
    else:
        unit = protection.unit(cohort)
        assert found.degree * cohort * (found.fresh_error + 1) / 2.0**found.scale_bits <= unit
        assert 2.0**found.scale_bits * 2 * cohort * protection.bound * 1.01 < modulus


def test_prototypes_of_ten_classes_fit_one_small_ciphertext() -> None:
    case = Round({f"client-{i:02d}": np.zeros(1290) for i in range(20)}, BFVSum())
    case.total()
    uploads = [data for way, _, data in case.sent if way == "up" and len(data) > 1000]
    assert max(map(len, uploads)) <= 124_000 and case.protection.parameters(20).degree == 4096
    values = [len(data) for way, _, data in case.sent if way == "up" and 40_000 < len(data) < 60_000]
    assert len(values) == 20 and max(values) <= 50_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: BFVSum(key_holder="server"),  # type: ignore[arg-type]
        lambda: BFVSum(minimum=2),
        lambda: BFVSum(survivors=1.5),
        lambda: BFVSum(bound=0.0),
        lambda: BFVSum(step=0.0),
        lambda: BFVSum(bound=float("inf")),
        lambda: CKKSSum(decryptions=0),
        lambda: CKKSSum(statistical_bits=60),
        lambda: BFVSum(step=1e-15).parameters(10_000),
        lambda: BFVSum().check(2, False),
        lambda: BFVSum().check(5, True),
        lambda: DistributedGaussian(1.0, 1.0, BFVSum()),  # type: ignore[arg-type]
        lambda: secure_sum(values_of(4), chain(CentralGaussian(1.0, 1.0), BFVSum())),
    ],
)
def test_what_no_sum_can_be_made_of_is_refused(make) -> None:  # noqa: ANN001
    with pytest.raises((PlanError, PrivacyParameterError)):
        make()
