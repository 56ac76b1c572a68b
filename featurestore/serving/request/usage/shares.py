"""How many requests of one name may be under way at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from featurestore.errors import Overloaded

HINT = "wait a moment before trying again, or add servers"


class Shares:
    """How many requests of one name may be in the server at once. Thread-safe.

    Args:
        what: the names are of, for messages and metrics.
        limits: for some names.
        limit_default: for all others; None for no limit.
        count_refusal: called with `what` for each request that is refused.
    """

    def __init__(
        self,
        what: str,
        limits: Mapping[str, int],
        limit_default: int | None,
        count_refusal: Callable[[str], None],
    ) -> None:
        self.what = what
        self._limits = limits
        self._limit_default = limit_default
        self._count_refusal = count_refusal
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """A request begins; it must be given back.

        Raises:
            Overloaded: the name has as many as it may.
        """
        limit = self._limits.get(name, self._limit_default)
        with self._lock:
            if limit is not None and self._counts[name] >= limit:
                self._count_refusal(self.what)
                raise Overloaded(f'{self.what} "{name}" has {limit} requests under way, which is its limit', hint=HINT)
            self._counts[name] += 1

    def give_back(self, name: str) -> None:
        """It has ended."""
        with self._lock:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
