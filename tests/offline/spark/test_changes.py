"""Spark reads the log of a table that changes, and somebody else's copy of it, as the rows that are left say."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log
from featurestore.offline.spark.engine import spark_training_set
from featurestore.offline.spark.events import SparkEventLog, SparkFiles, SparkHistory
from featurestore.offline.spark.files import open_session
from featurestore.wire.changes.decoder import decoder_of
from tests.dataflows.log_to_tiles.test_changes import CARDS, TIMES_MS, VIEW, by_the_table
from tests.offline.spark.test_engine import SETTINGS
from tests.offline.training_set.label_tables import repo_of
from tests.wire.changed_table import BEGIN_MS, HOUR_MS, SOURCE, TOPIC, ChangedTable, as_json, raw_batch


@pytest.mark.slow
def test_spark_says_what_the_rows_that_are_left_say(tmp_path: Path) -> None:
    """Both rows of an update at one offset, and rows that a sink wrote twice."""
    table = ChangedTable(random.Random(3))
    table.snapshot(10)
    table.change(200)
    raw = raw_batch([as_json(one) for one in table.sent])
    decoded = decoder_of(SOURCE, payload_columns(SOURCE)).decode(raw, now_ms=BEGIN_MS + 10 * HOUR_MS)
    log, schema = place_of(tmp_path / "log" / SOURCE.name), log_schema(SOURCE)
    prepare_log(log, schema, {(TOPIC, 0): ""})
    writer = LogWriter(log, schema)
    writer.claim([(TOPIC, 0)])
    rows = rows_of(decoded.events, schema, ingest_time_ms=BEGIN_MS)
    writer.commit({(TOPIC, 0): [PartitionRows(0, raw.next_offset, rows)]})
    written = EventLog(tmp_path / "log" / SOURCE.name).dataset().to_table()
    write_deltalake(tmp_path / "foreign", written)
    write_deltalake(tmp_path / "foreign", written.slice(written.num_rows // 3), mode="append")

    spark = open_session("local[2]", SETTINGS)
    expected = [by_the_table(VIEW, list(table.rows.values()), card, at) for at in TIMES_MS for card in CARDS]
    try:
        assert expected == _by_spark(spark, SparkEventLog(tmp_path / "log"))
        assert expected == _by_spark(spark, SparkFiles(str(tmp_path / "foreign")))
    finally:
        spark.stop()


def _by_spark(spark: SparkSession, history: SparkHistory) -> list[dict[str, object]]:
    """Each card at each time."""
    labels = pa.table(
        {
            "card_id": [card for _ in TIMES_MS for card in CARDS],
            "event_timestamp": pa.array([at for at in TIMES_MS for _ in CARDS], pa.timestamp("ms", tz="UTC")),
            "n": list(range(len(TIMES_MS) * len(CARDS))),
        }
    )
    found = spark_training_set(spark, repo_of(VIEW), "all", spark.createDataFrame(labels), history=history)
    ordered = found.toArrow().sort_by("n")
    names: list[dict[str, object]] = ordered.select([feature.name for feature in VIEW.features]).to_pylist()
    return names
