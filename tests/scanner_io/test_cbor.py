"""The reader of CBOR against cbor2, which decodes by copying."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io.cbor import loads
from scanner_io.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20,
)  # fmt: skip


def plain(value):
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [plain(v) for v in value]
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def told(message):
    return plain(loads(message, lambda number, value: ("tag", number, plain(value))))


@given(VALUES)
def test_what_cbor2_writes_is_read(value):
    assert told(cbor2.dumps(value)) == value
    assert told(cbor2.dumps(cbor2.CBORTag(56500, value))) == ("tag", 56500, value)


@given(VALUES, st.data())
def test_no_part_of_a_message_is_taken_for_a_whole(value, data):
    message = cbor2.dumps([value, 1])
    cut = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(DataError):
        told(message[:cut])
    with pytest.raises(DataError):
        told(message + b"\0")


@given(st.binary(max_size=200))
def test_foreign_bytes_are_a_data_error_or_what_cbor2_reads(message):
    try:
        found = told(message)
    except DataError:
        return
    assert found == found or isinstance(found, float)


def test_pieces_of_unknown_length():
    assert told(bytes.fromhex("9f018202039f0405ffff")) == [1, [2, 3], [4, 5]]
    assert told(bytes.fromhex("5f42010243030405ff")) == b"\1\2\3\4\5"
    assert told(bytes.fromhex("7f657374726561646d696e67ff")) == "streaming"
    assert told(bytes.fromhex("bf61610161629f0203ffff")) == {"a": 1, "b": [2, 3]}


@pytest.mark.parametrize("message", ["81" * 40 + "00", "9f", "ff", "1c", "5f01ff", "a1820102", "61ff", "9b" + "ff" * 8])
def test_what_is_refused(message):
    with pytest.raises(DataError):
        told(bytes.fromhex(message))
