"""Fold the heads of packs into their bodies, and find the entities that leave them.

    rows of body and head, by entity ─┬─ nothing can reach them any more ──> dropped, with their entity
                                      ├─ many of one entity, or of the pack ──> the entity leaves
                                      └─ the others ──> one body, the newer rows of an entity behind its older ones

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
from featurestore.wire.codecs.body import entity_codec
from featurestore.wire.codecs.pack import MEMBERS_MAX, PACK_ROWS_MAX
from featurestore.wire.codecs.pack_members import Packs

PACK_HEAD_BYTES_MAX = 1_024
"""A head of a pack that is as long is folded into the body: about fifteen rows of a card."""

ENTITY_ROWS_MAX = 24
"""An entity with more events leaves its pack: by itself it takes about as much, and is rolled up."""


@dataclass(frozen=True, slots=True)
class FoldedPacks:
    """What becomes of P packs.

    Attributes:
        bodies: (P,) their new bodies, empty where nobody is left.
        leavers: (pack, entity key, tiles) of who leaves.
    """

    bodies: Sequence[bytes]
    leavers: Sequence[tuple[int, bytes, TileTable]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What becomes of E entities; the others are dropped.

    Attributes:
        stays: (E,) who is in the pack's new body.
        leaves: (E,) who gets keys of its own.
        pack_of: (E,) whose they are.
    """

    stays: BoolArray
    leaves: BoolArray
    pack_of: Int64Array


def choose(generation: Generation, packs: Packs, now_ms: int) -> Chosen:
    """Who stays in P packs, and who leaves them; see `fold_packs`."""
    firsts = np.concatenate((np.zeros(1, dtype=np.int64), packs.ends))
    pack_of = np.repeat(np.arange(len(packs.ends)), np.diff(firsts))
    is_alive = _alive(generation, packs, pack_of, now_ms)
    leaves = is_alive & (packs.counts > ENTITY_ROWS_MAX)
    _make_room(leaves, np.where(is_alive & ~leaves, packs.counts, 0), pack_of, firsts)
    return Chosen(is_alive & ~leaves, leaves, pack_of)


def fold_packs(generation: Generation, packs: Packs, now_ms: int) -> FoldedPacks:
    """Fold P packs.

    Args:
        generation: whose.
        packs: bodies and heads, read.
        now_ms: the clock; an event dated ahead makes nothing old before its time.
    """
    chosen = choose(generation, packs, now_ms)
    entities = np.flatnonzero(chosen.leaves).tolist()
    tiles = entity_codec(generation.compiled).lift(b"".join(map(packs.rows, entities)))
    bounds = itertools.pairwise(np.cumsum([0, *packs.counts[chosen.leaves]]).tolist())
    leavers = [
        (int(chosen.pack_of[one]), packs.key(one), tiles.take(slice(low, high)))
        for one, (low, high) in zip(entities, bounds, strict=True)
    ]
    return FoldedPacks(packs.bodies(chosen.stays), leavers)


def _alive(generation: Generation, packs: Packs, pack_of: Int64Array, now_ms: int) -> BoolArray:
    """Entities with an event that a read can reach when the pack's newest event happened: replays are of long ago."""
    expire_ms = generation.expire_ms(0)
    is_alive: BoolArray = np.ones(len(pack_of), dtype=np.bool_)
    if not expire_ms or not len(pack_of):
        return is_alive
    # What it is at least will do: the newest event of a pack is mostly one of its head, and who stays longer is right.
    of_pack = np.full(int(pack_of[-1]) + 1, np.iinfo(np.int64).min)
    np.maximum.at(of_pack, pack_of, packs.newest_at_least_ms)
    alive_from_ms = np.minimum(of_pack, now_ms)[pack_of] - expire_ms
    doubtful = np.flatnonzero(packs.newest_at_least_ms < alive_from_ms)
    is_alive[doubtful] = packs.newest_ms(doubtful) >= alive_from_ms[doubtful]
    return is_alive


def _make_room(leaves: BoolArray, counts: Int64Array, pack_of: Int64Array, firsts: Int64Array) -> None:
    """Let entities leave packs that are too large, those with most events first; changes `leaves`.

    Args:
        leaves: (E,) who leaves.
        counts: (E,) rows of those that would stay, 0 of the others.
        pack_of: (E,) whose they are.
        firsts: (P + 1,) the first entity of each pack.
    """
    packs = len(firsts) - 1
    rows, members = (np.bincount(pack_of[counts > 0], each, packs) for each in (counts[counts > 0], None))
    for pack in np.flatnonzero((rows > PACK_ROWS_MAX) | (members > MEMBERS_MAX)).tolist():
        mine = np.arange(firsts[pack], firsts[pack + 1])
        mine = mine[counts[mine] > 0]
        # Stable: of those with as many the newest members leave.
        smallest_first = mine[np.argsort(counts[mine], kind="stable")]
        fits = np.cumsum(counts[smallest_first]) <= PACK_ROWS_MAX
        fits[MEMBERS_MAX:] = False
        leaves[smallest_first[~fits]] = True
