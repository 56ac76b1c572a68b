"""Keeps quotas: a bucket for each caller, service or pair, which fills as time passes and is emptied by what is asked.

A request is let in while there is anything in the bucket, and takes what it needs, also more than there is: so a large
request is possible, and paid for by those after it. How long that takes is what the refused are told.

Source: token bucket, Turner 1986 ("leaky bucket" as a meter).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from featurestore.clock import Clock
from featurestore.definitions.governance.quotas import Quotas
from featurestore.errors import QuotaSpent

NAMES_MAX = 10_000
"""Pairs of callers and services that are remembered; of more, full buckets are forgotten."""

ALMOST_NOTHING = 1e-6
"""Of a request or row: taken for nothing."""

_NS_PER_SECOND = 1_000_000_000
_MS_PER_SECOND = 1_000


class _Bucket:
    """What is left, in requests or rows."""

    __slots__ = ("_at_ns", "_left", "_most", "_rate")

    def __init__(self, rate: float, burst_seconds: float, now_ns: int) -> None:
        self._rate, self._most, self._at_ns = rate, max(1.0, rate * burst_seconds), now_ns
        self._left = self._most

    def fill(self, now_ns: int) -> float:
        """Until now; answers with what is in it."""
        passed_s = max(0, now_ns - self._at_ns) / _NS_PER_SECOND
        self._left, self._at_ns = min(self._most, self._left + passed_s * self._rate), now_ns
        return self._left

    def take(self, amount: float) -> None:
        """Take it, whether there is so much or not."""
        self._left -= amount

    def wait_s(self) -> float:
        """Until there is a whole request or row in it."""
        return max(0.0, -self._left) / self._rate + 1.0 / self._rate

    def is_full(self, now_ns: int) -> bool:
        """Whether it may be forgotten."""
        return self.fill(now_ns) >= self._most


@dataclass(frozen=True, slots=True)
class _Held:
    """A bucket that a request needs, whose it is, and whether it counts rows."""

    bucket: _Bucket
    title: str
    counts_rows: bool


class Meter:
    """All buckets of a server. Thread-safe.

    Args:
        quotas: the rules.
        clock: fills buckets.
        count_refusal: called with "quota" for each request that is refused.
    """

    def __init__(self, quotas: Quotas, clock: Clock, count_refusal: Callable[[str], None]) -> None:
        self._quotas, self._clock, self._count_refusal = quotas, clock, count_refusal
        self._buckets: dict[tuple[str, str, bool], _Bucket] = {}
        self._known: dict[tuple[str, str], tuple[_Held, ...]] = {}
        self._lock = threading.Lock()

    def take(self, caller: str, service: str, rows: Callable[[], int]) -> None:
        """Let a request in.

        Args:
            caller: who asks.
            service: what for; "" for a list of features.
            rows: how many he asks for; only called where a quota counts them.

        Raises:
            QuotaSpent: he, or the service, has nothing left for now.
        """
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            held = self._known.get((caller, service)) or self._find(caller, service, now_ns)
            spent = [one for one in held if one.bucket.fill(now_ns) < ALMOST_NOTHING]
            if not spent:
                for one in held:
                    one.bucket.take(rows() if one.counts_rows else 1)
                return
            slowest = max(spent, key=lambda one: one.bucket.wait_s())
            wait_s = slowest.bucket.wait_s()
        self._count_refusal("quota")
        raise QuotaSpent(
            f"the quota of {slowest.title} is spent",
            detail=f"There is room again in {wait_s:.3g} s.",
            hint="ask for less at once, or ask the platform team for more",
            retry_after_ms=math.ceil(wait_s * _MS_PER_SECOND),
        )

    def _find(self, caller: str, service: str, now_ns: int) -> tuple[_Held, ...]:
        """The buckets that a request needs."""
        if len(self._known) >= NAMES_MAX:
            self._known.clear()
            self._buckets = {key: one for key, one in self._buckets.items() if not one.is_full(now_ns)}
        quotas, held = self._quotas, list[_Held]()
        for names, title, rule in (
            ((caller, ""), f'caller "{caller}"', quotas.of_caller(caller)),
            (("", service), f'feature service "{service}"', quotas.of_service(service)),
            ((caller, service), f'caller "{caller}" at "{service}"', quotas.of_pair(caller, service)),
        ):
            if rule is None:
                continue
            for rate, counts_rows in ((rule.requests_per_second, False), (rule.rows_per_second, True)):
                if rate is not None:
                    fresh = _Bucket(rate, rule.burst_seconds, now_ns)
                    held.append(_Held(self._buckets.setdefault((*names, counts_rows), fresh), title, counts_rows))
        found = self._known[caller, service] = tuple(held)
        return found
