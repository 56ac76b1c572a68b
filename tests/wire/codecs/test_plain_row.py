"""The bytes of plain values: nothing of a Feast value is lost, and what is not such bytes is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from featurestore.core.spec import Column, PlainViewSpec, ValueType
from featurestore.errors import CorruptData, UnknownTileVersion
from featurestore.wire.codecs.plain_row import decode_plain, decode_values, encode_values, plain_fields, stored_value
from featurestore.wire.feast.protos import message_class

Value: Any = message_class("feast.types.Value")

EVENT_TIME_MS = 1_767_225_600_123
INT64 = st.integers(-(2**63), 2**63 - 1)

FEAST_VALUES = st.one_of(
    st.builds(lambda value: Value(int64_val=value), INT64),
    st.builds(lambda value: Value(double_val=value), st.floats(allow_nan=False)),
    st.builds(lambda value: Value(string_val=value), st.text(st.characters(codec="utf-8"))),
    st.builds(lambda value: Value(bool_val=value), st.booleans()),
    st.builds(lambda value: Value(bytes_val=value), st.binary()),
    st.builds(lambda value: Value(int32_val=value), st.integers(-(2**31), 2**31 - 1)),
    st.builds(lambda value: Value(float_val=value), st.floats(width=32, allow_nan=False)),
    st.builds(lambda value: Value(unix_timestamp_val=value), INT64),
    st.builds(lambda values: Value(string_list_val={"val": values}), st.lists(st.text(max_size=3))),
    st.builds(lambda values: Value(double_list_val={"val": values}), st.lists(st.floats(allow_nan=False))),
)

VIEW = PlainViewSpec(
    "merchant_profile",
    (Column("merchant_id", ValueType.INT64),),
    (
        Column("days", ValueType.INT64),
        Column("share", ValueType.FLOAT64),
        Column("market", ValueType.STRING),
        Column("is_online", ValueType.BOOL),
        Column("opened_at", ValueType.TIMESTAMP),
    ),
)

FIELDS = plain_fields(VIEW.features)

LIST_VIEW = PlainViewSpec(
    "merchant_alerts",
    (Column("merchant_id", ValueType.INT64),),
    (
        Column("codes", ValueType.INT64_LIST),
        Column("scores", ValueType.FLOAT64_LIST),
        Column("reasons", ValueType.STRING_LIST),
    ),
)


def stored(values: dict[str, Any], event_time_ms: int = EVENT_TIME_MS) -> bytes:
    """What the store holds after a write of Feast values."""
    encoded = encode_values({name: stored_value(value) for name, value in values.items()})
    return event_time_ms.to_bytes(8, "little", signed=True) + encoded


def feast_value(value: Any) -> Any:
    """A stored value as the message it was."""
    if isinstance(value, Ext):
        return Value.FromString(bytes(value.data))
    field = {bool: "bool_val", int: "int64_val", float: "double_val", str: "string_val"}[type(value)]
    return Value(**{field: value})


@given(
    values=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), FEAST_VALUES, max_size=6),
    event_time_ms=INT64,
)
def test_every_feast_value_comes_back_as_it_was(values: dict[str, Any], event_time_ms: int) -> None:
    """Of whatever type, down to the field of the message, with its event time."""
    row = decode_values(stored(values, event_time_ms))

    assert event_time_ms == row.event_time_ms
    assert values == {name: feast_value(value) for name, value in row.values.items()}


def test_the_bytes_are_what_they_were_in_the_first_release() -> None:
    """Golden bytes: a store that is upgraded must stay readable."""
    values = {"days": Value(int64_val=300), "market": Value(string_val="SE"), "opened_at": Value(unix_timestamp_val=9)}

    golden = "7ba8da769b0100000183a464617973cd012ca66d61726b6574a25345a96f70656e65645f6174d5014009"
    assert golden == stored(values).hex()


def test_nulls_take_no_room_and_read_as_null() -> None:
    """A value that was never set and one that says null are the same."""
    null = Value(null_val=0)

    assert stored({}) == stored({"days": Value(), "share": null})
    assert [None] * 5 == decode_plain(FIELDS, stored({"days": Value()})).values


def test_a_lookup_gets_the_views_own_types() -> None:
    """Feast's narrower types widen; timestamps become milliseconds."""
    values = {
        "days": Value(int32_val=-3),
        "share": Value(float_val=0.5),
        "market": Value(string_val="SE"),
        "is_online": Value(bool_val=False),
        "opened_at": Value(unix_timestamp_val=1_700_000_000),
    }
    row = decode_plain(FIELDS, stored(values))

    assert [-3, 0.5, "SE", False, 1_700_000_000_000] == row.values
    assert [int, float, str, bool, int] == [type(value) for value in row.values]
    assert EVENT_TIME_MS == row.event_time_ms


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"codes": Value(int64_list_val={"val": [2**63 - 1]})}, ([2**63 - 1], None, None)),
        ({"codes": Value(int32_list_val={"val": [-1, 2]})}, ([-1, 2], None, None)),
        ({"scores": Value(double_list_val={"val": [0.1]})}, (None, [0.1], None)),
        ({"scores": Value(float_list_val={"val": [0.5]})}, (None, [0.5], None)),
        ({"reasons": Value(string_list_val={"val": ["", "ö"]})}, (None, None, ["", "ö"])),
        ({"codes": Value(int64_list_val={}), "reasons": Value(string_list_val={})}, ([], None, [])),
        ({"codes": Value(double_list_val={}), "scores": Value(double_val=1.0)}, (None, None, None)),
        ({"codes": Value(unix_timestamp_list_val={"val": [1]}), "reasons": Value(string_val="a")}, (None, None, None)),
    ],
)
def test_lists_are_read_as_the_views_types(values: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Narrower elements widen, an empty list is no null, a list of another type is."""
    assert list(expected) == decode_plain(plain_fields(LIST_VIEW.features), stored(values)).values


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("days", Value(double_val=1.0)),
        ("days", Value(bool_val=True)),
        ("days", Value(unix_timestamp_val=1)),
        ("days", Value(int64_list_val={"val": [1]})),
        ("share", Value(int64_val=1)),
        ("is_online", Value(int64_val=1)),
        ("opened_at", Value(int64_val=1)),
        ("market", Value(bytes_val=b"SE")),
    ],
)
def test_a_value_of_another_type_than_the_field_is_now_reads_as_null(field: str, value: Any) -> None:
    """A field whose type changed is null until it is materialized again, never a wrong number."""
    assert [None] * 5 == decode_plain(FIELDS, stored({field: value})).values


@pytest.mark.parametrize(
    "data",
    [b"", b"short", bytes(8), bytes(8) + b"\x01", stored({"days": Value(int64_val=1)})[:-1], bytes(8) + b"\x01\x90"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """Truncated, empty, or not a map."""
    with pytest.raises(CorruptData):
        decode_values(data)


def test_an_extension_that_is_no_message_is_refused() -> None:
    """The bytes within are checked too, when they are read."""
    data = bytes(8) + encode_values({"days": Ext(1, b"\xff\xff")})

    with pytest.raises(CorruptData, match=r"feast\.types\.Value"):
        decode_plain(FIELDS, data)


def test_a_later_layout_version_is_named() -> None:
    """A release that cannot read the bytes says so, instead of guessing."""
    with pytest.raises(UnknownTileVersion, match="version 2"):
        decode_values(bytes(8) + b"\x02\x80")
