"""The wire format: round trips, refusals, and no bytes that decode to something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framp_private.errors import WireError
from framp_private.federated.messages import EnrolReply, EnrolRequest, PhiRequest, TrainReply, TrainRequest
from framp_private.wire import decode, encode


@dataclass(frozen=True)
class Everything:
    flag: bool
    count: int
    real: float
    text: str
    data: bytes
    array: np.ndarray
    texts: tuple[str, ...]
    pairs: Mapping[str, bytes]
    places: Mapping[int, bytes]


@dataclass(frozen=True)
class ByPlace:
    places: Mapping[int, bytes]


def same(a: Everything, b: Everything) -> bool:
    return encode(a) == encode(b) and a.array.dtype == b.array.dtype and a.array.shape == b.array.shape


EXAMPLE = Everything(
    True,
    -7,
    0.5,
    "süß",
    b"\x00\xff",
    np.arange(6, dtype=np.float32).reshape(2, 3),
    ("a", ""),
    {"b": b"2", "a": b"1"},
    {5: b"xy", 0: b"ab", 300: b"cd"},
)


@given(
    flag=st.booleans(),
    count=st.integers(-(2**63), 2**63 - 1),
    real=st.floats(),
    text=st.text(),
    data=st.binary(),
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]),
    texts=st.lists(st.text()),
    pairs=st.dictionaries(st.text(), st.binary()),
    places=st.dictionaries(st.integers(0, 2**20), st.binary(max_size=3)),
)
def test_every_message_comes_back(flag, count, real, text, data, shape, dtype, texts, pairs, places) -> None:  # noqa: ANN001
    array = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    message = Everything(flag, count, real, text, data, array, tuple(texts), pairs, places)
    again = decode(encode(message), Everything)
    assert same(message, again)
    np.testing.assert_array_equal(again.array, array)
    assert again.texts == tuple(texts) and again.pairs == pairs and again.places == places


def test_every_truncation_and_every_extra_byte_is_refused() -> None:
    data = encode(EXAMPLE)
    for cut in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:cut], Everything)
    with pytest.raises(WireError):
        decode(data + b"\x00", Everything)


@settings(max_examples=500)
@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_another_valid_message(place: int, value: int) -> None:
    data = bytearray(encode(EXAMPLE))
    data[place % len(data)] ^= value
    try:
        message = decode(bytes(data), Everything)
    except WireError:
        return
    assert encode(message) == bytes(data)


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data, Everything, EnrolRequest, EnrolReply, TrainRequest, PhiRequest, TrainReply)


def test_a_length_beyond_the_message_allocates_nothing() -> None:
    head = encode(EnrolRequest(b"x" * 8))[:-9]
    with pytest.raises(WireError, match="truncated"):
        decode(head + b"\xff" * 8 + b"\x3f" + b"x" * 8, EnrolRequest)


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(b"\x88\x00", id="longer than it needs to be"),
        pytest.param(b"\x88\x80\x00", id="longer still"),
        pytest.param(b"\xff" * 9 + b"\x02", id="beyond 64 bits"),
        pytest.param(b"\x80" * 30, id="without end"),
    ],
)
def test_a_length_has_one_form(length: bytes) -> None:
    head = encode(EnrolRequest(b"x" * 8))[:-9]
    assert decode(head + b"\x08" + b"x" * 8, EnrolRequest) == EnrolRequest(b"x" * 8)
    with pytest.raises(WireError):
        decode(head + length + b"x" * 8, EnrolRequest)


def test_values_by_place_have_one_form_and_one_byte_each_beside_themselves() -> None:
    values = {place: bytes(64) for place in range(100)}
    assert len(encode(ByPlace(values))) - len(encode(ByPlace({}))) == 100 * 65 + 1
    head = encode(ByPlace({}))[:-1]
    assert decode(head + b"\x02\x02\x00a\x00b", ByPlace).places == {0: b"a", 1: b"b"}
    for again in (b"\x02\x00\x00\x01a\x00\x01b", b"\x01\x00\x00\x01a", b"\x00\x00", b"\x02\x02\x00a"):
        with pytest.raises(WireError):
            decode(head + again, ByPlace)
    with pytest.raises(WireError):
        encode(ByPlace({-1: b""}))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: b"XXXX" + d[4:],
        lambda d: d[:4] + b"\x01" + d[5:],
        lambda d: d.replace(b"EnrolRequest", b"EnrolRequesX"),
    ],
)
def test_other_magic_version_or_class_is_refused(change) -> None:  # noqa: ANN001
    with pytest.raises(WireError):
        decode(change(encode(EnrolRequest(b""))), EnrolRequest)


def test_the_size_limit_holds() -> None:
    data = encode(EnrolRequest(b"x" * 100))
    assert decode(data, EnrolRequest, max_bytes=len(data)) == EnrolRequest(b"x" * 100)
    with pytest.raises(WireError, match="limit"):
        decode(data, EnrolRequest, max_bytes=len(data) - 1)


@pytest.mark.parametrize(
    "array",
    [np.array(["text"]), np.array([1 + 2j]), np.array([object()], dtype=object), np.zeros((1,) * 9, np.float32)],
)
def test_arrays_that_do_not_travel_are_refused(array: np.ndarray) -> None:
    with pytest.raises(WireError):
        encode(Everything(True, 0, 0.0, "", b"", array, (), {}, {}))


@pytest.mark.parametrize("count", [2**63, -(2**63) - 1, "1", None, 1.5])
def test_values_of_another_type_are_refused(count: object) -> None:
    with pytest.raises(WireError, match="count"):
        encode(Everything(True, count, 0.0, "", b"", np.zeros(1), (), {}, {}))  # type: ignore[arg-type]
