"""What is behind takes no more than its share of a process while live events come.

live        read  read  read  read  read  read
catch up    read, work ─ rest as long ─ read, work ─ rest as long
"""

from __future__ import annotations

from featurestore.clock import NS_PER_MS, Clock

LIVE_FOR_MS = 1_000
"""So long after a live event was read the next one may come at any time."""

REST_MS_MAX = 500
"""A wait for the store is no work; it is not paid back in full."""

CATCH_UP_RECORDS = 2_048
"""Records in one read of what is behind: live events wait for a batch of it at most."""


class Pace:
    """Shared by the stages of one process.

    Args:
        clock: its monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live_ns: int | None = None
        self._began_ns: int | None = None
        self._rest_until_ns = 0

    def live_was_read(self) -> None:
        """Live events came."""
        self._live_ns = self._clock.monotonic_ns()

    def late_was_read(self) -> None:
        """Events of what is behind are given to the steps that work on them; whoever reads next is done with them."""
        self._began_ns = self._clock.monotonic_ns()

    def rest_ms(self) -> int:
        """How long the next read of what is behind has to wait; 0 for not at all."""
        now_ns = self._clock.monotonic_ns()
        if self._began_ns is not None:
            worked_ns, self._began_ns = now_ns - self._began_ns, None
            if self._live_ns is not None and now_ns - self._live_ns < LIVE_FOR_MS * NS_PER_MS:
                self._rest_until_ns = now_ns + min(worked_ns, REST_MS_MAX * NS_PER_MS)
        return max(0, -(-(self._rest_until_ns - now_ns) // NS_PER_MS))
