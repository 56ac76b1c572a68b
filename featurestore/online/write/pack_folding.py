"""Fold the heads of packs into their bodies, and find the entities that leave them.

    body and head ─ tiles of single events ─┬─ nothing can reach them any more ──> dropped, with their entity
                                            ├─ many of one entity, or of the pack ──> the entity leaves
                                            └─ the others ──> one body, in the order of time

An entity that leaves gets a body of its own in the same step of its lane that writes the pack without it. It never
comes back, unless its own keys have expired: so it is in its pack or by itself, and readers put nothing together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.tiles.tiles import TileTable
from featurestore.online.generation import Generation
from featurestore.wire.codecs.pack import MEMBERS_MAX
from featurestore.wire.codecs.pack_tiles import Pack, encode_pack, tiles_of

PACK_HEAD_BYTES_MAX = 1_024
"""A head of a pack that is as long is folded into the body: about fifteen rows of a card."""

ENTITY_TILES_MAX = 12
"""An entity with more events leaves its pack: keys of its own then take less than a tenth of what it has."""

PACK_TILES_MAX = 128
"""Those with most events leave a pack with more: a reader of one entity decodes all of them."""


@dataclass(frozen=True, slots=True)
class FoldedPacks:
    """What becomes of P packs.

    Attributes:
        bodies: (P,) their new bodies, empty where nobody is left.
        leavers: (pack, entity key, tiles) of who leaves.
    """

    bodies: Sequence[bytes]
    leavers: Sequence[tuple[int, bytes, TileTable]]


def fold_packs(generation: Generation, packs: Sequence[Pack], now_ms: int) -> FoldedPacks:
    """Fold P packs.

    Args:
        generation: whose.
        packs: body and head of each, decoded.
        now_ms: the clock; an event dated ahead makes nothing old before its time.
    """
    sizes = [len(pack.keys) for pack in packs]
    firsts = np.cumsum([0, *sizes])
    table, entity = tiles_of(generation.compiled, packs)
    pack_of = np.repeat(np.arange(len(packs)), sizes)
    keys = list(itertools.chain.from_iterable(pack.keys for pack in packs))
    is_alive = _alive(generation, table, entity, pack_of, now_ms)
    counts = np.bincount(entity, minlength=len(keys))
    leaves = is_alive & (counts > ENTITY_TILES_MAX)
    _make_room(leaves, np.where(is_alive & ~leaves, counts, 0), pack_of, firsts)
    leavers = [
        (int(pack_of[one]), keys[one], table.take(np.flatnonzero(entity == one))) for one in np.flatnonzero(leaves)
    ]
    stays = is_alive & ~leaves
    of_packs = [
        [keys[one] for one in np.flatnonzero(stays[low:high]) + low] for low, high in itertools.pairwise(firsts)
    ]
    return FoldedPacks(_bodies(table, entity, pack_of, of_packs, stays), leavers)


def _alive(generation: Generation, table: TileTable, entity: Int64Array, pack_of: Int64Array, now_ms: int) -> BoolArray:
    """Entities with an event that a read can reach when the pack's newest event happened: replays are of long ago."""
    expire_ms = generation.expire_ms(0)
    if not expire_ms or not table.count:
        return np.ones(len(pack_of), dtype=np.bool_)
    newest = np.full(len(pack_of), np.iinfo(np.int64).min)
    np.maximum.at(newest, entity, table.start_ms)
    of_pack = np.full(int(pack_of[-1]) + 1, np.iinfo(np.int64).min)
    np.maximum.at(of_pack, pack_of, newest)
    is_alive: BoolArray = newest >= np.minimum(of_pack, now_ms)[pack_of] - expire_ms
    return is_alive


def _make_room(leaves: BoolArray, counts: Int64Array, pack_of: Int64Array, firsts: Int64Array) -> None:
    """Let entities leave packs that are too large, those with most events first; changes `leaves`.

    Args:
        leaves: (E,) who leaves.
        counts: (E,) tiles of those that would stay, 0 of the others.
        pack_of: (E,) whose they are.
        firsts: (P + 1,) the first entity of each pack.
    """
    packs = len(firsts) - 1
    tiles, members = (np.bincount(pack_of[counts > 0], each, packs) for each in (counts[counts > 0], None))
    for pack in np.flatnonzero((tiles > PACK_TILES_MAX) | (members > MEMBERS_MAX)).tolist():
        mine = np.arange(firsts[pack], firsts[pack + 1])
        mine = mine[counts[mine] > 0]
        # Stable: of those with as many the newest members leave.
        smallest_first = mine[np.argsort(counts[mine], kind="stable")]
        fits = np.cumsum(counts[smallest_first]) <= PACK_TILES_MAX
        fits[MEMBERS_MAX:] = False
        leaves[smallest_first[~fits]] = True


def _bodies(
    table: TileTable, entity: Int64Array, pack_of: Int64Array, members: Sequence[Sequence[bytes]], stays: BoolArray
) -> list[bytes]:
    """The bodies of all packs, of the members that stay in each."""
    rows = np.flatnonzero(stays[entity])
    rows = rows[np.lexsort((table.start_ms[rows], pack_of[entity[rows]]))]
    kept, owners = table.take(rows).normalize(), (np.cumsum(stays) - 1)[entity[rows]]
    bounds = np.searchsorted(pack_of[entity[rows]], np.arange(len(members) + 1)).tolist()
    bodies, first = [], 0
    for keys, (low, high) in zip(members, itertools.pairwise(bounds), strict=True):
        bodies.append(encode_pack(keys, kept.take(slice(low, high)), owners[low:high] - first))
        first += len(keys)
    return bodies
