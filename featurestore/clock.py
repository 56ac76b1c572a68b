"""The only file that reads the machine's clock.

Two notions of time: event time orders data and decides values; processing time schedules work and measures freshness.
Everything that needs processing time takes a `Clock`, so that tests and simulations can drive it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

from featurestore.errors import DeadlineSpent

NS_PER_MS = 1_000_000


class Clock(Protocol):
    """Processing time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC; may step back when the machine's clock is corrected."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds from an arbitrary start; never falls. For durations."""
        ...

    def worked_ns(self) -> int:
        """Nanoseconds of the processor that this thread has used; for what work costs, whoever else runs."""
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

    def worked_ns(self) -> int:
        """The thread's own time, nanoseconds."""
        return time.thread_time_ns()

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment after which nobody waits for an answer any more.

    Attributes:
        clock: processing time.
        expires_ns: on the clock's monotonic scale; None never.
    """

    clock: Clock
    expires_ns: int | None = None

    @classmethod
    def after(cls, clock: Clock, budget_ms: float) -> Deadline:
        """A deadline `budget_ms` from now."""
        return cls(clock, clock.monotonic_ns() + int(budget_ms * NS_PER_MS))

    def remaining_ms(self, doing: str) -> float:
        """Milliseconds left, > 0; infinite where there is no deadline.

        Args:
            doing: what would be done next, for the error's message.

        Raises:
            DeadlineSpent: nothing is left; the caller should give the work up.
        """
        if self.expires_ns is None:
            return math.inf
        left_ns = self.expires_ns - self.clock.monotonic_ns()
        if left_ns <= 0:
            raise DeadlineSpent(f"deadline passed before {doing}", hint="set a longer deadline or ask for fewer rows")
        return left_ns / NS_PER_MS
