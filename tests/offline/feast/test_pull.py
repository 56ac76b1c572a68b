"""Rows of Parquet tables for Feast, beside two loops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import InvalidRequest
from featurestore.offline.feast.pull import TableJob, pull_all, pull_latest
from featurestore.offline.feast.tables import Span, WantedColumns

from feast.errors import FeastJoinKeysDuringMaterialization  # isort: skip  # after featurestore: a fast import

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEP = timedelta(microseconds=250)
WANTED = WantedColumns(["card", "shop"], ["limit"], "since", "written")
KINDS = {
    "aware": pa.timestamp("us", tz="UTC"),
    "naive": pa.timestamp("us"),
    "fine": pa.timestamp("ns", tz="Asia/Tokyo"),
    "text": pa.string(),
}

rows = st.tuples(
    st.sampled_from(["c-1", "c-2"]),
    st.sampled_from([1, None]),
    st.none() | st.just(2**53 + 1),
    *[st.integers(0, 3)] * 2,
)


def table_of(drawn: list[tuple[Any, ...]], kind: str) -> pa.Table:
    """Rows: card, shop, limit, steps after noon since when it holds, and when it was written."""
    columns = list(zip(*drawn, strict=True)) or [()] * 5
    unit_ms = timedelta(milliseconds=1) if kind == "text" else STEP
    since = [NOON + step * unit_ms for step in columns[3]]
    times: pa.Array = pa.array(since, pa.timestamp("us", tz="UTC"))
    if kind == "text":
        times = pa.array([when.isoformat() for when in since], pa.string())
    elif kind == "naive":
        times = pa.array([when.replace(tzinfo=None) for when in since], KINDS[kind])
    return pa.table(
        {
            "card": pa.array(columns[0], pa.string()),
            "shop": pa.array(columns[1], pa.int64()),
            "limit": pa.array(columns[2], pa.int64()),
            "since": times.cast(KINDS[kind]),
            "written": pa.array([NOON + step * STEP for step in columns[4]], pa.timestamp("us", tz="UTC")),
            "row": pa.array(range(len(drawn)), pa.int64()),
        }
    )


@settings(max_examples=60, deadline=None)
@given(
    drawn=st.lists(rows, max_size=12),
    kind=st.sampled_from(list(KINDS)),
    first=st.integers(0, 3),
    steps=st.integers(0, 3),
)
def test_the_newest_row_of_a_span_counts(drawn: list[tuple[Any, ...]], kind: str, first: int, steps: int) -> None:
    """Both ends are in it; ties go to the one written last, then to the later; rows about nobody stay."""
    unit_ms = timedelta(milliseconds=1) if kind == "text" else STEP
    span = Span(NOON + first * unit_ms, NOON + (first + steps) * unit_ms)
    dataset = pads.dataset(table_of(drawn, kind))
    wanted = WantedColumns(WANTED.join_keys, ["limit", "row"], WANTED.timestamp, WANTED.created)
    found = pull_latest(dataset, wanted, span)
    every = pull_all(dataset, wanted, span)

    kept = [(row, number) for number, row in enumerate(drawn) if first <= row[3] <= first + steps]
    newest: dict[Any, Any] = {}
    for row, number in sorted(kept, key=lambda each: (each[0][3], each[0][4], each[1])):
        newest[(*row[:2], number if None in row[:2] else -1)] = (row[2], number)
    assert [number for _, number in kept] == every["row"].to_pylist()
    assert ["card", "shop", "limit", "row", "since", "written"] == found.column_names
    assert pa.int64() == found.schema.field("limit").type
    answered = found.select(["card", "shop", "limit", "row"]).to_pylist()
    assert sorted(newest.values(), key=str) == sorted(((row["limit"], row["row"]) for row in answered), key=str)
    assert all(drawn[row["row"]][:2] == (row["card"], row["shop"]) for row in answered)


def test_an_open_span_and_a_table_about_nobody() -> None:
    """No times given: all rows; no join keys: one entity, under Feast's name for it; no features: all columns."""
    table = table_of([("c-1", 1, 5, 0, 0), ("c-2", 1, 6, 1, 0)], "aware")
    nobody = WantedColumns([], ["limit"], "since")

    assert 2 == pull_all(pads.dataset(table), WANTED, Span()).num_rows
    found = pull_latest(pads.dataset(table), nobody, Span())
    assert ([6], ["__dummy_id"]) == (found["limit"].to_pylist(), found.column_names[2:])
    assert (
        table.column_names == pull_all(pads.dataset(table), WantedColumns(["card"], [], "since"), Span()).column_names
    )


def test_columns_that_are_not_there_are_named() -> None:
    """A join key by Feast's error, another column by ours."""
    dataset = pads.dataset(table_of([("c-1", 1, 5, 0, 0)], "aware"))

    with pytest.raises(FeastJoinKeysDuringMaterialization):
        pull_latest(dataset, WantedColumns(["client"], ["limit"], "since"), Span())
    with pytest.raises(InvalidRequest, match='no column "limits"') as caught:
        TableJob(lambda: pull_all(dataset, WantedColumns(["card"], ["limits"], "since"), Span())).to_df()
    assert '"limit"' in caught.value.hint


def test_a_data_frame_keeps_integers_beside_nulls() -> None:
    """Whole numbers stay whole, in columns and in lists; columns without nulls are numpy's, as ever."""
    big = 2**53 + 1
    table = pa.table(
        {
            "alone": pa.array([big, 2]),
            "beside": pa.chunked_array([[big], [None]]),
            "least": pa.array([None, -(2**63)]),
            "small": pa.array([7, None], pa.int32()),
            "unsigned": pa.array([2**64 - 1, None], pa.uint64()),
            "lists": pa.array([[big, None], [1, 2]]),
            "text": pa.array(["a", None]),
            "share": pa.array([0.5, None]),
        }
    )
    frame = TableJob(lambda: table).to_df()

    assert ["int64", "Int64", "Int64", "Int32", "UInt64", "object", "object", "float64"] == [
        str(kind) for kind in frame.dtypes
    ]
    assert (big, -(2**63), 2**64 - 1) == (frame["beside"][0], frame["least"][1], frame["unsigned"][0])
    assert [[big, None], [1, 2]] == [list(value) for value in frame["lists"]]
    assert frame["beside"].isna().tolist() == [False, True]
