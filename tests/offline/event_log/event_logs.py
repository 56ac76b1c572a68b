"""Logs for tests: rows, commits, and readers that know nothing of us."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.offline.event_log.address import TablePlace, place_of
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.event_log.writer import LogWriter, PartitionRows, prepare_log
from featurestore.wire.payloads import EventDecoder, RawBatch

TOPIC = "payments"
DAY_MS = 86_400_000
BEGIN_MS = 1_790_035_200_000
"""Midnight UTC."""

PAYMENTS = SourceSpec(
    name="payments",
    topic=TOPIC,
    columns=(
        Column("payment_id", ValueType.STRING),
        Column("paid_at", ValueType.TIMESTAMP),
        Column("card", ValueType.STRING),
        Column("amount", ValueType.INT64),
        Column("rate", ValueType.FLOAT64),
        Column("is_declined", ValueType.BOOL),
    ),
    event_time_column="paid_at",
    event_id_column="payment_id",
)
SCHEMA = log_schema(PAYMENTS)


def payload(offset: int, *, days: int = 2, partition: int = 0) -> bytes:
    """The record at an offset; its columns say where it is, and nulls are among them."""
    draw = random.Random(offset * 31 + partition)
    record = {
        "payment_id": f"p-{partition}-{offset}",
        "paid_at": BEGIN_MS + draw.randrange(days * DAY_MS),
        "card": None if offset % 7 == 0 else f"card-{draw.randrange(50)}-é",
        "amount": None if offset % 5 == 0 else offset,
        "rate": None if offset % 11 == 0 else offset / 8,
        "is_declined": None if offset % 13 == 0 else offset % 2 == 0,
    }
    return json.dumps(record).encode()


@cache
def read_of(begin: int, end: int, *, partition: int = 0, ingest_time_ms: int = 1_000, days: int = 2) -> PartitionRows:
    """One read of a partition, decoded as the flow does it."""
    offsets = np.arange(begin, end, dtype=np.int64)
    payloads = [payload(offset, days=days, partition=partition) for offset in range(begin, end)]
    raw = RawBatch(TOPIC, partition, begin, end, offsets, payloads)
    decoded = EventDecoder(PAYMENTS, payload_columns(PAYMENTS)).decode(raw, now_ms=BEGIN_MS + 400 * DAY_MS)
    assert decoded.dead_letters == ()
    return PartitionRows(begin, end, rows_of(decoded.events, SCHEMA, ingest_time_ms=ingest_time_ms))


def rows_at(times_ms: Sequence[int], begin: int = 0, *, topic: str = TOPIC, partition: int = 0) -> PartitionRows:
    """A read of rows at given event times, from an offset on; their other columns say nothing."""
    count = len(times_ms)
    own: dict[str, pa.Array] = {
        "topic": pa.repeat(pa.scalar(topic, pa.string()), count),
        "partition": pa.repeat(pa.scalar(partition, pa.int32()), count),
        "offset": pa.array(range(begin, begin + count), pa.int64()),
        "ingest_time_ms": pa.repeat(pa.scalar(1_000, pa.int64()), count),
        "event_time_ms": pa.array(times_ms, pa.int64()),
    }
    arrays = [own[field.name] if field.name in own else pa.nulls(count, field.type) for field in SCHEMA]
    return PartitionRows(begin, begin + count, pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))


def write_at(
    directory: Path | str, times_ms: Sequence[int], begin: int = 0, *, topic: str = TOPIC, partition: int = 0
) -> None:
    """One commit of such a read, by a new writer."""
    place, which = place_of(directory), (topic, partition)
    prepare_log(place, SCHEMA, {which: ""})
    writer = LogWriter(place, SCHEMA)
    writer.claim([which])
    writer.commit({which: [rows_at(times_ms, begin, topic=topic, partition=partition)]})


def open_writer(place: TablePlace, *partitions: int, incarnation: str = "") -> LogWriter:
    """A new writer of some partitions of the topic, of a log that is made if need be."""
    places = [(TOPIC, partition) for partition in partitions or (0,)]
    prepare_log(place, SCHEMA, dict.fromkeys(places, incarnation))
    writer = LogWriter(place, SCHEMA)
    writer.claim(places)
    return writer


def write_commits(
    directory: Path | str, ends: Sequence[int], *, partition: int = 0, ingest_step_ms: int = 1_000
) -> None:
    """A new writer that goes on from the log's position, with a commit up to each end."""
    writer = open_writer(place_of(directory), partition)
    for number, end in enumerate(ends):
        begin = writer.position((TOPIC, partition)) or 0
        if end > begin:
            read = read_of(begin, end, partition=partition, ingest_time_ms=ingest_step_ms * (number + 1))
            writer.commit({(TOPIC, partition): [read]})


def rows_up_to(end: int, partition: int = 0) -> list[tuple[int, int]]:
    """All (partition, offset) of a partition below an end."""
    return [(partition, offset) for offset in range(end)]


def plain_offsets(directory: Path) -> list[tuple[int, int]]:
    """(partition, offset) of every row that delta-rs sees by itself, sorted."""
    table = DeltaTable(directory).to_pyarrow_table(columns=["partition", "offset"])
    return sorted(zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True))


def duckdb_delta(directory: Path, query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers about a table, which the query calls `log`; with its own reader of Delta if that is here."""
    connection = duckdb.connect()
    try:
        connection.execute("LOAD delta")
    except duckdb.Error:
        log = DeltaTable(directory).to_pyarrow_dataset()
        connection.register("log", log)
    else:
        connection.execute(f"CREATE VIEW log AS SELECT * FROM delta_scan('{directory}')")
    return connection.execute(query).fetchall()


def offsets_of(batches: Iterator[pa.RecordBatch]) -> list[tuple[int, int]]:
    """(partition, offset) of scanned rows, sorted."""
    rows: list[tuple[int, int]] = []
    for batch in batches:
        rows += zip(batch["partition"].to_pylist(), batch["offset"].to_pylist(), strict=True)
    return sorted(rows)
