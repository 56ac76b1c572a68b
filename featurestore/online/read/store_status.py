"""What the online store holds of each view: generations, checkpoints, freshness, memory. For people and tools.

    generations record  -> number, state, definition
    lane checkpoints    -> next offset of each partition (of the least advanced lane), watermark, fencing epoch
    some of the keys    -> entities and their size

Only reads. While somebody writes, figures of two lanes may lie a commit apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from featurestore.clock import Clock
from featurestore.core.spec import Expectation, FreshnessPromise, PinnedView, UsualHours, ViewSpec
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.online.eviction import StoreMemory
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_sizes import MemoryOverview, measure
from featurestore.online.serving_view import (
    Definition,
    ServingView,
    definition_of,
    pinned_views,
    served_definitions,
    views_of,
)
from featurestore.online.store import OnlineStore
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.counts.contracts import ExpectationState, UsualState, decode_counts, states_of, usual_states
from featurestore.wire.counts.freshness import PromiseState, promise_states
from featurestore.wire.store_layout import (
    Checkpoint,
    contracts_key,
    decode_checkpoint,
    freshness_key,
    layout_key,
    partition_of,
    smallest_positions,
)

Ends = Mapping[tuple[str, int], int]
"""(topic, partition) -> offset behind the last record of the source."""


@dataclass(frozen=True, slots=True)
class PartitionOverview:
    """How far a generation has read one partition.

    Attributes:
        topic, partition: which.
        next_offset: everything before it is applied in every lane; 0 when some lane has not seen the partition.
        end_offset: where the source ends; None when that is not known.
        lag_records: records still to come; None when that is not known.
    """

    topic: str
    partition: int
    next_offset: int
    end_offset: int | None
    lag_records: int | None


@dataclass(frozen=True, slots=True)
class GenerationOverview:
    """One generation of a stream view.

    Attributes:
        view: name of the view, or of the storage group.
        views: names of the views that it holds: itself, or the members of the group.
        number: generation, from 1.
        state: filling, serving or retired.
        definition_hash: of the definition it holds.
        is_registered_definition: whether that is what is registered now.
        lanes: lanes that a writer has opened.
        watermark_ms: newest event time applied, 0 before the first.
        freshness_ms: clock minus watermark; None before the first event.
        partitions: how far it has read.
        memory: its size; None when it was not measured.
        damaged: what is wrong with entities that were set aside, of which readers are refused: some of them.
        replaces: number of the generation that a rollback returns to; None for none.
        is_for_ever: no entity of it is ever forgotten.
        broken: names of the expectations that the records of its source break.
        packs: how many it has, of all lanes; 0 where every entity has keys of its own.
        expected_entities: of what is registered now; 0 where nobody says, or it is not registered.
    """

    view: str
    views: tuple[str, ...]
    number: int
    state: str
    definition_hash: str
    is_registered_definition: bool
    lanes: int
    watermark_ms: int
    freshness_ms: int | None
    partitions: tuple[PartitionOverview, ...]
    memory: MemoryOverview | None = None
    damaged: tuple[str, ...] = ()
    replaces: int | None = None
    is_for_ever: bool = False
    broken: tuple[str, ...] = ()
    packs: int = 0
    expected_entities: int = 0

    @property
    def lag_records(self) -> int | None:
        """Records still to come; None when the source's ends are not known."""
        lags = [each.lag_records for each in self.partitions if each.lag_records is not None]
        return sum(lags) if lags else None


@dataclass(frozen=True, slots=True)
class PinOverview:
    """A version that feature services pin.

    Attributes:
        version: such as "card_activity@v2".
        services: that pin it.
        definition_hash: of that version.
        stored_as: the view or storage group that answers for it, such as "card_activity"; "" while nothing does.
        number: generation of that; 0 while nothing does.
    """

    version: str
    services: tuple[str, ...]
    definition_hash: str
    stored_as: str
    number: int


