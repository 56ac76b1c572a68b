"""When a changed definition takes over: not before it has read what it is to answer from, on a real store."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dataflows.logs.file_log import FileLog
from dataflows.plan.stream_plan import PlanWatch, StreamPlan, make_stream_plan
from dataflows.plan.tile_store import OnlineTileStore
from dataflows.run_outcome import Conductor
from featurestore.core.spec import SourceSpec, TopicSpec, ViewSpec
from featurestore.errors import EventsLost
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import DAY_MS, SOURCE
from tests.serving.payments import LANES, MERCHANT_ACTIVITY, NOW_MS, PROJECT, Payments, event_of

RECORD_COUNT = 3
"""Records of the topic that the changed view reads and the serving one does not."""

NEW_TOPIC = "payments_2"

CHANGES = {
    "moved": replace(SOURCE, topic=NEW_TOPIC),
    "added": replace(SOURCE, more_topics=(TopicSpec(NEW_TOPIC),)),
}


class Changing:
    """A view that serves, its changed definition that fills, and the log both read."""

    def __init__(self, store: RedisStore, directory: Path, source: SourceSpec) -> None:
        self.clock = ManualClock(now_ms=NOW_MS)
        self.directory = directory
        self.payments = Payments(store, self.clock)
        self.tiles = OnlineTileStore(store, PROJECT, self.clock)
        self.changed: ViewSpec = replace(MERCHANT_ACTIVITY, source=source)
        self.grow(SOURCE.topic, 1)
        self.grow(NEW_TOPIC, RECORD_COUNT)
        self.serving = self.payments.write(MERCHANT_ACTIVITY, events(1))

    def grow(self, topic: str, count: int) -> None:
        """Append records."""
        (self.directory / topic).mkdir(exist_ok=True)
        with (self.directory / topic / "0.jsonl").open("ab") as file:
            file.write(b"{}\n" * count)

    def plan(self) -> StreamPlan:
        """As the flow plans."""
        return make_stream_plan(self.tiles, FileLog(self.directory), [self.changed])

    def watch(self, plan: StreamPlan) -> PlanWatch:
        """As the flow watches."""
        return PlanWatch(plan, self.tiles, FileLog(self.directory), Conductor(), self.clock, may_replan=True)

    def fill(self, generation: Generation, topic: str, count: int, *, first: int = 0) -> None:
        """The filling generation reads records of a topic."""
        source = replace(SOURCE, topic=topic)
        writer = self.tiles.writer(generation, range(LANES), self.tiles.positions(generation))
        writer.open()
        view = replace(self.changed, source=source)
        writer.write([keyed_batch(view, events(count), from_offset=first, lane_count=LANES)])
        writer.close()

    def serves(self, watch: PlanWatch) -> int:
        """Number of the generation that serves after two looks: one notes the target, one compares."""
        watch.promote_caught_up()
        watch.promote_caught_up()
        serving = self.payments.catalog.serving(MERCHANT_ACTIVITY.name)
        assert serving is not None
        return serving.number


def events(count: int) -> list[NaiveEvent]:
    """Some events of one merchant."""
    return [event_of(b"7", NOW_MS - 1 - number) for number in range(count)]


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """An empty store."""
    connected = connect(redis_url)
    yield connected
    connected.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_definition_serves_only_after_it_has_read_its_new_topic(
    store: RedisStore, tmp_path: Path, change: str
) -> None:
    """Nothing that serves has read that topic, so it must be read as far as it went when the flow was planned."""
    changing = Changing(store, tmp_path, CHANGES[change])
    plan = changing.plan()
    [filling] = plan.catch_up.generations
    watch = changing.watch(plan)
    old = changing.serving.number

    if change == "added":
        changing.fill(filling, SOURCE.topic, 1)
    assert changing.serves(watch) == old, "nothing of the new topic was read"
    changing.fill(filling, NEW_TOPIC, RECORD_COUNT - 1)
    assert changing.serves(watch) == old, "a record is missing"
    changing.fill(filling, NEW_TOPIC, 1, first=RECORD_COUNT - 1)
    assert changing.serves(watch) == filling.number


def test_a_topic_that_grows_faster_than_it_is_read_is_caught_up_with(store: RedisStore, tmp_path: Path) -> None:
    """What was there when the flow was planned is the target; it does not move with the log."""
    changing = Changing(store, tmp_path, CHANGES["moved"])
    plan = changing.plan()
    [filling] = plan.catch_up.generations
    watch = changing.watch(plan)
    changing.grow(NEW_TOPIC, 100)
    changing.fill(filling, NEW_TOPIC, RECORD_COUNT)

    assert changing.serves(watch) == filling.number


def test_a_topic_without_records_keeps_nobody_waiting(store: RedisStore, tmp_path: Path) -> None:
    """Its end is its beginning."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "0.jsonl").touch()
    changing = Changing(store, tmp_path, replace(SOURCE, topic="empty"))
    plan = changing.plan()
    [filling] = plan.catch_up.generations

    assert changing.serves(changing.watch(plan)) == filling.number


