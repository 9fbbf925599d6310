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


def same(a: Everything, b: Everything) -> bool:
    return encode(a) == encode(b) and a.array.dtype == b.array.dtype and a.array.shape == b.array.shape


EXAMPLE = Everything(
    True, -7, 0.5, "süß", b"\x00\xff", np.arange(6, dtype=np.float32).reshape(2, 3), ("a", ""), {"b": b"2", "a": b"1"}
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
)
def test_every_message_comes_back(flag, count, real, text, data, shape, dtype, texts, pairs) -> None:  # noqa: ANN001
    array = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    message = Everything(flag, count, real, text, data, array, tuple(texts), pairs)
    again = decode(encode(message), Everything)
    assert same(message, again)
    np.testing.assert_array_equal(again.array, array)
    assert again.texts == tuple(texts) and again.pairs == pairs


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
    data = bytearray(encode(EnrolRequest(b"x" * 8)))
    data[-16:-8] = (2**62).to_bytes(8, "little")
    with pytest.raises(WireError, match="truncated"):
        decode(bytes(data), EnrolRequest)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: b"XXXX" + d[4:],
        lambda d: d[:4] + b"\x02" + d[5:],
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
        encode(Everything(True, 0, 0.0, "", b"", array, (), {}))


@pytest.mark.parametrize("count", [2**63, "1", None, 1.5])
def test_values_of_another_type_are_refused(count: object) -> None:
    with pytest.raises(WireError, match="count"):
        encode(Everything(True, count, 0.0, "", b"", np.zeros(1), (), {}))  # type: ignore[arg-type]
