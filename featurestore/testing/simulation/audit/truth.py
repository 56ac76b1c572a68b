"""What an entity's values may be, given what its lane's checkpoint says was applied: nothing of it asks the code.

    log up to the checkpoint ─ copies of each event id ─ how many of them may count ─ naive_value of each possibility

An event counts once. There is more than one possibility only where nobody promises which: a retry that came when its
original's partition had moved on by a horizon, or in another partition that did, and an event that a stream whose clock
was wrong has put among the dead letters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from featurestore.core.spec import ViewSpec
from featurestore.testing.oracle.naive import NaiveAnswer, NaiveEvent, naive_found, naive_values
from featurestore.testing.simulation.definitions import CONDITIONS, HORIZON_MS
from featurestore.testing.simulation.stand_ins.log import Place, SimulatedLog

POSSIBILITIES_MAX = 64
"""More are not told apart."""

COPIES_MAX = 8
"""Nor are the ways in which more copies of one event may count; they double with each."""

Extent = Mapping[Place, tuple[int, int]]
"""What was applied of each partition: from the first offset, to before the second."""

Position = tuple[Place, int]
"""A record."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One record of an event.

    Attributes:
        place, offset: which.
        event: what it says.
        reached_ms: newest event time of its partition up to it, itself included.
        before_ms: the same without it.
        end_ms: newest event time of its partition, up to the log's end.
    """

    place: Place
    offset: int
    event: NaiveEvent
    reached_ms: float
    before_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Possibility:
    """One of the answers that would be right."""

    is_found: bool
    values: Mapping[str, NaiveAnswer | None]


def possibilities(
    log: SimulatedLog, view: ViewSpec, key: bytes, extent: Extent, letters: Collection[Position], as_of_ms: int
) -> list[Possibility] | None:
    """The answers that are right; None where they are too many to say.

    Args:
        log: everything that was sent.
        view: whose features.
        key: the entity.
        extent: what was applied.
        letters: records that were put among the dead letters.
        as_of_ms: read time.
    """
    by_id: dict[bytes, list[_Copy]] = {}
    for copy in _copies(log, key, extent):
        by_id.setdefault(copy.event.event_id or b"", []).append(copy)
    if any(len(copies) > COPIES_MAX for copies in by_id.values()):
        return None
    counts = [_possible_counts(copies, letters) for copies in by_id.values()]
    if math.prod(len(each) for each in counts) > POSSIBILITIES_MAX:
        return None
    is_of_view = CONDITIONS[view.where] if view.where else lambda _: True
    events = [copies[0].event for copies in by_id.values()]
    return [
        _answer(view, [one for one in _repeated(events, chosen) if is_of_view(one.columns)], as_of_ms)
        for chosen in itertools.product(*counts)
    ]


def _answer(view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> Possibility:
    """The oracle's."""
    is_found = naive_found(view, events, as_of_ms)
    return Possibility(is_found, naive_values(view, events if is_found else (), as_of_ms))


def _repeated(events: Sequence[NaiveEvent], times: Sequence[int]) -> list[NaiveEvent]:
    """Each event so many times, under ids of their own."""
    return [
        replace(event, event_id=(event.event_id or b"") + b"#%d" % number)
        for event, count in zip(events, times, strict=True)
        for number in range(count)
    ]


def _copies(log: SimulatedLog, key: bytes, extent: Extent) -> Iterator[_Copy]:
    """Records of an entity that were applied."""
    for place, (first, end) in extent.items():
        newest_ms, end_ms = -math.inf, _newest_ms(log, place)
        for record in log.everything[place].records:
            if record.event is None:
                continue
            before_ms, newest_ms = newest_ms, max(newest_ms, record.event.event_time_ms)
            if record.event.key == key and first <= record.offset < end:
                yield _Copy(place, record.offset, record.event, newest_ms, before_ms, end_ms)


def _newest_ms(log: SimulatedLog, place: Place) -> float:
    """Newest event time of a partition."""
    times_ms = [record.event.event_time_ms for record in log.everything[place].records if record.event is not None]
    return max(times_ms, default=-math.inf)


def _possible_counts(copies: Sequence[_Copy], letters: Collection[Position]) -> list[int]:
    """How many of an event's copies may count."""
    lettered = [(copy.place, copy.offset) in letters for copy in copies]
    if len(copies) == 1:
        return [0, 1] if lettered[0] else [1]
    counts = {0} if all(lettered) else set[int]()
    for size in range(1, len(copies) + 1):
        if any(
            not any(_is_remembered(*pair) for pair in itertools.combinations(chosen, 2))
            for chosen in itertools.combinations(copies, size)
        ):
            counts.add(size)
    return sorted(counts)


def _is_remembered(one: _Copy, other: _Copy) -> bool:
    """Whether the id of the one that came first is surely known when the other one comes."""
    if one.place == other.place:
        first, second = sorted((one, other), key=lambda copy: copy.offset)
        return second.before_ms - first.reached_ms < HORIZON_MS
    # In whatever order partitions are read: neither has moved on by a horizon since.
    return all(copy.end_ms - copy.reached_ms < HORIZON_MS for copy in (one, other))
