"""Fill a generation from recorded events, lane by lane, for the stream to go on from there.

    recorded events ─ by lane ─ fold ─> heads, bodies and packs ─ commits of some hundred ───┐
                                                            positions, watermark, recent ids ─┴─ last commit of the lane

A lane whose checkpoint has positions is complete; one without is not, and is computed anew after a crash. Each commit
compares the checkpoint, whose epoch was raised when the lane was begun: a second bootstrap, or one that wakes up after
the generation was handed over, cannot write into it, nor delete anything of it. Lanes may end at different positions,
when some were computed by an earlier run: the stream reads from the smallest, and each lane skips what it has.

Nobody reads the generation meanwhile (it is BOOTSTRAPPING), so unlike the stream's its commits may be many to a lane.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from featurestore.clock import Clock
from featurestore.core.events import BlobRow, Horizon, Int64Array
from featurestore.core.point_in_time.rows import EntityEvents
from featurestore.errors import InvalidRequest, StoreRolledBack, WriterFenced
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.store import LaneCommit, OnlineStore
from featurestore.online.write.bootstrap_fold import EntityFolder, StoredEntity
from featurestore.online.write.bootstrap_packs import into_packs
from featurestore.online.write.erasure.book import erased_keys
from featurestore.online.write.lanes import LaneErased, is_erased
from featurestore.online.write.new_rows import hash_entity_ids
from featurestore.online.write.pack_folding import ENTITY_ROWS_MAX
from featurestore.online.write.writer import TOKEN_BYTES
from featurestore.wire.erasures import ErasedKeys
from featurestore.wire.incarnations import Incarnations, decode_incarnations, encode_incarnations
from featurestore.wire.store_layout import Checkpoint, decode_checkpoint, encode_checkpoint, stored_horizons

COMMIT_ENTITIES = 512
COMMIT_BYTES = 1 << 20
"""Most entities and, about, bytes of one commit: while it applies one, the server answers nobody else."""

TOKEN_MARK = "bootstrap-"
"""What the tokens of a bootstrap begin with, and those of a stream do not."""

ID_BUCKET = 0
"""Where the recent ids go: the stream's own clock goes on from there."""

_REPORT_NOTHING_BYTES = 1 << 40

Positions = Mapping[tuple[str, int], int]


class EventPart(Protocol):
    """Events of some entities of one lane, all that there are of them."""

    @property
    def keys(self) -> Sequence[bytes]:
        """Canonical entity keys."""
        ...

    @property
    def events(self) -> EntityEvents:
        """Their events in order of arrival; `entity` is an index into `keys`."""
        ...

    @property
    def recent_ids(self) -> BlobRow | None:
        """Ids that a retry may still bring again; None where the source declares none."""
        ...

    @property
    def recent_entity(self) -> Int64Array | None:
        """Whose they are: for each of them an index into `keys`."""
        ...


@dataclass(frozen=True, slots=True)
class _Part:
    """See EventPart."""

    keys: Sequence[bytes]
    events: EntityEvents
    recent_ids: BlobRow | None
    recent_entity: Int64Array | None


class RecordedEvents(Protocol):
    """A view's events at rest."""

    @property
    def positions(self) -> Positions:
        """Next offset of each (topic, partition): exactly the events before them are here."""
        ...

    @property
    def incarnations(self) -> Incarnations:
        """Which topics they were read from, as far as that is known."""
        ...

    @property
    def horizons(self) -> Mapping[tuple[str, int], Horizon]:
        """Where the horizons of partitions stand there, where their events replace one another."""
        ...

    def parts(self, lane: int) -> Iterator[EventPart]:
        """The events of a lane, each entity in one part."""
        ...


@dataclass(frozen=True, slots=True)
class LaneReport:
    """What became of one lane.

    Attributes:
        lane: its number.
        events: events that were given.
        entities: entities written.
        stored_bytes: bytes of their heads and bodies.
        ids: event ids that were handed on.
    """

    lane: int
    events: int = 0
    entities: int = 0
    stored_bytes: int = 0
    ids: int = 0


def missing_lanes(store: OnlineStore, generation: Generation, lane_count: int, positions: Positions) -> list[int]:
    """Lanes of a bootstrapping generation that are not complete.

    Args:
        store: the online store.
        generation: which.
        lane_count: lanes of the store.
        positions: of the events; a lane that knows other partitions is computed anew.
    """
    stored = _read_checkpoints(store, generation, lane_count)
    return [lane for lane, data in enumerate(stored) if not _is_complete(decode_checkpoint(data), positions)]


