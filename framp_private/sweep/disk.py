"""A full disk: telling it from other errors, and to the user."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framp_private.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk stands behind an error, however it was dressed."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Raises `StorageError` for whatever a full disk raises inside, and leaves other errors as they are."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise StorageError(
            f"{folder} cannot be written: the disk is full; what was finished is kept, make room and go on with "
            "--resume"
        ) from error
