"""How often records break a contract, hour by hour: as counting them one by one says, each once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.events import ColumnValues, EventBatch
from featurestore.core.spec import Expectation, OnFail, SourceSpec
from featurestore.errors import CorruptData
from featurestore.testing.strategies import SOURCE
from featurestore.wire.contract_counts import HOUR_MS, PartitionCounts, decode_counts, encode_counts, states_of
from featurestore.wire.contracts import ContractCheck

POSITIVE = Expectation(SOURCE.name, "positive", "amount > 0", OnFail.DEAD_LETTER)
SMALL = Expectation(SOURCE.name, "small", "amount < 5", OnFail.COUNT, at_most=0.5)
Records = list[tuple[int, int | None]]
"""Event time and amount of each record; offsets are the places."""

records = st.lists(st.tuples(st.integers(0, 3 * HOUR_MS), st.one_of(st.none(), st.integers(-3, 9))), max_size=30)


def read(some: Records, first: int, source: SourceSpec = SOURCE) -> EventBatch:
    """A read of some records, decoded."""
    amounts = np.array([amount or 0 for _, amount in some], dtype=np.int64)
    valid = np.array([amount is not None for _, amount in some], dtype=np.bool_)
    return EventBatch(
        topic=source.topic,
        partition=0,
        from_offset=first,
        next_offset=first + len(some),
        offsets=np.arange(first, first + len(some), dtype=np.int64),
        event_time_ms=np.array([at_ms for at_ms, _ in some], dtype=np.int64),
        event_ids=None,
        columns={"amount": ColumnValues(amounts, valid)},
    )


@given(some=records, data=st.data())
def test_every_record_is_counted_once_in_its_hour_however_it_is_read(some: Records, data: st.DataObject) -> None:
    """In reads of any length, also of what was read before; counts survive being kept between any two."""
    check, counts = ContractCheck(SOURCE, (POSITIVE, SMALL)), PartitionCounts(SOURCE.name)
    at = 0
    while at < len(some):
        back = data.draw(st.integers(0, at))
        end = data.draw(st.integers(at + 1, len(some)))
        flagged = check.flagged(read(some[at - back : end], at - back))
        counts.add(flagged, check.failures(flagged))
        counts, at = decode_counts(encode_counts(counts)), end

    hours = Counter(at_ms // HOUR_MS for at_ms, _ in some)
    assert {hour: one.records for hour, one in counts.hours.items()} == hours
    for expectation, met in ((POSITIVE, range(1, 99)), (SMALL, range(-99, 5))):
        failing = [
            (offset, at_ms) for offset, (at_ms, amount) in enumerate(some) if amount is None or amount not in met
        ]
        by_hour = Counter(at_ms // HOUR_MS for _, at_ms in failing)
        name = expectation.name
        assert {hour: one.failed[name] for hour, one in counts.hours.items() if name in one.failed} == by_hour
        assert (counts.last[name].offset if failing else None) == (failing[-1][0] if failing else None)
        [state] = states_of([expectation], {(SOURCE.topic, 0): counts})
        newest = max(hours, default=0) - 1
        checked = sum(count for hour, count in hours.items() if hour >= newest)
        failed = sum(count for hour, count in by_hour.items() if hour >= newest)
        assert (checked, failed) == (state.records, state.failed)
        assert state.is_broken == (checked > 0 and failed / checked > expectation.at_most)


def test_states_are_of_all_partitions_of_a_source_and_of_no_other() -> None:
    """What is expected of one source is not asked of another; the newest failure is told."""
    check = ContractCheck(SOURCE, (POSITIVE,))
    counts: dict[tuple[str, int], PartitionCounts] = {}
    for partition, some in enumerate(([(0, 1), (5, -1)], [(9, -1), (2, 1)])):
        counts["payments", partition] = PartitionCounts(SOURCE.name)
        flagged = check.flagged(read(some, 10 * partition))  # type: ignore[arg-type]  # a list of pairs is one
        counts["payments", partition].add(flagged, check.failures(flagged))
    counts["refunds", 0] = PartitionCounts("refunds")

    [state] = states_of([POSITIVE], counts)

    assert (4, 2, True) == (state.records, state.failed, state.is_broken)
    assert ("payments", 1, 10, 9) == (
        state.last_topic,
        state.last_partition,
        state.last_offset,
        state.last_event_time_ms,
    )


def test_counts_that_do_not_decode_are_corrupt() -> None:
    """They are counted anew; nobody takes them for figures."""
    with pytest.raises(CorruptData, match="stored counts of a contract do not decode"):
        decode_counts(b"{")
