"""What a read could have seen, against the naive oracle; and values that only rounding tells apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.spec import Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.table import Positions
from featurestore.offline.parity.feature_log import POSITIONS_TYPE
from featurestore.offline.parity.reads import (
    PinnedEventLogs,
    ReadPositions,
    ServedReads,
    magnitudes_at_reads,
    recompute_at_reads,
)
from featurestore.offline.parity.values import differing
from featurestore.offline.training_set.histories import FileHistory
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import SOURCE, StreamCase, stream_cases
from featurestore.wire.entity_key import decode_key, encode_key
from tests.core.test_tiles_against_naive import distinct
from tests.offline.event_log.event_logs import BEGIN_MS, DAY_MS, PAYMENTS, TOPIC, open_writer, read_of
from tests.offline.training_set.label_tables import history_table, plain_values

FUNCTIONS = ("count", "sum", "mean", "min", "stddev_pop", "first", "last", "count_distinct", "last_n(3)")
PARTITIONS = 2


class TableLogs(PinnedEventLogs):
    """A table in memory as event logs; partitions and offsets by the order of its rows.

    Args:
        table: columns of the source.
        partitions: of each row.
    """

    def __init__(self, table: pa.Table, partitions: Sequence[int]) -> None:
        super().__init__("nowhere")
        number = np.array(partitions, dtype=np.int32)
        offsets = np.zeros(len(number), dtype=np.int64)
        for partition in range(PARTITIONS):
            offsets[number == partition] = np.arange(int((number == partition).sum()))
        table = table.append_column("topic", pa.array(["events"] * len(number), pa.string()))
        table = table.append_column("partition", pa.array(number)).append_column("offset", pa.array(offsets))
        self._history = FileHistory(table)

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """Rows of the table."""
        yield from self._history.scan(source, columns, from_ms=from_ms, to_ms=to_ms)

    def row_count(self, source: SourceSpec) -> int:
        """Rows of the table."""
        return self._history.row_count(source)

    def version(self, source: SourceSpec) -> str:
        """There is one."""
        return ""

    def positions(self, source: SourceSpec) -> Positions:
        """Nobody asks."""
        return {}


def positions_array(ends: Sequence[tuple[int, ...]]) -> pa.Array:
    """Next offsets of partitions 0, 1 ... of the topic, for each read."""
    entries = [
        [{"topic": "events", "partition": partition, "next_offset": end} for partition, end in enumerate(mine)]
        for mine in ends
    ]
    return pa.array(entries, type=POSITIONS_TYPE)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_each_read_gets_the_oracles_value_of_what_had_arrived(data: st.DataObject) -> None:
    """Any events in two partitions, reads of the same and of other entities, each with positions of its own."""
    case: StreamCase = data.draw(stream_cases(functions=FUNCTIONS))
    partitions = data.draw(st.lists(st.integers(0, 1), min_size=len(case.events), max_size=len(case.events)))
    keys = sorted({event.key for event in case.events} | {encode_key(["nobody"])})
    ends = st.tuples(*(st.integers(0, partitions.count(partition)) for partition in range(PARTITIONS)))
    asks = data.draw(
        st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(case.as_of_ms), ends), min_size=1, max_size=12)
    )
    reads = ServedReads(
        pa.table({"card_id": pa.array([decode_key(key, case.view.join_keys)[0] for key, _, _ in asks], pa.string())}),
        np.array([as_of_ms for _, as_of_ms, _ in asks], dtype=np.int64),
        ReadPositions.of(positions_array([end for _, _, end in asks])),
    )
    logs = TableLogs(history_table(case.view, case.events), partitions)
    names = [feature.name for feature in case.view.features]
    found = recompute_at_reads(case.view, names, reads, logs, memory_bytes=1 << 28)

    seen = [_seen(case.events, partitions, end) for _, _, end in asks]
    for feature in case.view.features:
        values = plain_values(found.column(feature.name), feature.type)
        for (key, as_of_ms, _), arrived, actual in zip(asks, seen, values, strict=True):
            mine = distinct([event for event in arrived if event.key == key])
            expected = naive_value(feature, mine, as_of_ms)
            assert agrees(expected, actual, scale=magnitude(feature, mine, as_of_ms)), (feature, expected, actual)


def _seen(events: Sequence[NaiveEvent], partitions: Sequence[int], ends: Sequence[int]) -> list[NaiveEvent]:
    """Events below the positions."""
    offsets, seen = [0] * PARTITIONS, []
    for event, partition in zip(events, partitions, strict=True):
        if offsets[partition] < ends[partition]:
            seen.append(event)
        offsets[partition] += 1
    return seen


def test_expansion_into_reads_is_bounded_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred events for forty reads in pieces of at most seven pairs, or one event's: the same values."""
    events = [
        NaiveEvent(encode_key(["card-1"]), BEGIN_MS + number, b"e-%d" % number, {"amount": number})
        for number in range(100)
    ]
    view = ViewSpec(
        "view",
        (Column("card_id", ValueType.STRING),),
        SOURCE,
        (FeatureSpec("total", "sum", "amount", Window(None), ValueType.INT64),),
        None,
    )
    reads = ServedReads(
        pa.table({"card_id": ["card-1"] * 40}),
        np.full(40, BEGIN_MS + 1_000, dtype=np.int64),
        ReadPositions.of(positions_array([(2 * read, 0) for read in range(40)])),
    )
    logs = TableLogs(history_table(view, events), [0] * 100)
    monkeypatch.setattr("featurestore.offline.parity.reads.EXPANDED_ROWS_MAX", 7)
    found = recompute_at_reads(view, ["total"], reads, logs, memory_bytes=1 << 28)

    assert [sum(range(2 * read)) for read in range(40)] == found.column("total").to_pylist()


