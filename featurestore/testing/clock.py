"""A clock that stands still until it is told to move: processing time under a test's control."""

from __future__ import annotations

import threading

DEFAULT_START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z: a round moment that is not the machine's own."""


class ManualClock:
    """A `featurestore.clock.Clock` driven by its owner; safe to share between threads.

    Wall clock and monotonic clock move together, except that `set_now_ms` moves the wall clock alone, as a
    correction of the machine's clock does.

    >>> clock = ManualClock(now_ms=1_000)
    >>> clock.sleep(0.25)
    >>> clock.now_ms(), clock.monotonic_ns()
    (1250, 250000000)
    """

    def __init__(self, *, now_ms: int = DEFAULT_START_MS) -> None:
        self._lock = threading.Lock()
        self._now_ns = now_ms * 1_000_000
        self._monotonic_ns = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        with self._lock:
            return self._now_ns // 1_000_000

    def monotonic_ns(self) -> int:
        """Nanoseconds since this clock was made."""
        with self._lock:
            return self._monotonic_ns

    def worked_ns(self) -> int:
        """Nothing costs anything."""
        return 0

    def sleep(self, seconds: float) -> None:
        """Move both clocks ahead at once; nothing blocks."""
        assert seconds >= 0, "a clock does not sleep backwards"
        self._advance_ns(round(seconds * 1e9))

    def advance_ms(self, duration_ms: int) -> None:
        """Let `duration_ms` >= 0 pass."""
        assert duration_ms >= 0, "time does not pass backwards; use set_now_ms for a clock correction"
        self._advance_ns(duration_ms * 1_000_000)

    def set_now_ms(self, now_ms: int) -> None:
        """Correct the wall clock, backwards too; the monotonic clock does not notice."""
        with self._lock:
            self._now_ns = now_ms * 1_000_000

    def _advance_ns(self, duration_ns: int) -> None:
        with self._lock:
            self._now_ns += duration_ns
            self._monotonic_ns += duration_ns