def hand_over(store: OnlineStore, generation: Generation, lane_count: int) -> Generation:
    """Give a generation to the stream, which brings it up to date.

    Raises:
        WriterFenced: a lane is not complete (any more), or was computed from other partitions than the rest.
        InvalidRequest: it is not being bootstrapped any more, or a topic was made anew meanwhile.
    """
    _require_same_topics(store, generation, lane_count)
    checkpoints = [decode_checkpoint(data) for data in _read_checkpoints(store, generation, lane_count)]
    partitions = {(topic, number) for topic, number, _ in checkpoints[0].positions}
    unlike = [lane for lane, one in enumerate(checkpoints) if not _is_complete(one, partitions)]
    catalog = GenerationCatalog(store, generation.project)
    # A generation that is not being bootstrapped any more says so itself.
    if unlike and _is_bootstrapping(catalog, generation):
        raise WriterFenced(
            f"lane {unlike[0]} of {generation.view.title} is not complete",
            detail="Another bootstrap is at work on it, or was.",
            hint="let the other one finish, or run the bootstrap again",
        )
    return catalog.hand_over(generation)


def fill_lanes(
    store: OnlineStore,
    generation: Generation,
    events: RecordedEvents,
    lanes: Iterable[int],
    clock: Clock,
    on_lane: Callable[[LaneReport], None] = lambda report: None,
) -> None:
    """Compute and commit some lanes, one after the other.

    Args:
        store: the online store.
        generation: a BOOTSTRAPPING one.
        events: what to compute from.
        lanes: from `missing_lanes`.
        clock: bounds roll-ups, and says when keys expire.
        on_lane: told of each lane that is complete.

    Raises:
        WriterFenced: another bootstrap of the generation was begun, or completed and handed over.
        StoreRolledBack: the store lost what was committed; begin again.
        OnlineStoreDown: the store does not answer; begin again, complete lanes are kept.
    """
    for lane in lanes:
        on_lane(_filled(_LaneFiller(store, generation, lane, clock), lane, events))


def _filled(filler: _LaneFiller, lane: int, events: RecordedEvents) -> LaneReport:
    """Compute a lane, from its beginning again whenever somebody's data was erased from it meanwhile."""
    while True:
        try:
            return filler.fill(events) if filler.open(events.positions) else LaneReport(lane)
        except LaneErased:
            continue


def _require_same_topics(store: OnlineStore, generation: Generation, lane_count: int) -> None:
    """Refuse lanes of which some were computed from a topic that was made anew since.

    Raises:
        InvalidRequest: there are such.
    """
    seen: dict[tuple[str, int], str] = {}
    for data in store.read_groups([[generation.keys.incarnations(lane)] for lane in range(lane_count)]):
        for place, which in decode_incarnations(data).items():
            if seen.setdefault(place, which) != which:
                raise InvalidRequest(
                    f'topic "{place[0]}" was made anew since the bootstrap of generation {generation.number} of '
                    f"{generation.view.title} was begun",
                    hint=f"run `featurestore bootstrap {generation.view.name} --anew`",
                )


def _read_checkpoints(store: OnlineStore, generation: Generation, lane_count: int) -> Sequence[bytes | None]:
    """Checkpoints of all lanes, as they are stored."""
    return store.read_groups([[generation.keys.checkpoint(lane)] for lane in range(lane_count)])


def _is_complete(checkpoint: Checkpoint, partitions: Collection[tuple[str, int]]) -> bool:
    """Whether a lane was bootstrapped to its end, from these partitions."""
    return bool(partitions) and {(topic, number) for topic, number, _ in checkpoint.positions} == set(partitions)


def _is_bootstrapping(catalog: GenerationCatalog, generation: Generation) -> bool:
    """Whether the generation is still a bootstrap's to fill."""
    found = (one for one in catalog.generations(generation.view.name) if one.number == generation.number)
    return any(one.state is GenerationState.BOOTSTRAPPING for one in found)


