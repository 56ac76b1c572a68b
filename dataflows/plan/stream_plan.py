"""What a flow writes and from where: which generations are live, which still catch up, and when that changes.

    live        what readers see; its stage follows the head of the log
    catch_up    a new generation, or a view that is far behind: reads the log from its own position in a stage of its
                own, so that the live features stay fresh meanwhile

A catch-up generation that has come as far as the live ones were a moment ago is promoted, unless it takes the place of
another one and lacks events that its windows reach, or that one alone answers for a version that is pinned; and the
flow is planned again: it joins the live stage, and nobody
writes the generation it replaces any more. Of a partition that no live one has read, such as those of a topic that a
view has moved to, it must have come as far as the log went when the plan was made: a target that moved with the log
might never be reached. The flow is also planned again when somebody else has changed what is to be fed: a generation
was bootstrapped from the event log and is handed over, or a view was rolled back. One that is still being bootstrapped
belongs to whoever does that, and is not in a plan.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dataflows.logs.sources import PartitionStart, SourceLog
from dataflows.plan.readable import readable_generations
from dataflows.plan.recalls import Recalls, recalls_of
from dataflows.plan.starts import ends_of, starts_of
from dataflows.plan.tile_store import Positions, TileStore
from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.spec import ViewSpec
from featurestore.core.windows.durations import format_duration
from featurestore.errors import EventsLost, InvalidRequest, InvariantBroken, StoreMismatch, Unavailable
from featurestore.online.eviction import refuse_eviction
from featurestore.online.generation import Generation, GenerationDamaged, GenerationState
from featurestore.online.registration import lost_versions, takes_a_place
from featurestore.wire.store_layout import smallest_positions

BEHIND_RECORDS_MAX = 10_000
"""A serving view that lags the most advanced one of its topic by more than this catches up on its own."""

WATCH_INTERVAL_MS = 1_000
PARTITION_WATCH_INTERVAL_MS = 30_000
HISTORY_WATCH_INTERVAL_MS = 30_000

FedGeneration: TypeAlias = tuple[str, int, str, GenerationState]
"""View, number, definition and state of a generation that the stream feeds."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stage:
    """Generations that are written by one chain of steps, and the partitions it reads.

    Attributes:
        name: "live" or "catch_up".
        generations: at most one of each view.
        starts: every partition of their topics, with its first offset.
        positions: how far each generation had come, by view and number.
        recalls: what is read again of partitions whose events replace one another.
    """

    name: str
    generations: tuple[Generation, ...]
    starts: tuple[PartitionStart, ...]
    positions: Mapping[tuple[str, int], Positions]
    recalls: Recalls = field(default_factory=Recalls)

    @property
    def topics(self) -> frozenset[str]:
        """Topics the stage reads."""
        return frozenset(topic for generation in self.generations for topic in generation.view.source.topics)

    def positions_of(self, generation: Generation) -> Positions:
        """How far one of its generations had come when it was planned."""
        return self.positions[_identity(generation)]


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Both stages of a flow; each may be empty.

    Attributes:
        live, catch_up: the stages.
        lane_count: lanes of the store.
        views: what the plan is for.
        names: of what is fed of them: views that are stored by themselves, and storage groups.
        are_current: whether the views are what is registered.
        fed: what there was to feed when the plan was made, of all views of the store.
        ends: where the log ended when the plan was made, of partitions to catch up with that no live generation has
            read.
    """

    live: Stage
    catch_up: Stage
    lane_count: int
    views: tuple[ViewSpec, ...]
    names: frozenset[str]
    are_current: bool
    fed: frozenset[FedGeneration]
    ends: Mapping[tuple[str, int], int]

    @property
    def stages(self) -> tuple[Stage, Stage]:
        """Live first."""
        return self.live, self.catch_up


def make_stream_plan(
    store: TileStore, log: SourceLog, views: Sequence[ViewSpec], *, are_current: bool = True
) -> StreamPlan:
    """Register the views and find out where each generation stands.

    Args:
        store: the online store.
        log: where events come from.
        views: what to feed.
        are_current: False for definitions that may be outdated: they are not registered, and what the store has of
            them is fed.

    Raises:
        Unavailable: the store or the log does not answer.
        EventsLost: what serves can be brought up to date no more; checked again when readers open.
        StoreMismatch: the store evicts keys.
    """
    store.require_usable()
    while True:
        names = store.register(views) if are_current else store.fed_names(views)
        try:
            for one in store.generations():
                if one.view.name in names and not one.is_opened:
                    store.lane_positions(one)  # opens it: when that was is in its record from now on
            found = store.generations()
            generations = [generation for generation in found if generation.view.name in names]
            lanes = {_identity(generation): store.lane_positions(generation) for generation in generations}
            readable = readable_generations(store, log, generations, lanes)
            live, catch_up = _divide(readable, _smallest(readable, lanes))
            recalls = [recalls_of(store, of_stage, lanes, log) for of_stage in (live, catch_up)]
        except GenerationDamaged as damage:
            store.replace_damaged(damage)
        else:
            break
    # What was parked is not fed from now on.
    parked = {one for one in generations if one not in readable and one.state is GenerationState.FILLING}
    positions = _smallest(readable, lanes)
    catch_up_starts = starts_of(catch_up, lanes, recalls[1], log)
    return StreamPlan(
        live=Stage("live", live, starts_of(live, lanes, recalls[0], log), positions, recalls[0]),
        catch_up=Stage("catch_up", catch_up, catch_up_starts, positions, recalls[1]),
        lane_count=store.lane_count,
        views=tuple(views),
        names=names,
        are_current=are_current,
        fed=_fed(one for one in found if one not in parked),
        ends=ends_of(catch_up_starts, [positions[_identity(generation)] for generation in live], log),
    )


def _smallest(
    generations: Iterable[Generation], lanes: Mapping[tuple[str, int], Sequence[Positions]]
) -> dict[tuple[str, int], Positions]:
    """How far each generation has come."""
    return {_identity(one): smallest_positions(lanes[_identity(one)]) for one in generations}


def _fed(generations: Iterable[Generation]) -> frozenset[FedGeneration]:
    """Generations and what they are."""
    return frozenset((one.view.name, one.number, one.definition_hash, one.state) for one in generations)


def _identity(generation: Generation) -> tuple[str, int]:
    """What tells two generations apart."""
    return generation.view.name, generation.number


def _divide(
    generations: Sequence[Generation], positions: Mapping[tuple[str, int], Positions]
) -> tuple[tuple[Generation, ...], tuple[Generation, ...]]:
    """Live generations, and those that must catch up."""
    live: list[Generation] = []
    catch_up: list[Generation] = []
    for generation in generations:
        if generation.state is GenerationState.SERVING:
            peers = [
                positions[_identity(peer)]
                for peer in generations
                if peer.state is GenerationState.SERVING
                and set(peer.view.source.topics) == set(generation.view.source.topics)
            ]
            is_behind = _records_behind(positions[_identity(generation)], peers) > BEHIND_RECORDS_MAX
            (catch_up if is_behind else live).append(generation)
        else:
            catch_up.append(generation)
    return tuple(live), tuple(catch_up)


def _records_behind(own: Positions, peers: Iterable[Positions]) -> int:
    """Most records that some peer has read and this one has not."""
    return max(
        (sum(max(0, offset - own.get(partition, 0)) for partition, offset in peer.items()) for peer in peers),
        default=0,
    )


class PlanWatch:
    """Promotes generations that have caught up, and ends the flow when its plan is outdated.

    Args:
        plan: what runs.
        store: the online store.
        log: where events come from.
        conductor: told to plan again.
        clock: processing time.
        may_replan: False under a runner that cannot plan again: promote, and leave the rest to the next start.
    """

    def __init__(
        self,
        plan: StreamPlan,
        store: TileStore,
        log: SourceLog,
        conductor: Conductor,
        clock: Clock,
        *,
        may_replan: bool,
    ) -> None:
        self._plan = plan
        self._store = store
        self._log = log
        self._conductor = conductor
        self._clock = clock
        self._may_replan = may_replan
        self._targets: dict[tuple[str, int], Positions] = {}
        self._caught_up: set[tuple[str, int]] = set()
        self._told_of_pins: set[tuple[str, int]] = set()
        self._next_history_check_ns: dict[tuple[str, int], int] = {}
        self._next_check_ns = 0
        self._is_outdated = False
        self._evicted_keys: int | None = None
        self._next_partition_check_ns = clock.monotonic_ns() + PARTITION_WATCH_INTERVAL_MS * NS_PER_MS

    def tick(self) -> None:
        """Look, if it is time to; what does not answer is asked again at the next look.

        How long an outage may last is for the sources and writers to say, who are held up by it.
        """
        try:
            try:
                self._look()
            except GenerationDamaged as damage:
                self._store.replace_damaged(damage)
        except Unavailable as error:
            _logger.warning("%s; looking again later", error.message)
        except EventsLost as error:  # a topic was made anew; a new plan tells whose events are lost
            if not self._may_replan:
                raise
            self._conductor.end(RunOutcome.REBUILD, error.message)

    def _look(self) -> None:
        """Everything that it is time for."""
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._next_check_ns:
            self._next_check_ns = now_ns + WATCH_INTERVAL_MS * NS_PER_MS
            self._look_for_generations()
            if self._plan.catch_up.generations:
                self.promote_caught_up()
        if now_ns >= self._next_partition_check_ns:
            self._next_partition_check_ns = now_ns + PARTITION_WATCH_INTERVAL_MS * NS_PER_MS
            self._look_for_partitions()
            self._look_for_merges()
            self._look_at_memory()

    def _look_at_memory(self) -> None:
        """End the flow when the store has begun to evict, and raise the alarm over what was evicted."""
        memory = self._store.memory()
        evicted = 0 if memory is None else memory.evicted_keys
        if self._evicted_keys is not None and evicted > self._evicted_keys:
            _logger.error("the online store has evicted %d keys; values may be wrong", evicted - self._evicted_keys)
        self._evicted_keys = evicted
        try:
            refuse_eviction(memory)
        except StoreMismatch as error:
            self._conductor.fail(error)

    def promote_caught_up(self) -> None:
        """Promote what has reached the positions that the live generations had at the previous look.

        Of partitions that none of them had read when the plan was made, it must have reached the end of that time.
        """
        live = [self._store.positions(one) for one in self._plan.live.generations]
        for generation in self._plan.catch_up.generations:
            identity = _identity(generation)
            if identity in self._caught_up:
                continue
            target = self._targets.get(identity)
            if target is not None and _has_reached(self._store.positions(generation), target):
                if self._lacks_history(generation) or self._is_pinned_before(generation):
                    continue
                self._caught_up.add(identity)
                if generation.state is GenerationState.FILLING:
                    try:
                        self._store.promote(generation)
                    except InvalidRequest as error:  # it was retired since the last look; the next one plans again
                        _logger.warning("%s", error.message)
                        continue
                title = generation.view.title
                _logger.info("%s generation %d has caught up and serves", title, generation.number)
                if self._may_replan:
                    self._conductor.end(RunOutcome.REBUILD, f"{title} has caught up")
            topics = generation.view.source.topics
            # A live generation that has just begun with a topic is behind the end.
            self._targets[identity] = {**_furthest(live, topics), **_furthest([self._plan.ends], topics)}

    def _lacks_history(self, generation: Generation) -> bool:
        """Whether one that takes the place of another has not seen all events that its windows reach.

        Readers would get smaller values for a changed definition, or for a damaged store. So it waits until the log
        reaches back far enough, until it has filled for so long itself, or until the history is bootstrapped.
        """
        if generation.is_bootstrapped or generation.state is not GenerationState.FILLING:
            return False
        if generation.number == 1 and not takes_a_place(self._store.known(), generation):
            return False
        view, identity, now_ns = generation.view, _identity(generation), self._clock.monotonic_ns()
        if now_ns < self._next_history_check_ns.get(identity, now_ns):
            return True
        kept_ms = view.retention_ms
        since_ms = 0 if kept_ms is None else max(0, self._clock.now_ms() - kept_ms - view.lookback_ms)
        if generation.is_opened and generation.opened_ms <= since_ms:
            return False
        partitions: dict[str, list[int]] = {}
        for start in self._plan.catch_up.starts:
            partitions.setdefault(start.source.topic, []).append(start.partition)
        short = [
            one.topic
            for one in view.source.per_topic
            if not self._log.reaches_back(one, partitions[one.topic], since_ms)
        ]
        if not short:
            return False
        if identity not in self._next_history_check_ns:
            _logger.warning(
                '%s generation %d has read what there is, and waits: topic "%s" does not hold all '
                "events%s any more; run `featurestore bootstrap %s`",
                view.title,
                generation.number,
                short[0],
                "" if kept_ms is None else f" of the last {format_duration(kept_ms)}",
                view.name,
            )
        self._next_history_check_ns[identity] = now_ns + HISTORY_WATCH_INTERVAL_MS * NS_PER_MS
        return True

    def _is_pinned_before(self, generation: Generation) -> bool:
        """Whether what a generation takes the place of is all that answers for a version that some service pins."""
        waiting = lost_versions(self._store.known(), generation.view.name, generation, self._plan.views)
        if waiting and _identity(generation) not in self._told_of_pins:
            self._told_of_pins.add(_identity(generation))
            text = "%s generation %d has caught up, and waits for %s, which a feature service pins, to serve by itself"
            _logger.info(text, generation.view.title, generation.number, ", ".join(waiting))
        return bool(waiting)

    def _look_for_generations(self) -> None:
        """Plan again when something else is to be fed than was planned."""
        known = self._store.known()
        fed = _fed(one for of_view in known.values() for one in of_view if one.state.is_fed)
        # A store that was emptied knows no view, which looks like nothing to feed.
        changed = {view for view, *_ in fed ^ self._plan.fed} | (self._plan.names - set(known))
        if not changed or self._is_outdated:
            return
        self._is_outdated = True
        views = ", ".join(f'"{view}"' for view in sorted(changed))
        _logger.info("generations of feature view %s have changed", views)
        if self._may_replan:
            self._conductor.end(RunOutcome.REBUILD, f"generations of feature view {views} have changed")

    def _look_for_merges(self) -> None:
        """Plan again when views that are stored by themselves are to be stored together with others."""
        due = self._store.due_merges(self._store.known(), self._plan.views) if self._plan.are_current else ()
        if due and self._may_replan:
            _logger.info("storage group %s fills anew, with all its views", ", ".join(f'"{name}"' for name in due))
            self._conductor.end(RunOutcome.REBUILD, "views are to be stored together")

    def _look_for_partitions(self) -> None:
        """Plan again when a topic has got more partitions."""
        for stage in self._plan.stages:
            for source in {start.source.topic: start.source for start in stage.starts}.values():
                planned = {start.partition for start in stage.starts if start.source.topic == source.topic}
                added = set(self._log.partitions(source)) - planned
                if added:
                    _logger.info('topic "%s" has new partitions %s', source.topic, sorted(added))
                    if self._may_replan:
                        self._conductor.end(RunOutcome.REBUILD, f'topic "{source.topic}" has new partitions')


def _furthest(positions: Iterable[Mapping[tuple[str, int], int]], topics: Collection[str]) -> Positions:
    """The largest next offset of each partition of some topics."""
    furthest: Positions = {}
    for one in positions:
        for partition, offset in one.items():
            if partition[0] in topics:
                furthest[partition] = max(offset, furthest.get(partition, 0))
    return furthest


def _has_reached(own: Positions, target: Positions) -> bool:
    """Every partition of the target has been read at least as far."""
    return all(own.get(partition, 0) >= offset for partition, offset in target.items())


def find_generation(stage: Stage, view_name: str) -> Generation:
    """The generation of a view that a stage writes.

    Raises:
        InvariantBroken: processes of one cluster made different plans.
    """
    for generation in stage.generations:
        if generation.view.name == view_name:
            return generation
    raise InvariantBroken(
        f'stage "{stage.name}" received events of feature view "{view_name}", which it does not write',
        detail="The processes of the cluster planned differently.",
        hint="restart all of them together, with the same registry",
    )
