"""Signatures on ledger rows: what joins the ledger, which knows no keys, with the keys, which know no ledger."""

from __future__ import annotations

from dataclasses import dataclass

from framp_private.crypto.keys import Identity, PublicIdentity

_ROW = "ledger row"


@dataclass(frozen=True)
class RowSigner:
    """Signs the rows of one ledger with an identity."""

    identity: Identity

    @property
    def key(self) -> bytes:
        """The public key."""
        return self.identity.public.key

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self.identity.sign(_ROW, message)

    def check(self, message: bytes, signature: bytes) -> bool:
        """Whether it is this identity's signature."""
        return self.identity.public.signed(_ROW, message, signature)


def row_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a row is signed under a public key, for `privacy.ledger.verify`."""
    return PublicIdentity(key).signed(_ROW, message, signature)
