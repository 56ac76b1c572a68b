"""What is published, and when, held against two loops over time; it dies at any moment, and goes on.

events ──> [ store that lags ] ──> publisher ──> [ output that dies before or after a commit ] ──> messages
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.log_to_features.changes import Change, ChangedEntities, Place
from dataflows.log_to_features.publisher import LastPublished, Message, Policy, Publisher
from dataflows.log_to_features.schedule import Schedule
from dataflows.log_to_features.vectors import Vector, Vectors, Wanted
from featurestore.testing.clock import ManualClock

WINDOW_MS, HOP_MS = 10_000, 1_000
PLACE: Place = ("payments", 0)
BEGIN_MS = 1_790_000_000_000


def count_at(events: Sequence[int], as_of_ms: int, *, slides: bool = True) -> int:
    """Events in the window, on its grid, or of all time."""
    begin_ms = (as_of_ms - WINDOW_MS) // HOP_MS * HOP_MS if slides else 0
    return sum(begin_ms <= event < as_of_ms for event in events)


@dataclass
class Record:
    """An event of the log."""

    key: bytes
    time_ms: int


@dataclass
class Store:
    """A store that has the log up to some offset, and answers a count over a window."""

    log: list[Record]
    clock: ManualClock
    at_least: int
    slides: bool = True
    reached: int = 0

    def read(self, wanted: Sequence[Wanted]) -> Vectors:
        """As VectorReader, over what was reached."""
        found, behind = [], []
        for row in wanted:
            if row.needs.get(PLACE, 0) > self.reached:
                behind.append(row)
            else:
                found.append(self.vector(row))
        return Vectors(found, behind, ())

    def vector(self, row: Wanted) -> Vector:
        """Of one key."""
        now_ms = self.clock.now_ms()
        as_of_ms = max(now_ms, row.not_before_ms)
        events = self.times(row.key, self.reached)
        count = count_at(events, as_of_ms, slides=self.slides)
        changes = [(event // HOP_MS + 1) * HOP_MS + WINDOW_MS for event in events]
        changes += [event + 1 for event in events]
        following = min((change for change in changes if change > as_of_ms), default=None)
        return Vector(
            row.key, {}, {"count": count}, {}, as_of_ms, None, {}, {}, count, following, count >= self.at_least
        )

    def times(self, key: bytes, offset: int) -> list[int]:
        """Event times of a key before an offset."""
        return [record.time_ms for record in self.log[:offset] if record.key == key]


class Died(Exception):
    """The process."""


@dataclass
class Topic:
    """An output in memory; dies as it is told."""

    messages: list[Message] = field(default_factory=list)
    committed: dict[Place, int] = field(default_factory=dict)
    dies: str = ""

    def positions(self) -> Mapping[Place, int]:
        """Committed ones."""
        return dict(self.committed)

    def published(self) -> Iterable[tuple[bytes, LastPublished]]:
        """All messages."""
        for one in self.messages:
            digest = None if one.is_removal else one.vector.digest
            yield one.vector.key, LastPublished(one.vector.as_of_ms, digest, one.vector.next_change_ms)

    def close(self) -> None:
        """See Output."""

    def commit(self, messages: Sequence[Message], positions: Mapping[Place, int]) -> None:
        """Both, or nothing."""
        dies, self.dies = self.dies, ""
        if dies == "before":
            raise Died
        self.messages += messages
        self.committed = dict(positions)
        if dies == "after":
            raise Died

    def of(self, key: bytes) -> list[tuple[int, int | None]]:
        """(read time, count) of a key's messages; None for a removal."""
        mine = [one for one in self.messages if one.vector.key == key]
        return [(one.vector.as_of_ms, None if one.is_removal else one.vector.digest) for one in mine]


@dataclass
class Run:
    """A publisher with its surroundings."""

    policy: Policy
    store: Store
    topic: Topic
    publisher: Publisher
    taken: int = 0

    def step(self, upto: int) -> None:
        """Read the log on, and publish as the sink does."""
        if upto > self.taken:
            changes: dict[bytes, Change] = {}
            for offset in range(self.taken, upto):
                record = self.store.log[offset]
                known = changes.get(record.key)
                time_ms = max(record.time_ms, known.event_time_ms if known else record.time_ms)
                changes[record.key] = Change(offset + 1, time_ms)
            self.publisher.take(ChangedEntities(PLACE, upto, changes))
            self.taken = upto
        self.publisher.publish()


def begin(policy: Policy, store: Store, topic: Topic) -> Run:
    """A process that starts."""
    return Run(policy, store, topic, Publisher(store, topic, policy, store.clock), topic.positions().get(PLACE, 0))


