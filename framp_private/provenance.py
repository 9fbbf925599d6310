"""What a run was made of, as digests to compare: code, settings, versions, and a commitment to the data.

A plain hash of a data set would confirm guesses about records, so only HMAC-SHA256(key, fingerprint) is published, with
a random key that stays in the run folder. Whoever is shown key and data later can check that the run used them.
"""

from __future__ import annotations

import hashlib
import hmac
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from framp_private.crypto.secret_files import private_of, secret_of_file
from framp_private.errors import CryptoError
from framp_private.randomness import Entropy
from framp_private.run_folder import config_bytes
from framp_private.version import __version__

DEPENDENCIES = ("torch", "numpy", "opacus", "dp-accounting", "tenseal", "cryptography")
KEY_BYTES = 32


def provenance(config: Mapping[str, Any], fingerprint: str, folder: Path | None) -> dict[str, Any]:
    """What `summary.json` says of a run's origin, as it was when the run ended; in memory there is no commitment.

    Args:
        config: the resolved settings. fingerprint: of the data. folder: the run's, whose `private/keys/` holds the key.

    Raises:
        CryptoError: the key's file is no key, or others than its owner may read it.
    """
    key = private_of(folder) / "keys" / "data-commitment.key" if folder is not None else None
    return {
        "versions": versions(),
        "code_sha256": code_sha256(),
        "config_sha256": hashlib.sha256(config_bytes(config)).hexdigest(),
        "data_commitment": commitment(fingerprint, key) if key is not None else None,
    }


def versions() -> dict[str, str | None]:
    """Python's, this package's, and those of what computes, accounts and encrypts; None for what is not installed."""
    found: dict[str, str | None] = {"framp_private": __version__, "python": platform.python_version()}
    for name in DEPENDENCIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def code_sha256(root: Path = Path(__file__).parent) -> str:
    """SHA-256 over the package's source files: for each in the order of names its path, its size and its bytes."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def commitment(fingerprint: str, key_file: Path) -> str:
    """HMAC-SHA256 of a fingerprint (hexadecimal) under the key in a file, which is made if there is none.

    It hides the fingerprint from whoever lacks the key, and binds who made it to the data (RFC 2104, RFC 6234).

    Raises:
        CryptoError: the file is no key of 32 bytes, or others than its owner may read it.
    """
    text = secret_of_file(key_file, lambda: Entropy().bytes(KEY_BYTES).hex().encode() + b"\n")
    try:
        key = bytes.fromhex(text.decode().strip())
    except ValueError as error:
        raise CryptoError(f"{key_file} holds no key") from error
    if len(key) != KEY_BYTES:
        raise CryptoError(f"{key_file} holds {len(key)} bytes, not {KEY_BYTES}: restore it, or remove it for a new one")
    return hmac.new(key, bytes.fromhex(fingerprint), hashlib.sha256).hexdigest()
