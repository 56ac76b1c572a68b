"""When each part of a plan was worked at, for traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from featurestore.clock import Clock


class PartTimes:
    """When each part of a plan was worked at, for traces.

    Args:
        clock: measures.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans_ns: dict[int, tuple[int, int]] = {}

    @contextmanager
    def of(self, part: int) -> Iterator[None]:
        """Something is done for a part; from its first time to its last is its time."""
        began_ns = self._clock.monotonic_ns()
        yield
        first_ns, _ = self._spans_ns.get(part, (began_ns, 0))
        self._spans_ns[part] = (first_ns, self._clock.monotonic_ns())

    def of_parts(self) -> list[tuple[int, int]]:
        """Begin and end of each part, stream parts first, in nanoseconds of the clock."""
        return [self._spans_ns[part] for part in sorted(self._spans_ns)]
