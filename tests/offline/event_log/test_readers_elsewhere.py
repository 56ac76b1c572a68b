"""Others read the log by their own means, whatever we do to it meanwhile: DuckDB, Polars, pandas, Spark."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact, retain, vacuum
from featurestore.offline.event_log.writer import LogWriter, event_date_of, prepare_log
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.delta_spark import DeltaSpark, delta_spark
from tests.offline.event_log.event_logs import (
    BEGIN_MS,
    DAY_MS,
    SCHEMA,
    TOPIC,
    open_writer,
    read_of,
    write_commits,
)

PLACE, DAY, VERSION = "data/event_log/transactions", "2026-09-22", "17"
"""What the documentation's snippets name; a test puts its own there."""

SNIPPETS = {
    "DuckDB": """
import duckdb
from deltalake import DeltaTable

transactions = DeltaTable("data/event_log/transactions").to_pyarrow_dataset()
rows = duckdb.sql("SELECT * FROM transactions WHERE event_date >= DATE '2026-09-22'")
# with DuckDB's own extension: SELECT * FROM delta_scan('data/event_log/transactions') WHERE ...
""",
    "Polars": """
import polars as pl

rows = pl.scan_delta("data/event_log/transactions").filter(pl.col("event_date") >= pl.date(2026, 9, 22)).collect()
""",
    "pandas": """
import pandas as pd
from datetime import date
from deltalake import DeltaTable

wanted = [("event_date", ">=", date(2026, 9, 22))]
rows = DeltaTable("data/event_log/transactions").to_pandas(filters=wanted, types_mapper=pd.ArrowDtype)
""",
    "Spark": """
rows = spark.read.format("delta").load("data/event_log/transactions").where("event_date >= '2026-09-22'")
""",
}

OLDER_VERSIONS = {
    "DuckDB": """
import duckdb
from deltalake import DeltaTable

transactions = DeltaTable("data/event_log/transactions", version=17).to_pyarrow_dataset()
rows = duckdb.sql("SELECT * FROM transactions")
""",
    "Polars": """
import polars as pl

rows = pl.scan_delta("data/event_log/transactions", version=17).collect()
""",
    "pandas": """
import pandas as pd
from deltalake import DeltaTable

rows = DeltaTable("data/event_log/transactions", version=17).to_pandas(types_mapper=pd.ArrowDtype)
""",
    "Spark": """
rows = spark.read.format("delta").option("versionAsOf", 17).load("data/event_log/transactions")
""",
}

FIRST_DAY, SECOND_DAY = event_date_of(BEGIN_MS), event_date_of(BEGIN_MS + DAY_MS)
STAGES = ("as written", "compacted", "retained")
NEW_COLUMN = pa.field("country", pa.string())
WIDER = SCHEMA.append(NEW_COLUMN)
FULL = WIDER.append(pa.field("event_date", pa.date32()))

DAYS = 4
ROUNDS, COMMITS_EACH, ROUND_SECONDS = 12, 8, 120
READS_EACH = {"DuckDB": 3, "Polars": 3, "pandas": 3, "Spark": 1}
"""Of a round: Spark takes as long for one."""

Offsets = tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """One way to read: a snippet in, rows out."""

    name: str
    execute: Callable[[str], pa.Table]

    def since(self, log: Path, day: date = FIRST_DAY) -> pa.Table:
        """Rows from an event date on."""
        return self.execute(_about(SNIPPETS[self.name], log, day))

    def at(self, log: Path, version: int) -> pa.Table:
        """All rows of a version."""
        return self.execute(_about(OLDER_VERSIONS[self.name], log, FIRST_DAY).replace(VERSION, str(version)))


@dataclass(frozen=True)
class Written:
    """A log of two partitions.

    Attributes:
        path: where it is.
        before: version before a column was added.
        rows: all rows, in order.
        kept: those that retention has left, in order.
    """

    path: Path
    before: int
    rows: pa.Table
    kept: pa.Table


@pytest.fixture(scope="module")
def spark() -> Iterator[DeltaSpark]:
    """A Spark with Delta's own package."""
    with delta_spark() as running:
        yield running


@pytest.fixture(params=SNIPPETS)
def reader(request: pytest.FixtureRequest) -> Reader:
    """Each of them."""
    return _reader(request.param, request)


