"""Secrets in files and folders of their owner: made with mode 0600 and 0700, refused if anybody else may read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from framp_private.errors import CryptoError

PRIVATE = "private"
"""The folder inside a folder that holds what must not be passed on with the rest."""


def private_of(folder: Path) -> Path:
    """A folder's `private/`, which nobody but its owner may enter; made if it is not there."""
    path = folder / PRIVATE
    folder.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o700)
    return path


def owners_folder(path: Path) -> Path:
    """A folder, and those that it lies in, made for their owner alone where they are not there."""
    if not path.is_dir():
        owners_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def secret_of_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in a file, made and written there if there is none.

    Raises:
        CryptoError: others than its owner may read it, or another process made it meanwhile.
    """
    try:
        found = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return _create(path, make())
    with os.fdopen(found, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise CryptoError(f"{path} may be read by others than its owner: make a new key, with chmod 600")
        return file.read()


def _create(path: Path, data: bytes) -> bytes:
    owners_folder(path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)  # never over a key that another process has just made
    except FileExistsError as error:
        raise CryptoError(f"{path} was made by another process meanwhile: run one at a time") from error
    finally:
        part.unlink()
    return data
