"""Typed dataclass <-> bytes: versioned, size-limited, deterministic, without pickle.

A message is a frozen dataclass whose fields are bool, int, float, str, bytes, numpy arrays, tuples of str, or
mappings from str or from places (whole numbers from 0) to bytes. The encoding is the magic `FRMP`, a version byte, the
class name, then the fields in order. Arrays are a dtype code, the shape and little-endian data. Whole numbers,
lengths and places among them, are in base 128, lowest digit first, with the high bit of a byte set if another follows
(LEB128, as in DWARF 5, section 7.6), in as few bytes as they take, and an int n is written as 2 n, or -2 n - 1 if it is
negative; of values by place that all have one length it is written once. Two equal messages
have equal bytes, and a decoder either returns a message that re-encodes to the very bytes it got, or raises
`WireError`; it never allocates more than it was sent.
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
VERSION = 2
MAX_BYTES = 1 << 31
"""Largest message accepted unless the caller sets a smaller limit, in bytes."""

_DTYPES = ("float32", "float64", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
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

    def whole(self) -> int:
        """A whole number below 2^64."""
        found, shift = 0, 0
        while True:
            (byte,) = self.take(1)
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift >= 70:
                raise WireError("a number is beyond what any message has")
        if (byte == 0 and shift > 7) or found >= 1 << 64:
            raise WireError("a number takes more bytes than it needs, or than there are")
        return found

    def finish(self) -> None:
        if self._at != len(self._view):
            raise WireError(f"message has {len(self._view) - self._at} bytes after its last field")


def _whole(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _write_bytes(value: bytes) -> bytes:
    return _whole(len(value)) + value


def _read_bytes(reader: _Reader) -> bytes:
    return bytes(reader.take(reader.whole()))


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
    shape = b"".join(_whole(side) for side in value.shape)
    return head + shape + np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()


def _read_array(reader: _Reader) -> np.ndarray:
    code, ndim = reader.take(2)
    if code >= len(_DTYPES) or ndim > _MAX_DIMENSIONS:
        raise WireError(f"array header ({code}, {ndim}) is not known")
    dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
    shape = tuple(reader.whole() for _ in range(ndim))
    count = 1
    for side in shape:
        count *= side
    data = reader.take(count * dtype.itemsize)
    try:
        return np.frombuffer(data, dtype).reshape(shape).astype(_DTYPES[code])
    except ValueError as error:
        raise WireError(f"array shape {shape} is not possible") from error


def _write_texts(value: tuple[str, ...]) -> bytes:
    return _whole(len(value)) + b"".join(_write_bytes(text.encode()) for text in value)


def _read_texts(reader: _Reader) -> tuple[str, ...]:
    count = reader.whole()
    texts: list[str] = []
    while len(texts) < count:
        texts.append(_read_text(reader))
    return tuple(texts)


def _write_mapping(value: Mapping[str, bytes]) -> bytes:
    rows = (_write_bytes(key.encode()) + _write_bytes(value[key]) for key in sorted(value))
    return _whole(len(value)) + b"".join(rows)


def _read_mapping(reader: _Reader) -> dict[str, bytes]:
    count = reader.whole()
    mapping: dict[str, bytes] = {}
    last: str | None = None
    while len(mapping) < count:
        key = _read_text(reader)
        if last is not None and key <= last:
            raise WireError("mapping keys are not in strictly ascending order")
        mapping[key] = _read_bytes(reader)
        last = key
    return mapping


def _write_places(value: Mapping[int, bytes]) -> bytes:
    places = sorted(value)
    if places and places[0] < 0:
        raise TypeError("places are whole numbers from 0")
    lengths = {len(each) for each in value.values()}
    head = _whole(len(places))
    if places:
        head += _whole(lengths.copy().pop() + 1 if len(lengths) == 1 else 0)
    rows, last = [], -1
    for place in places:
        rows.append(_whole(place - last - 1) + (value[place] if len(lengths) == 1 else _write_bytes(value[place])))
        last = place
    return head + b"".join(rows)


def _read_places(reader: _Reader) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    count, place = reader.whole(), -1
    length = reader.whole() if count else 0
    while len(found) < count:
        place += reader.whole() + 1
        found[place] = bytes(reader.take(length - 1)) if length else _read_bytes(reader)
    if count and not length and len({len(each) for each in found.values()}) == 1:
        raise WireError("values of one length have it written more than once")
    return found


_REAL = struct.Struct("<d")


def _write_int(value: int) -> bytes:
    if not isinstance(value, int | np.integer) or not -(1 << 63) <= value < 1 << 63:
        raise TypeError("a whole number of 64 bits is needed")
    return _whole(2 * int(value) if value >= 0 else -2 * int(value) - 1)


def _read_int(reader: _Reader) -> int:
    found = reader.whole()
    return found >> 1 if found % 2 == 0 else -(found >> 1) - 1


def _read_bool(reader: _Reader) -> bool:
    (byte,) = reader.take(1)
    if byte > 1:
        raise WireError(f"truth value is {byte}, not 0 or 1")
    return bool(byte)


Codec = tuple[Callable[[Any], bytes], Callable[[_Reader], Any]]

_CODECS: dict[Any, Codec] = {
    bool: (lambda value: bytes((bool(value),)), _read_bool),
    int: (_write_int, _read_int),
    float: (_REAL.pack, lambda reader: reader.unpack(_REAL)),
    str: (lambda value: _write_bytes(value.encode()), _read_text),
    bytes: (_write_bytes, _read_bytes),
    np.ndarray: (_write_array, _read_array),
    tuple[str, ...]: (_write_texts, _read_texts),
    Mapping[str, bytes]: (_write_mapping, _read_mapping),
    Mapping[int, bytes]: (_write_places, _read_places),
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
