"""Changes of a table's rows to events: whatever was done to the table, what is left of the events is the table."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.events import EventBatch
from featurestore.core.spec import CHANGE_ID, IS_UNDO
from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.payloads import DeadLetterReason, DecodedBatch
from tests.wire.changed_table import (
    BEGIN_MS,
    FORMATS,
    HOUR_MS,
    SOURCE,
    Change,
    ChangedTable,
    Row,
    as_json,
    envelope_of,
    raw_batch,
    registered,
)

NAMES = ("payment_id", "card_id", "cents", "amount", "declined", "note", CHANGE_ID, IS_UNDO)
NOW_MS = BEGIN_MS + 10 * HOUR_MS
ROW: Row = {
    "payment_id": 5,
    "paid_at": BEGIN_MS,
    "card_id": "c-1",
    "cents": 1_050,
    "amount": 10.5,
    "declined": False,
    "note": None,
}


def decode(*payloads: bytes, now_ms: int = NOW_MS) -> DecodedBatch:
    """One read of JSON envelopes."""
    return decoder_of(SOURCE, NAMES).decode(raw_batch(payloads), now_ms=now_ms)


def values_of(events: EventBatch, row: int) -> tuple[object, ...]:
    """Time and columns of an event, but for what makes it a change."""
    found: list[object] = [int(events.event_time_ms[row])]
    for name in NAMES[:-2]:
        column = events.columns[name]
        is_null = column.valid is not None and not column.valid[row]
        found.append(None if is_null else column.values[row])
    return tuple(found)


def row_values(row: Row) -> tuple[object, ...]:
    """The same of a row of the table."""
    values = [row["paid_at"], *(row[name] for name in NAMES[:-2])]
    return tuple(value.encode() if isinstance(value, str) else value for value in values)


@pytest.mark.parametrize("kind", FORMATS)
@given(draw=st.randoms(use_true_random=False), cut=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_what_is_left_of_the_events_is_the_table(kind: str, draw: random.Random, cut: int) -> None:
    """Each change counted once by its id; in whatever format, and wherever reads end."""
    source, write = FORMATS[kind]
    table = ChangedTable(draw)
    table.snapshot(draw.randint(0, 4))
    table.change(draw.randint(0, 40))
    decoder = decoder_of(source, NAMES, registered())
    left, seen = Counter[tuple[object, ...]](), set[bytes]()
    for first in range(0, len(table.sent), cut):
        raw = raw_batch([write(one) for one in table.sent[first : first + cut]], first=first)
        decoded = decoder.decode(raw, now_ms=NOW_MS)
        assert () == decoded.dead_letters
        events = decoded.events
        assert (first, raw.next_offset) == (events.from_offset, events.next_offset)
        assert events.event_ids is not None
        for row, change_id in enumerate(events.event_ids.tolist()):
            assert change_id == events.columns[CHANGE_ID].values[row]
            if change_id not in seen:
                seen.add(change_id)
                left[values_of(events, row)] += -1 if events.columns[IS_UNDO].values[row] else 1

    assert Counter(map(row_values, table.rows.values())) == Counter({row: n for row, n in left.items() if n})


def test_an_update_undoes_the_row_before_and_does_the_new_one_at_one_offset() -> None:
    """And a delete undoes, with ids that tell row, place in the log and which of the two it is."""
    paid = {**ROW, "cents": 2_000}
    decoded = decode(
        as_json(Change("c", None, ROW, 10)), as_json(Change("u", ROW, paid, 20)), as_json(Change("d", paid, None, 30))
    )

    events = decoded.events
    assert events.event_ids is not None
    assert [0, 1, 1, 2] == events.offsets.tolist()
    assert [b"5@10+", b"5@20-", b"5@20+", b"5@30-"] == events.event_ids.tolist()
    assert [0, 1, 0, 1] == events.columns[IS_UNDO].values.tolist()  # type: ignore[union-attr]  # an array
    assert [1_050, 1_050, 2_000, 2_000] == events.columns["cents"].values.tolist()  # type: ignore[union-attr]  # likewise


def test_tombstones_say_nothing() -> None:
    """Neither as no value nor beside a schema."""
    decoded = decode(b"", b'{"schema": null, "payload": null}')

    assert (0, ()) == (len(decoded.events.offsets), decoded.dead_letters)


def test_a_snapshot_that_is_read_again_has_the_ids_of_the_first() -> None:
    """A connector that failed within its snapshot reads all of it again, at another place in the log."""
    first, again = (decode(as_json(Change("r", None, ROW, lsn))).events.event_ids for lsn in (10, 999))

    assert first is not None
    assert again is not None
    assert [b"5@snapshot+"] == first.tolist() == again.tolist()


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (as_json(Change("u", None, ROW, 1)), 'op is "u", but before is null: give the table REPLICA IDENTITY FULL'),
        (as_json(Change("d", None, None, 1)), 'op is "d", but before is null: give the table REPLICA IDENTITY FULL'),
        (as_json(Change("c", None, None, 1)), 'op is "c", but after is null'),
        (as_json(Change("t", None, None, 1)), 'op is "t": the table was truncated'),
        (as_json(Change("m", None, None, 1)), 'op is "m": a message'),
        (as_json(Change("x", None, ROW, 1)), 'op is "x", which is not known'),
        (json.dumps({**envelope_of(Change("c", None, ROW, 1)), "source": {}}).encode(), "its source has no position"),
        (as_json(Change("c", None, {**ROW, "paid_at": 0}, 1)), "after: its event time is 0"),
    ],
)
def test_a_change_that_cannot_be_used_is_a_dead_letter_that_says_why(payload: bytes, detail: str) -> None:
    """Nothing of it counts."""
    decoded = decode(payload)
    [letter] = decoded.dead_letters

    assert 0 == len(decoded.events.offsets)
    assert (DeadLetterReason.UNUSABLE_CHANGE, payload) == (letter.reason, letter.payload)
    assert detail in letter.detail


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"op": 7}', json.dumps({"payment_id": 5}).encode()])
def test_what_is_no_envelope_is_undecodable(payload: bytes) -> None:
    """A flattened row among it, with the word about the transformation that makes them."""
    [letter] = decode(payload).dead_letters

    assert DeadLetterReason.UNDECODABLE == letter.reason
    assert ("ExtractNewRecordState" in letter.detail) == (payload.startswith(b'{"payment_id"'))


@pytest.mark.parametrize(
    "key_only",
    [
        {**ROW, "card_id": "", "cents": 0, "amount": 0.0, "paid_at": 0},
        {"payment_id": 5},
        {"payment_id": 5, "card_id": "", "cents": 0, "declined": False, "paid_at": None},
    ],
    ids=["columns that cannot be null are zero", "the key alone", "a time that can be null"],
)
@pytest.mark.parametrize("op", ["u", "d"])
def test_nothing_of_a_change_counts_whose_row_before_is_only_its_key(op: str, key_only: Row) -> None:
    """As Debezium writes it of a table without REPLICA IDENTITY FULL; half of an update would count a row twice."""
    change = envelope_of(Change(op, ROW, ROW if op == "u" else None, 1))
    if isinstance(key_only.get("paid_at"), int):
        key_only = {**key_only, "paid_at": "1970-01-01T00:00:00Z"}
    decoded = decode(json.dumps({**change, "before": key_only}).encode())
    [letter] = decoded.dead_letters

    assert 0 == len(decoded.events.offsets)
    assert DeadLetterReason.UNUSABLE_CHANGE == letter.reason
    assert "REPLICA IDENTITY FULL" in letter.detail


def test_a_row_that_cannot_be_used_is_refused_alone() -> None:
    """What was refused when it was done is refused when it is undone, and the row on the other side counts."""
    untimed = {**ROW, "note": "no time yet"}
    envelope = envelope_of(Change("u", ROW, untimed, 1))
    envelope["after"]["paid_at"] = None
    back = envelope_of(Change("u", untimed, ROW, 2))
    back["before"]["paid_at"] = None
    wrong = envelope_of(Change("u", {**ROW, "cents": 12.5}, {**ROW, "payment_id": None}, 3))
    decoded = decode(*(json.dumps(one).encode() for one in (envelope, back, wrong)))

    assert decoded.events.event_ids is not None
    assert [b"5@1-", b"5@2+"] == decoded.events.event_ids.tolist()
    assert [
        (0, DeadLetterReason.MISSING_EVENT_TIME, "after: paid_at is null or absent"),
        (1, DeadLetterReason.MISSING_EVENT_TIME, "before: paid_at is null or absent"),
    ] == [(one.offset, one.reason, one.detail) for one in decoded.dead_letters[:2]]
    assert "before: Expected `int | null`" in decoded.dead_letters[2].detail
    assert "; after: payment_id is null or absent" in decoded.dead_letters[2].detail


@pytest.mark.parametrize(
    ("place", "position"),
    [
        ({"lsn": 26386904, "txId": 3}, b"26386904"),
        ({"file": "bin.000003", "pos": 484, "row": 1, "gtid": None}, b"bin.000003:484:1"),
        ({"change_lsn": "00000027:00000758:0003", "event_serial_no": 2}, b"00000027:00000758:0003:2"),
        ({"scn": "2122185", "rs_id": "001234.00012345.0124", "ssn": 1}, b"2122185:001234.00012345.0124:1"),
    ],
)
def test_each_database_has_its_own_words_for_a_place_in_its_log(place: dict[str, object], position: bytes) -> None:
    """As the documentation of Debezium's connectors gives them."""
    decoded = decode(json.dumps({**envelope_of(Change("c", None, ROW, 1)), "source": place}).encode())

    assert decoded.events.event_ids is not None
    assert [b"5@" + position + b"+"] == decoded.events.event_ids.tolist()


