"""Spark, by Delta's own package, writes to the table that we write: it deletes and merges, and we go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.writer import LogWriter
from tests.offline.event_log.delta_spark import DeltaSpark, SparkRefused, delta_spark
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    SCHEMA,
    TOPIC,
    offsets_of,
    open_writer,
    plain_offsets,
    read_of,
    rows_at,
    rows_up_to,
    write_commits,
)

DAY_SECONDS = 86_400
PLACES = ["partition", "offset"]
COMMIT_SECONDS = 0.3
"""Between commits; Spark's own commit never comes to an end behind a writer that does nothing else."""


@pytest.fixture(scope="module")
def spark() -> Iterator[DeltaSpark]:
    """A Spark with Delta's own package."""
    with delta_spark() as running:
        yield running


def test_rows_that_spark_deletes_are_gone_and_our_writer_goes_on(spark: DeltaSpark, tmp_path: Path) -> None:
    """It writes rows of other dates meanwhile; positions stay, and deleted rows do not come back."""
    log = tmp_path / "log"
    write_commits(log, [40, 90])
    writer = open_writer(place_of(log), 0)
    with ThreadPoolExecutor(1) as threads:
        deleting = threads.submit(
            spark.run, f"DELETE FROM delta.`{log}` WHERE event_date < '2026-09-24' AND offset % 10 = 3"
        )
        end = _write_later_dates_until(deleting, writer)
    writer.commit({(TOPIC, 0): [rows_at([BEGIN_MS], end)]})

    left = [row for row in rows_up_to(end + 1) if row[1] >= 90 or row[1] % 10 != 3]
    assert left == offsets_of(EventLog(log).scan(PLACES)) == plain_offsets(log)
    assert {(TOPIC, 0): end + 1} == EventLog(log).positions()
    assert {(TOPIC, 0): 0} == EventLog(log).begins()


def test_files_that_spark_has_merged_are_read_as_before(spark: DeltaSpark, tmp_path: Path) -> None:
    """All values in the same order; its statistics serve our scans, and our writer goes on."""
    log = tmp_path / "log"
    write_commits(log, [40, 90, 150])
    writer = open_writer(place_of(log), 0)
    rows = _scanned(EventLog(log))

    spark.run(f"OPTIMIZE delta.`{log}`")
    merged = EventLog(log)

    assert 2 == len(merged.files)
    assert rows.equals(_scanned(merged))
    assert {(0, 149), (0, 148), (1, 149)} & {file.offsets for file in merged.files}
    writer.commit({(TOPIC, 0): [read_of(150, 180)]})
    assert rows_up_to(180) == offsets_of(EventLog(log).scan(PLACES))


def test_deletion_vectors_are_refused_until_they_are_gone(spark: DeltaSpark, tmp_path: Path) -> None:
    """Reading and writing, with the remedy; after that all is as before, without what was deleted."""
    log = tmp_path / "log"
    write_commits(log, [40])
    spark.run(f"ALTER TABLE delta.`{log}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = true)")
    spark.run(f"DELETE FROM delta.`{log}` WHERE offset = 7")

    with pytest.raises(InvalidRequest, match="uses deletionVectors"):
        EventLog(log)
    with pytest.raises(InvalidRequest, match="DROP FEATURE deletionVectors TRUNCATE HISTORY"):
        open_writer(place_of(log), 0)

    spark.run(f"ALTER TABLE delta.`{log}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = false)")
    spark.run(f"REORG TABLE delta.`{log}` APPLY (PURGE)")
    drop = f"ALTER TABLE delta.`{log}` DROP FEATURE deletionVectors TRUNCATE HISTORY"
    with pytest.raises(SparkRefused, match="HISTORICAL_VERSIONS_EXIST"):
        spark.run(drop)
    for path in (log / "_delta_log").iterdir():
        os.utime(path, (path.stat().st_atime - 2 * DAY_SECONDS, path.stat().st_mtime - 2 * DAY_SECONDS))  # a day later
    spark.run(drop)
    write_commits(log, [60])

    assert [row for row in rows_up_to(60) if row[1] != 7] == offsets_of(EventLog(log).scan(PLACES))
    assert {(TOPIC, 0): 60} == EventLog(log).positions()


def test_a_feature_that_we_cannot_write_is_named(spark: DeltaSpark, tmp_path: Path) -> None:
    """The log is read on; a writer says why it cannot, and not that others were faster."""
    log = tmp_path / "log"
    write_commits(log, [40])
    writer = open_writer(place_of(log), 0)
    spark.run(f"ALTER TABLE delta.`{log}` SET TBLPROPERTIES ('delta.feature.checkpointProtection' = 'supported')")

    assert rows_up_to(40) == offsets_of(EventLog(log).scan(PLACES))
    with pytest.raises(InvalidRequest, match="checkpointProtection"):
        writer.commit({(TOPIC, 0): [read_of(40, 60)]})


def _write_later_dates_until(done: Future[None], writer: LogWriter) -> int:
    """A commit of a row of a later date now and then, three at least; returns the next offset."""
    end = writer.position((TOPIC, 0)) or 0
    for number in count():
        if number >= 3 and wait([done], timeout=COMMIT_SECONDS).done:
            break
        writer.commit({(TOPIC, 0): [rows_at([BEGIN_MS + 5 * DAY_MS], end)]})
        end += 1
    done.result()
    return end


def _scanned(log: EventLog) -> pa.Table:
    """All rows with all columns, in the order of a scan."""
    return pa.Table.from_batches(log.scan(SCHEMA.names), schema=SCHEMA).combine_chunks()
