"""How the events of a view have kept its promise of freshness, hour by hour; and what is left of its error budget.

    promise     30s for 99 %         an event is servable within 30 s of when it happened; one in a hundred may be late
    hour        events     late
    10-11       3,600         2      by the clock at the commit that made them servable
    11-12       1,750        50
    30 days     5,350        52      0.97 % are late, of 1 % that may be: 3 % of the budget are left

A field of the store holds a day of a view; a month of them go round, so nothing has to be deleted. Another promise
begins another budget. What was counted but not kept when a process was killed, some seconds of it, is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from featurestore.core.spec import FreshnessPromise
from featurestore.errors import CorruptData

HOUR_MS = 3_600_000
HOURS_PER_DAY = 24
DAY_MS = HOURS_PER_DAY * HOUR_MS

BUDGET_DAYS = 30
"""The error budget is of so many days: of that many hours until now."""

DAYS_KEPT = BUDGET_DAYS + 2

SILENT_AFTER_MS = 60_000
"""A stream says every few seconds that it counts. One that has been silent for longer does not run."""


class DayCounts(msgspec.Struct):
    """A day of a view, UTC.

    Attributes:
        promise_ms: what was promised.
        day: its number since 1970.
        events: that became servable, by hour.
        late: those of them that took longer than promised.
        reported_ms: when a stream last said that these are all.
    """

    promise_ms: int
    day: int
    events: list[int]
    late: list[int]
    reported_ms: int = 0

    def add(self, hour: int, events: int, late: int) -> None:
        """Count events of an hour of this day, 0 to 23."""
        self.events[hour] += events
        self.late[hour] += late


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DayCounts)


def new_day(promise_ms: int, day: int) -> DayCounts:
    """A day without events."""
    return DayCounts(promise_ms, day, [0] * HOURS_PER_DAY, [0] * HOURS_PER_DAY)


def encode_day(counts: DayCounts) -> bytes:
    """As it is kept."""
    return _encoder.encode(counts)


def decode_day(data: bytes) -> DayCounts:
    """What `encode_day` made.

    Raises:
        CorruptData: it did not make that.
    """
    try:
        counts = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptData("stored counts of freshness do not decode", detail=str(error)) from error
    if len(counts.events) != HOURS_PER_DAY or len(counts.late) != HOURS_PER_DAY:
        raise CorruptData("stored counts of freshness are of no day", detail=f"{len(counts.events)} hours")
    return counts


@dataclass(frozen=True, slots=True)
class PromiseState:
    """How a view's promise of freshness is kept.

    Attributes:
        view, freshness_ms, target: of the promise.
        events, late: that became servable in the last BUDGET_DAYS, and those that took longer than promised.
        events_1h, late_1h: of the hour that runs and the one before it.
        reported_ms: when a stream last said that it counts; 0 where none has.
        is_silent: none has for longer than SILENT_AFTER_MS.
    """

    view: str
    freshness_ms: int
    target: float
    events: int
    late: int
    events_1h: int
    late_1h: int
    reported_ms: int
    is_silent: bool

    @property
    def late_share(self) -> float:
        """Of the events; 0 without any."""
        return self.late / self.events if self.events else 0.0

    @property
    def budget_left(self) -> float:
        """Share of the error budget that is left; below 0 where more were late than may be."""
        return 1.0 - self.late_share / (1.0 - self.target)

    @property
    def is_kept(self) -> bool:
        """The budget is not spent, and a stream runs that counts."""
        return self.budget_left >= 0.0 and not self.is_silent


def promise_states(
    promises: Iterable[FreshnessPromise], fields: Mapping[bytes, bytes], now_ms: int
) -> list[PromiseState]:
    """How every promise is kept, in their order.

    Args:
        promises: what is promised.
        fields: what streams have kept, see `wire.store_layout.freshness_field`.
        now_ms: the clock.

    Raises:
        CorruptData: of a view is kept what is no count.
    """
    days = dict[str, list[DayCounts]]()
    for name, data in fields.items():
        days.setdefault(name.decode().rpartition("/")[0], []).append(decode_day(data))
    return [_state(one, days.get(one.view, ()), now_ms) for one in promises]


def _state(promise: FreshnessPromise, days: Iterable[DayCounts], now_ms: int) -> PromiseState:
    """Of one promise; days of another one are none of it."""
    mine = [one for one in days if one.promise_ms == promise.freshness_ms]
    this_hour = now_ms // HOUR_MS
    first_hour = this_hour - BUDGET_DAYS * HOURS_PER_DAY + 1
    hours = [
        (one.day * HOURS_PER_DAY + hour, events, late)
        for one in mine
        for hour, (events, late) in enumerate(zip(one.events, one.late, strict=True))
    ]
    month = [(events, late) for hour, events, late in hours if first_hour <= hour <= this_hour]
    recent = [(events, late) for hour, events, late in hours if this_hour - 1 <= hour <= this_hour]
    reported_ms = max((one.reported_ms for one in mine), default=0)
    return PromiseState(
        view=promise.view,
        freshness_ms=promise.freshness_ms,
        target=promise.target,
        events=sum(events for events, _ in month),
        late=sum(late for _, late in month),
        events_1h=sum(events for events, _ in recent),
        late_1h=sum(late for _, late in recent),
        reported_ms=reported_ms,
        is_silent=now_ms - reported_ms > SILENT_AFTER_MS,
    )