@pytest.fixture(scope="module", params=STAGES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A log to which a column was added, then merged, then cut off."""
    path = tmp_path_factory.mktemp("elsewhere") / "log"
    log = _write(path)
    if request.param == "as written":
        return log
    assert list(compact(place_of(path), CompactionPolicy(is_full=True)))
    vacuum(place_of(path))
    if request.param == "compacted":
        return log
    assert [FIRST_DAY] == retain(place_of(path), ManualClock(now_ms=BEGIN_MS + 2 * DAY_MS), days=1)
    return Written(path, log.before, log.rows, _since(log.rows, SECOND_DAY))


def test_each_reader_gets_every_row_with_its_types_and_values(reader: Reader, written: Written) -> None:
    """Each offset once; timestamps in UTC; nulls, also where a column was added later."""
    found = reader.since(written.path)

    _check_types(found)
    assert written.kept.num_rows == found.num_rows > 0
    assert written.kept.equals(_in_order(found))
    assert {None, "SE"} == set(found["country"].to_pylist())


def test_a_date_that_is_not_wanted_is_not_read(reader: Reader, written: Written, tmp_path: Path) -> None:
    """The rows of the wanted dates, although the files of the others are not even there."""
    log = tmp_path / "log"
    shutil.copytree(written.path, log)
    shutil.rmtree(log / f"event_date={FIRST_DAY}")

    assert _since(written.rows, SECOND_DAY).equals(_in_order(reader.since(log, SECOND_DAY)))


def test_an_older_version_is_read_as_it_was(reader: Reader, written: Written) -> None:
    """Without the column that came later, and with what was merged and dropped since."""
    found = reader.at(written.path, written.before)

    first = written.rows.filter(pc.is_null(written.rows["country"])).drop(["country"])
    assert "country" not in found.column_names
    assert first.equals(_in_order(found, first.schema))


def test_readers_that_never_stop_see_a_version_whole(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """While rows are written, files merged and deleted, dates dropped: no error, no row twice, none missing."""
    log = tmp_path / "log"
    readers = [_reader(name, request) for name in SNIPPETS]
    history = _History(log)
    together = threading.Barrier(len(readers) + 2)
    work: list[Callable[[], None]] = [lambda: _write_rounds(history, together), lambda: _merge_rounds(log, together)]
    seen: list[list[Offsets]] = [[] for _ in readers]
    for reader, reads in zip(readers, seen, strict=True):
        work.append(partial(_read_rounds, reader, log, together, reads))
    with ThreadPoolExecutor(len(work)) as threads:
        running = [threads.submit(_or_none, together, each) for each in work]
    for failure in (one.exception() for one in running):
        if failure is not None and not isinstance(failure, threading.BrokenBarrierError):
            raise failure

    for reads in seen:
        states = [history.number_of(offsets) for offsets in reads]
        assert sorted(states) == states
        assert history.newest == states[-1]
    assert EventLog(log).version > 100  # behind the first checkpoint, too


def _or_none(together: threading.Barrier, work: Callable[[], None]) -> None:
    """Do it; when it fails, the others do not wait for it."""
    try:
        work()
    except BaseException:
        together.abort()
        raise


class _History:
    """A log that is written, and what its rows were, one state after the other."""

    def __init__(self, log: Path) -> None:
        self.place = place_of(log)
        self._writer = open_writer(self.place, 0)
        self._rows: set[int] = set()
        self._numbers: dict[Offsets, int] = {}
        self._end = 0
        self.write()

    @property
    def newest(self) -> int:
        return len(self._numbers) - 1

    def write(self) -> None:
        """A commit of ten rows."""
        begin, self._end = self._end, self._end + 10
        self._become(self._rows | set(range(begin, self._end)))
        self._writer.commit({(TOPIC, 0): [read_of(begin, self._end, days=DAYS)]})

    def keep_from(self, day: int) -> None:
        """Drop what is older than a day."""
        self._become({offset for offset in self._rows if _day_of(offset) >= day})
        retain(self.place, ManualClock(now_ms=BEGIN_MS + (day + 1) * DAY_MS), days=1)

    def number_of(self, offsets: Offsets) -> int:
        """Which state this was; fails when the log never was so."""
        assert offsets in self._numbers, f"{len(offsets)} rows, {len(set(offsets))} offsets, up to {max(offsets)}"
        return self._numbers[offsets]

    def _become(self, rows: set[int]) -> None:
        """Said before anybody can see it."""
        self._rows = rows
        self._numbers.setdefault(tuple(sorted(rows)), len(self._numbers))


def _write_rounds(history: _History, together: threading.Barrier) -> None:
    """Some commits a round, and now and then a date less."""
    for number in range(ROUNDS):
        together.wait(ROUND_SECONDS)
        for _ in range(COMMITS_EACH):
            history.write()
        if number % 3 == 2 and number // 3 < DAYS - 1:
            history.keep_from(number // 3 + 1)
    together.wait(ROUND_SECONDS)


def _read_rounds(reader: Reader, log: Path, together: threading.Barrier, seen: list[Offsets]) -> None:
    """Some reads a round, and one when nothing is written any more."""
    for _ in range(ROUNDS):
        together.wait(ROUND_SECONDS)
        for _ in range(READS_EACH[reader.name]):
            offsets = _offsets(reader.since(log))
            seen.append(offsets)
    together.wait(ROUND_SECONDS)
    seen.append(_offsets(reader.since(log)))


def _merge_rounds(log: Path, together: threading.Barrier) -> None:
    """Two merges of all files a round; what no version of the last week needs is deleted."""
    for _ in range(ROUNDS):
        together.wait(ROUND_SECONDS)
        for _ in range(2):
            list(compact(place_of(log), CompactionPolicy(is_full=True)))
            vacuum(place_of(log))
    together.wait(ROUND_SECONDS)


def _offsets(rows: pa.Table) -> Offsets:
    return tuple(sorted(rows["offset"].to_pylist()))


def _reader(name: str, request: pytest.FixtureRequest) -> Reader:
    """A reader; Spark is started only for itself."""
    return Reader(name, request.getfixturevalue("spark").rows if name == "Spark" else _execute)


def _execute(snippet: str) -> pa.Table:
    """The rows that a snippet has left, as Arrow."""
    scope: dict[str, object] = {}
    exec(snippet, scope)
    rows = scope["rows"]
    for convert in ("to_arrow_table", "to_arrow"):
        if hasattr(rows, convert):
            return getattr(rows, convert)()
    return pa.Table.from_pandas(rows, preserve_index=False)


def _about(snippet: str, log: Path, day: date) -> str:
    """A snippet that names a log and a date of its own."""
    words = f"{day.year}, {day.month}, {day.day}"
    return snippet.replace(PLACE, str(log)).replace(DAY, day.isoformat()).replace("2026, 9, 22", words)


def _write(path: Path) -> Written:
    """Five commits, and a sixth with one more column."""
    write_commits(path, [40, 90, 150])
    write_commits(path, [60, 100], partition=1)
    before = EventLog(path).version
    parts = [read_of(0, 40), read_of(40, 90, ingest_time_ms=2_000), read_of(90, 150, ingest_time_ms=3_000)]
    parts += [read_of(0, 60, partition=1), read_of(60, 100, partition=1, ingest_time_ms=2_000)]
    tables = [
        pa.Table.from_batches([part.rows]).append_column(NEW_COLUMN, pa.nulls(part.rows.num_rows, pa.string()))
        for part in parts
    ]
    late = read_of(150, 200, ingest_time_ms=4_000)
    wider = late.rows.append_column(NEW_COLUMN, pa.repeat("SE", 50))
    prepare_log(place_of(path), WIDER, {(TOPIC, 0): ""})
    writer = LogWriter(place_of(path), WIDER)
    writer.claim([(TOPIC, 0)])
    writer.commit({(TOPIC, 0): [type(late)(150, 200, wider)]})
    rows = pa.concat_tables([*tables, pa.Table.from_batches([wider])])
    days = pc.cast(pc.cast(rows["event_time_ms"], pa.timestamp("ms")), pa.date32())
    ordered = _in_order(rows.append_column("event_date", days))
    return Written(path, before, ordered, ordered)


def _since(rows: pa.Table, day: date) -> pa.Table:
    return rows.filter(pc.greater_equal(rows["event_date"], pa.scalar(day)))


def _day_of(offset: int) -> int:
    """Number of the day of an event."""
    time_ms = read_of(offset - offset % 10, offset - offset % 10 + 10, days=DAYS).rows["event_time_ms"][offset % 10]
    return int((time_ms.as_py() - BEGIN_MS) // DAY_MS)


def _in_order(rows: pa.Table, schema: pa.Schema = FULL) -> pa.Table:
    """By partition and offset, in the log's own types."""
    order = [("partition", "ascending"), ("offset", "ascending")]
    return rows.select(schema.names).cast(schema).sort_by(order).combine_chunks()


def _check_types(rows: pa.Table) -> None:
    """They are the log's, but for how texts are kept in memory and what the time zone UTC is called."""
    for field in FULL:
        kind = rows.schema.field(field.name).type
        if pa.types.is_string(field.type):
            assert pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        elif pa.types.is_timestamp(field.type):
            assert (kind.unit, kind.tz is None) == ("us", False)
        else:
            assert field.type == kind
