"""`BFVSum` and `CKKSSum`: sums of encrypted values, opened by whoever holds the key."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from framp_private.crypto.homomorphic import MOST_BITS, Encryption, Parameters, batching_prime
from framp_private.crypto.ring import Ring
from framp_private.errors import PlanError, PrivacyParameterError, ProtocolError
from framp_private.privacy.checks import check_real, check_whole
from framp_private.privacy.events import Event, unprotected
from framp_private.privacy.noise import standard_gaussian
from framp_private.protections.base import Exchange, Lift, Meeting, Member, Protection, Seat, ServerView, Session
from framp_private.protections.homomorphic import client
from framp_private.protections.homomorphic.server import CiphertextSum, agreed
from framp_private.randomness import Entropy

KeyHolder = Literal["party", "clients"]


@dataclass(frozen=True)
class EncryptedSum(Protection):
    """What both have: values are clipped or refused at a bound, encrypted, signed, added up and opened once.

    Guarantees, where the server and all clients follow the protocol: a server that does not work with the key holder
    learns the sum over at least `least_survivors` clients and who took part; the key holder learns the sum as well, and
    with the server every client's value. Ciphertexts are malleable and a signature does not show that its client knows
    what is in one: a client that signs what a server crafted from others' ciphertexts can have one of their values, or
    the key, opened. What must stay hidden then has to be noised before (`LocalGaussian`).

    Args:
        key_holder: `party`, one that is neither server nor client; or `clients`, who all hold the key, so that any one
            of them and the server can decrypt everything, and a server that lies can have two sums of a round opened.
        bound: largest size of a value, per coordinate.
        beyond: what becomes of a value beyond the bound or not finite: `refuse` it, which fails because of what the
            values are and so has no place under a guarantee, or `clip` it, to the bound or to zero.
        minimum: smallest cohort, and number of signers, that anything is opened for; at least 3.
        survivors: share of the planned cohort that must have signed, in [0, 1].

    Raises:
        PlanError, PrivacyParameterError: a value outside its range.
    """

    key_holder: KeyHolder = "party"
    bound: float = 1.0
    beyond: Literal["refuse", "clip"] = "refuse"
    minimum: int = 3
    survivors: float = 0.6
    randomised: ClassVar[bool] = True
    one_request: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.key_holder not in ("party", "clients"):
            raise PlanError(f"key_holder={self.key_holder!r}: use 'party' or 'clients'")
        if self.beyond not in ("refuse", "clip"):
            raise PlanError(f"beyond={self.beyond!r} must be 'refuse' or 'clip'")
        check_whole(self, "minimum")
        check_real(self, "survivors")
        check_real(self, "bound")
        if self.minimum < 3 or not 0 <= self.survivors <= 1:
            raise PlanError(f"minimum={self.minimum} is at least 3, survivors={self.survivors} lies in [0, 1]")
        if not 0 < self.bound < math.inf:
            raise PrivacyParameterError(f"bound={self.bound} must be positive and finite")

    @property
    def most_openings(self) -> int | None:
        """No limit."""
        return None

    @abstractmethod
    def parameters(self, cohort: int) -> Parameters:
        """The smallest that keep 128 bits of security and hold a cohort's sum."""

    @abstractmethod
    def unit(self, cohort: int) -> float:
        """What one unit of an opened sum stands for."""

    @abstractmethod
    def quantised(self, values: np.ndarray, cohort: int) -> np.ndarray:
        """(n,) what is encrypted."""

    @abstractmethod
    def opened(
        self, encryption: Encryption, vectors: Sequence[Sequence[bytes]], size: int, cohort: int, entropy: Entropy
    ) -> np.ndarray:
        """(size,) int64 the sum in units, as it may be told to the server."""

    def least_survivors(self, cohort: int) -> int:
        """How many clients any sum that is opened is over, at least."""
        return max(self.minimum, math.ceil(self.survivors * cohort))

    def check(self, cohort: int, guarded: bool, size: int = 0) -> None:
        """Raises `PlanError` or `PrivacyParameterError` unless it can carry rounds of a cohort."""
        del size
        if cohort < self.minimum:
            raise PlanError(f"cohort={cohort} is below the minimum of {self.minimum}: ask more clients in a round")
        self.parameters(cohort)
        if guarded and self.beyond == "refuse":
            raise PlanError(
                "an encrypted sum that refuses values beyond its bound ends a round because of what the records are: "
                "under a guarantee use beyond='clip'"
            )

    def answer(
        self, message: bytes, held: bytes, member: Member, planned: int, round_index: int, fresh: bool
    ) -> tuple[bytes, bytes]:
        """The client's half of the trips `offer` and `context`, and of the others where clients hold the key."""
        del fresh
        return client.answer(self, self.key_holder == "clients", message, held, member, planned, round_index)

    def receive(self, brief: bytes, asked: bytes, held: bytes, member: Member, planned: int, round_index: int) -> bytes:
        """The client's half of the trip `values`, up to its values."""
        del planned, round_index
        return client.receive(brief, asked, held, member)

    def protect(self, value: np.ndarray, entropy: Entropy, seat: Seat | None = None) -> bytes:
        """The signed ciphertexts; raises `PlanError` without a seat in a round, `ProtocolError` for an unfit value."""
        del entropy
        if seat is None or seat.member is None:
            raise PlanError("an encrypted sum takes a round's context, and keys that sign")
        values = np.ravel(value)
        if self.beyond == "clip":
            values = seat.cut(values, self.bound)
        return client.encrypted(self.quantised(values, seat.planned), self.parameters(seat.planned), seat, seat.member)

    def reveal(self, payload: bytes) -> np.ndarray:
        """Refused: the server sees no client's value."""
        raise PlanError("an encrypted sum shows no client's value")

    def open(
        self, cohort: Sequence[str], size: int | None, lift: Lift, exchange: Exchange, meeting: Meeting | None = None
    ) -> Session:
        """Makes the trips `context` and `offer`, once for all channels of this value."""
        del exchange
        context, known = agreed(self, self.key_holder == "clients", cohort, size, lift, meeting)
        assert meeting is not None and size is not None
        return CiphertextSum(
            meeting,
            Encryption(context, self.parameters(len(cohort))),
            hashlib.sha256(context).digest(),
            known,
            size,
            self.least_survivors(len(cohort)),
            self.unit(len(cohort)),
            clients=list(cohort) if self.key_holder == "clients" else [],
        )

    def event(self, cohort: Sequence[str], size: int = 0) -> Event:
        """No guarantee for the sum itself: noise has to be added for that."""
        del cohort, size
        return unprotected("record", "an encrypted sum without noise: the sum itself is exact")

    def server_view(self) -> ServerView:
        """Sums over at least the smallest number of signers."""
        metadata = ("who took part", "who dropped out", "who lacks the key, as after a restart", "sizes", "times")
        if self.key_holder == "party":
            trust = (
                "clients that follow the protocol, and a key holder that does not work with the server: together, or "
                "with one client that signs what the server crafts, they see each client's value"
            )
        else:
            trust = "honest-but-curious server that works with no client: with any one it sees each client's value"
        return ServerView("sum", self.minimum, trust, metadata)


