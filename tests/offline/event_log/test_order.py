"""The order of a scan: dates, then topic, partition and offset, however the rows lie in the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.offline import position_order
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.upkeep import CompactionPolicy, compact
from tests.offline.event_log.event_logs import BEGIN_MS, DAY_MS, TOPIC, read_of, rows_at, write_at, write_commits

FULL = CompactionPolicy(is_full=True)
HUGE = 1 << 45
"""An offset that does not fit into one integer together with a partition."""

ORDER = ["topic", "partition", "offset"]
Row = tuple[str, int, int]


def scanned(root: Path) -> list[tuple[int, Row]]:
    """(day, row) of all rows, as they come."""
    rows: list[tuple[int, Row]] = []
    for batch in EventLog(root).scan([*ORDER, "event_time_ms"]):
        days = [time_ms // DAY_MS for time_ms in batch["event_time_ms"].to_pylist()]
        rows += zip(days, zip(*(batch[name].to_pylist() for name in ORDER), strict=True), strict=True)
    return rows


def assert_in_order(root: Path, count: int) -> None:
    """All rows are there, each once, and nothing stands behind what it belongs before."""
    rows = scanned(root)
    assert len(rows) == len(set(rows)) == count
    assert rows == sorted(rows)


@pytest.fixture(params=[1, 1 << 10, 1 << 30], ids=["as runs", "as it is set", "row by row"])
def _runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to put rows in order."""
    monkeypatch.setattr(position_order, "RUN_ROWS_MIN", request.param)


@pytest.mark.usefixtures("_runs")
@pytest.mark.parametrize("is_merged", [False, True], ids=["as written", "merged"])
def test_many_short_commits_of_several_partitions_are_in_order(tmp_path: Path, *, is_merged: bool) -> None:
    """Written in turns, by a new writer each time."""
    for end in range(5, 45, 5):
        for partition in (2, 0, 1):
            write_commits(tmp_path, [end + partition], partition=partition)
    if is_merged:
        list(compact(place_of(tmp_path), FULL))

    assert_in_order(tmp_path, 40 + 41 + 42)


@pytest.mark.usefixtures("_runs")
@pytest.mark.parametrize("is_merged", [False, True], ids=["as written", "merged"])
def test_long_commits_of_several_partitions_are_in_order(tmp_path: Path, *, is_merged: bool) -> None:
    """Thousands of rows in a row, of three commits each, one of them after files were merged."""
    for part in range(3):
        for partition in (1, 0):
            times_ms = np.linspace(BEGIN_MS, BEGIN_MS + DAY_MS - 1, 2_500).astype(np.int64)
            write_at(tmp_path, times_ms.tolist(), part * 2_500, partition=partition)
        if is_merged:
            list(compact(place_of(tmp_path), FULL))

    assert_in_order(tmp_path, 15_000)


@pytest.mark.usefixtures("_runs")
def test_a_partition_alone_is_in_order(tmp_path: Path) -> None:
    """Whose number need not be read at all."""
    write_commits(tmp_path, [30, 60, 90], partition=3)

    assert_in_order(tmp_path, 90)


@pytest.mark.usefixtures("_runs")
@pytest.mark.parametrize("is_merged", [False, True], ids=["as written", "merged"])
def test_several_topics_are_in_order(tmp_path: Path, *, is_merged: bool) -> None:
    """By the topic's name first; a log may have been written from an old topic and a new one."""
    times_ms = [BEGIN_MS, BEGIN_MS + DAY_MS, BEGIN_MS + 5, BEGIN_MS + DAY_MS + 1]
    for topic in ("refunds", "payments", "a"):
        for partition in (1, 0):
            write_at(tmp_path, times_ms, topic=topic, partition=partition)
            write_at(tmp_path, times_ms, 4, topic=topic, partition=partition)
    if is_merged:
        list(compact(place_of(tmp_path), FULL))

    assert_in_order(tmp_path, 48)


@pytest.mark.usefixtures("_runs")
@pytest.mark.parametrize("begin", [HUGE, (1 << 44) - 2, (1 << 62) - 10], ids=["huge", "on the edge", "of all bits"])
def test_huge_offsets_are_in_order(tmp_path: Path, begin: int) -> None:
    """Beside small ones of another partition."""
    times_ms = [BEGIN_MS, BEGIN_MS + DAY_MS, BEGIN_MS + 5, BEGIN_MS + DAY_MS + 1]
    write_at(tmp_path, times_ms, begin, partition=0)
    write_at(tmp_path, times_ms, 7, partition=1)
    write_at(tmp_path, times_ms, begin + 4, partition=0)

    assert_in_order(tmp_path, 12)
    assert EventLog(tmp_path).positions() == {(TOPIC, 0): begin + 8, (TOPIC, 1): 11}


@pytest.mark.usefixtures("_runs")
def test_rows_that_somebody_has_written_anew_in_any_order_are_in_order(tmp_path: Path) -> None:
    """A table is for other tools too: one that sorts it by card, say, and keeps its files' names of dates."""
    write_commits(tmp_path, [60])
    write_commits(tmp_path, [50], partition=1)
    rows = pa.concat_tables(
        [pa.Table.from_batches([read_of(0, end, partition=number).rows]) for number, end in ((0, 60), (1, 50))]
    )
    days = pa.array(rows["event_time_ms"].to_numpy() // DAY_MS, pa.int32()).cast(pa.date32())
    rows = rows.append_column("event_date", days).sort_by([("card", "descending"), ("offset", "descending")])

    write_deltalake(tmp_path, rows, mode="overwrite", partition_by=["event_date"])

    assert_in_order(tmp_path, 110)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([0, 3, 20, 21, 40, (1 << 44) - 5, HUGE]),
            st.integers(0, 25),
            st.integers(1, 3),
        ),
        max_size=8,
    ),
    topics=st.integers(1, 2),
    run_rows_min=st.sampled_from([1, 4, 1 << 10]),
)
def test_rows_in_any_order_are_put_in_order(
    runs: list[tuple[int, int, int, int]], topics: int, run_rows_min: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that follow each other, overlap, have gaps between their rows, or are one row long."""
    monkeypatch.setattr(position_order, "RUN_ROWS_MIN", run_rows_min)
    rows: dict[Row, None] = {}
    for number, (partition, begin, count, step) in enumerate(runs):
        topic = f"topic{number % topics}"
        rows.update({(topic, partition, begin + place * step): None for place in range(count)})
    template = rows_at([]).rows.schema
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    fields = [template.field(name) for name in ORDER]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
    table = pa.table(arrays, names=ORDER)
    order = [name for name, column in zip(ORDER[:2], columns, strict=False) if len(set(column)) > 1]

    pieces = list(position_order.in_order(table, [*order, "offset"]))

    found = [row for piece in pieces for row in zip(*(piece[name].to_pylist() for name in ORDER), strict=True)]
    assert found == sorted(rows)
