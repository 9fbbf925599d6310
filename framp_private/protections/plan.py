"""The plan: which protection each channel has. It fails closed: a channel in use without one stops the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from framp_private.errors import PlanError
from framp_private.protections.base import CHANNELS, Channel, Protection


@dataclass(frozen=True)
class Plan:
    """A protection for each channel, None where nothing may be sent.

    There is no default: to send something unprotected, say `PlainSum()`.
    """

    descriptor: Protection | None
    update: Protection | None
    prototypes: Protection | None
    metrics: Protection | None

    def protection(self, channel: Channel) -> Protection:
        """The protection of a channel in use; raises `PlanError` if there is none."""
        protection: Protection | None = getattr(self, channel)
        if protection is None:
            raise PlanError(
                f"channel {channel!r} has no protection and would be sent: give it one, "
                "PlainSum() if it may be seen by the server, or switch off what uses it"
            )
        return protection

    def check(self, used: Collection[Channel], per_client: Mapping[Channel, str]) -> None:
        """Refuses a plan that cannot run.

        Args:
            used: channels the method sends on.
            per_client: channels on which the server needs each client's value, with the reason.

        Raises:
            PlanError: a used channel without protection, or a secure sum where single values are needed.
        """
        for channel in CHANNELS:
            if (
                channel in used
                and self.protection(channel).server_view().granularity == "sum"
                and channel in per_client
            ):
                raise PlanError(f"channel {channel!r} is protected by a sum, but {per_client[channel]}")
