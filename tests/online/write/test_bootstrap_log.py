"""A view's events out of an event log: the rows that the stream would have keyed, by lane, of what it still needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import featurestore.offline.bootstrap_events as log_events
from featurestore.core.events import BlobRow
from featurestore.core.spec import Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.errors import InvalidRequest
from featurestore.offline.bootstrap_events import LogEvents
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log
from featurestore.wire.entity_key import encode_key, lane_of
from featurestore.wire.payloads import EventDecoder, RawBatch

LANES = 4
SECOND_MS, DAY_MS = 1_000, 86_400_000
BEGIN_MS = 1_790_035_200_000
NOW_MS = BEGIN_MS + 1_000 * DAY_MS
TOPIC = "payments"
SOURCE = SourceSpec(
    name="payments",
    topic=TOPIC,
    columns=(
        Column("payment_id", ValueType.STRING),
        Column("paid_at", ValueType.TIMESTAMP),
        Column("card", ValueType.STRING),
        Column("branch", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("market", ValueType.STRING),
    ),
    event_time_column="paid_at",
    event_id_column="payment_id",
    dedup_horizon_ms=60 * SECOND_MS,
)
VIEW = ViewSpec(
    name="cards",
    join_keys=(Column("card", ValueType.STRING), Column("branch", ValueType.INT64)),
    source=SOURCE,
    features=(
        FeatureSpec("spent", "sum", "amount", Window(None), ValueType.INT64),
        FeatureSpec("market", "last", "market", Window(None), ValueType.STRING),
    ),
    retention_ms=None,
    where="amount >= 10",
)


def record(partition: int, offset: int) -> dict[str, object]:
    """A payment a second, some of them late, of no card, or with nulls."""
    late_ms = 90 * SECOND_MS if offset % 50 == 0 else 0
    return {
        "payment_id": f"p-{partition}-{offset}",
        "paid_at": BEGIN_MS + offset * SECOND_MS - late_ms,
        "card": None if offset % 31 == 0 else f"c{offset % 17}",
        "branch": offset % 3,
        "amount": None if offset % 13 == 0 else offset,
        "market": None if offset % 7 == 0 else "é" * (offset % 3),
    }


def write_log(directory: Path, counts: dict[int, int]) -> EventLog:
    """A log with so many records in each partition."""
    log, schema = place_of(directory), log_schema(SOURCE)
    prepare_log(log, schema, {(TOPIC, partition): "" for partition in counts})
    for partition, count in counts.items():
        payloads = [json.dumps(record(partition, offset)).encode() for offset in range(count)]
        raw = RawBatch(TOPIC, partition, 0, count, np.arange(count), payloads)
        decoded = EventDecoder(SOURCE, payload_columns(SOURCE)).decode(raw, now_ms=NOW_MS)
        writer = LogWriter(log, schema)
        writer.claim([(TOPIC, partition)])
        rows = rows_of(decoded.events, schema, ingest_time_ms=NOW_MS)
        writer.commit({(TOPIC, partition): [PartitionRows(0, count, rows)]})
    return EventLog(directory)


def events_of(log: EventLog, view: ViewSpec, directory: Path, *, now_ms: int = NOW_MS) -> LogEvents:
    """The view's events, not collected yet."""
    directory.mkdir()
    return LogEvents(log, view, lane_count=LANES, now_ms=now_ms, directory=directory)


def rows_in(events: LogEvents, lane: int) -> list[tuple[bytes, int, int, str | None]]:
    """(Key, event time, amount, market) of a lane's rows, in order of arrival within each part."""
    rows = []
    for part in events.parts(lane):
        amounts, markets = part.events.columns["amount"], part.events.columns["market"]
        assert amounts.valid is None, "the condition leaves out nulls"
        texts = BlobRow.of(markets.values).values()
        for row, entity in enumerate(part.events.entity.tolist()):
            is_valid = markets.valid is None or bool(markets.valid[row])
            time_ms, amount = int(part.events.event_time_ms[row]), int(amounts.values[row])
            rows.append((part.keys[entity], time_ms, amount, texts[row].decode() if is_valid else None))
    return rows


