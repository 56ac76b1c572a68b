"""Delete what a generation's lanes hold of somebody, beside the stream that writes them.

    lane of the entity ─ read checkpoint and keys ─ all of it older than the erasure ─ one commit: keys gone, checkpoint
                                                                                       another one, if it was as read

A commit compares the checkpoint, as the stream's own do, and changes it. So the stream's next commit of the lane is
refused, whatever it was about to write: rows that it had read before, a body that it had made of the old one, a pack.
It opens the lane again, learns what was erased, and prepares the commit anew without it. Nobody waits for anybody, and
where no stream runs nothing is different.

An entity key of several parts may have the value anywhere: then the lanes are told first, so that nothing older is
added any more, and all keys of the generation are gone through.

What an entity holds is deleted whole. It may have an event by then that is not erased, as it happened since: then the
erasure is to reach further (`NewerEvents`), and is done again from the beginning.

An erasure of only what is older than a moment of the past keeps what is newer: head rows and tiles of before go, the
others are written anew. A tile that spans the moment cannot be cut: its entity stays as it is, and is counted
(`GenerationEraser.uncut`). A generation that begins later has no such tile: its writer leaves the older events out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from featurestore.clock import Clock
from featurestore.core.tiles.tiles import TileTable
from featurestore.errors import CorruptData, CorruptTile, Unavailable
from featurestore.online.generation import Generation
from featurestore.online.store import LaneCommit, OnlineStore
from featurestore.online.write.compaction import rolled_up
from featurestore.online.write.erasure.book import join_key_names
from featurestore.online.write.new_rows import packed_appends
from featurestore.wire.codecs.body import decode_entity, entity_codec
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.pack import MEMBERS_MAX, records_of
from featurestore.wire.codecs.pack_members import Packs, read_packs
from featurestore.wire.entity_key import fingerprint, lane_of, pack_of, packs_of, split_key
from featurestore.wire.erasures import NOTHING_ERASED_MS
from featurestore.wire.store_layout import Checkpoint, decode_checkpoint, encode_checkpoint

KEYS_AT_ONCE = 256
"""Entities, and packs, that are deleted in one commit of a lane."""

PACKS_READ_AT_ONCE = 512

TRIES = 200
"""Of one commit, each against a stream that was faster: it commits ten times a second, a try takes a millisecond."""

_PAUSE_SECONDS = 0.003


class NewerEvents(Exception):
    """An entity has an event that the erasure does not reach.

    Attributes:
        newest_ms: no event of it is newer.
    """

    def __init__(self, newest_ms: int) -> None:
        super().__init__(newest_ms)
        self.newest_ms = newest_ms


@dataclass(frozen=True, slots=True)
class Found:
    """What a generation holds of somebody.

    Attributes:
        entities: by lane, keys of entities that may have keys of their own.
        packs: by lane, numbers of packs that may have such entities.
    """

    entities: Mapping[int, Sequence[bytes]]
    packs: Mapping[int, Sequence[bytes]]


class Reach(Protocol):
    """What is erased of a generation's entities; `wire.erasures.ErasedKeys` is one."""

    def before_ms(self, key: bytes) -> int:
        """Events of an entity before this are erased; NOTHING_ERASED_MS where none are."""
        ...


class ReachOfValue:
    """All entities of a value of one of a generation's join keys, before a moment.

    Args:
        generation: has the join key.
        join_key: its name.
        value: canonical bytes.
        before_ms: what the record says that writers read.

    Attributes:
        key: the entity, where there is one at most.
    """

    def __init__(self, generation: Generation, join_key: str, value: bytes, before_ms: int) -> None:
        names = join_key_names(generation)
        self._part, self._part_count = names.index(join_key), len(names)
        self._value, self._before_ms = value, before_ms
        self.key = value if self._part_count == 1 else None

    def before_ms(self, key: bytes) -> int:
        """See Reach."""
        is_of_value = split_key(key, self._part_count)[self._part] == self._value
        return self._before_ms if is_of_value else NOTHING_ERASED_MS


