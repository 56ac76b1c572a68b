"""The only file that reads the machine's clock.

Two notions of time: event time orders data and decides values; processing time schedules work and measures freshness.
Everything that needs processing time takes a `Clock`, so that tests and simulations can drive it.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Processing time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC; may step back when the machine's clock is corrected."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds from an arbitrary start; never falls. For durations."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of processing time pass."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        """Monotonic clock, nanoseconds."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)