@dataclass(frozen=True)
class BFVSum(EncryptedSum):
    """Exact sums of quantised values, on the same integers as `SecAgg`.

    Args:
        step: what values are rounded to, at most. The other arguments are `EncryptedSum`'s.
    """

    step: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self, "step")
        self.ring(self.minimum)

    def ring(self, cohort: int) -> Ring:
        """The quantiser; its modulus is the scheme's, not a power of two."""
        return Ring.fitting(cohort, self.bound, self.step)

    def parameters(self, cohort: int) -> Parameters:
        """The smallest N and primes at which no sum of a cohort wraps and none decrypts wrongly.

        The error of a sum is at most n (E + 2), with E that of a fresh ciphertext and 2 for rounding q m / t and for
        sums that wrap modulo t; it decrypts rightly as long as that is below q / (2 t) (Fan and Vercauteren 2012,
        lemma 1).
        """
        levels = self.ring(cohort).levels
        found = _bfv_parameters(levels, cohort)
        if found is None:
            raise PrivacyParameterError(
                f"bound={self.bound} at step={self.step} for {cohort} clients fits no ring: take a larger step"
            )
        return found

    def unit(self, cohort: int) -> float:
        """The step."""
        return self.ring(cohort).step

    def quantised(self, values: np.ndarray, cohort: int) -> np.ndarray:
        """Signed integers; raises `ProtocolError` for a value beyond the bound."""
        ring = self.ring(cohort)
        return ring.centred(ring.encode(values))

    def opened(
        self, encryption: Encryption, vectors: Sequence[Sequence[bytes]], size: int, cohort: int, entropy: Entropy
    ) -> np.ndarray:
        """The exact sum."""
        del cohort, entropy
        return encryption.decrypted_sum(vectors, size).astype(np.int64)


