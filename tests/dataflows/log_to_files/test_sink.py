"""The two steps of the event log's flow: ingest times that never fall, and commits whose answer was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dataflows.dead_letters import FileDeadLetters
from dataflows.log_to_files.sink import CommitTiming, EventLogSink, LoggedPartition, LogRowsStep
from dataflows.logs.sources import Shared
from dataflows.progress import StreamProgress
from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.clock import Clock, SystemClock
from featurestore.errors import Unavailable
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import COMMITS
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.writer import PartitionRows, prepare_log
from featurestore.testing.clock import ManualClock
from featurestore.wire.payloads import RawBatch
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    PAYMENTS,
    SCHEMA,
    TOPIC,
    make_files,
    offsets_of,
    payload,
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
    files = make_files("local", tmp_path)
    logged = LoggedPartition(PAYMENTS, files, SCHEMA, 0, start=None, ingest_time_ms=NOW_MS + 500)
    step = LogRowsStep(PAYMENTS, [logged], FileDeadLetters(tmp_path), shared_of(clock))

    ingested = []
    for offset, after_ms in enumerate((0, 1_000, -2_000, -500, 500, 1_500)):
        clock.set_now_ms(NOW_MS + after_ms)
        [(_, item)] = step(raw_of(offset))
        assert isinstance(item, PartitionRows)
        ingested += item.rows["ingest_time_ms"].to_pylist()

    assert ingested == [NOW_MS + after_ms for after_ms in (500, 1_000, 1_000, 1_000, 1_000, 1_500)]


@pytest.mark.parametrize("number", [1, 2], ids=["at the claim", "at a commit"])
def test_a_commit_whose_answer_was_lost_is_not_made_twice(tmp_path: Path, number: int) -> None:
    """After an outage the writer opens again, finds its own record, and goes on behind it."""
    shared = shared_of(SystemClock())
    files = make_files("local", tmp_path)
    prepare_log(files, SCHEMA)
    lost = cast(LogFiles, _LosesAnswer(files, number))
    logged = LoggedPartition(PAYMENTS, lost, SCHEMA, 0, start=None, ingest_time_ms=0)
    sink = EventLogSink([logged], CommitTiming(seconds=0, rows=1), shared)
    part = sink.build_part("commit", logged.key, None)
    part.write_batch([read_of(0, 10)])
    part.write_batch([read_of(10, 20)])
    part.close()

    assert shared.conductor.outcome is RunOutcome.RUNNING, shared.conductor.cause
    assert offsets_of(EventLog.over(files).scan(["partition", "offset"])) == [(0, offset) for offset in range(20)]


class _LosesAnswer:
    """Files of which one commit record is made, and nobody is told."""

    def __init__(self, files: LogFiles, number: int) -> None:
        self._files = files
        self._left = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def create(self, path: str, content: bytes) -> bool:
        """As the real one."""
        is_made = self._files.create(path, content)
        self._left -= path.startswith(COMMITS)
        if self._left == 0:
            self._left = -1
            raise Unavailable("the file system does not answer")
        return is_made