class GenerationEraser:
    """Erases entities, or what is older of them, from one generation.

    Args:
        store: the online store.
        generation: in any state.
        lane_count: lanes of the store.
        reach: what is erased.
        clock: for expiry, and to wait.
        on_keys: told of keys that were gone through.
        keeps_newer: events of then or later stay, those of an entity that has older ones too.

    Attributes:
        fingerprints: of entities that it has erased: what errors call them.
        uncut: entities left as they are, as one of their tiles spans the moment.
    """

    def __init__(
        self,
        store: OnlineStore,
        generation: Generation,
        lane_count: int,
        reach: Reach,
        clock: Clock,
        on_keys: Callable[[int], None] = lambda keys: None,
        *,
        keeps_newer: bool = False,
    ) -> None:
        self._store = store
        self._generation = generation
        self._lane_count = lane_count
        self._reach = reach
        self._only = reach.key if isinstance(reach, ReachOfValue) else None
        self._clock = clock
        self._on_keys = on_keys
        self._keeps_newer = keeps_newer
        self.uncut = 0
        self.fingerprints = set[str]() if self._only is None else {fingerprint(self._only)}
        self._compiled = generation.compiled

    def erase(self) -> int:
        """Delete what is erased; of how many entities there was something.

        Raises:
            NewerEvents: some have an event of then or later, beside older ones.
            CorruptTile: a pack that may have one is not as it was written.
            OnlineStoreDown: the store does not answer.
        """
        if self._only is not None:
            lane = lane_of(self._only, self._lane_count)
            packs = self._generation.packs
            numbers = [b"%d" % pack_of(self._only, packs)] if packs else []
            return self._erase_from(lane, [self._only], numbers)
        for lane in range(self._lane_count):
            self._erase_from(lane, [], [])
        found, erased = self.found(), 0
        for lane in range(self._lane_count):
            for entities in _chunks(found.entities.get(lane, ())):
                erased += self._erase_from(lane, entities, [])
            for packs_of_lane in _chunks(found.packs.get(lane, ())):
                erased += self._erase_from(lane, [], packs_of_lane)
        return erased

    def entities(self) -> list[bytes]:
        """Keys of entities that have anything that is erased: what a verification wants to know."""
        found, remaining = self.found(), list[bytes]()
        for lane in sorted({*found.entities, *found.packs}):
            keys = found.entities.get(lane, ())
            own = self._store.read_groups([self._own_keys(lane, key) for key in keys])
            for index, key in enumerate(keys):
                tiles = self._tiles(own[2 * index], own[2 * index + 1])
                if tiles is not None and _has_older(tiles, self._reach.before_ms(key)):
                    remaining.append(key)
            for numbers in _chunks(found.packs.get(lane, ())):
                packs = self._read_packs(self._store.read_groups([self._pack_keys(lane, one) for one in numbers]))
                chosen = self._members(packs)
                remaining += [
                    key
                    for key, one in ((packs.key(one), one) for one in chosen)
                    if _has_older(self._member(packs, one), self._reach.before_ms(key))
                ]
        return remaining

    def found(self) -> Found:
        """Where the generation may hold something that is erased."""
        if self._only is not None:
            lane, packs = lane_of(self._only, self._lane_count), self._generation.packs
            numbers = [b"%d" % pack_of(self._only, packs)] if packs else []
            return Found({lane: [self._only]}, {lane: numbers})
        entities: dict[int, set[bytes]] = {}
        packs_of_lane: dict[int, set[bytes]] = {}
        keys, begin = self._generation.keys, len(self._generation.keys.stem) + 1
        for key in self._store.scan(keys.pattern()):
            self._on_keys(1)
            if not keys.has(key):
                continue
            tag, _, rest = key.partition(b"}")
            lane, kind, name = int(tag.rpartition(b"/")[2]), rest[begin : begin + 2], rest[begin + 2 :]
            if kind in (b"h/", b"b/") and self._is_meant(name):
                entities.setdefault(lane, set()).add(name)
            elif kind in (b"H/", b"B/"):
                packs_of_lane.setdefault(lane, set()).add(name)
        having = {lane: self._having(lane, sorted(numbers)) for lane, numbers in packs_of_lane.items()}
        return Found({lane: sorted(names) for lane, names in entities.items()}, having)

    def _having(self, lane: int, numbers: Sequence[bytes]) -> list[bytes]:
        """Packs that have entities that are meant, or cannot be read."""
        found = []
        for first in range(0, len(numbers), PACKS_READ_AT_ONCE):
            chunk = numbers[first : first + PACKS_READ_AT_ONCE]
            values = self._store.read_groups([self._pack_keys(lane, one) for one in chunk])
            packs, wrong = read_packs(self._compiled, list(zip(values[0::2], values[1::2], strict=True)))
            found += [chunk[number] for number in wrong]
            numbers_of = np.searchsorted(packs.ends, self._members(packs), side="right").tolist()
            found += [chunk[number] for number in dict.fromkeys(numbers_of)]
        return found

    def _erase_from(self, lane: int, entities: Sequence[bytes], packs: Sequence[bytes]) -> int:
        """One commit that deletes some entities of a lane and tells its writer; how many there were."""
        checkpoint_key = self._generation.keys.checkpoint(lane)
        for _ in range(TRIES):
            own = [key for entity in entities for key in self._own_keys(lane, entity)]
            of_packs = [key for pack in packs for key in self._pack_keys(lane, pack)]
            [stored, *values] = self._store.read_groups([[checkpoint_key, *own, *of_packs]])
            checkpoint = _checkpoint_of(stored)
            # Nothing of the lane is newer.
            newest_ms = None if checkpoint is None else checkpoint.watermark_ms
            uncut = self.uncut
            gone = self._gone(entities, values[: len(own)], newest_ms)
            bodies = [(*self._own_keys(lane, entity), body) for entity, body in gone.items()]
            commit = LaneCommit(
                checkpoint_key,
                stored or b"",
                # One that is lost or spoilt is found so by its writer, and nobody adds anything meanwhile.
                (stored or b"") if checkpoint is None else encode_checkpoint(_told(checkpoint)),
                bodies,
                head_prefix=self._generation.keys.head_prefix(lane),
                body_prefix=self._generation.keys.body_prefix(lane),
                expire_ms=self._expire_ms(checkpoint),
            )
            erased = len(gone)
            if packs:
                rewritten, commit = self._without_members(commit, lane, packs, values[len(own) :], newest_ms)
                erased += rewritten
            [outcome] = self._store.commit([commit])
            if outcome.applied or outcome.found == commit.replacement:
                self.fingerprints.update(map(fingerprint, gone))
                return erased
            self.uncut = uncut
            self._clock.sleep(_PAUSE_SECONDS)
        raise Unavailable(
            f"lane {lane} of {self._generation.view.title} is written too often for an erasure to come between",
            hint="run the same command again; what it has erased stays so",
        )

    def _gone(
        self, entities: Sequence[bytes], values: Sequence[bytes | None], newest_ms: int | None
    ) -> dict[bytes, bytes]:
        """Those that lose something, and what body they have then: none, if all of it is older than the erasure.

        One whose bytes are damaged is among them.
        """
        gone, newer = dict[bytes, bytes](), dict[bytes, TileTable]()
        for index, key in enumerate(entities):
            body, head = values[2 * index], values[2 * index + 1]
            if not body and not head:
                continue
            before_ms = self._reach.before_ms(key)
            tiles = None if newest_ms is not None and newest_ms < before_ms else self._tiles(body, head)
            if tiles is None or self._is_erased(tiles, before_ms):
                gone[key] = b""
            elif self._keeps_newer and int(tiles.start_ms.min()) < before_ms:
                rest = _since(tiles, before_ms)
                if rest is None:
                    self.uncut += 1
                else:
                    newer[key] = rest
        bodies = rolled_up(self._generation, [*newer.values()], self._clock.now_ms())
        return gone | dict(zip(newer, bodies, strict=True))

    def _is_erased(self, tiles: TileTable, before_ms: int) -> bool:
        """Whether all of an entity is older than the erasure; False where all of it is newer.

        A tile that is wider than an event ends before the entity's newest event, so no end is later than that.

        Raises:
            NewerEvents: some of it may be, and some not, and it is to be deleted whole.
        """
        if int(tiles.start_ms.min()) >= before_ms:
            return False
        newest_ms = int(tiles.end_ms.max()) - 1
        if newest_ms >= before_ms and not self._keeps_newer:
            raise NewerEvents(newest_ms)
        return newest_ms < before_ms

    def _without_members(
        self,
        commit: LaneCommit,
        lane: int,
        numbers: Sequence[bytes],
        values: Sequence[bytes | None],
        newest_ms: int | None,
    ) -> tuple[int, LaneCommit]:
        """A commit that also writes packs without what is erased; of how many entities that is."""
        packs = self._read_packs(values)
        gone, newer = list[int](), dict[int, bytes]()
        for one in self._members(packs):
            before_ms = self._reach.before_ms(packs.key(one))
            is_older = newest_ms is not None and newest_ms < before_ms
            if is_older or self._is_erased(tiles := self._member(packs, one), before_ms):
                gone.append(one)
            elif self._keeps_newer and int(tiles.start_ms.min()) < before_ms:
                newer[one] = head_codec(self._compiled).since(packs.rows(one), before_ms)
        if not gone and not newer:
            return 0, commit
        stays = np.ones(len(packs.counts), dtype=np.bool_)
        stays[[*gone, *newer]] = False
        changed = set(np.searchsorted(packs.ends, [*gone, *newer], side="right").tolist())
        # A body has so many members at most; what the head has beyond them is appended again.
        beyond = [one for number in changed for one in _of_pack(packs, stays, number)[MEMBERS_MAX:]]
        stays[beyond] = False
        # So is what stays of an entity that loses its older rows.
        again = {one: packs.rows(one) for one in beyond} | newer
        keys, rows = [packs.key(one) for one in again], [*again.values()]
        bodies = packs.bodies(stays)
        written = [(*self._pack_keys(lane, numbers[number]), bodies[number]) for number in sorted(changed)]
        commit = replace(commit, bodies=[*commit.bodies, *written])
        if again:
            pack = packs_of(keys, self._generation.packs)
            packed = packed_appends(self._generation.keys, lane, pack, records_of(keys, rows))
            commit = replace(commit, packed=packed, entities=keys)
        return len(gone) + len(newer), commit

    def _read_packs(self, values: Sequence[bytes | None]) -> Packs:
        """Packs that are as they were written.

        Raises:
            CorruptTile: one is not: nobody can say whose rows are in it.
        """
        packs, wrong = read_packs(self._compiled, list(zip(values[0::2], values[1::2], strict=True)))
        for error in wrong.values():
            raise CorruptTile(
                f"a pack of {self._generation.view.title} generation {self._generation.number} is damaged",
                detail=f"It may hold what is to be erased. {error.message}",
                hint="let another generation fill (`featurestore bootstrap`), drop this one, and erase again",
            ) from error
        return packs

    def _members(self, packs: Packs) -> list[int]:
        """Entities in packs that are meant, ascending."""
        return [one for one in range(len(packs.counts)) if self._is_meant(packs.key(one))]

    def _is_meant(self, key: bytes) -> bool:
        """Whether anything of an entity is erased."""
        return self._reach.before_ms(key) > NOTHING_ERASED_MS

    def _tiles(self, body: bytes | None, head: bytes | None) -> TileTable | None:
        """An entity's tiles; None where there is nothing, or nothing that can be read."""
        if not body and not head:
            return None
        try:
            return decode_entity(self._compiled, body, head)
        except CorruptData:
            return None

    def _member(self, packs: Packs, entity: int) -> TileTable:
        """Likewise of an entity in a pack."""
        return entity_codec(self._compiled).lift(packs.rows(entity))

    def _expire_ms(self, checkpoint: Checkpoint | None) -> int:
        """How long a pack lives that is written again: as if it had been written by the stream."""
        ahead_ms = 0 if checkpoint is None else max(checkpoint.watermark_ms - self._clock.now_ms(), 0)
        return self._generation.expire_ms(ahead_ms)

    def _own_keys(self, lane: int, key: bytes) -> tuple[bytes, bytes]:
        """Body and head key of an entity."""
        keys = self._generation.keys
        return keys.body_prefix(lane) + key, keys.head_prefix(lane) + key

    def _pack_keys(self, lane: int, number: bytes) -> tuple[bytes, bytes]:
        """Body and head key of a pack."""
        keys = self._generation.keys
        return keys.pack_body_prefix(lane) + number, keys.pack_head_prefix(lane) + number


