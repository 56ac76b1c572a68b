"""Which event ids were seen lately: exact membership of 64-bit hashes, in bulk.

    buckets, see horizon_clock     [ bucket 41 )[ bucket 42 )      each one horizon or longer; the last two are kept
    admit(batch)                   mask of ids in neither, first of their kind in the batch

An id is remembered for at least one horizon of its partition's event time, so a retry within the horizon never counts
twice. Each bucket is an open-addressing table of uint64 (linear probing, at most half full): 16 to 32
bytes an id, about 50 ns a look-up in bulk. Two different ids with one hash would drop an event: with 20 million ids
remembered the chance is about 1e-12 an event.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BoolArray, Int64Array

HashArray = NDArray[np.uint64]

BUCKETS_KEPT = 2
_CAPACITY_MIN = 1 << 10
_FREE = np.uint64(0)


class IdHorizon:
    """Event-id hashes of the last horizon."""

    def __init__(self) -> None:
        self._buckets: dict[int, _HashSet] = {}

    def admit(self, hashes: HashArray) -> BoolArray:
        """(N,) True for each hash that no kept bucket has and that did not come earlier in `hashes`."""
        hashes = _nonzero(hashes)
        known = np.zeros(len(hashes), dtype=np.bool_)
        for bucket in self._buckets.values():
            known |= bucket.contains(hashes)
        _, first = np.unique(hashes, return_index=True)
        is_first = np.zeros(len(hashes), dtype=np.bool_)
        is_first[first] = True
        return is_first & ~known

    def remember(self, bucket: int, hashes: HashArray) -> None:
        """Add distinct hashes that `admit` let pass."""
        if bucket not in self._buckets:
            self._buckets[bucket] = _HashSet()
        self._buckets[bucket].add(hashes)

    def forget_before(self, bucket: int) -> None:
        """Drop the buckets older than the last BUCKETS_KEPT up to `bucket`."""
        for old in [kept for kept in self._buckets if kept <= bucket - BUCKETS_KEPT]:
            del self._buckets[old]


class _HashSet:
    """A set of non-zero uint64, added to and asked in bulk."""

    def __init__(self) -> None:
        self._slots: HashArray = np.zeros(_CAPACITY_MIN, dtype=np.uint64)
        self._size = 0

    def contains(self, hashes: HashArray) -> BoolArray:
        """(N,) membership."""
        wanted = _nonzero(hashes)
        mask = len(self._slots) - 1
        found = np.zeros(len(wanted), dtype=np.bool_)
        open_rows: Int64Array = np.arange(len(wanted))
        at = (wanted & np.uint64(mask)).astype(np.int64)
        while len(open_rows):
            slot = self._slots[at]
            hit = slot == wanted[open_rows]
            found[open_rows[hit]] = True
            going_on = ~hit & (slot != _FREE)
            open_rows, at = open_rows[going_on], (at[going_on] + 1) & mask
        return found

    def add(self, hashes: HashArray) -> None:
        """Insert distinct hashes that are not members."""
        self._size += len(hashes)
        if self._size * 2 > len(self._slots):
            members = self._slots[self._slots != _FREE]
            self._slots = np.zeros(1 << (4 * self._size - 1).bit_length(), dtype=np.uint64)
            self._insert(members)
        self._insert(_nonzero(hashes))

    def _insert(self, hashes: HashArray) -> None:
        """Linear probing for all at once: of those that aim at one free slot the last wins, the others go on."""
        mask = len(self._slots) - 1
        waiting = hashes
        at = (waiting & np.uint64(mask)).astype(np.int64)
        while len(waiting):
            free = self._slots[at] == _FREE
            self._slots[at[free]] = waiting[free]
            going_on = self._slots[at] != waiting
            waiting, at = waiting[going_on], (at[going_on] + 1) & mask


def _nonzero(hashes: HashArray) -> HashArray:
    """0 marks a free slot, so the hash 0 is taken for 1."""
    return np.maximum(hashes, np.uint64(1))
