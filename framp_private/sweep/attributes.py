"""Facts of any length on a study and its trials, in every database."""

from __future__ import annotations

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from framp_private.errors import StorageError

LONGEST_ERROR = 20_000
"""Characters that are kept of why a trial failed."""

_LONGEST_FIRST_LINE = 500
_TEXTS = {
    "study_user_attributes": "value_json",
    "study_system_attributes": "value_json",
    "trial_user_attributes": "value_json",
    "trial_system_attributes": "value_json",
    "trial_params": "distribution_json",
}
_NO_RIGHT = (1142, 1227, 1044)


def kept_error(error: str) -> str:
    """An error as it is stored: itself, or its first line, a line that says what was cut, and its end.

    Returns:
        At most `LONGEST_ERROR` characters.
    """
    if len(error) <= LONGEST_ERROR:
        return error
    first = error.splitlines()[0][:_LONGEST_FIRST_LINE]
    rest = LONGEST_ERROR - len(first) - 100
    return f"{first}\n(cut: of {len(error)} characters, the last {rest} follow)\n{error[-rest:]}"


def hold_long_texts(engine: Engine, shown: str) -> None:
    """Gives Optuna's texts room for 4 GiB in MySQL and MariaDB, where they have 64 KiB; others have no such bound.

    Raises:
        StorageError: the user may not alter the tables; the message says what somebody who may has to run.
    """
    if engine.dialect.name not in ("mysql", "mariadb"):
        return
    query = "SELECT table_name FROM information_schema.columns WHERE table_schema = DATABASE() AND data_type = 'text'"
    with engine.connect() as connection:
        narrow = {str(name) for (name,) in connection.execute(text(f"{query} AND column_name LIKE '%\\_json'"))}
        statements = [f"ALTER TABLE {name} MODIFY {_TEXTS[name]} LONGTEXT" for name in sorted(narrow & _TEXTS.keys())]
        if not statements:
            return
        connection.execute(text("SET SESSION lock_wait_timeout = 5"))  # it is a day where nobody has set it
        try:
            for statement in statements:
                connection.execute(text(statement))
        except OperationalError as error:
            if error.orig is None or error.orig.args[0] not in _NO_RIGHT:
                raise
            raise StorageError(
                f"{shown} holds 64 KiB in a text, which a trial may exceed, and its user may not alter tables: have "
                f"somebody who may run {'; '.join(statements)}"
            ) from error
        finally:
            connection.invalidate()  # and with it what was set
