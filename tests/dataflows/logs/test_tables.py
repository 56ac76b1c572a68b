"""Tables in a stream's memory: followed, read anew when they were made anew, and not without bound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflows.logs import tables
from dataflows.logs.file_log import FileLog, embedded_registry
from dataflows.logs.tables import LiveTables
from featurestore.core.events import ColumnValues
from featurestore.core.inputs import python_values
from featurestore.core.spec import Column, EnrichmentSpec, SourceSpec, TableSpec, ValueType
from featurestore.errors import LimitExceeded
from featurestore.testing.clock import ManualClock
from featurestore.wire.formats.columns import objects
from tests.dataflows.log_to_table.test_sink import shared_of

CODE, RATE = Column("code", ValueType.STRING), Column("rate", ValueType.FLOAT64)
GIVEN = ((Column("fx_rate", ValueType.FLOAT64), "rate"),)
RATES = SourceSpec("rates", "rates", (CODE, Column("since", ValueType.INT64), RATE), "since")
NOW_MS = 1_790_000_000_000


class Stream:
    """Payments with rates, of a directory's log or of files in it."""

    def __init__(self, directory: Path, *, files: bool = False) -> None:
        path = str(directory / "rates.parquet")
        of_files = TableSpec("rates", "file", path, "parquet", "since") if files else None
        self.enrichment = EnrichmentSpec("fx", "code", CODE, GIVEN, of_files, None if files else RATES)
        source = SourceSpec("payments", "payments", (CODE, GIVEN[0][0]), "at", enrichments=(self.enrichment,))
        self.clock = ManualClock(now_ms=NOW_MS)
        log = FileLog(directory, embedded_registry(directory, {}))
        self.tables = LiveTables(log, [source], shared_of(self.clock))

    def rates(self, *codes: str) -> list[object]:
        """What events of now get."""
        keys, times_ms = ColumnValues(objects([code.encode() for code in codes])), np.full(len(codes), NOW_MS)
        return list(
            python_values(self.tables.columns_at("payments", self.enrichment, keys, times_ms)["fx_rate"], RATE.type)
        )


def write(directory: Path, *rates: tuple[str, int, float], mode: str = "a") -> None:
    """Versions, as their producer writes them."""
    (directory / "rates").mkdir(exist_ok=True)
    lines = [json.dumps({"code": code, "since": NOW_MS - ago, "rate": rate}) + "\n" for code, ago, rate in rates]
    with (directory / "rates" / "0.jsonl").open(mode) as file:
        file.writelines(lines)


def test_a_topic_is_followed_and_read_anew_when_it_was_made_anew(tmp_path: Path) -> None:
    """What the new one does not have is not there any more."""
    write(tmp_path, ("EUR", 9, 1.0), ("USD", 9, 0.5))
    stream = Stream(tmp_path)

    assert [1.0, 0.5, None] == stream.rates("EUR", "USD", "GBP")
    write(tmp_path, ("USD", 0, 0.25), ("GBP", -1, 2.0))
    assert [1.0, 0.25, None] == stream.rates("EUR", "USD", "GBP")
    (tmp_path / "rates" / "0.jsonl").unlink()
    write(tmp_path, ("GBP", 5, 4.0), ("GBP", 1, 8.0))
    assert [None, None, 8.0] == stream.rates("EUR", "USD", "GBP")


def test_a_topic_that_grows_beyond_the_bound_is_refused_unless_it_was_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that was within it is read anew first."""
    monkeypatch.setattr(tables, "TABLE_ROWS_MAX", 3)
    write(tmp_path, ("EUR", 9, 1.0), ("EUR", 8, 2.0), ("EUR", 7, 3.0))
    stream = Stream(tmp_path)
    assert [3.0] == stream.rates("EUR")

    write(tmp_path, ("EUR", 6, 4.0))

    with pytest.raises(LimitExceeded, match='table "rates" has more than 3 versions of rows'):
        stream.rates("EUR")


def test_files_are_read_again_when_they_have_changed(tmp_path: Path) -> None:
    """Not at every look, and not where they are damaged: then the rows stay."""
    path = tmp_path / "rates.parquet"
    kept = {"code": ["EUR"], "since": pa.array([NOW_MS - 9], pa.timestamp("ms", "UTC")), "rate": [1.0]}
    pq.write_table(pa.table(kept), path)
    stream = Stream(tmp_path, files=True)
    assert [1.0] == stream.rates("EUR")

    pq.write_table(pa.table({**kept, "rate": [2.0]}), path)

    assert [1.0] == stream.rates("EUR")
    stream.clock.sleep(tables.LOOK_SECONDS)
    assert [2.0] == stream.rates("EUR")
    path.write_bytes(b"damaged")
    stream.clock.sleep(tables.LOOK_SECONDS)
    assert [2.0] == stream.rates("EUR")
