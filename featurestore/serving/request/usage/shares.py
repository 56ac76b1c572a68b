"""How many requests of one name may be under way at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from featurestore.definitions.governance.quotas import Quota
from featurestore.errors import Overloaded

HINT = "wait a moment before trying again, or add servers"


class Shares:
    """How many requests of one name may be in the server at once. Thread-safe.

    Args:
        what: the names are of, for messages and metrics.
        limit_of: of a name; None for no limit.
        count_refusal: called with `what` for each request that is refused.
    """

    def __init__(
        self,
        what: str,
        limit_of: Callable[[str], int | None],
        count_refusal: Callable[[str], None],
    ) -> None:
        self.what = what
        self._limit_of = limit_of
        self._count_refusal = count_refusal
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """A request begins; it must be given back.

        Raises:
            Overloaded: the name has as many as it may.
        """
        limit = self._limit_of(name)
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


def share_of(quota: Quota | None, room: int) -> int | None:
    """How many requests at once a share is; None for no limit.

    Args:
        quota: the rule, if there is one.
        room: requests that the server has room for, at work or waiting.
    """
    return None if quota is None or quota.share is None else max(1, int(quota.share * room))
