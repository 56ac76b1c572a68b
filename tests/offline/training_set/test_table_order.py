"""Rows of tables that somebody else keeps come in an order: that of their positions, else that of their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from featurestore.errors import InvalidRequest
from featurestore.offline import position_order
from featurestore.offline.foreign_tables.opening import open_table
from featurestore.offline.position_order import time_slices
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.histories import stored as histories
from tests.offline.training_set.foreign_tables import (
    DAY_MS,
    WITHOUT_IDS,
    WRITERS,
    Write,
    as_delta,
    labels_after,
    random_payments,
    values,
    with_positions,
)
from tests.offline.training_set.label_tables import CARD, NOON_MS, SOURCE, payments, repo_of


@WRITERS
def test_rows_of_one_moment_come_in_the_order_of_their_offsets(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of an id is the one that counts: however files are cut and ordered, and however time is sliced."""
    rows = random_payments(600)
    ids = pa.array([f"p{number % 7}-{number // 40}" for number in range(600)])
    tied = rows.set_column(1, "paid_at", [pa.array(np.arange(600) // 40 * 60_000 + NOON_MS, rows["paid_at"].type)])
    arrived = with_positions(tied.set_column(0, "payment_id", [ids]), [0] * 600, range(600))
    shuffled = arrived.take(pa.array(np.random.default_rng(3).permutation(600)))
    expected = values(arrived)
    assert not expected.equals(values(shuffled)), "the order decides about these values"
    address = write(tmp_path / "table", shuffled)

    whole = values(address)
    for module in (position_order, histories):
        monkeypatch.setattr(module, "SLICE_ROWS", 50)
    sliced = values(address)

    assert expected.equals(whole)
    assert expected.equals(sliced)


def test_partitions_are_ordered_by_topic_and_number(tmp_path: Path) -> None:
    """Of one moment: partition 0 before 1, whatever their offsets; a missing topic is no matter."""
    rows = payments(*((f"p{number}", 0, "c-1", 1, 1, market) for number, market in enumerate(["A", "B", "C"])))
    placed = with_positions(rows, [1, 0, 0], [4, 9, 7])
    for name, table in (("with", placed), ("without", placed.drop_columns("topic"))):
        write_deltalake(tmp_path / name, table)

    for name in ("with", "without"):
        batches = FileHistory(str(tmp_path / name)).scan(WITHOUT_IDS, ["market"], from_ms=0, to_ms=2 * NOON_MS)
        assert ["C", "B", "A"] == [market for batch in batches for market in batch["market"].to_pylist()]


def test_a_record_that_was_written_twice_counts_once(tmp_path: Path) -> None:
    """A sink that delivers at least once; another record at the same position, of a topic made anew, is another one."""
    rows = with_positions(payments(("p1", 0, "c-1", 1, 5, "A"), ("p2", 9, "c-1", 1, 7, "B")), [0, 0], [3, 3])
    for _ in range(2):
        write_deltalake(tmp_path, rows, mode="append")
    labels = labels_after(0.5).slice(1, 1)

    found = build_training_set(
        repo_of(replace(CARD, source=WITHOUT_IDS)), ["card:amount_1h"], labels, history=FileHistory(tmp_path)
    )

    assert [12] == found["amount_1h"].to_pylist()


@WRITERS
def test_without_positions_rows_come_in_the_order_of_their_files_paths(write: Write, tmp_path: Path) -> None:
    """The same each time, whatever the order of commits."""
    write(tmp_path, random_payments(300))
    address = str(tmp_path) if write is as_delta else str(next(tmp_path.rglob("00003-*.metadata.json")))
    table = open_table(address)
    assert table is not None
    by_path = [
        text
        for path in sorted(tmp_path.rglob("*.parquet"))
        for text in pq.read_table(path, partitioning=None)["payment_id"].to_pylist()
    ]

    assert by_path == table.to_table(columns=["payment_id"])["payment_id"].to_pylist()


@pytest.mark.parametrize("unit", ["ms", "s"])
def test_integer_event_times_are_of_the_sources_unit(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where event time is sliced; integers of another unit are refused and not passed over."""
    per_ms = {"ms": 1, "s": 1 / 1_000}[unit]
    times = [round((NOON_MS + number * 1_000) * per_ms) for number in range(200)]
    rows = random_payments(200).set_column(1, "paid_at", [pa.array(times, pa.int64())])
    write_deltalake(tmp_path / "table", with_positions(rows, [0] * 200, range(200)))
    source = replace(SOURCE, event_time_unit=unit)
    for module in (position_order, histories):
        monkeypatch.setattr(module, "SLICE_ROWS", 30)

    found = FileHistory(str(tmp_path / "table")).scan(source, ["card"], from_ms=NOON_MS, to_ms=NOON_MS + 50_000)

    assert 50 == sum(batch.num_rows for batch in found)
    other = replace(SOURCE, event_time_unit="us")
    with pytest.raises(InvalidRequest, match="paid_at"):
        list(FileHistory(str(tmp_path / "table")).scan(other, ["card"], from_ms=NOON_MS, to_ms=NOON_MS + 50_000))


def test_slices_hold_about_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days go together until they are enough, a day with more is cut, and nothing outside is in any."""
    monkeypatch.setattr(position_order, "SLICE_ROWS", 100)
    days = {1: 40, 2: 50, 5: 30, 6: 400, 9: 100, 11: 1}

    slices = list(time_slices(days, DAY_MS + 5, 10 * DAY_MS))

    quarters = [(6 * DAY_MS + number * DAY_MS // 4, 6 * DAY_MS + (number + 1) * DAY_MS // 4) for number in range(4)]
    assert [(DAY_MS + 5, 3 * DAY_MS), (5 * DAY_MS, 6 * DAY_MS), *quarters, (9 * DAY_MS, 10 * DAY_MS)] == slices
