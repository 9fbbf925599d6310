"""Every error an audit raises on purpose; all are `framp_private.errors.FrampError`.

::

    AuditError            an audit that cannot be made as asked
    ├── NotResolvable     the data at hand cannot give the figure: too few non-members, constant scores, one class
    ├── NotInView         the adversary never received what the attack needs
    └── NotApplicable     an estimator whose assumption the mechanism does not meet
"""

from __future__ import annotations

from framp_private.errors import FrampError


class AuditError(FrampError):
    """An audit that cannot be made as asked."""

    exit_status = 2


class NotResolvable(AuditError):
    """The data at hand cannot give the figure."""


class NotInView(AuditError):
    """The adversary never received what the attack needs."""


class NotApplicable(AuditError):
    """An estimator whose assumption the mechanism does not meet."""