def test_positions_of_partitions_that_were_not_read_yet_hide_their_events() -> None:
    """A row without any position saw nothing; a partition that is missing in a row was at offset 0 there."""
    positions = ReadPositions.of(
        pa.array(
            [
                [{"topic": "a", "partition": 0, "next_offset": 5}],
                None,
                [{"topic": "b", "partition": 0, "next_offset": 7}, {"topic": "a", "partition": 0, "next_offset": 6}],
            ],
            type=POSITIONS_TYPE,
        )
    )

    assert {("a", 0): 0, ("b", 0): 1} == positions.columns
    assert [[5, 0, 0], [0, 0, 0], [6, 7, 0]] == positions.next_offset.tolist()


def test_numbers_that_cancel_out_are_compared_by_their_size() -> None:
    """0.1 + 0.2 - 0.3 is 0 or 5e-17, as the order has it: a difference of rounding, where 1e-8 is one of value."""
    prices = (0.1, 0.2, -0.3)
    events = [
        NaiveEvent(encode_key(["card-1"]), BEGIN_MS + number, b"e-%d" % number, {"price": price})
        for number, price in enumerate(prices)
    ]
    window = Window(DAY_MS, 60_000)
    features = tuple(
        FeatureSpec(function, function, "price", window, ValueType.FLOAT64) for function in ("sum", "var_pop", "skew")
    )
    view = ViewSpec("view", (Column("card_id", ValueType.STRING),), SOURCE, features, DAY_MS)
    positions = ReadPositions.of(positions_array([(3, 0)]))
    reads = ServedReads(pa.table({"card_id": ["card-1"]}), np.array([BEGIN_MS + 10]), positions)
    logs = TableLogs(history_table(view, events), [0] * 3)
    scales = magnitudes_at_reads(view, ["sum", "var_pop", "skew"], reads, logs, memory_bytes=1 << 28)

    assert [0.3] == scales["sum"].tolist()
    assert [pytest.approx(0.09)] == scales["var_pop"].tolist()
    assert 0 < scales["skew"][0] < 0.01
    logged = pa.chunked_array([[0.0]])
    assert differing(logged, pa.chunked_array([[5.5e-17]])).tolist() == [True]
    assert differing(pa.chunked_array([[1.38e-321]]), pa.chunked_array([[1.383e-321]])).tolist() == [False]
    assert differing(logged, pa.chunked_array([[5.5e-17]]), scales["sum"]).tolist() == [False]
    assert differing(logged, pa.chunked_array([[1e-8]]), scales["sum"]).tolist() == [True]


@pytest.mark.parametrize(("first", "days_until_complete"), [(0, None), (40, 2)])
def test_a_log_that_began_late_is_complete_after_the_days_of_its_first_commit(
    tmp_path: Path, first: int, days_until_complete: int | None
) -> None:
    """From the first offset on there is no bound; a first commit at a later offset, about two days, leaves them out."""
    open_writer(place_of(tmp_path / PAYMENTS.name)).commit({(TOPIC, 0): [read_of(first, first + 50)]})

    expected = None if days_until_complete is None else BEGIN_MS + days_until_complete * DAY_MS
    assert expected == PinnedEventLogs(str(tmp_path)).begin_ms(PAYMENTS)
