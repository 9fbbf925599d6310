"""Sums of encrypted vectors: keys, encryption, addition and decryption under BFV and CKKS, by TenSEAL.

BFV (Fan and Vercauteren 2012, ePrint 2012/144) sums integers exactly; CKKS (Cheon et al. 2017, ePrint 2016/421) sums
reals with an error that depends on the key. Parameters keep 128 bits against the best known classical attacks with
ternary secrets (HomomorphicEncryption.org, "Homomorphic Encryption Security Standard" 2018, table 1); the table is
checked here, whatever a library would accept. Randomness of keys and ciphertexts is SEAL's own, seeded by the
operating system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import tenseal

from framp_private.errors import CryptoError, PrivacyParameterError

MOST_BITS = {2048: 54, 4096: 109, 8192: 218, 16384: 438}
"""Ring degree -> bits of all primes together, at 128 bits of security."""
LEAST_PRIME, LARGEST_PRIME = 30, 60
REFUSED, REFUSED_CONTEXT = "a ciphertext is refused", "an encryption context is refused"
_NOISE = 21
"""Largest coefficient of SEAL's centred binomial noise of deviation 3.24: half of 42 coins."""


@dataclass(frozen=True)
class Parameters:
    """What fixes a scheme.

    Args:
        scheme: `bfv` or `ckks`. degree: N. primes: bits of the ciphertext modulus' primes. special: bits of the one
            that fresh ciphertexts are divided by. plain_modulus: of BFV. scale_bits: of CKKS.

    Raises:
        PrivacyParameterError: less than 128 bits of security, or a prime out of SEAL's range.
    """

    scheme: Literal["bfv", "ckks"]
    degree: int
    primes: tuple[int, ...]
    special: int
    plain_modulus: int = 0
    scale_bits: int = 0

    def __post_init__(self) -> None:
        sizes = (*self.primes, self.special)
        if not self.primes or not all(LEAST_PRIME <= bits <= LARGEST_PRIME for bits in sizes):
            raise PrivacyParameterError(f"primes of {sizes} bits: each must have {LEAST_PRIME} .. {LARGEST_PRIME}")
        if sum(sizes) > MOST_BITS.get(self.degree, 0):
            raise PrivacyParameterError(
                f"degree={self.degree} with {sum(sizes)} bits of modulus has less than 128 bits of security: at most "
                f"{MOST_BITS.get(self.degree, 0)}"
            )

    @property
    def slots(self) -> int:
        """Values to one ciphertext."""
        return self.degree if self.scheme == "bfv" else self.degree // 2

    @property
    def fresh_error(self) -> int:
        """Largest coefficient of the error in a fresh ciphertext: (u e + e_0 + e_1 s) / special, and rounding."""
        return -(-_NOISE * (2 * self.degree + 1) >> (self.special - 1)) + (self.degree + 1) // 2 + 1

    def ciphertexts(self, size: int) -> int:
        """How many hold so many values."""
        return -(-size // self.slots)

    @property
    def most_bytes(self) -> int:
        """What an honest ciphertext stays under, for a limit before anything is parsed."""
        return 2 * 8 * self.degree * len(self.primes) + 8192


@dataclass(frozen=True)
class KeyPair:
    """secret: the whole context, with the key that decrypts. public: without it."""

    secret: bytes
    public: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"


def new_keys(parameters: Parameters) -> KeyPair:
    """Fresh keys."""
    context = _fresh(parameters)
    kept = {"save_public_key": True, "save_galois_keys": False, "save_relin_keys": False}
    return KeyPair(
        context.serialize(save_secret_key=True, **kept),
        context.serialize(save_secret_key=False, **kept),
    )


class Encryption:
    """A context that was read from bytes, on parameters that it was checked for.

    Raises:
        CryptoError: no context, other parameters, or a key too many or too few.
    """

    def __init__(self, data: bytes, parameters: Parameters, *, secret: bool = False) -> None:
        if len(data) > 64 * parameters.degree * (len(parameters.primes) + 2) + 4096:
            raise CryptoError(REFUSED_CONTEXT)
        self.parameters, self._context = parameters, _loaded(data)
        fits = _identity(self._context) == _expected(parameters) and self._context.has_public_key()
        if not fits or self._context.is_private() != secret:
            raise CryptoError(REFUSED_CONTEXT)
        self._level = self._context.seal_context().data.first_parms_id()
        self._scale = 2.0**parameters.scale_bits if parameters.scheme == "ckks" else 1.0

    def encrypt(self, values: np.ndarray) -> list[bytes]:
        """A vector's ciphertexts: of (n,) signed integers below half the plain modulus, or of (n,) reals."""
        slots = self.parameters.slots
        return [self._encrypted(values[at : at + slots].tolist()) for at in range(0, len(values), slots)]

    def read(self, data: bytes, size: int) -> Any:
        """One ciphertext of `size` values. Raises `CryptoError` for anything else."""
        reader = tenseal.bfv_vector_from if self.parameters.scheme == "bfv" else tenseal.ckks_vector_from
        if len(data) > self.parameters.most_bytes:
            raise CryptoError(REFUSED)
        try:
            vector = reader(self._context, data)
            parts = vector.ciphertext()
            fits = vector.size() == size and len(parts) == 1 and self._fits(parts[0])
        except (ValueError, RuntimeError, TypeError, IndexError, MemoryError) as error:
            raise CryptoError(REFUSED) from error
        if not fits:
            raise CryptoError(REFUSED)
        return vector

    def decrypted_sum(self, vectors: Sequence[Sequence[bytes]], size: int) -> np.ndarray:
        """(size,) float64 sum of the vectors. Raises `CryptoError` for a ciphertext that must be refused."""
        slots, count = self.parameters.slots, self.parameters.ciphertexts(size)
        if not vectors or any(len(vector) != count for vector in vectors):
            raise CryptoError(REFUSED)
        opened = []
        for place in range(count):
            parts = [self.read(vector[place], min(slots, size - place * slots)) for vector in vectors]
            try:
                total = parts[0]
                for part in parts[1:]:
                    total += part
                opened.append(np.asarray(total.decrypt(), np.float64))
            except (ValueError, RuntimeError) as error:
                raise CryptoError(REFUSED) from error
        return np.concatenate(opened)

    def _encrypted(self, values: list[Any]) -> bytes:
        if self.parameters.scheme == "bfv":
            return bytes(tenseal.bfv_vector(self._context, values).serialize())
        return bytes(tenseal.ckks_vector(self._context, values, 2.0**self.parameters.scale_bits).serialize())

    def _fits(self, part: Any) -> bool:
        form = part.is_ntt_form() == (self.parameters.scheme == "ckks")
        fits = form and part.size() == 2 and part.parms_id() == self._level and part.scale == self._scale
        return bool(fits and not part.is_transparent())


def batching_prime(degree: int, least: int) -> int:
    """The smallest prime >= least that is 1 modulo 2 N, so that a polynomial's N slots add independently."""
    found = least + (1 - least) % (2 * degree)
    while not _is_prime(found):
        found += 2 * degree
    return found


def _is_prime(number: int) -> bool:
    """Miller and Rabin's test with bases that leave no doubt below 3.3e24 (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if number < 2 or any(number % base == 0 for base in bases):
        return number in bases
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    odd = (number - 1) >> twos
    for base in bases:
        power = pow(base, odd, number)
        if power not in (1, number - 1) and all(pow(power, 2**step, number) != number - 1 for step in range(1, twos)):
            return False
    return True


def _fresh(parameters: Parameters) -> Any:
    sizes = [*parameters.primes, parameters.special]
    if parameters.scheme == "bfv":
        return tenseal.context(
            tenseal.SCHEME_TYPE.BFV, parameters.degree, parameters.plain_modulus, coeff_mod_bit_sizes=sizes
        )
    return tenseal.context(tenseal.SCHEME_TYPE.CKKS, parameters.degree, coeff_mod_bit_sizes=sizes)


def _identity(context: Any) -> Any:
    """SEAL's hash of all parameters."""
    return context.seal_context().data.key_parms_id()


@lru_cache(maxsize=32)
def _expected(parameters: Parameters) -> Any:
    return _identity(_fresh(parameters))


@lru_cache(maxsize=32)
def _loaded(data: bytes) -> Any:
    """Reading a context costs more than an encryption, and a site reads the same one in every round."""
    try:
        return tenseal.context_from(data)
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise CryptoError(REFUSED_CONTEXT) from error
