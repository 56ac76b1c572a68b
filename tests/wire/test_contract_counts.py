"""How often records break a contract, hour by hour: as counting them one by one says, each once."""

from __future__ import annotations

from collections import Counter
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.events import ColumnValues, EventBatch
from featurestore.core.spec import Expectation, Measure, OnFail, SourceSpec, UsualHours
from featurestore.errors import CorruptData
from featurestore.testing.strategies import SOURCE
from featurestore.wire.contracts import ContractCheck
from featurestore.wire.counts.contracts import (
    HOUR_MS,
    LATENESS_MS_MIN,
    PartitionCounts,
    decode_counts,
    encode_counts,
    states_of,
    usual_states,
)

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


@st.composite
def _days(draw: st.DrawFn) -> list[list[int]]:
    """Event times of two partitions: some days, on each some records of two hours, late by up to an hour."""
    partitions: list[list[int]] = [[], []]
    for day in range(draw(st.integers(1, 10))):
        for hour in (10, 11):
            for times in partitions:
                late_ms = st.one_of(st.just(0), st.integers(0, HOUR_MS))
                for late in draw(st.lists(late_ms, max_size=4)):
                    times.append((24 * day + hour) * HOUR_MS + len(times) - late)
    return partitions


@settings(max_examples=50)
@given(partitions=_days(), low=st.sampled_from([0.0, 0.5, 1.0]), high=st.sampled_from([1.5, 3.0]), data=st.data())
def test_an_hour_is_compared_with_the_same_hour_of_the_days_before(
    partitions: list[list[int]], low: float, high: float, data: st.DataObject
) -> None:
    """As a plain loop over the records says, however they are read; nothing is said of what nobody has seen wholly."""
    counts: dict[tuple[str, int], PartitionCounts] = {}
    for partition, times in enumerate(partitions):
        of_partition, at = PartitionCounts(SOURCE.name), 0
        while at < len(times):
            end = data.draw(st.integers(at + 1, len(times)))
            of_partition.add(read([(one, 1) for one in times[at:end]], at), ())
            of_partition, at = decode_counts(encode_counts(of_partition)), end
        counts[SOURCE.topic, partition] = of_partition
    wanted = [UsualHours(SOURCE.name, measure, low, high) for measure in Measure]
    states = {one.measure: one for one in usual_states(wanted, counts)}

    behind: dict[int, list[int]] = {}
    for times in partitions:
        newest_ms = 0
        for time_ms in times:
            newest_ms = max(newest_ms, time_ms)
            behind.setdefault(time_ms // HOUR_MS, []).append(newest_ms - time_ms)
    hour = max(behind, default=0) - 1
    first = max((times[0] // HOUR_MS + 1 for times in partitions if times), default=hour)
    found = [behind.get(one, []) for one in range(hour - 7 * 24, hour, 24) if one >= first]
    here = behind.get(hour, []) if hour >= first else None
    volumes = [float(len(one)) for one in found]
    latenesses = [sum(one) / len(one) for one in found if one]
    for state, others, value, least in (
        (states["volume"], volumes, None if here is None else float(len(here)), 0),
        (states["lateness"], latenesses, sum(here) / len(here) if here else None, LATENESS_MS_MIN),
    ):
        usual = median(others) if len(others) >= 3 else None
        assert (state.value, state.usual) == (value, usual)
        is_known = usual is not None and value is not None
        base = max(usual or 0, least)
        assert state.is_broken == (is_known and base > 0 and not low * base <= (value or 0) <= high * base)


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