@dataclass(frozen=True, slots=True)
class StoreOverview:
    """What a project has in the store.

    Attributes:
        project: Feast project.
        lane_count: lanes of the store; None when nobody has written to it yet.
        as_of_ms: the clock when it was looked at.
        generations: of all stream views, by view and number.
        plain: size of each plain view that has values; empty when sizes were not measured.
        unstreamed: registered stream views without a generation.
        server: memory of the servers, and whether they evict; None where that may not be seen.
        pins: versions that feature services pin.
        contracts: how the records of the sources meet what is expected of them.
        usual_hours: how their hours do.
        promises: how views keep what is promised of their freshness.
    """

    project: str
    lane_count: int | None
    as_of_ms: int
    generations: tuple[GenerationOverview, ...]
    plain: Mapping[str, MemoryOverview]
    unstreamed: tuple[str, ...]
    server: StoreMemory | None = None
    pins: tuple[PinOverview, ...] = ()
    contracts: tuple[ExpectationState, ...] = ()
    usual_hours: tuple[UsualState, ...] = ()
    promises: tuple[PromiseState, ...] = ()


def look_over(
    store: OnlineStore,
    project: str,
    clock: Clock,
    *,
    registered: Sequence[ViewSpec] = (),
    pinned: Sequence[PinnedView] = (),
    expectations: Sequence[Expectation] = (),
    usual_hours: Sequence[UsualHours] = (),
    promises: Sequence[FreshnessPromise] = (),
    ends: Ends | None = None,
    measures_memory: bool = False,
) -> StoreOverview:
    """Look at everything a project has in the store.

    Args:
        store: the online store.
        project: Feast project.
        clock: for freshness.
        registered: what is to be stored (`stored_views`), to tell what is not streamed yet, or by an older definition.
        pinned: versions that feature services pin.
        expectations: what is expected of the sources' records.
        usual_hours: what is expected of their hours.
        promises: what is promised of the views' freshness.
        ends: where the sources end, for the lag; None when that is not known.
        measures_memory: list keys and ask for sizes; takes a scan of up to KEYS_LISTED_MAX keys.

    Raises:
        OnlineStoreDown, CorruptData, StoreMismatch: see GenerationCatalog.
    """
    catalog = GenerationCatalog(store, project)
    # Asking the catalog would fix the number of lanes where nobody has yet, and that is the writer's choice.
    lane_count = catalog.lane_count() if store.read_groups([[layout_key(project)]])[0] is not None else None
    wanted = {view.name: view for view in registered}
    wanted |= {name: storage_group(name, members) for name, members in plan_storage(registered).groups.items()}
    by_name = catalog.all()
    served = {definition: found[0] for definition, found in served_definitions(by_name).items()}
    known = [one for _, generations in sorted(by_name.items()) for one in generations]
    found = [
        _describe(
            one,
            read_checkpoints(store, one, lane_count or 0),
            wanted.get(one.view.name),
            now_ms=clock.now_ms(),
            ends=ends or {},
        )
        for one in known
    ]
    contracts, hours = read_contracts(store, project, expectations, usual_hours)
    stems = {(one.view.name, one.number): one.keys.stem for one in known}
    sizes = measure(store, project, {one.keys.stem: one for one in known}) if measures_memory else {}
    return StoreOverview(
        project=project,
        lane_count=lane_count,
        as_of_ms=clock.now_ms(),
        generations=tuple(
            replace(one, memory=sizes.get(stems[one.view, one.number]), broken=_broken(of, (*contracts, *hours)))
            for one, of in zip(found, known, strict=True)
        ),
        plain={stem: size for stem, size in sorted(sizes.items()) if stem not in stems.values() and "@" not in stem},
        unstreamed=_unstreamed(registered, served, found),
        server=store.memory(),
        pins=_pins(pinned, served),
        contracts=contracts,
        usual_hours=hours,
        promises=read_promises(store, project, promises, clock.now_ms()),
    )


def _unstreamed(
    registered: Sequence[ViewSpec], served: Mapping[Definition, ServingView], found: Sequence[GenerationOverview]
) -> tuple[str, ...]:
    """Registered views that nothing holds."""
    missing = {view.name for view in registered if definition_of(view) not in served}
    return tuple(sorted(missing - {name for one in found for name in one.views}))


