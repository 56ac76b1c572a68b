"""Integers that are moments in their unit, and those that cannot be: the same for streams, files and labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from featurestore.core.spec import Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.histories import EVENT_TIME, FileHistory
from featurestore.offline.training_set.label_times import event_moments_ms, label_moments_ms
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.moments import UNITS, are_moments, as_ms, not_a_moment
from featurestore.wire.payloads import DeadLetterReason, DecodedBatch, EventDecoder, RawBatch

NOW_MS = 1_795_996_740_000
NOW = {"s": NOW_MS // 1_000, "ms": NOW_MS, "us": NOW_MS * 1_000, "ns": NOW_MS * 1_000_000}
"""The same moment in each unit."""

COLUMNS = (Column("at", ValueType.TIMESTAMP), Column("card", ValueType.STRING))
TYPES = (ValueType.TIMESTAMP, ValueType.INT64)


def source(unit: str = "ms", kind: ValueType = ValueType.TIMESTAMP) -> SourceSpec:
    """Payments by a moment of a unit."""
    return SourceSpec("payments", "payments", (Column("at", kind), COLUMNS[1]), "at", event_time_unit=unit)


def decoded(spec: SourceSpec, *moments: str) -> DecodedBatch:
    """Records with these moments."""
    payloads = [b'{"at": %s, "card": "c"}' % moment.encode() for moment in moments]
    offsets = np.arange(len(payloads), dtype=np.int64)
    return EventDecoder(spec, ["at", "card"]).decode(
        RawBatch("payments", 0, 0, len(payloads), offsets, payloads), now_ms=NOW_MS
    )


@pytest.mark.parametrize(("declared", "sent", "kind"), list(product(UNITS, UNITS, TYPES)))
def test_a_stream_takes_moments_of_the_declared_unit_and_names_the_unit_of_others(
    declared: str, sent: str, kind: ValueType
) -> None:
    """Of integers alone, and among others; nothing is read as January 1970 or the year 50,000."""
    spec = source(declared, kind)
    found = decoded(spec, str(NOW[sent]), str(NOW[declared]))

    assert found.events.event_time_ms.tolist() == [NOW_MS] * (2 if sent == declared else 1)
    letters = [(one.reason, one.detail) for one in found.dead_letters]
    assert letters == ([] if sent == declared else [(letters[0][0], letters[0][1])])
    if sent != declared:
        assert letters[0][0] is DeadLetterReason.EVENT_TIME_OUT_OF_RANGE
        assert f"looks like {UNITS[sent]}" in letters[0][1]
        assert f'event_time_unit="{sent}"' in letters[0][1]


def test_texts_are_texts_whatever_the_unit() -> None:
    """Beside integers in one column too, and also of the years that no integer can mean."""
    found = decoded(source("s"), '"2026-11-30T00:00:00Z"', str(NOW["s"]), '"1970-01-01T00:00:01Z"', "null", "0")

    assert found.events.event_time_ms.tolist() == [1_795_996_800_000, NOW_MS, 1_000]
    assert [one.reason for one in found.dead_letters] == [
        DeadLetterReason.MISSING_EVENT_TIME,
        DeadLetterReason.EVENT_TIME_OUT_OF_RANGE,
    ]


def test_digits_in_a_text_are_no_moment() -> None:
    """Some would be a date of the year 1712, with a digit for a separator."""
    found = decoded(source(), '"1712051012345"', '"1795996740"', '"20261130"')

    assert [one.reason for one in found.dead_letters] == [DeadLetterReason.UNDECODABLE] * 2
    assert found.events.event_time_ms.tolist() == [1_795_996_800_000]


def test_a_moment_declared_as_timestamp_is_read_in_milliseconds_by_features() -> None:
    """One declared as a number stays the number that it is."""
    as_moment = decoded(source("s"), str(NOW["s"])).events.columns["at"].values
    as_number = decoded(source("s", ValueType.INT64), str(NOW["s"])).events.columns["at"].values

    assert isinstance(as_moment, np.ndarray)
    assert isinstance(as_number, np.ndarray)
    assert (as_moment.tolist(), as_number.tolist()) == ([NOW_MS], [NOW["s"]])


@pytest.mark.parametrize("unit", UNITS)
def test_files_of_history_hold_what_the_stream_has_taken(unit: str) -> None:
    """The same rows are left out as are dead letters there, and the same moments are read."""
    moments = [NOW[unit], None, 0, *(NOW[other] for other in UNITS if other != unit)]
    table = pa.table({"at": pa.array(moments, pa.int64()), "card": ["c"] * len(moments)})
    spec = source(unit)
    found = decoded(spec, *("null" if one is None else str(one) for one in moments))
    rows = pa.Table.from_batches(FileHistory(table).scan(spec, ["at", "card"], from_ms=0, to_ms=2 * NOW_MS))

    assert found.events.event_time_ms.tolist() == [NOW_MS] == rows[EVENT_TIME].to_pylist()
    assert rows["at"].to_pylist() == [NOW_MS]


@pytest.mark.parametrize(("declared", "sent"), [(a, b) for a, b in product(UNITS, UNITS) if a != b])
def test_a_history_of_another_unit_is_refused_by_its_name(declared: str, sent: str) -> None:
    """As the stream's dead letters say it."""
    table = pa.table({"at": pa.array([NOW[sent]], pa.int64()), "card": ["c"]})
    with pytest.raises(InvalidRequest, match=f"looks like {UNITS[sent]}"):
        list(FileHistory(table).scan(source(declared), ["card"], from_ms=0, to_ms=2 * NOW_MS))


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit != "ms"])
def test_labels_and_events_refuse_the_same_integers(unit: str) -> None:
    """Labels are milliseconds, and refused where an event of theirs would be a dead letter."""
    with pytest.raises(InvalidRequest, match="look"):
        label_moments_ms(pa.array([NOW[unit]]), "at")
    assert event_moments_ms(pa.array([NOW[unit]]), "at", unit)[0].tolist() == [NOW_MS]


def test_no_moment_of_our_time_is_one_in_two_units() -> None:
    """So a unit can be told by the size of its numbers, from 1979 to 5138."""
    for year in range(1_979, 5_138, 100):
        time_ms = (year - 1_970) * 31_556_952_000
        for unit, other in product(UNITS, UNITS):
            number = {"s": time_ms // 1_000, "ms": time_ms, "us": time_ms * 1_000, "ns": time_ms * 1_000_000}[unit]
            if abs(number) < 1 << 63:
                assert are_moments(as_ms(np.array([number]), other))[0] == (unit == other), (year, unit, other)
                assert unit == other or f"looks like {UNITS[unit]}" in not_a_moment(number, other)


def test_the_unit_is_part_of_a_definition() -> None:
    """Another unit is another moment for each event."""
    feature = FeatureSpec("n", "count", None, Window(None), ValueType.INT64)
    view = ViewSpec("cards", (COLUMNS[1],), source(), (feature,), None)

    assert len({definition_hash(replace(view, source=source(unit))) for unit in UNITS}) == len(UNITS)