def expected_rows(counts: dict[int, int]) -> list[tuple[bytes, int, int, str | None]]:
    """The same of all lanes, from the records."""
    return [
        (encode_key([one["card"], one["branch"]]), one["paid_at"], one["amount"], one["market"])  # type: ignore[list-item, misc]  # as `record` makes them
        for partition, count in counts.items()
        for one in (record(partition, offset) for offset in range(count))
        if one["card"] is not None and one["amount"] is not None and one["amount"] >= 10  # type: ignore[operator]  # likewise
    ]


@pytest.mark.parametrize("part_rows", [1, 100, 1_000_000])
def test_each_row_of_the_view_is_in_its_lane_once(
    tmp_path: Path, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However finely the files are cut and however often rows are written; of each entity in order of its partition."""
    monkeypatch.setattr(log_events, "PART_ROWS", part_rows)
    monkeypatch.setattr(log_events, "SPILL_ROWS", 250)
    counts = {0: 700, 2: 300}
    events = events_of(write_log(tmp_path / "log", counts), VIEW, tmp_path / "files")
    read: list[int] = []
    events.collect(range(LANES), read.append)
    by_lane = [rows_in(events, lane) for lane in range(LANES)]

    assert {(TOPIC, 0): 700, (TOPIC, 2): 300} == events.positions
    assert 1_000 == sum(read)
    assert sorted(expected_rows(counts), key=repr) == sorted((row for rows in by_lane for row in rows), key=repr)
    assert all(lane == lane_of(row[0], LANES) for lane, rows in enumerate(by_lane) for row in rows)
    assert [] == list((tmp_path / "files").iterdir())


def test_only_the_lanes_that_are_asked_for_are_collected(tmp_path: Path) -> None:
    """A run that continues another does not write what is complete."""
    events = events_of(write_log(tmp_path / "log", {0: 500}), VIEW, tmp_path / "files")
    events.collect([2])

    assert [] == [row for lane in (0, 1, 3) for row in rows_in(events, lane)]
    assert {2} == {lane_of(row[0], LANES) for row in rows_in(events, 2)}


def test_the_ids_of_one_horizon_of_each_partition_are_recent(tmp_path: Path) -> None:
    """Also that of an event that came late: what counts is how far its partition was when it came."""
    counts = {0: 1_000, 1: 301}
    events = events_of(write_log(tmp_path / "log", counts), VIEW, tmp_path / "files")
    events.collect(range(LANES))
    recent = {
        one
        for lane in range(LANES)
        for part in events.parts(lane)
        for one in (part.recent_ids or BlobRow.of([])).values()
    }

    # The newest events of the partitions are at 999 and 299 seconds (300 is late), and their horizon is a minute.
    candidates = {0: range(939, 1_000), 1: range(239, 301)}
    expected = {
        f"p-{partition}-{offset}".encode()
        for partition, offsets in candidates.items()
        for offset in offsets
        if offset % 31 and offset % 13
    }
    assert b"p-0-950" in expected, "this one is late"
    assert expected == recent


def test_what_retention_does_not_reach_is_not_read(tmp_path: Path) -> None:
    """From one retention before the log's newest event, which the clock bounds."""
    view = replace(VIEW, retention_ms=100 * SECOND_MS, lookback_ms=0)
    log = write_log(tmp_path / "log", {0: 1_000})
    events = events_of(log, view, tmp_path / "files")
    events.collect(range(LANES))
    times = [row[1] for lane in range(LANES) for row in rows_in(events, lane)]

    assert BEGIN_MS + 898 * SECOND_MS == events.from_ms
    assert events.from_ms <= min(times) < events.from_ms + 20 * SECOND_MS
    earlier = events_of(log, view, tmp_path / "more", now_ms=BEGIN_MS + 500 * SECOND_MS)
    assert BEGIN_MS + 399 * SECOND_MS == earlier.from_ms


def test_a_log_without_the_views_topic_is_refused(tmp_path: Path) -> None:
    """Nothing that has no positions can be handed over to a stream."""
    log = write_log(tmp_path / "log", {0: 10})
    other = replace(VIEW, source=replace(SOURCE, topic="refunds"))
    with pytest.raises(InvalidRequest, match='has nothing of topic "refunds" yet'):
        events_of(log, other, tmp_path / "files")