def test_a_view_whose_records_are_gone_gives_way_to_one_that_can_be_read(store: RedisStore, tmp_path: Path) -> None:
    """What serves is fed no more; with nothing to take its place the stream stops, and says why."""
    changing = Changing(store, tmp_path, CHANGES["moved"])
    changing.plan()
    (tmp_path / SOURCE.topic / "0.jsonl").write_bytes(b"")

    plan = changing.plan()
    assert () == plan.live.generations
    assert [changing.serving.number + 1] == [one.number for one in plan.catch_up.generations]
    changing.changed = MERCHANT_ACTIVITY
    with pytest.raises(EventsLost, match="has 0 records, 1 were read from it before"):
        changing.plan()


def test_a_topic_with_fewer_partitions_than_were_read_is_one_reason(store: RedisStore, tmp_path: Path) -> None:
    """One that fills is parked, and what serves goes on."""
    changing = Changing(store, tmp_path, CHANGES["added"])
    [filling] = changing.plan().catch_up.generations
    changing.grow(SOURCE.topic, 1)
    changing.fill(filling, SOURCE.topic, 1)
    changing.fill(filling, NEW_TOPIC, 1)
    (tmp_path / NEW_TOPIC / "0.jsonl").rename(tmp_path / NEW_TOPIC / "1.jsonl")

    plan = changing.plan()
    assert [MERCHANT_ACTIVITY.name] == [one.view.name for one in plan.live.generations]
    assert () == plan.catch_up.generations
    assert GenerationState.ROLLED_BACK is changing.payments.catalog.generations(MERCHANT_ACTIVITY.name)[-1].state


def test_a_view_does_not_give_way_to_one_that_lacks_its_history(store: RedisStore, tmp_path: Path) -> None:
    """It would be answered from, and stand still, until the other one has filled for as long as its windows."""
    changing = Changing(store, tmp_path, CHANGES["moved"])
    changing.plan()
    (tmp_path / SOURCE.topic / "0.jsonl").write_bytes(b"")

    with pytest.raises(EventsLost, match="1 were read from it before"):
        make_stream_plan(changing.tiles, TrimmedLog(tmp_path), [changing.changed])


def test_a_changed_view_takes_over_once_it_has_filled_for_as_long_as_its_windows(
    store: RedisStore, tmp_path: Path
) -> None:
    """In the life of one process: since when it fills is known to the plan that opened it."""
    changing = Changing(store, tmp_path, CHANGES["moved"])
    changing.changed = replace(changing.changed, retention_ms=DAY_MS)
    plan = make_stream_plan(changing.tiles, TrimmedLog(tmp_path), [changing.changed])
    [filling] = plan.catch_up.generations
    changing.fill(filling, NEW_TOPIC, RECORD_COUNT)
    watch = PlanWatch(plan, changing.tiles, TrimmedLog(tmp_path), Conductor(), changing.clock, may_replan=True)

    assert changing.serves(watch) == changing.serving.number, "the topic does not hold a day"
    changing.clock.advance_ms(DAY_MS + changing.changed.lookback_ms + 1)
    assert changing.serves(watch) == filling.number


class TrimmedLog(FileLog):
    """One that has removed something, some time."""

    def reaches_back(self, source: SourceSpec, partitions: Collection[int], since_ms: int) -> bool:
        """Not that far."""
        return False


def test_a_spoilt_record_of_topics_costs_its_generation_alone(store: RedisStore, tmp_path: Path) -> None:
    """Another one is filled in its place, and the rest go on."""
    changing = Changing(store, tmp_path, CHANGES["moved"])
    changing.plan()
    store._client().set(changing.serving.keys.incarnations(0), b"{not json")

    numbers = [one.number for stage in changing.plan().stages for one in stage.generations]
    assert changing.serving.number not in numbers
    assert [changing.serving.number + 1] == numbers
