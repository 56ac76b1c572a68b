"""How much of a request's time is left, in a form that code without gRPC understands."""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.clock import Clock
from featurestore.errors import DeadlineSpent

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment after which nobody waits for the answer any more.

    Attributes:
        clock: processing time.
        expires_ns: on the clock's monotonic scale.
    """

    clock: Clock
    expires_ns: int

    @classmethod
    def after(cls, clock: Clock, budget_ms: float) -> Deadline:
        """A deadline `budget_ms` from now."""
        return cls(clock, clock.monotonic_ns() + int(budget_ms * NS_PER_MS))

    def remaining_ms(self, doing: str) -> float:
        """Milliseconds left, > 0.

        Args:
            doing: what would be done next, for the error's message.

        Raises:
            DeadlineSpent: nothing is left; the caller should give the work up.
        """
        left_ns = self.expires_ns - self.clock.monotonic_ns()
        if left_ns <= 0:
            raise DeadlineSpent(f"deadline passed before {doing}", hint="set a longer deadline or ask for fewer rows")
        return left_ns / NS_PER_MS
