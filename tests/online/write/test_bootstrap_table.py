"""A view's events out of a table of somebody else's that has positions: as out of an event log of the same records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from featurestore.cli.main import main
from featurestore.clock import SystemClock
from featurestore.core.spec import TopicSpec
from featurestore.errors import InvalidRequest
from featurestore.offline import position_order
from featurestore.offline.bootstrap_events import LogEvents
from featurestore.offline.table_log import TableLog
from featurestore.offline.training_set.histories import stored as histories
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.testing.writers import open_writer
from tests.offline.training_set.foreign_tables import write_iceberg
from tests.online.write.test_bootstrap_log import (
    BEGIN_MS,
    DAY_MS,
    LANES,
    NOW_MS,
    SECOND_MS,
    SOURCE,
    TOPIC,
    VIEW,
    expected_rows,
    record,
    rows_in,
)
from tests.serving.registries import write_registry

Capture = pytest.CaptureFixture[str]
COUNTS = {0: 700, 2: 300}


def records(counts: dict[int, int]) -> pa.Table:
    """The records of some partitions with their positions, in no order."""
    rows = [
        {"topic": TOPIC, "partition": partition, "offset": offset, **record(partition, offset)}
        for partition, count in counts.items()
        for offset in range(count)
    ]
    table = pa.Table.from_pylist(rows)
    moments = table["paid_at"].cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(table.column_names.index("paid_at"), "paid_at", moments)
    return table.take(pa.array(np.random.default_rng(5).permutation(table.num_rows)))


def as_delta(directory: Path, rows: pa.Table) -> str:
    """Two commits."""
    for begin in (0, rows.num_rows // 2):
        write_deltalake(directory, rows.slice(begin, rows.num_rows // 2), mode="append")
    return str(directory)


def as_iceberg(directory: Path, rows: pa.Table) -> str:
    """Two commits."""
    half = rows.num_rows // 2
    return write_iceberg(directory, rows.slice(0, half), rows.slice(half)).metadata_location


def events_of(log: TableLog, directory: Path) -> LogEvents:
    """The view's events, not collected yet."""
    directory.mkdir()
    return LogEvents(log, VIEW, lane_count=LANES, now_ms=NOW_MS, directory=directory)


