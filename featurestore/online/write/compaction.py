"""Fold long heads into their bodies.

    APPEND's answer says how long a head is ─ over the limit ─ scheduled ─ body and head are read back, many at once,
    rolled up in one numpy pass, and written by the lane's next commit, before its appends.

A head is worth folding when reading it costs more than reading tiles: about HEAD_ROWS_MAX events. A read is right
whether or not that has happened, so it never has to hurry: a limited number of entities for each commit keeps commits
short, and a few entities wait for others, as a dozen cost hardly more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.clock import Clock
from featurestore.core.tiles.roll_up import EntityTiles
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.errors import CorruptTile
from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.wire.codecs.body import decode_entity, encode_body
from featurestore.wire.codecs.head import head_codec

HEAD_ROWS_MAX = 48
"""A head as long as this many rows with empty strings is folded into the body."""

ENTITIES_PER_COMMIT_MAX = 1_024

ENTITIES_AT_ONCE = 128
"""Fewer than those wait for others, if there is to be a pause between compactions."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """Bodies to write.

    Attributes:
        bodies: by lane, (body key, head key, body).
        count: entities in all.
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
        set_aside: heads of entities whose bytes are damaged. They are appended to, which changes nothing of what
            readers refuse, and left as they are otherwise.
    """

    def __init__(self, store: OnlineStore, generation: Generation, clock: Clock, *, pause_ms: int) -> None:
        self._store = store
        self._generation = generation
        self._clock = clock
        self._scheduled: dict[bytes, int] = {}
        self.set_aside: set[bytes] = set()
        self._pause_ns = pause_ms * 1_000_000
        self._paused_until_ns = 0
        self.report_bytes_min = HEAD_ROWS_MAX * head_codec(generation.compiled).row_bytes_min

    def clear(self) -> None:
        """Forget what was scheduled; the next append of a long head reports it again."""
        self._scheduled.clear()

    def schedule(self, lane: int, head_keys: Sequence[bytes]) -> None:
        """Take note of heads that have grown long."""
        for key in head_keys:
            if key not in self.set_aside:
                self._scheduled[key] = lane

    def compact(self) -> Compaction:
        """Bodies of the entities that were scheduled, oldest first, up to ENTITIES_PER_COMMIT_MAX; none in a pause.

        They must be part of the very next commit of their lanes: the heads that were read here are deleted by it.
        Entities whose bytes do not decode are set aside.
        """
        chosen = list(self._scheduled.items())[:ENTITIES_PER_COMMIT_MAX]
        monotonic_ns = self._clock.monotonic_ns()
        if not chosen or (len(chosen) < ENTITIES_AT_ONCE and monotonic_ns < self._paused_until_ns):
            return Compaction({}, 0)
        self._paused_until_ns = monotonic_ns + self._pause_ns
        stored = self._store.read_groups([self._keys(lane, head_key) for head_key, lane in chosen])
        whole, tables, damaged = [], [], []
        for index, (head_key, lane) in enumerate(chosen):
            body_key, _ = self._keys(lane, head_key)
            try:
                tables.append(self._decode(body_key, stored[2 * index], stored[2 * index + 1]))
                whole.append((head_key, lane))
            except CorruptTile as error:
                damaged.append(error)
                self.set_aside.add(head_key)
                del self._scheduled[head_key]
        if not whole:
            return Compaction({}, 0, tuple(damaged))
        return Compaction(self._bodies(whole, tables), len(whole), tuple(damaged))

    def _bodies(
        self, chosen: Sequence[tuple[bytes, int]], tables: Sequence[TileTable]
    ) -> dict[int, list[tuple[bytes, bytes, bytes]]]:
        """See `Compaction.bodies`.

        Args:
            chosen: head key and lane of each entity.
            tables: their tiles.
        """
        now_ms = self._clock.now_ms()
        newest = np.array(
            [min(int(table.start_ms.max()), now_ms) if table.count else now_ms for table in tables], dtype=np.int64
        )
        entity = np.repeat(np.arange(len(tables)), [table.count for table in tables])
        roll_up = self._generation.compiled.roll_up
        merged = roll_up.compact(concatenate(tables), entity, newest)
        # The clock that bounds `newest` may step back; what is gone stays gone.
        dropped = [
            max(table.dropped_before_ms, roll_up.dropped_before_ms(int(moment)))
            for table, moment in zip(tables, newest, strict=True)
        ]
        encoded = self._encode(merged, dropped)
        bodies: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        for index, (head_key, lane) in enumerate(chosen):
            del self._scheduled[head_key]
            bodies.setdefault(lane, []).append((*self._keys(lane, head_key), encoded.get(index, b"")))
        return bodies

    def _keys(self, lane: int, head_key: bytes) -> tuple[bytes, bytes]:
        """Body and head key of one entity."""
        keys = self._generation.keys
        return keys.body_prefix(lane) + head_key.removeprefix(keys.head_prefix(lane)), head_key

    def _decode(self, body_key: bytes, body: bytes | None, head: bytes | None) -> TileTable:
        """Body and head as one table."""
        try:
            return decode_entity(self._generation.compiled, body, head)
        except CorruptTile as error:
            raise CorruptTile(f"{error.message} (key {body_key.decode(errors='replace')})") from error

    def _encode(self, merged: EntityTiles, dropped_before_ms: Sequence[int]) -> dict[int, bytes]:
        """Body of each entity that has tiles left."""
        table = merged.table.normalize()
        encoded = {}
        for index, low, high in zip(
            merged.entities.tolist(), merged.bounds[:-1].tolist(), merged.bounds[1:].tolist(), strict=True
        ):
            part = table.take(slice(low, high))
            encoded[index] = encode_body(replace(part, dropped_before_ms=dropped_before_ms[index]))
        return encoded