@dataclass(frozen=True)
class CKKSSum(EncryptedSum):
    """Sums of reals, for values that must stay real: what is opened carries noise that covers the scheme's own error.

    A decrypted sum's error is a function of the key (Li and Micciancio 2020, ePrint 2020/1533), so the key holder adds
    Gaussian noise after decryption, sized from the worst error and the number of decryptions::

        u = n bound 2^-40     the unit that decrypted values are rounded to; the scale is such that no error exceeds u
        E = 2 u sqrt(size)    so far, in L2, is what is rounded from the true sum, at most
        sigma = 8 sqrt(decryptions) 2^(s / 2) E

    The Kullback-Leibler divergence between all that is ever told and what noise on the true sums would be is then at
    most 2^-(s + 7), and their statistical distance at most 2^-(s / 2 + 4) (Li, Micciancio, Schultz and Sorrell 2022,
    ePrint 2022/816, section 4, and Pinsker's inequality). Whatever clients added before encryption plays no part.

    Args:
        decryptions: how many sums one key opens; more are refused.
        statistical_bits: s.
    """

    decryptions: int = 1000
    statistical_bits: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "decryptions")
        check_whole(self, "statistical_bits")
        if self.decryptions < 1 or not 20 <= self.statistical_bits <= 48:
            raise PrivacyParameterError(
                f"decryptions={self.decryptions} is at least 1, statistical_bits={self.statistical_bits} in 20 .. 48: "
                "above, the noise would be as large as the values"
            )

    @property
    def most_openings(self) -> int | None:
        """As many as the noise was sized for."""
        return self.decryptions

    def unit(self, cohort: int) -> float:
        """u."""
        return cohort * self.bound * 2.0**-40

    def holder_deviation(self, size: int, cohort: int) -> float:
        """sigma: standard deviation of the noise on an opened sum of `size` values."""
        error = 2 * self.unit(cohort) * math.sqrt(size)
        return 8 * math.sqrt(self.decryptions) * float(2.0 ** (self.statistical_bits / 2)) * error

    def parameters(self, cohort: int) -> Parameters:
        """The smallest at which errors stay below u: N coefficients of error n E at scale 2^k come to N n E / 2^k."""
        for degree in (4096, 8192):
            fresh = Parameters("ckks", degree, (30,), 30).fresh_error + 1
            scale = math.ceil(math.log2(degree * cohort * fresh / self.unit(cohort))) + 1
            room = scale + max(0, math.ceil(math.log2(2 * cohort * self.bound))) + 2
            found = _chain(degree, room)
            if found is not None:
                return Parameters("ckks", degree, found, found[0], scale_bits=scale)
        raise PrivacyParameterError(f"bound={self.bound} for {cohort} clients fits no ring: take a smaller cohort")

    def quantised(self, values: np.ndarray, cohort: int) -> np.ndarray:
        """Reals, as they are; raises `ProtocolError` for a value beyond the bound."""
        del cohort
        reals = np.asarray(values, np.float64)
        if not np.isfinite(reals).all() or float(np.abs(reals).max(initial=0.0)) > self.bound:
            raise ProtocolError(
                f"a value to be summed is not finite, or beyond the bound {self.bound:g}: clip it, or agree on a "
                "larger bound"
            )
        return reals

    def stated_error(self, size: int, cohort: int) -> float:
        """How far a coordinate of an opened sum lies from the true one, but for one in 10^15."""
        return 8 * self.holder_deviation(size, cohort) + 2 * self.unit(cohort)

    def opened(
        self, encryption: Encryption, vectors: Sequence[Sequence[bytes]], size: int, cohort: int, entropy: Entropy
    ) -> np.ndarray:
        """The sum and the holder's own noise, fresh for every call."""
        unit = self.unit(cohort)
        exact = np.rint(encryption.decrypted_sum(vectors, size) / unit)
        noise = standard_gaussian(size, entropy).numpy() * (self.holder_deviation(size, cohort) / unit)
        return np.asarray(exact + np.rint(noise), np.int64)


@lru_cache(maxsize=64)
def _bfv_parameters(levels: int, cohort: int) -> Parameters | None:
    """See `BFVSum.parameters`; finding a prime costs as much as an encryption."""
    for degree in (4096, 8192, 16384):
        modulus = batching_prime(degree, 2 * cohort * levels + 1)
        error = cohort * (Parameters("bfv", degree, (30,), 30).fresh_error + 2)
        found = _chain(degree, (2 * modulus * error).bit_length() + 1)
        if found is not None:
            return Parameters("bfv", degree, found, found[0], plain_modulus=modulus)
    return None


def _chain(degree: int, bits: int) -> tuple[int, ...] | None:
    """Primes of equal size with at least so many bits in all, and room for one more; None if that is not secure.

    A prime of b bits is at least 2^(b - 1).
    """
    for count in range(1, 4):
        each = max(30, math.ceil(bits / count) + 1)
        if each <= 60 and each * (count + 1) <= MOST_BITS[degree]:
            return (each,) * count
    return None
