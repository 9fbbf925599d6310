"""Typed dataclass <-> bytes: versioned, size-limited, deterministic, without pickle.

A message is a frozen dataclass whose fields are bool, int, float, str, bytes, numpy arrays, tuples of str, or
mappings from str to bytes. The encoding is the magic `FRMP`, a version byte, the class name, then the fields in order.
Arrays are a dtype code, the shape and little-endian data. Two equal messages have equal bytes, and a decoder either
returns a message that re-encodes to the very bytes it got, or raises `WireError`; it never allocates more than
it was sent.
"""

from __future__ import annotations

import dataclasses
import struct
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from framp_private.errors import WireError

MAGIC = b"FRMP"
VERSION = 1
MAX_BYTES = 1 << 31
"""Largest message accepted unless the caller sets a smaller limit, in bytes."""

_DTYPES = ("float32", "float64", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_LENGTH = struct.Struct("<Q")
_MAX_DIMENSIONS = 8

T = TypeVar("T")


class _Reader:
    """A cursor over received bytes that refuses to read past their end."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self._at = 0

    def take(self, count: int) -> memoryview:
        if count > len(self._view) - self._at:
            raise WireError(f"message is truncated: {count} bytes wanted, {len(self._view) - self._at} left")
        piece = self._view[self._at : self._at + count]
        self._at += count
        return piece

    def unpack(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def finish(self) -> None:
        if self._at != len(self._view):
            raise WireError(f"message has {len(self._view) - self._at} bytes after its last field")


def _write_bytes(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _read_bytes(reader: _Reader) -> bytes:
    return bytes(reader.take(reader.unpack(_LENGTH)))


def _read_text(reader: _Reader) -> str:
    try:
        return _read_bytes(reader).decode()
    except UnicodeDecodeError as error:
        raise WireError("message holds text that is not UTF-8") from error


def _write_array(value: np.ndarray) -> bytes:
    if value.dtype.name not in _DTYPES:
        raise WireError(f"dtype={value.dtype.name} does not travel: use one of {', '.join(_DTYPES)}")
    if value.ndim > _MAX_DIMENSIONS:
        raise WireError(f"ndim={value.ndim} does not travel: at most {_MAX_DIMENSIONS} dimensions")
    head = bytes((_DTYPES.index(value.dtype.name), value.ndim))
    shape = b"".join(_LENGTH.pack(side) for side in value.shape)
    return head + shape + np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()


def _read_array(reader: _Reader) -> np.ndarray:
    code, ndim = reader.take(2)
    if code >= len(_DTYPES) or ndim > _MAX_DIMENSIONS:
        raise WireError(f"array header ({code}, {ndim}) is not known")
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
    shape = tuple(reader.unpack(_LENGTH) for _ in range(ndim))
    count = 1
    for side in shape:
        count *= side
    data = reader.take(count * dtype.itemsize)
    try:
        return np.frombuffer(data, dtype).reshape(shape).astype(_DTYPES[code])
    except ValueError as error:
        raise WireError(f"array shape {shape} is not possible") from error


def _write_texts(value: tuple[str, ...]) -> bytes:
    return _LENGTH.pack(len(value)) + b"".join(_write_bytes(text.encode()) for text in value)


def _read_texts(reader: _Reader) -> tuple[str, ...]:
    count = reader.unpack(_LENGTH)
    texts: list[str] = []
    while len(texts) < count:
        texts.append(_read_text(reader))
    return tuple(texts)


def _write_mapping(value: Mapping[str, bytes]) -> bytes:
    rows = (_write_bytes(key.encode()) + _write_bytes(value[key]) for key in sorted(value))
    return _LENGTH.pack(len(value)) + b"".join(rows)


def _read_mapping(reader: _Reader) -> dict[str, bytes]:
    count = reader.unpack(_LENGTH)
    mapping: dict[str, bytes] = {}
    last: str | None = None
    while len(mapping) < count:
        key = _read_text(reader)
        if last is not None and key <= last:
            raise WireError("mapping keys are not in strictly ascending order")
        mapping[key] = _read_bytes(reader)
        last = key
    return mapping


_INTEGER, _REAL = struct.Struct("<q"), struct.Struct("<d")


def _read_bool(reader: _Reader) -> bool:
    (byte,) = reader.take(1)
    if byte > 1:
        raise WireError(f"truth value is {byte}, not 0 or 1")
    return bool(byte)


Codec = tuple[Callable[[Any], bytes], Callable[[_Reader], Any]]

_CODECS: dict[Any, Codec] = {
    bool: (lambda value: bytes((bool(value),)), _read_bool),
    int: (_INTEGER.pack, lambda reader: reader.unpack(_INTEGER)),
    float: (_REAL.pack, lambda reader: reader.unpack(_REAL)),
    str: (lambda value: _write_bytes(value.encode()), _read_text),
    bytes: (_write_bytes, _read_bytes),
    np.ndarray: (_write_array, _read_array),
    tuple[str, ...]: (_write_texts, _read_texts),
    Mapping[str, bytes]: (_write_mapping, _read_mapping),
}


_KNOWN: dict[type[Any], tuple[tuple[str, Codec], ...]] = {}


def _fields(cls: type[Any]) -> tuple[tuple[str, Codec], ...]:
    if cls not in _KNOWN:
        hints = typing.get_type_hints(cls)
        _KNOWN[cls] = tuple((field.name, _CODECS[hints[field.name]]) for field in dataclasses.fields(cls))
    return _KNOWN[cls]


def encode(message: object) -> bytes:
    """The bytes of a message. Raises `WireError` for a value that does not fit its field."""
    name = type(message).__name__.encode()
    parts = [MAGIC, bytes((VERSION, len(name))), name]
    for field, (write, _) in _fields(type(message)):
        try:
            parts.append(write(getattr(message, field)))
        except (struct.error, TypeError, AttributeError) as error:
            raise WireError(f"{type(message).__name__}.{field} does not fit its type: {error}") from error
    return b"".join(parts)


def decode(data: bytes, *expected: type[T], max_bytes: int = MAX_BYTES) -> T:
    """The message in `data`, which must be of one of the expected classes.

    Raises:
        WireError: too large, wrong magic, version or class, truncated, trailing bytes, or a malformed field.
    """
    if len(data) > max_bytes:
        raise WireError(f"message has {len(data)} bytes, the limit is {max_bytes}")
    reader = _Reader(data)
    if bytes(reader.take(4)) != MAGIC:
        raise WireError("bytes do not start as a message of this package")
    version, length = reader.take(2)
    if version != VERSION:
        raise WireError(f"message version {version} is not {VERSION}: run the same release on both sides")
    name = bytes(reader.take(length)).decode(errors="replace")
    for cls in expected:
        if cls.__name__ == name:
            values = {field: read(reader) for field, (_, read) in _fields(cls)}
            reader.finish()
            return cls(**values)
    raise WireError(f"message {name!r} is not {' or '.join(cls.__name__ for cls in expected)}")