def test_an_avro_envelope_whose_schema_does_not_fit_is_refused_with_its_reason() -> None:
    """A column of another type than its field, and a record that is torn."""
    source, write = FORMATS["avro"]
    payload = write(Change("c", None, ROW, 1))
    text = replace(source, columns=tuple(replace(one, type=one.type) for one in source.columns))
    numbers = replace(
        text,
        columns=tuple(replace(one, type=SOURCE.columns[0].type) if one.name == "note" else one for one in text.columns),
    )
    [wrong] = decoder_of(numbers, NAMES, registered()).decode(raw_batch([payload]), now_ms=NOW_MS).dead_letters
    [torn] = decoder_of(source, NAMES, registered()).decode(raw_batch([payload[:-3]]), now_ms=NOW_MS).dead_letters

    assert (DeadLetterReason.UNDECODABLE, "after.note is a string" in wrong.detail) == (wrong.reason, True)
    assert (DeadLetterReason.UNDECODABLE, "ends in the middle" in torn.detail) == (torn.reason, True)


def test_times_in_another_unit_are_read_as_events_have_them() -> None:
    """A column without a time zone is microseconds."""
    source = replace(
        SOURCE,
        columns=tuple(
            replace(one, type=SOURCE.columns[0].type) if one.name == "paid_at" else one for one in SOURCE.columns
        ),
        event_time_unit="us",
    )
    envelope = envelope_of(Change("u", ROW, ROW, 1))
    envelope["before"]["paid_at"] = envelope["after"]["paid_at"] = BEGIN_MS * 1_000 + 999
    decoded = decoder_of(source, NAMES).decode(raw_batch([json.dumps(envelope).encode()]), now_ms=NOW_MS)

    assert [BEGIN_MS, BEGIN_MS] == decoded.events.event_time_ms.tolist()