def _since(tiles: TileTable, from_ms: int) -> TileTable | None:
    """The tiles of a moment and later; None where one spans it."""
    is_kept = tiles.start_ms >= from_ms
    if (tiles.end_ms[~is_kept] > from_ms).any():
        return None
    return tiles.take(is_kept)


def _has_older(tiles: TileTable, before_ms: int) -> bool:
    """Whether some tile ends before a moment; one that only begins before it may hold later events alone."""
    return bool((tiles.end_ms <= before_ms).any())


def _of_pack(packs: Packs, stays: np.ndarray, number: int) -> list[int]:
    """Entities of a pack that stay."""
    begin = int(packs.ends[number - 1]) if number else 0
    members: list[int] = (begin + np.flatnonzero(stays[begin : int(packs.ends[number])])).tolist()
    return members


def _checkpoint_of(stored: bytes | None) -> Checkpoint | None:
    """A checkpoint; None where it is lost or spoilt."""
    try:
        return decode_checkpoint(stored) if stored else None
    except CorruptData:
        return None


def _told(checkpoint: Checkpoint) -> Checkpoint:
    """What the lane's writer does not expect."""
    return replace(checkpoint, erasures=checkpoint.erasures + 1)


def _chunks(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    """As many as one commit takes."""
    left = iter(names)
    while chunk := list(itertools.islice(left, KEYS_AT_ONCE)):
        yield chunk
