"""How the records of one partition have kept their source's contract, hour by hour of event time; and what that says.

    hour        records  behind          failed
    10:00-11:00   3,600   4,320,000 ms   {"amount >= 0": 2}       a share of two in 3,600, late by 1.2 s on average
    11:00-12:00   1,750   1,575,000 ms   {}

Each record is counted once, where its partition goes on from: what is read again after a restart lies before that. What
was counted but not kept when a process was killed, some seconds of it, is not counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

import msgspec
import numpy as np

from featurestore.core.events import EventBatch, Int64Array
from featurestore.core.spec import Expectation, Measure, UsualHours
from featurestore.errors import CorruptData
from featurestore.wire.contracts import Failures

HOUR_MS = 3_600_000
HOURS_KEPT = 8 * 24
"""A day beyond the seven of which an hour is compared with the same hour."""

DAYS_COMPARED, DAYS_COMPARED_MIN = 7, 3
"""Of fewer days nobody knows what is usual."""

LATENESS_MS_MIN = 1_000
"""What is less late than this is never too late."""


class HourCounts(msgspec.Struct):
    """One hour of event time.

    Attributes:
        records: that were checked.
        behind_ms: sum over them of how far they lay behind the newest event time of the partition before them.
        failed: how many did not meet an expectation, by its name.
    """

    records: int = 0
    behind_ms: int = 0
    failed: dict[str, int] = {}  # msgspec copies it


class LastFailure(msgspec.Struct, frozen=True):
    """The newest record that did not meet an expectation: its offset and event time."""

    offset: int
    event_time_ms: int


class PartitionCounts(msgspec.Struct):
    """All hours of one partition.

    Attributes:
        source: name of the source.
        next_offset: everything before it is counted.
        hours: by their number since 1970.
        last: by name of the expectation.
        newest_ms: newest event time.
        whole_from: the first hour of which all records are counted; None before the first.
    """

    source: str
    next_offset: int = 0
    newest_ms: int = 0
    whole_from: int | None = None
    hours: dict[int, HourCounts] = {}  # msgspec copies it
    last: dict[str, LastFailure] = {}  # msgspec copies it

    def add(self, events: EventBatch, failures: Sequence[Failures]) -> frozenset[str]:
        """Count the records of a read that are not counted yet.

        Args:
            events: the read.
            failures: of it.

        Returns:
            Names of the expectations that some of them do not meet.
        """
        begin = int(events.offsets.searchsorted(self.next_offset))
        if events.from_offset > self.next_offset:
            self.whole_from = None  # somebody else counted, or nobody
        self.next_offset = max(self.next_offset, events.next_offset)
        hours = events.event_time_ms // HOUR_MS
        for hour, count in _counts(hours[begin:]):
            self.hours.setdefault(hour, HourCounts()).records += count
        self._note_times(events.event_time_ms[begin:], hours[begin:])
        failing = set()
        for one in failures:
            rows, name = one.rows[one.rows >= begin], one.expectation.name
            for hour, count in _counts(hours[rows]):
                failed = self.hours[hour].failed
                failed[name] = failed.get(name, 0) + count
            if len(rows):
                newest = int(rows[-1])
                self.last[name] = LastFailure(int(events.offsets[newest]), int(events.event_time_ms[newest]))
                failing.add(name)
        if len(self.hours) > HOURS_KEPT:
            kept = max(self.hours) - HOURS_KEPT
            self.hours = {hour: counts for hour, counts in self.hours.items() if hour > kept}
        return frozenset(failing)

    def _note_times(self, times_ms: Int64Array, hours: Int64Array) -> None:
        """How far records lie behind those before them."""
        if not len(times_ms):
            return
        if self.whole_from is None:
            self.whole_from = int(hours[0]) + 1
        newest_ms = np.maximum.accumulate(times_ms)
        np.maximum(newest_ms, self.newest_ms, out=newest_ms)
        behind_ms, self.newest_ms = newest_ms - times_ms, int(newest_ms[-1])
        late = np.flatnonzero(behind_ms)
        for hour, _ in _counts(hours[late]):
            self.hours[hour].behind_ms += int(behind_ms[late][hours[late] == hour].sum())


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PartitionCounts)


def encode_counts(counts: PartitionCounts) -> bytes:
    """As they are kept."""
    return _encoder.encode(counts)


def decode_counts(data: bytes) -> PartitionCounts:
    """What `encode_counts` made.

    Raises:
        CorruptData: it did not make that.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptData("stored counts of a contract do not decode", detail=str(error)) from error


@dataclass(frozen=True, slots=True)
class ExpectationState:
    """How an expectation is met now.

    Attributes:
        source, name, on_fail, at_most: of the expectation.
        records, failed: of the newest hour of event time and the one before it, over all partitions.
        records_1d, failed_1d: of the newest day.
        is_broken: a larger share than `at_most` fails.
        last_topic, last_partition, last_offset: place of the newest record that does not meet it; "" and -1 for none.
        last_event_time_ms: its time; 0 for none.
    """

    source: str
    name: str
    on_fail: str
    at_most: float
    records: int
    failed: int
    records_1d: int
    failed_1d: int
    is_broken: bool
    last_topic: str
    last_partition: int
    last_offset: int
    last_event_time_ms: int

    @property
    def share(self) -> float:
        """Of the records of the two newest hours, those that fail."""
        return self.failed / self.records if self.records else 0.0


