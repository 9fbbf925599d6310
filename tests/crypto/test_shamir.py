"""Shares: any threshold of them gives the secret back, fewer say nothing, wrong ones are noticed or useless."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framp_private.crypto import shamir
from framp_private.crypto.shamir import PRIME, draw_secret, recover, share
from framp_private.errors import CryptoError
from framp_private.randomness import Entropy

SECRET = bytes(range(32))


def naive(shares: dict[int, bytes]) -> int:
    """Gaussian elimination of the polynomial's coefficients: another way to the value at zero."""
    points = sorted(shares)
    rows = [[pow(x, power, PRIME) for power in range(len(points))] + [int.from_bytes(shares[x], "big")] for x in points]
    for column in range(len(points)):
        pivot = next(row for row in range(column, len(points)) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], -1, PRIME)
        rows[column] = [value * inverse % PRIME for value in rows[column]]
        for row in range(len(points)):
            if row != column:
                factor = rows[row][column]
                rows[row] = [(a - factor * b) % PRIME for a, b in zip(rows[row], rows[column], strict=True)]
    return rows[0][-1]


def test_the_prime_is_the_largest_below_2_256() -> None:
    for witness in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        odd, twos = PRIME - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        value = pow(witness, odd, PRIME)
        assert value in (1, PRIME - 1) or any((value := value * value % PRIME) == PRIME - 1 for _ in range(twos))
    for larger in range(PRIME + 2, 2**256, 2):
        assert pow(2, larger - 1, larger) != 1


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
def test_any_threshold_of_shares_gives_the_secret_back(secret: bytes, n: int, data: st.DataObject) -> None:
    if int.from_bytes(secret, "big") >= PRIME:
        return
    threshold = data.draw(st.integers(1, n))
    points = data.draw(st.lists(st.integers(1, PRIME - 1), min_size=n, max_size=n, unique=True))
    shares = share(secret, threshold, points, Entropy())
    chosen = data.draw(st.permutations(points))[:threshold]
    part = {x: shares[x] for x in chosen}
    assert recover(part, threshold) == secret == naive(part).to_bytes(32, "big")
    assert recover(shares, threshold) == secret


def test_fewer_than_the_threshold_fit_any_secret() -> None:
    """With t - 1 shares there is, for each secret, exactly one polynomial: interpolate through the guess and the shares."""
    shares = share(SECRET, 3, [1, 2, 3], Entropy())
    for guess in (0, 1, PRIME - 1, 12345):
        points = {0: guess, 1: int.from_bytes(shares[1], "big"), 2: int.from_bytes(shares[2], "big")}
        third = 0
        for x, y in points.items():
            top = bottom = 1
            for other in points:
                if other != x:
                    top, bottom = top * (3 - other) % PRIME, bottom * (x - other) % PRIME
            third = (third + y * top * pow(bottom, -1, PRIME)) % PRIME
        part = {1: shares[1], 2: shares[2], 3: third.to_bytes(32, "big")}
        assert recover(part, 3) == guess.to_bytes(32, "big")


def test_shares_are_uniform_and_drawn_anew() -> None:
    """First bytes of 4,096 single shares of one secret: chi-square with 255 degrees, rejected at 1e-6 above 372."""
    seen = Counter(share(SECRET, 2, [7, 9], Entropy())[7][0] for _ in range(4096))
    assert sum((seen[value] - 16) ** 2 / 16 for value in range(256)) < 372
    assert share(SECRET, 2, [1, 2], Entropy()) != share(SECRET, 2, [1, 2], Entropy())
    assert share(SECRET, 1, [5], Entropy())[5] == SECRET


def test_one_share_less_raises_and_a_wrong_one_gives_another_secret() -> None:
    shares = share(SECRET, 4, range(1, 8), Entropy())
    for chosen in itertools.combinations(shares, 3):
        with pytest.raises(CryptoError, match="threshold"):
            recover({x: shares[x] for x in chosen}, 4)
    wrong = {**shares, 2: shares[3]}
    assert recover(wrong, 4) != SECRET  # what is recovered must be checked against something public


BAD_SECRETS = [b"", bytes(31), bytes(33), PRIME.to_bytes(32, "big"), b"\xff" * 32]


@pytest.mark.parametrize("secret", BAD_SECRETS)
def test_what_is_no_field_element_is_refused(secret: bytes) -> None:
    with pytest.raises(CryptoError):
        share(secret, 1, [1], Entropy())
    with pytest.raises(CryptoError):
        recover({1: secret}, 1)


@pytest.mark.parametrize(
    ("threshold", "points"),
    [(0, [1, 2]), (-1, [1]), (3, [1, 2]), (1, []), (1, [0]), (2, [1, 1]), (1, [PRIME]), (1, [-1]), (1, [PRIME + 1, 1])],
)
def test_points_and_thresholds_out_of_range_are_refused(threshold: int, points: list[int]) -> None:
    with pytest.raises(CryptoError):
        share(SECRET, threshold, points, Entropy())
    with pytest.raises(CryptoError):
        recover(dict.fromkeys(points, SECRET), threshold if threshold > 0 and len(points) >= threshold else 0)


def test_drawn_secrets_are_below_the_prime(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([b"\xff" * 32, PRIME.to_bytes(32, "big"), SECRET])
    monkeypatch.setattr(Entropy, "bytes", lambda self, count: next(drawn))
    assert draw_secret(Entropy()) == SECRET
    assert shamir.SECRET_BYTES == 32
