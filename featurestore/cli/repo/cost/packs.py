"""What entities of few events take where they share keys: sampled ones, packed as a bootstrap packs them.

As many of those that are seen are put together as share a pack where all that are expected have come.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.online.generation import Generation
from featurestore.online.redis.allocation import name_bytes, value_bytes
from featurestore.online.write.bootstrap_fold import StoredEntity
from featurestore.online.write.pack_folding import ENTITY_ROWS_MAX, PACK_HEAD_BYTES_MAX, choose
from featurestore.wire.codecs.pack import records_of
from featurestore.wire.codecs.pack_members import read_packs
from featurestore.wire.store_layout import ENTITIES_OF_PACK


def packed_bytes(generation: Generation, stored: Sequence[StoredEntity]) -> tuple[Int64Array, Int64Array]:
    """Each entity's share of what its pack takes.

    Args:
        generation: of a view that expects entities.
        stored: E entities as they would be by themselves.

    Returns:
        (2, E) bytes of values and of names, 0 of those with keys of their own; and (E,) how many share keys, each
        included.
    """
    shares, sharing = np.zeros((2, len(stored)), dtype=np.int64), np.zeros(len(stored), dtype=np.int64)
    places = {one.key: place for place, one in enumerate(stored)}
    small = [
        [one for one in stored[first : first + ENTITIES_OF_PACK] if one.head and one.rows <= ENTITY_ROWS_MAX]
        for first in range(0, len(stored), ENTITIES_OF_PACK)
    ]
    heads = [records_of([one.key for one in some], [one.head for one in some]).buffer for some in small]
    packs, _ = read_packs(generation.compiled, [(None, head) for head in heads])
    chosen = choose(generation, packs, sys.maxsize)
    name = name_of_pack_bytes(generation)
    members = np.bincount(chosen.pack_of[chosen.stays], minlength=len(small))
    sizes = [value_bytes(len(body)) for body in packs.bodies(chosen.stays)]
    for entity in np.flatnonzero(chosen.stays).tolist():
        pack, place = int(chosen.pack_of[entity]), places[packs.key(entity)]
        sharing[place] = members[pack]
        shares[:, place] = sizes[pack] // members[pack], name // members[pack]
    return shares, sharing


def streamed_bytes(generation: Generation) -> int:
    """What the head of a pack takes that is appended to, on average: half full, in twice the room that it needs."""
    return value_bytes(PACK_HEAD_BYTES_MAX) + name_of_pack_bytes(generation)


def name_of_pack_bytes(generation: Generation) -> int:
    """Of one key."""
    length = len(generation.keys.pack_body_prefix(0)) + len(str(generation.packs))
    return name_bytes(length, expires=generation.view.retention_ms is not None)
