"""Every field of every protection, over its whole range: what is printed is what happens, and all else is refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from framp_private import secure_sum
from framp_private.errors import PlanError, PrivacyParameterError, ProtocolError
from framp_private.protections import (
    AdaptiveClip,
    BFVSum,
    CentralGaussian,
    CKKSSum,
    DistributedGaussian,
    DistributedSkellam,
    LocalGaussian,
    PlainSum,
    SecAgg,
)

REFUSED = (PlanError, PrivacyParameterError)
MADE = {
    "SecAgg": SecAgg(),
    "LocalGaussian": LocalGaussian(1.0, 1.0),
    "CentralGaussian": CentralGaussian(1.0, 1.0),
    "DistributedGaussian": DistributedGaussian(1.0, 1.0),
    "DistributedSkellam": DistributedSkellam(1.0, 1.0),
    "PlainSum": PlainSum(),
    "AdaptiveClip": AdaptiveClip(),
    "BFVSum": BFVSum(),
    "CKKSSum": CKKSSum(),
}
REAL = ("threshold", "bound", "step", "survivors", "corrupt", "dropout", "clip_norm", "noise_multiplier", "fineness")
REAL += ("quantile", "rate", "deviation")
WHOLE = ("neighbours", "ring_bits", "minimum", "colluding", "records", "decryptions", "statistical_bits")
WORDS = ("beyond", "unit", "key_holder")
NO_NUMBER = ("1.0", 1 + 0j, True, [1.0], np.array([1.0, 2.0]), math.nan, math.inf, -math.inf)


def fields_of(made: object, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in getattr(made, "__dataclass_fields__", {})]


CASES = [
    *((kind, name, bad) for kind, made in MADE.items() for name in fields_of(made, REAL) for bad in NO_NUMBER),
    *(
        (kind, name, bad)
        for kind, made in MADE.items()
        for name in fields_of(made, WHOLE)
        for bad in (*NO_NUMBER, 3.0, 3.5, Fraction(7, 2), "3")
    ),
    *((kind, name, "wrap") for kind, made in MADE.items() for name in fields_of(made, WORDS)),
]


@pytest.mark.parametrize(("kind", "name", "bad"), CASES)
def test_what_is_no_number_of_its_kind_is_refused(kind: str, name: str, bad: object) -> None:
    with pytest.raises(REFUSED):
        replace(MADE[kind], **{name: bad})  # type: ignore[type-var]


@pytest.mark.parametrize("kind", ["LocalGaussian", "CentralGaussian", "DistributedGaussian", "DistributedSkellam"])
@pytest.mark.parametrize("clip", [0.0, -1.0, 1e-300, 1e-30, 1e30, 1e300])
def test_clips_that_leave_nothing_are_refused(kind: str, clip: float) -> None:
    with pytest.raises(PrivacyParameterError):
        replace(MADE[kind], clip_norm=clip)  # type: ignore[type-var]


@pytest.mark.parametrize("clip", [1e-18, 1e-12, 1.0, 1e12, 1e18])
def test_at_the_ends_of_the_range_values_come_through(clip: float) -> None:
    value = np.zeros(50)
    value[0] = clip
    made = DistributedGaussian(clip, 0.01, SecAgg())
    total = secure_sum({f"c{i}": value for i in range(10)}, made).value
    assert total[0] / clip == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("kind", [DistributedGaussian, DistributedSkellam])
def test_what_a_secure_sum_says_inside_a_noise_is_what_happens(kind: type[DistributedGaussian]) -> None:
    """A width that was asked for is the width, one too narrow is refused; what follows from the noise is not accepted."""
    wide = kind(1.0, 1.0, SecAgg(ring_bits=40))
    assert wide.ring(4000, 10).bits == 40 and kind(1.0, 1.0).ring(4000, 10).bits < 40
    with pytest.raises(PrivacyParameterError, match="ring_bits=16"):
        kind(1.0, 1.0, SecAgg(ring_bits=16)).check(10, True, 4000)
    with pytest.raises(PrivacyParameterError, match="ring_bits=16"):
        secure_sum({f"c{i}": np.zeros(4000) for i in range(10)}, kind(1.0, 1.0, SecAgg(ring_bits=16)))
    for inner in (SecAgg(bound=2.0), SecAgg(step=1e-3)):
        with pytest.raises(PlanError, match="follow from"):
            kind(1.0, 1.0, inner)
    assert "beyond='clip'" in repr(kind(1.0, 1.0)) and kind(1.0, 1.0, SecAgg(beyond="clip")) == kind(1.0, 1.0)


@pytest.mark.parametrize("threshold", [0.5, 0.55, 0.6, 0.75, 0.99])
@pytest.mark.parametrize(("cohort", "corrupt"), itertools.product([3, 4, 10, 33, 64], [0.0, 0.1, 0.3]))
def test_thresholds_are_as_asked_or_refused(threshold: float, cohort: int, corrupt: float) -> None:
    made = SecAgg(threshold=threshold, corrupt=corrupt)
    opening, bad = math.floor(threshold * cohort + 1e-9) + 1, math.floor(corrupt * cohort + 1e-9)
    if 2 * opening - cohort - 1 < bad:
        with pytest.raises(PlanError, match="two views"):
            made.terms(cohort)
    else:
        assert made.terms(cohort).threshold == opening


@pytest.mark.parametrize(
    "bad", [np.zeros(3, complex), np.zeros(3, bool), np.array(["1", "2", "3"]), np.array([None] * 3)]
)
def test_values_that_are_no_real_numbers_are_refused(bad: np.ndarray) -> None:
    for protection in (SecAgg(), PlainSum(), BFVSum()):
        with pytest.raises(ProtocolError, match="real numbers"):
            secure_sum({"a": np.zeros(3), "b": bad, "c": np.zeros(3)}, protection)
