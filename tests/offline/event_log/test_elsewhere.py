"""Others read the log with no help of ours: DuckDB, Polars, pandas and Arrow, by their own means."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.dataset as pads
import pytest

from featurestore.offline.event_log.compaction import CompactionPolicy, compact
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import BEGIN_MS, make_files, payload, write_commits

ROWS = 300
AMOUNTS = sum(offset for offset in range(ROWS) if offset % 5)


@pytest.fixture(scope="module", params=["as written", "compacted"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with some commits, commit records and locks."""
    root = tmp_path_factory.mktemp("elsewhere")
    files = make_files("local", root)
    write_commits(files, [100, 200, ROWS])
    if request.param == "compacted":
        list(compact(files, ManualClock(), CompactionPolicy(is_full=True)))
    return root / "log"


def rows_of(query: str) -> list[tuple[object, ...]]:
    """What DuckDB answers."""
    return duckdb.connect().execute(query).fetchall()


def test_duckdb_reads_typed_columns_and_prunes_dates(directory: Path) -> None:
    """The directory's date is a column."""
    pattern = f"{directory}/event_date=*/*.parquet"
    query = f"""
        SELECT count(*), sum(amount), count(DISTINCT "offset"), count(DISTINCT event_date), typeof(any_value(paid_at))
        FROM read_parquet('{pattern}', hive_partitioning = true)
    """

    assert (ROWS, AMOUNTS, ROWS, 2, "TIMESTAMP WITH TIME ZONE") == rows_of(query)[0]
    wrong = f"""
        SELECT count(*) FROM read_parquet('{pattern}', hive_partitioning = true)
        WHERE event_date <> CAST(to_timestamp(event_time_ms / 1000) AT TIME ZONE 'UTC' AS DATE)
    """
    assert (0,) == rows_of(wrong)[0]


def test_pandas_reads_the_directory(directory: Path) -> None:
    """As a partitioned data set; what begins with an underscore is left alone."""
    frame = pd.read_parquet(directory)

    assert (ROWS, AMOUNTS) == (len(frame), int(frame["amount"].sum()))
    assert {"topic", "partition", "offset", "ingest_time_ms", "event_time_ms", "event_date"} <= set(frame.columns)
    assert frame["event_time_ms"].min() >= BEGIN_MS


def test_arrow_reads_the_directory(directory: Path) -> None:
    """Discovery finds the data files and no others."""
    dataset = pads.dataset(directory, partitioning="hive")

    assert ROWS == dataset.count_rows()
    assert {path.suffix for path in map(Path, dataset.files)} == {".parquet"}


def test_polars_reads_the_directory(directory: Path) -> None:
    """Lazily, with the date as a column."""
    polars = pytest.importorskip("polars", reason="polars is not installed: pip install polars")

    frame = polars.scan_parquet(directory / "event_date=*" / "*.parquet", hive_partitioning=True).collect()

    assert (ROWS, AMOUNTS) == (frame.height, frame["amount"].sum())
    assert 2 == frame["event_date"].n_unique()


def test_the_rows_are_the_records(directory: Path) -> None:
    """Decoded by another JSON parser, offset by offset."""
    query = f"""
        SELECT payment_id, epoch_ms(paid_at), card, amount, rate, is_declined
        FROM '{directory}/event_date=*/*.parquet' ORDER BY "offset"
    """
    values = ", ".join(f"('{payload(offset).decode()}')" for offset in range(ROWS))
    expected = f"""
        SELECT j->>'payment_id', CAST(j->>'paid_at' AS BIGINT), j->>'card', CAST(j->>'amount' AS BIGINT),
               CAST(j->>'rate' AS DOUBLE), CAST(j->>'is_declined' AS BOOLEAN)
        FROM (SELECT CAST(v AS JSON) AS j FROM (VALUES {values}) AS t(v))
    """

    assert rows_of(expected) == rows_of(query)
