"""The two steps of the event log's flow: ingest times that never fall, and commits whose answer was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflows.dead_letters.writer import FileDeadLetters
from dataflows.log_to_table.sink import CommitTiming, EventLogSink, LoggedPartition, LogRowsStep
from dataflows.logs.sources import Shared
from dataflows.progress import StreamProgress
from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.clock import Clock, SystemClock
from featurestore.errors import Unavailable
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import LogTable
from featurestore.offline.event_log.writer import PartitionRows, prepare_log
from featurestore.testing.clock import ManualClock
from featurestore.wire.formats.columns import NoSchemas
from featurestore.wire.payloads import RawBatch
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    PAYMENTS,
    SCHEMA,
    TOPIC,
    payload,
    plain_offsets,
    read_of,
)

NOW_MS = BEGIN_MS + 10 * DAY_MS


def shared_of(clock: Clock) -> Shared:
    """What the steps share, with some patience."""
    return Shared(
        Conductor(), StreamProgress(clock, interval_seconds=1_000), clock, until_end=False, patience_seconds=30
    )


def raw_of(offset: int) -> RawBatch:
    """A read of one record."""
    return RawBatch(TOPIC, 0, offset, offset + 1, np.array([offset]), [payload(offset)])


def test_ingest_times_do_not_fall_when_the_clock_steps_back(tmp_path: Path) -> None:
    """Neither within a run nor over a restart: the log as of a moment is a prefix of each partition."""
    clock = ManualClock(now_ms=NOW_MS)
    place = place_of(tmp_path)
    logged = LoggedPartition(PAYMENTS, place, SCHEMA, 0, start=None, ingest_time_ms=NOW_MS + 500)
    step = LogRowsStep(PAYMENTS, [logged], NoSchemas(), FileDeadLetters(tmp_path), shared_of(clock))

    ingested = []
    for offset, after_ms in enumerate((0, 1_000, -2_000, -500, 500, 1_500)):
        clock.set_now_ms(NOW_MS + after_ms)
        [(_, item)] = step(raw_of(offset))
        assert isinstance(item, PartitionRows)
        ingested += item.rows["ingest_time_ms"].to_pylist()

    assert ingested == [NOW_MS + after_ms for after_ms in (500, 1_000, 1_000, 1_000, 1_000, 1_500)]


@pytest.mark.parametrize("number", [1, 2], ids=["at the claim", "at a commit"])
@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
def test_a_commit_whose_answer_was_lost_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, is_made: bool
) -> None:
    """After an outage the writer looks at the table, and goes on behind what is there."""
    shared = shared_of(SystemClock())
    place = place_of(tmp_path)
    prepare_log(place, SCHEMA, {(TOPIC, 0): ""})
    made, left = LogTable.commit, [number]

    def commit(table: LogTable, *content: Any) -> None:
        left[0] -= 1
        if left[0] or is_made:
            made(table, *content)
        if left[0] == 0:
            raise Unavailable("the file system does not answer")

    monkeypatch.setattr(LogTable, "commit", commit)
    logged = LoggedPartition(PAYMENTS, place, SCHEMA, 0, start=None, ingest_time_ms=0)
    sink = EventLogSink([logged], CommitTiming(seconds=0, rows=1), shared)
    part = sink.build_part("commit", logged.key, None)
    part.write_batch([read_of(0, 10)])
    part.write_batch([read_of(10, 20)])
    part.close()

    assert left[0] < 0
    assert shared.conductor.outcome is RunOutcome.RUNNING, shared.conductor.cause
    assert plain_offsets(tmp_path) == [(0, offset) for offset in range(20)]
    assert EventLog(tmp_path).positions() == {(TOPIC, 0): 20}


def test_one_commit_takes_the_rows_of_all_partitions(tmp_path: Path) -> None:
    """So that files are as few as dates, and versions as few as commits."""
    shared = shared_of(SystemClock())
    place = place_of(tmp_path)
    table = prepare_log(place, SCHEMA, {(TOPIC, partition): "" for partition in range(3)})
    logged = [LoggedPartition(PAYMENTS, place, SCHEMA, number, start=None, ingest_time_ms=0) for number in range(3)]
    sink = EventLogSink(logged, CommitTiming(seconds=1_000, rows=1_000), shared)
    parts = [sink.build_part("commit", one.key, None) for one in logged]
    for number, part in enumerate(parts):
        part.write_batch([read_of(0, 40, partition=number)])
    for part in parts:
        part.close()

    log = EventLog(tmp_path)
    assert shared.conductor.outcome is RunOutcome.RUNNING, shared.conductor.cause
    assert plain_offsets(tmp_path) == [(partition, offset) for partition in range(3) for offset in range(40)]
    assert len(log.files) == len(log.dates()) == 2
    assert log.version - table.version <= 4, "three claims at most, and one commit"
