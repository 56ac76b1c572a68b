"""Fold long heads into their bodies.

    APPEND's answer says how long a head is ─ over the limit ─ scheduled ─ body and head are read back, many at once,
    rolled up in one numpy pass, and written by the lane's next commit, before its appends.

A head is worth folding when reading it costs more than reading tiles: about HEAD_ROWS_MAX events. A read is right
whether or not that has happened, so it never has to hurry: a limited number of entities for each commit keeps commits
short, and a few entities wait for others, as a dozen cost hardly more than one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.clock import Clock
from featurestore.core.tiles.roll_up import EntityTiles
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.errors import CorruptTile
from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.online.write.pack_folding import fold_packs
from featurestore.wire.codecs.body import decode_entity, encode_body
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.pack_members import Packs, read_packs
from featurestore.wire.entity_key import fingerprint

HEAD_ROWS_MAX = 48
"""A head as long as this many rows with empty strings is folded into the body."""

ENTITIES_PER_COMMIT_MAX = 1_024

PACKS_PER_COMMIT_MAX = 8_192
"""As many as grow in a commit of a hundred thousand events, so that heads never wait: they are what takes memory."""

PACKS_AT_ONCE = 512
"""Packs that are read in one command, while which the server answers nobody else, and folded in one pass."""

ENTITIES_AT_ONCE = 128
"""Fewer than those wait for others, if there is to be a pause between compactions."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """Bodies to write.

    Attributes:
        bodies: by lane, (body key, head key, body); those of packs behind those of entities that leave them.
        count: entities and packs in all.
        damaged: what is wrong with entities that were set aside, just now.
    """

    bodies: dict[int, list[tuple[bytes, bytes, bytes]]]
    count: int
    damaged: tuple[CorruptTile, ...] = ()


class Compactor:
    """Schedules and computes compactions for the writer of some lanes.

    Args:
        store: read from only.
        generation: whose tiles.
        clock: no tile is aged beyond it.
        pause_ms: how long a few entities wait for others.

    Attributes:
        set_aside: heads of entities, and of packs, whose bytes are damaged. They are appended to, which changes nothing
            of what readers refuse, and left as they are otherwise.
    """

    def __init__(self, store: OnlineStore, generation: Generation, clock: Clock, *, pause_ms: int) -> None:
        self._store = store
        self._generation = generation
        self._clock = clock
        self._scheduled: dict[bytes, int] = {}
        self._scheduled_packs: dict[bytes, int] = {}
        self.set_aside: set[bytes] = set()
        self._pause_ns = pause_ms * 1_000_000
        self._paused_until_ns = 0
        self.report_bytes_min = HEAD_ROWS_MAX * head_codec(generation.compiled).row_bytes_min

    def clear(self) -> None:
        """Forget what was scheduled; the next append of a long head reports it again."""
        self._scheduled.clear()
        self._scheduled_packs.clear()

    def schedule(self, lane: int, entities: Sequence[bytes]) -> None:
        """Take note of entities whose heads have grown long."""
        prefix = self._generation.keys.head_prefix(lane)
        for key in (prefix + entity for entity in entities):
            if key not in self.set_aside:
                self._scheduled[key] = lane

    def schedule_packs(self, lane: int, names: Sequence[bytes]) -> None:
        """Take note of packs whose heads have grown long."""
        prefix = self._generation.keys.pack_head_prefix(lane)
        for key in (prefix + name for name in names):
            if key not in self.set_aside:
                self._scheduled_packs[key] = lane

    def compact(self) -> Compaction:
        """Bodies of entities and packs that were scheduled, oldest first, as many as a commit takes; none in a pause.

        They must be part of the very next commit of their lanes: the heads that were read here are deleted by it.
        What does not decode is set aside.
        """
        entities = list(itertools.islice(self._scheduled.items(), ENTITIES_PER_COMMIT_MAX))
        packs = list(itertools.islice(self._scheduled_packs.items(), PACKS_PER_COMMIT_MAX))
        count, monotonic_ns = len(entities) + len(packs), self._clock.monotonic_ns()
        if not count or (count < ENTITIES_AT_ONCE and monotonic_ns < self._paused_until_ns):
            return Compaction({}, 0)
        self._paused_until_ns = monotonic_ns + self._pause_ns
        damaged = list[CorruptTile]()
        whole = self._read(entities, damaged)
        bodies, count = self._bodies(whole), len(whole)
        for first in range(0, len(packs), PACKS_AT_ONCE):
            count += self._fold(packs[first : first + PACKS_AT_ONCE], bodies, damaged)
        for key in (*entities, *packs):
            self._scheduled.pop(key[0], None)
            self._scheduled_packs.pop(key[0], None)
        return Compaction(bodies, count, tuple(damaged))

    def _read(
        self, entities: Sequence[tuple[bytes, int]], damaged: list[CorruptTile]
    ) -> list[tuple[bytes, int, TileTable]]:
        """Head key, lane and tiles of all that are as they were written; the rest is set aside."""
        found = []
        stored = self._store.read_groups([self._keys(lane, head_key) for head_key, lane in entities])
        for index, (head_key, lane) in enumerate(entities):
            try:
                tiles = decode_entity(self._generation.compiled, stored[2 * index], stored[2 * index + 1])
                found.append((head_key, lane, tiles))
            except CorruptTile as error:
                entity = head_key.removeprefix(self._generation.keys.head_prefix(lane))
                self._set_aside(head_key, f"entity {fingerprint(entity)}", error, damaged)
        return found

    def _read_packs(
        self, packs: Sequence[tuple[bytes, int]], damaged: list[CorruptTile]
    ) -> tuple[Sequence[tuple[bytes, int]], Packs]:
        """Head key and lane of those that are as they were written, and their entities; the rest is set aside."""
        compiled = self._generation.compiled
        values = self._store.read_groups([self._pack_keys(lane, head_key) for head_key, lane in packs])
        stored = list(zip(values[0::2], values[1::2], strict=True))
        members, wrong = read_packs(compiled, stored)
        if not wrong:
            return packs, members
        for number, error in wrong.items():
            head_key, lane = packs[number]
            pack = head_key.removeprefix(self._generation.keys.pack_head_prefix(lane)).decode()
            self._set_aside(head_key, f"pack {pack} of lane {lane}", error, damaged)
        whole = [number for number in range(len(packs)) if number not in wrong]
        members, _ = read_packs(compiled, [stored[number] for number in whole])
        return [packs[number] for number in whole], members

    def _set_aside(self, head_key: bytes, name: str, error: CorruptTile, damaged: list[CorruptTile]) -> None:
        """Take note of an entity or a pack that is not as it was written."""
        damaged.append(CorruptTile(f"{error.message} ({name})"))
        self.set_aside.add(head_key)

    def _fold(
        self,
        packs: Sequence[tuple[bytes, int]],
        bodies: dict[int, list[tuple[bytes, bytes, bytes]]],
        damaged: list[CorruptTile],
    ) -> int:
        """Add the bodies of packs to those of their lanes, behind those of the entities that leave; how many packs."""
        packs, members = self._read_packs(packs, damaged)
        folded = fold_packs(self._generation, members, self._clock.now_ms())
        keys = self._generation.keys
        lanes = [packs[index][1] for index, _, _ in folded.leavers]
        heads = [keys.head_prefix(lane) + key for lane, (_, key, _) in zip(lanes, folded.leavers, strict=True)]
        stored = self._store.read_groups([self._keys(lane, head) for lane, head in zip(lanes, heads, strict=True)])
        leavers = [
            (head, lane, tiles)
            for index, (head, lane, (_, _, tiles)) in enumerate(zip(heads, lanes, folded.leavers, strict=True))
            # A server may have failed between an entity's leaving and the pack that it had left: what the pack has is
            # a copy then.
            if stored[2 * index] is None and stored[2 * index + 1] is None
        ]
        for lane, of_leavers in self._bodies(leavers).items():
            bodies.setdefault(lane, []).extend(of_leavers)
        for (head_key, lane), body in zip(packs, folded.bodies, strict=True):
            bodies.setdefault(lane, []).append((*self._pack_keys(lane, head_key), body))
        return len(packs)

    def _bodies(self, entities: Sequence[tuple[bytes, int, TileTable]]) -> dict[int, list[tuple[bytes, bytes, bytes]]]:
        """Rolled-up bodies of entities, given by head key, lane and tiles."""
        rolled = rolled_up(self._generation, [table for _, _, table in entities], self._clock.now_ms())
        bodies: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        for (head_key, lane, _), body in zip(entities, rolled, strict=True):
            bodies.setdefault(lane, []).append((*self._keys(lane, head_key), body))
        return bodies

    def _keys(self, lane: int, head_key: bytes) -> tuple[bytes, bytes]:
        """Body and head key of one entity."""
        keys = self._generation.keys
        return keys.body_prefix(lane) + head_key.removeprefix(keys.head_prefix(lane)), head_key

    def _pack_keys(self, lane: int, head_key: bytes) -> tuple[bytes, bytes]:
        """Body and head key of one pack."""
        keys = self._generation.keys
        return keys.pack_body_prefix(lane) + head_key.removeprefix(keys.pack_head_prefix(lane)), head_key


def rolled_up(generation: Generation, tables: Sequence[TileTable], now_ms: int) -> list[bytes]:
    """A body of each entity's tiles, as wide as their age lets them be; empty where none is left.

    Args:
        generation: whose.
        tables: the tiles of each.
        now_ms: no tile is aged beyond it.
    """
    if not tables:
        return []
    newest = np.array(
        [min(int(table.start_ms.max()), now_ms) if table.count else now_ms for table in tables], dtype=np.int64
    )
    entity = np.repeat(np.arange(len(tables)), [table.count for table in tables])
    roll_up = generation.compiled.roll_up
    merged = roll_up.compact(concatenate(tables), entity, newest)
    # The clock that bounds `newest` may step back; what is gone stays gone.
    dropped = [
        max(table.dropped_before_ms, roll_up.dropped_before_ms(int(moment)))
        for table, moment in zip(tables, newest, strict=True)
    ]
    encoded = _encoded(merged, dropped)
    return [encoded.get(index, b"") for index in range(len(tables))]


def _encoded(merged: EntityTiles, dropped_before_ms: Sequence[int]) -> dict[int, bytes]:
    """Body of each entity that has tiles left."""
    table = merged.table.normalize()
    encoded = {}
    for index, low, high in zip(
        merged.entities.tolist(), merged.bounds[:-1].tolist(), merged.bounds[1:].tolist(), strict=True
    ):
        part = table.take(slice(low, high))
        encoded[index] = encode_body(replace(part, dropped_before_ms=dropped_before_ms[index]))
    return encoded
