"""Put the entities of few events that a bootstrap computes into packs, as the stream would have left them.

Nobody else reads or writes the lane meanwhile. So packs that an earlier part of its events has begun are read, folded
together with what is new, and written whole: the same commit may be sent twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.online.write.bootstrap_fold import StoredEntity
from featurestore.online.write.pack_folding import choose
from featurestore.wire.codecs.body import beside_each_other
from featurestore.wire.codecs.pack import records_of
from featurestore.wire.codecs.pack_members import read_packs
from featurestore.wire.entity_key import packs_of

PACKS_PER_COMMIT = 256
"""Some 4 KB each: about the bytes that a commit of entities has."""


def into_packs(
    store: OnlineStore, generation: Generation, lane: int, entities: Sequence[StoredEntity], now_ms: int
) -> Iterator[tuple[list[tuple[bytes, bytes, bytes]], list[StoredEntity]]]:
    """What goes into the store instead of some entities, in the portions of one commit each.

    Args:
        store: read from only.
        generation: one with packs.
        lane: of the entities.
        entities: heads, of no entity that was given before.
        now_ms: the clock.

    Yields:
        (body key, head key, body) of packs; and the entities that there is no room for, those in the packs before
        included: they get keys of their own in the same commit.

    Raises:
        CorruptTile: a pack is not as it was written.
    """
    numbers = packs_of([one.key for one in entities], generation.packs).tolist()
    by_name: dict[bytes, list[StoredEntity]] = {}
    for number, one in zip(numbers, entities, strict=True):
        by_name.setdefault(b"%d" % number, []).append(one)
    wanted = sorted(by_name)
    for first in range(0, len(wanted), PACKS_PER_COMMIT):
        chunk = wanted[first : first + PACKS_PER_COMMIT]
        yield _fold(store, generation, lane, {name: by_name[name] for name in chunk}, now_ms)


def _fold(
    store: OnlineStore, generation: Generation, lane: int, added: dict[bytes, list[StoredEntity]], now_ms: int
) -> tuple[list[tuple[bytes, bytes, bytes]], list[StoredEntity]]:
    """The packs with what is added to each, and who has no room."""
    heads, bodies = generation.keys.pack_head_prefix(lane), generation.keys.pack_body_prefix(lane)
    stored = store.read_groups([[bodies + name] for name in added])
    pairs: list[tuple[bytes | None, bytes]] = []
    for body, members in zip(stored, added.values(), strict=True):
        head = records_of([one.key for one in members], [one.head for one in members]).buffer
        pairs.append(beside_each_other(body, head) if body else (None, head))
    packs, wrong = read_packs(generation.compiled, pairs)
    for error in wrong.values():
        raise error
    chosen = choose(generation, packs, now_ms)
    left = [StoredEntity(packs.key(one), packs.rows(one), b"") for one in np.flatnonzero(chosen.leaves).tolist()]
    written = packs.bodies(chosen.stays)
    return [(bodies + name, heads + name, body) for name, body in zip(added, written, strict=True)], left