@pytest.mark.parametrize("slice_rows", [1 << 22, 90])
@pytest.mark.parametrize("write", [as_delta, as_iceberg])
def test_a_table_gives_the_events_of_an_event_log(
    write: Callable[[Path, pa.Table], str], slice_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of the view in its lane once, also if it is in the table twice; positions go behind the last record."""
    for module in (position_order, histories):
        monkeypatch.setattr(module, "SLICE_ROWS", slice_rows)
    rows = records(COUNTS)
    events = events_of(
        TableLog(write(tmp_path / "table", pa.concat_tables([rows, rows.slice(0, 100)])), SOURCE, now_ms=NOW_MS),
        tmp_path / "files",
    )
    events.collect(range(LANES))
    found = [row for lane in range(LANES) for row in rows_in(events, lane)]

    assert {(TOPIC, 0): 700, (TOPIC, 2): 300} == events.positions
    assert {} == events.incarnations
    assert sorted(expected_rows(COUNTS), key=repr) == sorted(found, key=repr)


def test_positions_are_those_of_all_rows_and_events_those_of_the_stream(tmp_path: Path) -> None:
    """A record without an event time is passed, one of the far future is a dead letter; the topic may be understood."""
    rows = records({0: 52}).drop_columns("topic").sort_by("offset")
    ahead_us = (NOW_MS + SOURCE.max_future_ms + DAY_MS) * 1_000
    times = [*rows["paid_at"].cast(pa.int64()).to_pylist()[:50], None, ahead_us]
    at = rows.column_names.index("paid_at")
    rows = rows.set_column(at, "paid_at", [pa.array(times, pa.timestamp("us", tz="UTC"))])
    write_deltalake(tmp_path / "table", rows)
    view = replace(VIEW, retention_ms=100 * DAY_MS)
    (tmp_path / "files").mkdir()
    log = TableLog(str(tmp_path / "table"), SOURCE, now_ms=NOW_MS)
    events = LogEvents(log, view, lane_count=LANES, now_ms=NOW_MS, directory=tmp_path / "files")
    events.collect(range(LANES))
    found = [row for lane in range(LANES) for row in rows_in(events, lane)]

    assert {(TOPIC, 0): 52} == events.positions
    assert sorted(expected_rows({0: 50}), key=repr) == sorted(found, key=repr)
    assert events.from_ms is not None
    assert events.from_ms < BEGIN_MS + 50 * SECOND_MS - view.retention_ms  # type: ignore[operator]  # set above


def test_what_a_table_cannot_promise_is_said(tmp_path: Path) -> None:
    """No positions, not of all rows, no topic where there are two, other topics, no rows; and files are no table."""
    rows = records({0: 20})
    holes = pa.array([None if number == 3 else number for number in range(20)], pa.int64())
    tables = {
        "bare": rows.drop_columns(["partition", "offset"]),
        "texts": rows.set_column(1, "partition", rows["partition"].cast(pa.string())),
        "holes": rows.set_column(2, "offset", holes),
        "others": rows.set_column(0, "topic", pa.array(["refunds"] * 20)),
        "empty": rows.slice(0, 0),
        "topicless": rows.drop_columns("topic"),
    }
    for name, table in tables.items():
        write_deltalake(tmp_path / name, table)
    pq.write_table(rows, tmp_path / "file.parquet")

    def refusal(name: str, topics: int = 1) -> InvalidRequest:
        source = replace(SOURCE, more_topics=(TopicSpec("refunds", ()),) * (topics - 1))
        with pytest.raises(InvalidRequest) as caught:
            TableLog(str(tmp_path / name), source, now_ms=NOW_MS).positions()
        return caught.value

    bare = refusal("bare")
    assert bare.message == f'Delta table "{tmp_path}/bare" has no integer columns partition and offset'
    assert "nobody could promise where the stream must go on" in bare.detail
    assert "featurestore event-log run" in bare.hint
    assert "has no integer columns partition and offset" in refusal("texts").message
    assert "has rows without offset" in refusal("holes").message
    assert "Its records are of refunds." == refusal("others").detail
    assert "has no rows yet" in refusal("empty").message
    assert "is no Delta or Iceberg table" in refusal("file.parquet").message
    assert "has no column topic, and source" in refusal("topicless", topics=2).message


def test_the_command_hands_a_generation_over_that_was_filled_from_a_table(
    redis_url: str, tmp_path: Path, capsys: Capture
) -> None:
    """Under the source's name or alone; the stream goes on behind the table's last records."""
    write_registry(tmp_path / "registry.db")
    payments = pa.table(
        {
            "partition": pa.array([0, 1, 0], pa.int32()),
            "offset": pa.array([7, 0, 8], pa.int64()),
            "transaction_id": ["a", "b", "c"],
            "event_time": pa.array([BEGIN_MS * 1_000 + 1] * 3, pa.timestamp("us", tz="UTC")),
            "merchant_id": pa.array([1, 1, 2]),
            "amount": pa.array([5, 6, 7]),
        }
    )
    write_deltalake(tmp_path / "table", payments)
    options = ["--registry", str(tmp_path / "registry.db"), "--project", "payments", "--store-url", redis_url]
    command = ["bootstrap", "merchant_activity", *options, "--event-log"]

    assert main([*command, f"logins={tmp_path}/table"]) == 1
    assert 'there is no event log of source "transactions"' in capsys.readouterr().err
    assert main([*command, f"transactions={tmp_path}/table"]) == 0
    assert "merchant_activity@1 is complete" in capsys.readouterr().out
    told = tmp_path / "lineage.jsonl"
    assert main([*command, str(tmp_path / "table"), "--anew", "--lineage", f"file:{told}"]) == 0
    assert "merchant_activity@2 is complete" in capsys.readouterr().out
    runs = [(one["job"]["name"], one["eventType"]) for one in map(json.loads, told.read_text().splitlines())]
    assert runs == [("bootstrap.merchant_activity", "START"), ("bootstrap.merchant_activity", "COMPLETE")]

    store = connect(redis_url)
    catalog = GenerationCatalog(store, "payments")
    generation = catalog.generations("merchant_activity")[-1]
    writer = open_writer(store, generation, catalog.lane_count(), SystemClock())
    store.close()

    assert (2, GenerationState.FILLING) == (generation.number, generation.state)
    assert {("transactions", 0): 9, ("transactions", 1): 1} == writer.positions()