def _broken(generation: Generation, contracts: Sequence[ExpectationState | UsualState]) -> tuple[str, ...]:
    """What the records of a generation's source break."""
    source = generation.view.source.name
    return tuple(one.name for one in contracts if one.is_broken and one.source == source)


def read_contracts(
    store: OnlineStore, project: str, expectations: Sequence[Expectation], usual_hours: Sequence[UsualHours] = ()
) -> tuple[tuple[ExpectationState, ...], tuple[UsualState, ...]]:
    """How the records and the hours of the sources meet what is expected of them, as the stream has kept it.

    Raises:
        OnlineStoreDown, CorruptData: it cannot be read.
    """
    if not expectations and not usual_hours:
        return (), ()
    fields = store.hash_fields(contracts_key(project))
    counts = {partition_of(name): decode_counts(data) for name, data in fields.items()}
    return tuple(states_of(expectations, counts)), tuple(usual_states(usual_hours, counts))


def read_promises(
    store: OnlineStore, project: str, promises: Sequence[FreshnessPromise], now_ms: int
) -> tuple[PromiseState, ...]:
    """How views keep what is promised of their freshness, as the stream has kept it.

    Raises:
        OnlineStoreDown, CorruptData: it cannot be read.
    """
    return tuple(promise_states(promises, store.hash_fields(freshness_key(project)), now_ms)) if promises else ()


def _pins(pinned: Sequence[PinnedView], served: Mapping[Definition, ServingView]) -> tuple[PinOverview, ...]:
    """What answers for each version."""
    answering = pinned_views(served, pinned)
    return tuple(
        PinOverview(
            one.view.name,
            one.services,
            definition_hash(one.view),
            "" if (by := answering.get(one.view.name)) is None else by.generation.view.name,
            0 if by is None else by.generation.number,
        )
        for one in pinned
    )


def read_checkpoints(store: OnlineStore, generation: Generation, lane_count: int) -> list[Checkpoint]:
    """The checkpoint of each lane of a generation, empty ones included."""
    keys = [generation.keys.checkpoint(lane) for lane in range(lane_count)]
    return [decode_checkpoint(data) for data in store.read_groups([[key] for key in keys])]


def _describe(
    generation: Generation,
    checkpoints: Sequence[Checkpoint],
    registered: ViewSpec | None,
    *,
    now_ms: int,
    ends: Ends,
) -> GenerationOverview:
    """Checkpoints of all lanes as one row."""
    watermark_ms = max((checkpoint.watermark_ms for checkpoint in checkpoints), default=0)
    positions = smallest_positions([checkpoint.next_offsets() for checkpoint in checkpoints])
    topics = generation.view.source.topics
    partitions = sorted({*positions, *(each for each in ends if each[0] in topics)})
    is_read = generation.state.is_fed  # nobody reads for the others, so nothing is to come
    return GenerationOverview(
        view=generation.view.name,
        views=tuple(each.view.name for each in views_of(generation)),
        damaged=generation.damaged,
        replaces=generation.replaces,
        is_for_ever=generation.view.retention_ms is None,
        number=generation.number,
        state=str(generation.state),
        definition_hash=generation.definition_hash,
        is_registered_definition=registered is not None and definition_hash(registered) == generation.definition_hash,
        packs=generation.packs * len(checkpoints),
        expected_entities=0 if registered is None else registered.expected_entities,
        lanes=sum(checkpoint.epoch > 0 for checkpoint in checkpoints),
        watermark_ms=watermark_ms,
        freshness_ms=now_ms - watermark_ms if watermark_ms else None,
        partitions=tuple(
            _partition(each, positions.get(each, 0), ends.get(each) if is_read else None) for each in partitions
        ),
    )


def _partition(partition: tuple[str, int], next_offset: int, end_offset: int | None) -> PartitionOverview:
    lag_records = None if end_offset is None else max(0, end_offset - next_offset)
    return PartitionOverview(partition[0], partition[1], next_offset, end_offset, lag_records)
