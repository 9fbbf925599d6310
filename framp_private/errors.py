"""Every error the package raises on purpose.

::

    FrampError
    ├── ConfigError           a setting is unknown, out of range or contradicts another
    ├── DataError             records that cannot be used: empty, NaN, wrong shape
    │   └── MissingData       a data set is not under the data root
    ├── ModelError            a network that the method cannot carry
    ├── PlanError             channels and protections do not fit together
    ├── WireError             bytes that are not the message they should be
    ├── ProtocolError         a well-formed message that must be refused
    │   └── BelowThreshold    too few clients survived for the sum to be opened
    ├── CheckpointError       a checkpoint that is missing, truncated or altered
    ├── PrivacyParameterError an epsilon, delta, clip or noise that no guarantee can be made of
    ├── LedgerError           a ledger that does not verify
    ├── CryptoError           a key, a signature or a sealed message that is not what it should be
    ├── PrivacyBudgetExhausted    a release that would cost more than is left
    ├── ReleaseLost           a release that was spent and whose bytes are gone
    ├── StorageError          a sweep's storage that cannot be reached, is locked, full or of another version
    └── RunError              a run folder that cannot be used as asked

Messages name the value, the rule and the cure. Errors that stand for bad input carry `exit_status` 2.
"""

from __future__ import annotations

__all__ = [
    "BelowThreshold",
    "CheckpointError",
    "ConfigError",
    "CryptoError",
    "DataError",
    "FrampError",
    "LedgerError",
    "MissingData",
    "ModelError",
    "PlanError",
    "PrivacyBudgetExhausted",
    "PrivacyParameterError",
    "ProtocolError",
    "ReleaseLost",
    "RunError",
    "StorageError",
    "WireError",
]


class FrampError(Exception):
    """Root of all deliberate errors; `exit_status` is what the command line returns for it."""

    exit_status = 1


class ConfigError(FrampError):
    """A setting is unknown, out of range, or contradicts another."""

    exit_status = 2


class DataError(FrampError):
    """Records that cannot be used."""

    exit_status = 2


class MissingData(DataError):
    """A data set is not where the data root says; the message says how to get it."""


class ModelError(FrampError):
    """A network or a budget that the method cannot carry."""

    exit_status = 2


class PlanError(FrampError):
    """Channels and protections do not fit together; nothing was sent."""

    exit_status = 2


class WireError(FrampError):
    """Received bytes are not a message of the expected type, version or size."""


class ProtocolError(FrampError):
    """A well-formed message that must be refused."""


class BelowThreshold(ProtocolError):
    """Fewer clients survived than the protection needs; nothing is opened."""


class CheckpointError(FrampError):
    """A checkpoint is missing, truncated or altered."""


class LedgerError(FrampError):
    """A ledger does not verify, or an entry does not belong to it."""


class CryptoError(FrampError):
    """A key, a signature, a share or a sealed message is refused; it does not say more."""


class PrivacyParameterError(FrampError):
    """An epsilon, delta, clip norm, sampling probability or noise of which no guarantee can be made."""

    exit_status = 2


class PrivacyBudgetExhausted(FrampError):
    """A release would cost more than the account has left; nothing was sent."""

    exit_status = 4


class ReleaseLost(FrampError):
    """A release was spent, and its bytes were lost before they were stored: it is never drawn again."""


class StorageError(FrampError):
    """A sweep's storage cannot be reached, is locked, is full, or holds a study that cannot be gone on with."""


class RunError(FrampError):
    """A run folder cannot be used as asked."""

    exit_status = 2
