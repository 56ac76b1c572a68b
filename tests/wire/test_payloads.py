"""Payloads to columns: nothing is guessed, nothing is lost, nobody's neighbour suffers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.events import TEXT_BYTES_MAX, ColumnValues
from featurestore.core.spec import Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.errors import InvalidRequest
from featurestore.wire.entity_key import KEY_BYTES_MAX, encode_key, lane_of
from featurestore.wire.entity_routing import PartitionWatermark, key_events, refused_rows, split_by_writer
from featurestore.wire.formats import iso8601
from featurestore.wire.formats.columns import STRING_CHARACTERS_MAX
from featurestore.wire.moments import SECONDS_BELOW
from featurestore.wire.payloads import DeadLetterReason, DecodedBatch, EventDecoder, RawBatch

NOW_MS = 1_790_000_000_000
SOURCE = SourceSpec(
    name="payments",
    topic="payments",
    columns=(
        Column("id", ValueType.STRING),
        Column("at", ValueType.TIMESTAMP),
        Column("card", ValueType.STRING),
        Column("shop", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("score", ValueType.FLOAT64),
        Column("ok", ValueType.BOOL),
        Column("due-at", ValueType.TIMESTAMP),
    ),
    event_time_column="at",
    event_id_column="id",
    dedup_horizon_ms=3_600_000,
    max_future_ms=60_000,
)
COLUMNS = ("card", "shop", "amount", "score", "ok", "due-at")


def payload(**changes: Any) -> bytes:
    """A sound record, or one with something changed."""
    record = {"id": "p1", "at": NOW_MS, "card": "c", "shop": 7, "amount": 100, "score": 0.5, "ok": True, **changes}
    return json.dumps(record).encode()


def raw_batch(payloads: Sequence[bytes], *, from_offset: int = 100) -> RawBatch:
    """Payloads at consecutive offsets."""
    offsets = np.arange(from_offset, from_offset + len(payloads), dtype=np.int64)
    return RawBatch("payments", 3, from_offset, from_offset + len(payloads), offsets, payloads)


def decode(*payloads: bytes, source: SourceSpec = SOURCE) -> DecodedBatch:
    """All columns of some payloads."""
    return EventDecoder(source, COLUMNS).decode(raw_batch(payloads), now_ms=NOW_MS)


def listed(column: ColumnValues) -> list[Any]:
    """The values of a column."""
    assert isinstance(column.values, np.ndarray)
    return list(column.values.tolist())


def view_of(*join_keys: str, retention_ms: int | None = None) -> ViewSpec:
    """A view of one feature, by the given keys."""
    columns = tuple(column for name in join_keys if (column := SOURCE.column(name)))
    feature = FeatureSpec("total", "sum", "amount", Window(60_000, 1_000), ValueType.INT64)
    return ViewSpec("view", columns, SOURCE, (feature,), retention_ms, lookback_ms=0)


def test_a_sound_record_becomes_one_row_of_typed_columns() -> None:
    """Values in the representation that core.events names; what nobody asked for is skipped."""
    events = decode(
        payload(unknown=[{}]), payload(amount=None, score=3, ok=False, card="ü", **{"due-at": "1970-01-01"})
    )
    columns = events.events.columns

    assert events.dead_letters == ()
    assert listed(columns["amount"]) == [100, 0]
    assert columns["amount"].valid is not None
    assert columns["amount"].valid.tolist() == [True, False]
    assert listed(columns["score"]) == [0.5, 3.0]
    assert listed(columns["ok"]) == [1, 0]
    assert listed(columns["card"]) == [b"c", "ü".encode()]
    assert listed(columns["due-at"]) == [0, 0]
    assert columns["due-at"].valid is not None
    assert columns["due-at"].valid.tolist() == [False, True]
    assert events.events.event_ids is not None
    assert events.events.event_ids.tolist() == [b"p1", b"p1"]
    assert (events.events.from_offset, events.events.next_offset) == (100, 102)


def test_a_null_is_a_null_in_a_column_of_any_type() -> None:
    """Also of floats, where NumPy would make NaN of it; an absent column is the same."""
    columns = decode(payload(), payload(card=None, shop=None, score=None, ok=None)).events.columns

    for name in ("card", "shop", "score", "ok", "due-at"):
        valid = columns[name].valid
        assert valid is not None, name
        assert valid.tolist() == [name != "due-at", False], name
    assert listed(columns["score"]) == [0.5, 0.0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", DeadLetterReason.UNDECODABLE),
        (b"null", DeadLetterReason.UNDECODABLE),
        (b"[1]", DeadLetterReason.UNDECODABLE),
        (b"\xff\xfe", DeadLetterReason.UNDECODABLE),
        (payload() + b",", DeadLetterReason.UNDECODABLE),
        (payload() + payload(), DeadLetterReason.UNDECODABLE),
        (payload(amount="12"), DeadLetterReason.UNDECODABLE),
        (payload(amount=12.0), DeadLetterReason.UNDECODABLE),
        (payload(amount=2**63), DeadLetterReason.UNDECODABLE),
        (payload(amount=-(2**63) - 1), DeadLetterReason.UNDECODABLE),
        (payload(score=float("nan")), DeadLetterReason.UNDECODABLE),
        (payload(score=float("inf")), DeadLetterReason.UNDECODABLE),
        (payload().replace(b"0.5", b"1e999"), DeadLetterReason.UNDECODABLE),
        (payload(ok=1), DeadLetterReason.UNDECODABLE),
        (payload(card="\ud800"), DeadLetterReason.UNDECODABLE),
        (payload()[:-1] + b', "unread": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", DeadLetterReason.UNDECODABLE),
        (payload(at="yesterday"), DeadLetterReason.UNDECODABLE),
        (payload(**{"due-at": "2026-02-30"}), DeadLetterReason.UNDECODABLE),
        (payload(at=None), DeadLetterReason.MISSING_EVENT_TIME),
        (payload(at=NOW_MS + 60_001), DeadLetterReason.TOO_FAR_IN_FUTURE),
        (payload(at=2**63 - 1), DeadLetterReason.EVENT_TIME_OUT_OF_RANGE),
        (payload(at=-(2**63)), DeadLetterReason.EVENT_TIME_OUT_OF_RANGE),
        (payload(id=None), DeadLetterReason.MISSING_EVENT_ID),
    ],
)
def test_a_bad_record_is_a_dead_letter_and_its_neighbours_are_not(bad: bytes, reason: DeadLetterReason) -> None:
    """With its reason, position and original bytes; rows before and after it are as if it were not there."""
    decoded = decode(payload(amount=1), bad, payload(amount=3))

    assert [(letter.reason, letter.offset, letter.payload) for letter in decoded.dead_letters] == [(reason, 101, bad)]
    assert decoded.dead_letters[0].detail != ""
    assert decoded.events.offsets.tolist() == [100, 102]
    assert listed(decoded.events.columns["amount"]) == [1, 3]


def test_the_longest_text_fits_a_head_row_and_a_longer_one_is_a_dead_letter() -> None:
    """What is let in can be stored whatever its characters: a record of 70 KB must never stop the stream."""
    longest, longer = "💳" * STRING_CHARACTERS_MAX, "x" * (STRING_CHARACTERS_MAX + 1)
    decoded = decode(payload(id=longest), payload(id=longer), payload(card=longer))

    assert decoded.events.event_ids is not None
    assert [len(each) for each in decoded.events.event_ids] == [4 * STRING_CHARACTERS_MAX]
    assert TEXT_BYTES_MAX >= 4 * STRING_CHARACTERS_MAX
    assert [DeadLetterReason.UNDECODABLE] * 2 == [letter.reason for letter in decoded.dead_letters]


def test_the_last_moment_that_the_source_allows_is_not_too_far_in_the_future() -> None:
    """The bound itself is inside."""
    assert decode(payload(at=NOW_MS + 60_000)).dead_letters == ()


def test_integer_ids_are_their_decimal_text() -> None:
    """So that a producer may change the type without making old events new."""
    source = SourceSpec("s", "payments", SOURCE.columns, "at", "shop")

    decoded = EventDecoder(source, ["amount"]).decode(raw_batch([payload(shop=-17)]), now_ms=NOW_MS)

    assert decoded.events.event_ids is not None
    assert decoded.events.event_ids.tolist() == [b"-17"]


def test_a_column_outside_the_schema_is_refused_when_the_decoder_is_made() -> None:
    """Naming what the schema has."""
    with pytest.raises(InvalidRequest, match='no column "colour"'):
        EventDecoder(SOURCE, ["colour"])


def test_an_empty_read_is_an_empty_batch() -> None:
    """A read of transaction markers alone still moves the offsets."""
    decoded = decode()

    assert len(decoded.events.offsets) == len(decoded.dead_letters) == 0


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([payload(), payload(amount=2), payload(at="2026")]))))
def test_every_record_is_either_a_row_or_a_letter(payloads: list[bytes]) -> None:
    """Whatever the bytes; and a batch decodes to the same as its records one by one."""
    together = decode(*payloads)
    alone = [decode(one) for one in payloads]

    assert len(together.events.offsets) + len(together.dead_letters) == len(payloads)
    assert listed(together.events.columns["amount"]) == [
        value for one in alone for value in listed(one.events.columns["amount"])
    ]


@given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)), min_size=1))
def test_the_fast_and_the_slow_way_read_the_same_time(moments: list[datetime]) -> None:
    """Texts of one layout go through the matrix, mixed ones do not; both are what datetime says."""
    texts = [moment.isoformat(timespec="milliseconds").rjust(23, "0") + "Z" for moment in moments]
    expected = [
        (m.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) for m in moments
    ]

    fast, is_parsed = iso8601.parse_column(texts)
    slow, _ = iso8601.parse_column([*texts, "2026-01-01"])

    assert is_parsed.all()
    assert fast.tolist() == expected
    assert slow.tolist()[:-1] == expected


@pytest.mark.parametrize(
    "text",
    ["2026-02-29T00:00:00.000Z", "2026-13-01T00:00:00.000Z", "2026-01-01T24:00:01.000Z", "0000-01-01T00:00:00.000Z"],
)
def test_a_time_that_no_calendar_has_is_refused(text: str) -> None:
    """By the fast way as by the slow one."""
    assert iso8601.parse_column([text])[1].tolist() == [False]
    assert iso8601.parse_text(text) is None


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(-3, 3)), max_size=30), st.integers(1, 5))
def test_keys_and_lanes_are_those_of_the_store_and_every_row_has_one_writer(
    pairs: list[tuple[str, int]], writers: int
) -> None:
    """Vectorised keys equal entity_key.encode_key, and splitting by writer neither loses nor doubles a row."""
    payloads = [payload(card=card, shop=shop, amount=n) for n, (card, shop) in enumerate(pairs)]
    events = decode(*payloads).events

    keyed = key_events(events, view_of("card", "shop"), 16)
    parts = split_by_writer(keyed, writers)

    expected = [encode_key(pair) for pair in pairs]
    assert [keyed.keys[index] for index in keyed.key_index.tolist()] == expected
    assert keyed.key_lanes.tolist() == [lane_of(key, 16) for key in keyed.keys]
    rows = {
        amount: (writer, part.keys[index])
        for writer, part in enumerate(parts)
        for amount, index in zip(listed(part.columns["amount"]), part.key_index.tolist(), strict=True)
    }
    assert rows == {n: (lane_of(key, 16) % writers, key) for n, key in enumerate(expected)}
    assert sum(len(part.offsets) for part in parts) == len(pairs)
    assert {(part.from_offset, part.next_offset) for part in parts} == {(events.from_offset, events.next_offset)}


def test_a_row_without_a_key_is_refused_by_that_view_alone() -> None:
    """The view by card refuses it, the view by shop keeps it."""
    events = decode(payload(), payload(card=None)).events
    watermark_ms = PartitionWatermark().advance(events.event_time_ms)

    refused = refused_rows(events, view_of("card"), watermark_ms)

    assert [(row.row, row.reason) for row in refused] == [(1, DeadLetterReason.MISSING_JOIN_KEY)]
    assert refused_rows(events, view_of("shop"), watermark_ms) == []
    assert key_events(events, view_of("card"), 16, refused).offsets.tolist() == [100]


@pytest.mark.parametrize(("length", "is_refused"), [(KEY_BYTES_MAX, False), (KEY_BYTES_MAX + 1, True)])
def test_a_key_longer_than_the_store_takes_is_refused(length: int, is_refused: bool) -> None:
    """At the limit it is still taken."""
    events = decode(payload(card="x" * length)).events

    refused = refused_rows(events, view_of("card"), PartitionWatermark().advance(events.event_time_ms))

    assert [row.reason for row in refused] == [DeadLetterReason.KEY_TOO_LONG] * is_refused


@given(st.lists(st.integers(SECONDS_BELOW, SECONDS_BELOW + 10_000), min_size=1), st.data())
def test_where_a_read_ends_never_decides_what_is_beyond_retention(times: list[int], data: st.DataObject) -> None:
    """An event is judged by the events before it and itself, in one batch or in two."""
    cut = data.draw(st.integers(0, len(times)))
    view = view_of("card", retention_ms=2_000)
    whole, halves = PartitionWatermark(), PartitionWatermark()

    events = decode(*(payload(at=time) for time in times)).events
    together = [row.row for row in refused_rows(events, view, whole.advance(events.event_time_ms))]
    apart: list[int] = []
    for begin, end in ((0, cut), (cut, len(times))):
        part = decode(*(payload(at=time) for time in times[begin:end])).events
        apart += [begin + row.row for row in refused_rows(part, view, halves.advance(part.event_time_ms))]

    expected = [n for n, time in enumerate(times) if max(times[: n + 1]) - time > 2_000]
    assert together == expected
    assert apart == expected


def test_json_behind_the_id_of_a_schema_is_read_as_json_is() -> None:
    """What begins with no id is refused, alone, and the others are as they were."""
    source = dataclasses.replace(SOURCE, format="json_schema", schema_registry="http://schemas.test")

    decoded = decode(b"\0\0\0\0\7" + payload(amount=3), payload(), b"", b"\0\0\0\0\7{", source=source)

    assert decoded.events.offsets.tolist() == [100]
    assert listed(decoded.events.columns["amount"]) == [3]
    assert [letter.detail for letter in decoded.dead_letters] == [
        "does not begin with the id of a schema, and no header has one",
        "is empty",
        "Input data was truncated",
    ]
