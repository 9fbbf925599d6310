"""Arguments of protections: real and whole numbers, and nothing that only looks like one."""

from __future__ import annotations

import math
import numbers

from framp_private.errors import PrivacyParameterError


def check_real(owner: object, name: str, *, optional: bool = False) -> None:
    """Raises `PrivacyParameterError` unless a field is a finite real number; strings, complex and bool are none."""
    value = getattr(owner, name)
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise PrivacyParameterError(f"{name}={value!r} must be a finite real number{', or None' if optional else ''}")


def check_whole(owner: object, name: str, *, optional: bool = False) -> None:
    """Raises `PrivacyParameterError` unless a field is a whole number; 3.0, True and "3" are none."""
    value = getattr(owner, name)
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise PrivacyParameterError(f"{name}={value!r} must be a whole number{', or None' if optional else ''}")
