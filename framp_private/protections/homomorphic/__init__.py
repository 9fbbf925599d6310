"""Sums under homomorphic encryption: `BFVSum` exactly, `CKKSSum` for reals."""

from framp_private.protections.homomorphic.value import BFVSum as BFVSum
from framp_private.protections.homomorphic.value import CKKSSum as CKKSSum
from framp_private.protections.homomorphic.value import EncryptedSum as EncryptedSum