class _LaneFiller:
    """The only writer of one lane while it is bootstrapped."""

    def __init__(self, store: OnlineStore, generation: Generation, lane: int, clock: Clock) -> None:
        self._store = store
        self._generation = generation
        self._keys = generation.keys
        self._lane = lane
        self._clock = clock
        self._catalog = GenerationCatalog(store, generation.project)
        self._checkpoint = Checkpoint()
        self._watermark_ms = 0
        self._erased = ErasedKeys((), ())

    def open(self, positions: Positions) -> bool:
        """Take the lane and delete what an unfinished run left; False when it is complete meanwhile.

        Raises:
            WriterFenced: the generation is the stream's by now.
        """
        token, key = TOKEN_MARK + secrets.token_hex(TOKEN_BYTES), self._keys.checkpoint(self._lane)
        [stored] = self._store.read_groups([[key]])
        while True:
            old = decode_checkpoint(stored)
            # Asked after the checkpoint was read: a stream that takes the lane from now on changes the checkpoint, and
            # the comparison fails.
            is_streams = bool(old.writer) and not old.writer.startswith(TOKEN_MARK)
            if is_streams or not _is_bootstrapping(self._catalog, self._generation):
                self._refuse_late()
            if _is_complete(old, positions):
                return False
            self._checkpoint = Checkpoint(epoch=old.epoch + 1, writer=token)
            replacement = encode_checkpoint(self._checkpoint)
            [outcome] = self._store.commit([LaneCommit(key, stored or b"", replacement)])
            if outcome.applied or outcome.found == replacement:
                break
            stored = outcome.found
        # After the lane is taken: whoever erases something from here on makes the next commit fail.
        self._erased = erased_keys(self._store, self._generation)
        if old.epoch > 0:
            self._delete_leftovers()
        return True

    def _delete_leftovers(self) -> None:
        """Delete all keys of the lane, by commits that compare the checkpoint: another one's keys are not ours."""
        key, prefix = self._keys.checkpoint(self._lane), self._keys.body_prefix(self._lane)
        names = (name for name in self._store.scan(self._keys.pattern(self._lane)) if name != key)
        while chunk := list(itertools.islice(names, COMMIT_ENTITIES)):
            stored = encode_checkpoint(self._checkpoint)
            self._send(LaneCommit(key, stored, stored, body_prefix=prefix, deletions=chunk))

    def fill(self, events: RecordedEvents) -> LaneReport:
        """Write all entities, then the checkpoint that makes the lane complete."""
        folder = EntityFolder(self._generation, self._clock.now_ms())
        report, hashes = LaneReport(self._lane), [np.empty(0, dtype=np.uint64)]
        for part in (self._unerased(one) for one in events.parts(self._lane)):
            count = len(part.events.event_time_ms)
            if count:
                self._watermark_ms = max(self._watermark_ms, int(part.events.event_time_ms.max()))
            if part.recent_ids is not None and len(part.recent_ids):
                assert part.recent_entity is not None, "whoever knows ids knows whose they are"
                hashes.append(np.unique(hash_entity_ids(part.recent_ids.values(), part.keys, part.recent_entity)))
            report = replace(report, events=report.events + count)
            small = list[StoredEntity]()
            for chunk in _chunks(self._apart(folder.fold(part.keys, part.events), small)):
                report = _added(report, len(chunk), chunk)
                self._commit(self._checkpoint, chunk)
            report = replace(report, entities=report.entities + len(small))
            for packs, left in into_packs(self._store, self._generation, self._lane, small, self._clock.now_ms()):
                report = _added(report, 0, left, packs)
                self._commit(self._checkpoint, left, packs=packs)
        ids = np.unique(np.concatenate(hashes))
        positions = tuple((*partition, offset) for partition, offset in sorted(events.positions.items()))
        complete = replace(
            self._checkpoint,
            watermark_ms=self._watermark_ms,
            positions=positions,
            id_buckets=((ID_BUCKET, len(ids)),) if len(ids) else (),
            horizons=stored_horizons(events.horizons),
        )
        beside = []
        if len(ids):
            beside.append((self._keys.id_bucket(self._lane, ID_BUCKET), ids.astype("<u8").tobytes()))
        if events.incarnations:
            # In the step that keeps the positions: which topics they belong to, whatever has their names by now.
            beside.append((self._keys.incarnations(self._lane), encode_incarnations(events.incarnations)))
        self._commit(complete, (), beside)
        return replace(report, ids=len(ids))

    def _unerased(self, part: EventPart) -> EventPart:
        """The part without the events that were erased."""
        events = part.events
        is_kept = self._erased.kept(part.keys, events.entity, events.event_time_ms)
        if is_kept is None:
            return part
        # Ids of what was erased may stay: a retry of it is not counted either.
        return _Part(part.keys, events.take(np.flatnonzero(is_kept)), part.recent_ids, part.recent_entity)

    def _apart(self, entities: Iterable[StoredEntity], small: list[StoredEntity]) -> Iterator[StoredEntity]:
        """Those that get keys of their own; the others, where there are packs, are added to `small`."""
        for one in entities:
            if self._generation.packs and one.head and one.rows <= ENTITY_ROWS_MAX:
                small.append(one)
            else:
                yield one

    def _commit(
        self,
        checkpoint: Checkpoint,
        entities: Sequence[StoredEntity],
        beside: Sequence[tuple[bytes, bytes]] = (),
        packs: Sequence[tuple[bytes, bytes, bytes]] = (),
    ) -> None:
        """One atomic step. It may be sent twice, when the answer was lost: every key is written whole.

        Args:
            checkpoint: what the lane's will be.
            entities: heads and bodies to set.
            beside: (key, bytes) of keys that are not there yet.
            packs: (body key, head key, body) of packs to set.
        """
        heads = self._keys.head_prefix(self._lane)
        bodies = self._keys.body_prefix(self._lane)
        with_head = [one for one in entities if one.head]
        commit = LaneCommit(
            checkpoint_key=self._keys.checkpoint(self._lane),
            expected=encode_checkpoint(self._checkpoint),
            replacement=encode_checkpoint(checkpoint),
            # An empty body deletes the head before the append: so the head is set, not added to.
            bodies=[*((bodies + one.key, heads + one.key, one.body) for one in entities), *packs],
            head_prefix=heads,
            body_prefix=bodies,
            entities=[one.key for one in with_head],
            appends=[one.head for one in with_head],
            id_appends=beside,
            expire_ms=self._generation.expire_ms(max(self._watermark_ms - self._clock.now_ms(), 0)),
            report_bytes_min=_REPORT_NOTHING_BYTES,
        )
        self._send(commit)
        self._checkpoint = checkpoint

    def _send(self, commit: LaneCommit) -> None:
        """Apply a commit, or say who was there before."""
        [outcome] = self._store.commit([commit])
        if not outcome.applied and outcome.found != commit.replacement:
            self._refuse(decode_checkpoint(outcome.found))

    def _refuse_late(self) -> None:
        """The generation was handed over, or retired, meanwhile: nothing of it may be changed."""
        raise WriterFenced(
            f"generation {self._generation.number} of {self._generation.view.title} is not being bootstrapped any more",
            detail="Another bootstrap completed it, or a newer definition was registered, meanwhile.",
            hint="see `featurestore status`; run the bootstrap again if the view still needs it",
        )

    def _refuse(self, found: Checkpoint) -> None:
        """Tell a successor from a store that went back in time."""
        if is_erased(found, self._checkpoint):
            raise LaneErased(self._generation, self._lane)
        place = f"lane {self._lane} of {self._generation.view.title}"
        if found.epoch >= self._checkpoint.epoch:
            raise WriterFenced(
                f"another bootstrap took over {place}",
                detail=f"It holds epoch {found.epoch}, this one had {self._checkpoint.epoch}.",
                hint="let the other one finish",
            )
        raise StoreRolledBack(f"the online store went back in time at {place}", hint="run the bootstrap again")


def _added(
    report: LaneReport,
    entities: int,
    stored: Sequence[StoredEntity],
    packs: Sequence[tuple[bytes, bytes, bytes]] = (),
) -> LaneReport:
    """With so many entities more, and what was written."""
    size = sum(len(one.head) + len(one.body) for one in stored) + sum(len(body) for _, _, body in packs)
    return replace(report, entities=report.entities + entities, stored_bytes=report.stored_bytes + size)


def _chunks(entities: Iterable[StoredEntity]) -> Iterator[list[StoredEntity]]:
    """Entities in the portions of one commit."""
    chunk, size = list[StoredEntity](), 0
    for one in entities:
        chunk.append(one)
        size += len(one.head) + len(one.body)
        if len(chunk) == COMMIT_ENTITIES or size >= COMMIT_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