POLICIES = (
    Policy(only_changes=True),
    Policy(follows_windows=True),
    Policy(follows_windows=True, pause_ms=3_000),
    Policy(pause_ms=5_000),
)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("at_least", [0, 2])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_change_is_published_once_whatever_dies(policy: Policy, at_least: int, data: st.DataObject) -> None:
    """No message repeats the one before it, pauses are kept, and at rest the last one is what a lookup says."""
    clock = ManualClock(now_ms=BEGIN_MS)
    store, topic = Store([], clock, at_least, policy.follows_windows), Topic()
    run = begin(policy, store, topic)
    for _ in range(data.draw(st.integers(1, 25), label="steps")):
        clock.advance_ms(data.draw(st.integers(0, 4_000), label="ms"))
        for _ in range(data.draw(st.integers(0, 3), label="events")):
            key = data.draw(st.sampled_from([b"a", b"b"]), label="key")
            store.log.append(Record(key, clock.now_ms() + data.draw(st.integers(-2_000, 50), label="time")))
        if not run.publisher.is_behind:
            upto = data.draw(st.integers(run.taken, len(store.log)), label="read")
        else:
            upto = run.taken
        store.reached = data.draw(st.integers(store.reached, len(store.log)), label="reached")
        topic.dies = data.draw(st.sampled_from(["", "", "", "before", "after"]), label="dies")
        try:
            run.step(upto)
        except Died:
            run = begin(policy, store, topic)
        topic.dies = ""
    store.reached = len(store.log)
    for _ in range(40):
        run.step(len(store.log))
        clock.advance_ms(HOP_MS)
    run.step(len(store.log))

    for key in (b"a", b"b"):
        messages = topic.of(key)
        values = [value for _, value in messages]
        assert all(before != after for before, after in pairwise(values))
        assert all(after - before >= policy.pause_ms for (before, _), (after, _) in pairwise(messages))
        events = store.times(key, store.reached)
        if not events:
            assert messages == []
        else:
            now = count_at(events, clock.now_ms(), slides=store.slides)
            assert (values[-1] if values else None) == (now if now >= at_least else None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_change_of_a_window_is_published_in_time(data: st.DataObject) -> None:
    """Looked at every second, whatever a lookup would say at any of these moments is what was published last."""
    clock = ManualClock(now_ms=BEGIN_MS)
    store, topic = Store([], clock, 0), Topic()
    run = begin(Policy(follows_windows=True), store, topic)
    for _ in range(data.draw(st.integers(2, 30))):
        if data.draw(st.booleans()):
            store.log.append(Record(b"a", clock.now_ms() - data.draw(st.integers(0, 12_000))))
            store.reached = len(store.log)
        clock.advance_ms(1)
        run.step(len(store.log))
        if store.log:
            assert topic.of(b"a")[-1][1] == count_at(store.times(b"a", len(store.log)), clock.now_ms())
        clock.advance_ms(999)
        if data.draw(st.integers(0, 5)) == 0:
            run = begin(run.policy, store, topic)


def test_every_event_is_worth_a_message_unless_changes_are_asked_for() -> None:
    """Two events that leave the count as it is: two messages, or one."""
    for policy, expected in ((Policy(), 2), (Policy(only_changes=True), 1)):
        clock = ManualClock(now_ms=BEGIN_MS)
        store, topic = Store([], clock, 0), Topic()
        run = begin(policy, store, topic)
        for _ in range(2):
            store.log.append(Record(b"a", BEGIN_MS - 60_000))
            store.reached = len(store.log)
            clock.advance_ms(1_000)
            run.step(len(store.log))
        assert expected == len(topic.messages)


@pytest.mark.parametrize("policy", [Policy(), Policy(only_changes=True), Policy(follows_windows=True)], ids=str)
def test_an_event_that_is_ahead_does_not_go_again(policy: Policy) -> None:
    """One of a clock that is fast, and then one of now: both are in the last message, which is not of a time before."""
    clock = ManualClock(now_ms=BEGIN_MS)
    store, topic = Store([Record(b"a", BEGIN_MS + 5_000)], clock, 0, reached=1), Topic()
    run = begin(policy, store, topic)
    run.step(1)
    store.log.append(Record(b"a", BEGIN_MS))
    store.reached = 2
    clock.advance_ms(10)
    run.step(2)

    assert [(BEGIN_MS + 5_001, 1), (BEGIN_MS + 5_001, 2)] == topic.of(b"a")


def test_positions_are_committed_also_without_messages() -> None:
    """Once a second at most."""
    clock = ManualClock(now_ms=BEGIN_MS)
    store, topic = Store([], clock, 5), Topic()
    run = begin(Policy(), store, topic)
    for _ in range(3):
        store.log.append(Record(b"a", BEGIN_MS))
        store.reached = len(store.log)
        clock.advance_ms(600)
        run.step(len(store.log))

    assert (0, {PLACE: 2}) == (len(topic.messages), topic.committed)


def test_positions_that_do_not_move_are_committed_again() -> None:
    """All of them, those of partitions that this run has read nothing of included: Kafka forgets old offsets."""
    clock, silent = ManualClock(now_ms=BEGIN_MS), ("payments", 1)
    store, topic = Store([Record(b"a", BEGIN_MS)], clock, 5, reached=1), Topic(committed={silent: 7})
    run = begin(Policy(), store, topic)
    clock.advance_ms(1_000)
    run.step(1)
    assert {silent: 7, PLACE: 1} == topic.committed
    topic.committed = {}
    run.step(1)
    assert topic.committed == {}
    clock.advance_ms(3_600_000)
    run.step(1)

    assert {silent: 7, PLACE: 1} == topic.committed


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.booleans())))
def test_a_schedule_gives_each_key_at_its_earliest_moment(steps: list[tuple[int, int, bool]]) -> None:
    """Held against a dictionary."""
    schedule, naive = Schedule(), dict[bytes, int]()
    for number, moment, is_take in steps:
        key = b"%d" % number
        if is_take:
            due = sorted((when, one) for one, when in naive.items() if when <= moment)
            assert [one for _, one in due][:2] == schedule.take(moment, 2)
            for _, one in due[:2]:
                del naive[one]
        else:
            schedule.put(key, moment)
            naive[key] = min(moment, naive.get(key, moment))
        assert len(schedule) == len(naive)
