"""When entities are to be looked at again: each once, at the earliest moment that anybody gave."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

STALE_MIN = 1_024
"""So many entries that were overtaken are not worth sorting out."""


class Schedule:
    """Moments of keys."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes]] = []
        self._due_ms: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._due_ms)

    def put(self, key: bytes, moment_ms: int) -> None:
        """Look at a key at that moment, unless it is due earlier."""
        if moment_ms < self._due_ms.get(key, moment_ms + 1):
            self._due_ms[key] = moment_ms
            heappush(self._heap, (moment_ms, key))
            if len(self._heap) > 2 * len(self._due_ms) + STALE_MIN:
                self._heap = [(due_ms, key) for key, due_ms in self._due_ms.items()]
                heapify(self._heap)

    def cancel(self, key: bytes) -> None:
        """Nothing is to be looked at; what is put later counts."""
        self._due_ms.pop(key, None)

    def take(self, now_ms: int, keys_max: int) -> list[bytes]:
        """Keys that are due, earliest first; they are in the schedule no more."""
        taken: list[bytes] = []
        while self._heap and self._heap[0][0] <= now_ms and len(taken) < keys_max:
            moment_ms, key = heappop(self._heap)
            if self._due_ms.get(key) == moment_ms:
                del self._due_ms[key]
                taken.append(key)
        return taken
