"""What the keys of each generation and plain view take in the server, and how full packs are: counted, and sampled.

scan ─ by stem ─┬─ own keys  ─ entities counted, some sizes asked for
├─ packs     ─ counted; some are read, which says how many entities all have
└─ the rest  ─ checkpoints and event ids
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.wire.codecs.pack import PACK_ROWS_MAX
from featurestore.wire.codecs.pack_members import read_packs
from featurestore.wire.store_layout import is_of_project, project_pattern

KEYS_LISTED_MAX = 200_000
"""Keys that are listed to count entities; what a larger store holds beyond them is not guessed at."""

KEYS_MEASURED_MAX = 200
"""Keys of each view and kind whose size is asked for, and packs that are read. A scan lists keys in the order of their
hashes, so that the first ones are a fair sample."""

_BYTE_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))

_OWN_KINDS, _PACK_KINDS = frozenset({b"h", b"b", b"p"}), frozenset({b"H", b"B"})
"""Heads, bodies and plain values of entities, and those of packs; the rest are checkpoints and event ids."""


@dataclass(frozen=True, slots=True)
class MemoryOverview:
    """What the keys of a generation or plain view take in the server.

    Attributes:
        entities: entity keys that were listed.
        is_complete: all were listed; otherwise `entities` and `bytes_total` are lower bounds.
        entity_bytes_mean: mean size of an entity, head and body together, of those that were measured.
        bytes_total: all keys, extrapolated from the mean size of each kind.
        packed_entities: those of `entities` that share keys, extrapolated from some packs; the others have their own.
        packs: packs with anybody in them that were listed.
        pack_fill: how full some packs are, on average: 1 where the next events make entities leave.
    """

    entities: int
    is_complete: bool
    entity_bytes_mean: int
    bytes_total: int
    packed_entities: int = 0
    packs: int = 0
    pack_fill: float = 0.0


@dataclass(slots=True)
class _Sizes:
    """Keys of one stem, as the scan meets them."""

    entities: set[bytes] = field(default_factory=set)
    packs: set[tuple[bytes, bytes]] = field(default_factory=set)
    counts: dict[bytes, int] = field(default_factory=dict)
    measured: dict[bytes, list[int]] = field(default_factory=dict)

    def summary(self, store: OnlineStore, generation: Generation | None, *, is_complete: bool) -> MemoryOverview:
        """Means of each kind, and what they make of all keys."""
        totals = {
            kind: round(sum(sizes) / len(sizes) * self.counts[kind]) for kind, sizes in self.measured.items() if sizes
        }
        members, fill = (0.0, 0.0) if generation is None else self._look_into_packs(store, generation)
        packed = round(members * len(self.packs))
        entities = len(self.entities) + packed
        of_entities = sum(total for kind, total in totals.items() if kind in _OWN_KINDS | _PACK_KINDS)
        return MemoryOverview(
            entities=entities,
            is_complete=is_complete,
            entity_bytes_mean=round(of_entities / entities) if entities else 0,
            bytes_total=sum(totals.values()),
            packed_entities=packed,
            packs=len(self.packs),
            pack_fill=fill,
        )

    def _look_into_packs(self, store: OnlineStore, generation: Generation) -> tuple[float, float]:
        """Entities a pack, and how full they are: means of some; those that are damaged count for nothing."""
        chosen = list(self.packs)[:KEYS_MEASURED_MAX]
        if not chosen:
            return 0.0, 0.0
        stem = generation.keys.stem.encode()
        groups = [[b"%b}%b/%b/%b" % (tag, stem, kind, name) for kind in (b"B", b"H")] for tag, name in chosen]
        values = store.read_groups(groups)
        packs, _ = read_packs(generation.compiled, list(zip(values[0::2], values[1::2], strict=True)))
        return len(packs.counts) / len(chosen), float(np.sum(packs.counts)) / (len(chosen) * PACK_ROWS_MAX)


def measure(store: OnlineStore, project: str, generations: Mapping[str, Generation]) -> dict[str, MemoryOverview]:
    """Sizes by the stem of the key's name: a generation's "view@number.hash", or a plain view's name.

    Args:
        store: the online store.
        project: Feast project.
        generations: that are known, by stem: how full the packs of others are is not looked at.
    """
    by_stem: dict[str, _Sizes] = {}
    listed, is_complete = 0, True
    for key in store.scan(project_pattern(project)):
        if not is_of_project(project, key):
            continue
        if listed == KEYS_LISTED_MAX:
            is_complete = False
            break
        listed += 1
        tag, _, name = key.partition(b"}")
        stem, slash, rest = name.partition(b"/")
        if not slash or not stem:
            continue  # the project's own records
        kind, _, entity_key = rest.partition(b"/")
        sizes = by_stem.setdefault(stem.decode(), _Sizes())
        sizes.counts[kind] = sizes.counts.get(kind, 0) + 1
        if kind in _OWN_KINDS:
            sizes.entities.add(entity_key)
        if kind in _PACK_KINDS:
            sizes.packs.add((tag, entity_key))
        measured = sizes.measured.setdefault(kind, [])
        if len(measured) < KEYS_MEASURED_MAX:
            measured.append(store.memory_bytes(key))
    return {
        stem: sizes.summary(store, generations.get(stem), is_complete=is_complete) for stem, sizes in by_stem.items()
    }


def bytes_text(count: int) -> str:
    """A number of bytes in the unit that fits.

    >>> bytes_text(472), bytes_text(3_145_728)
    ('472 B', '3.0 MiB')
    """
    for unit, size in _BYTE_UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