def states_of(
    expectations: Iterable[Expectation], counts: Mapping[tuple[str, int], PartitionCounts]
) -> list[ExpectationState]:
    """How every expectation is met, in their order.

    Args:
        expectations: what is expected.
        counts: of each (topic, partition).
    """
    states = []
    for one in expectations:
        mine = {place: found for place, found in counts.items() if found.source == one.source}
        newest = max((hour for found in mine.values() for hour in found.hours), default=0)
        records, failed = _within(mine.values(), one.name, newest - 1)
        records_1d, failed_1d = _within(mine.values(), one.name, newest - 23)
        last = [(found.last[one.name], place) for place, found in mine.items() if one.name in found.last]
        failure, (topic, partition) = max(last, key=_age, default=(LastFailure(-1, 0), ("", -1)))
        states.append(
            ExpectationState(
                source=one.source,
                name=one.name,
                on_fail=str(one.on_fail),
                at_most=one.at_most,
                records=records,
                failed=failed,
                records_1d=records_1d,
                failed_1d=failed_1d,
                is_broken=records > 0 and failed / records > one.at_most,
                last_topic=topic,
                last_partition=partition,
                last_offset=failure.offset,
                last_event_time_ms=failure.event_time_ms,
            )
        )
    return states


@dataclass(frozen=True, slots=True)
class UsualState:
    """How the newest hour that is over compares with the same hour of other days.

    Attributes:
        source, measure, at_least, at_most: of what is expected.
        hour_ms: when it began; 0 while there is none.
        value: its records, or how late they were on average, in milliseconds; None where that is not known.
        usual: the median of the other days; None where too few are known.
        is_broken: it is not between so many times and so many times of that.
    """

    source: str
    measure: str
    at_least: float
    at_most: float
    hour_ms: int
    value: float | None
    usual: float | None
    is_broken: bool

    @property
    def name(self) -> str:
        """As status, metrics and reports call it."""
        return f"usual {self.measure}"

    @property
    def text(self) -> str:
        """How the hour compares with the same hour of other days, for people."""
        value, usual = (
            "-"
            if one is None
            else f"{one:,.0f} records"
            if self.measure == Measure.VOLUME
            else f"{one / 1_000:,.1f} s late"
            for one in (self.value, self.usual)
        )
        when = datetime.fromtimestamp(self.hour_ms / 1_000, tz=UTC).strftime("%Y-%m-%d %H:00 UTC")
        factors = f"{self.at_least:g} to {self.at_most:g} times"
        return f"{value} in the hour from {when}, usually {usual}; {factors} of that is expected"


def usual_states(
    usual_hours: Iterable[UsualHours], counts: Mapping[tuple[str, int], PartitionCounts]
) -> list[UsualState]:
    """How every source keeps to what is usual, in their order; of some partitions, as these do.

    Args:
        usual_hours: what is expected.
        counts: of each (topic, partition).
    """
    states = []
    for one in usual_hours:
        mine = [found for found in counts.values() if found.source == one.source and found.hours]
        hour = max((found.newest_ms // HOUR_MS for found in mine), default=0) - 1
        whole_from = max((hour if one.whole_from is None else one.whole_from for one in mine), default=hour)
        days = [hour - 24 * day for day in range(1, DAYS_COMPARED + 1)]
        known = [_measured(mine, day, one.measure) for day in days if day >= whole_from]
        others = [found for found in known if found is not None]
        value = _measured(mine, hour, one.measure) if hour >= whole_from else None
        usual = median(others) if len(others) >= DAYS_COMPARED_MIN else None
        is_broken = False
        if usual is not None and value is not None:
            base = max(usual, LATENESS_MS_MIN) if one.measure is Measure.LATENESS else usual
            is_broken = base > 0 and not one.at_least * base <= value <= one.at_most * base
        states.append(
            UsualState(
                one.source,
                str(one.measure),
                one.at_least,
                one.at_most,
                hour_ms=max(hour, 0) * HOUR_MS,
                value=value,
                usual=usual,
                is_broken=is_broken,
            )
        )
    return states


def _measured(counts: Iterable[PartitionCounts], hour: int, measure: Measure) -> float | None:
    """A measure of an hour; None of the lateness of no records."""
    found = [one.hours[hour] for one in counts if hour in one.hours]
    records = sum(one.records for one in found)
    if measure is Measure.VOLUME:
        return records
    return sum(one.behind_ms for one in found) / records if records else None


def _age(found: tuple[LastFailure, tuple[str, int]]) -> tuple[int, int]:
    """The newest is the largest."""
    return found[0].event_time_ms, found[0].offset


def _counts(hours: Int64Array) -> list[tuple[int, int]]:
    """Each of some numbers, and how often it is there."""
    if not len(hours):
        return []
    first = int(hours[0])
    if (hours == first).all():
        return [(first, len(hours))]
    distinct, counts = np.unique(hours, return_counts=True)
    return list(zip(distinct.tolist(), counts.tolist(), strict=True))


def _within(found: Iterable[PartitionCounts], name: str, first_hour: int) -> tuple[int, int]:
    """Records, and those that fail, from an hour on."""
    hours = [counts for one in found for hour, counts in one.hours.items() if hour >= first_hour]
    return sum(counts.records for counts in hours), sum(counts.failed.get(name, 0) for counts in hours)
