"""A client that does not ask a server which refuses: what is not sent costs the server nothing.

    asked, answered     calls of the last seconds, those that were held back among the asked; older ones fade
    held back           with probability (asked - SLACK * answered) / (asked + 1), if that is positive

A server reads a call before it can refuse it, and at some multiple of its capacity it does nothing else. A client that
holds back most of what would be refused leaves the server to those that it answers. A few calls go out all the same,
so that it is noticed when the server takes more. It is the adaptive throttling of "Site Reliability Engineering"
(O'Reilly 2016, chapter 21, equation 21-1), with less slack than its 2.
"""

from __future__ import annotations

import math
import random
import threading
from typing import Any

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError, Overloaded, Unavailable

SLACK = 1.25
"""So many calls are sent for each that is answered; more than one, so that a server that recovers is found out."""

REFUSALS_MIN = 5
"""So many refusals must be remembered: one of two calls says nothing yet."""

FADE_SECONDS = 1.0
"""In this time what is remembered fades to a third: who takes six times as much is found out in ten seconds."""

_NS_PER_S = 1e9


class Throttle:
    """What one client remembers of one server and feature service; safe to share between threads.

    A service may have a limit of its own, whose refusals say nothing of the others.

    Args:
        clock: by which memory fades.
        draw: a number in [0, 1), at random.
    """

    def __init__(self, clock: Clock, draw: random.Random | None = None) -> None:
        self._clock = clock
        self._random = draw or random.Random()
        self._lock = threading.Lock()
        self._asked = self._answered = 0.0
        self._faded_ns = clock.monotonic_ns()

    def check(self) -> None:
        """Let a call go out, or not.

        Raises:
            Overloaded: it is held back.
        """
        with self._lock:
            self._fade()
            excess = (self._asked - SLACK * self._answered) / (self._asked + 1)
            is_rare = self._asked - self._answered < REFUSALS_MIN
            if is_rare or excess <= 0 or self._random.random() >= excess:
                return
            self._asked += 1
        raise Overloaded(
            "the call was not sent: the server refuses most of what it is asked",
            hint="decide without features, and ask less; add servers",
        )

    def answered(self) -> None:
        """A call that went out was answered, if only by an error that is no refusal."""
        with self._lock:
            self._asked, self._answered = self._asked + 1, self._answered + 1

    def refused(self) -> None:
        """A call that went out was refused."""
        with self._lock:
            self._asked += 1

    def remember(self, error: FeatureStoreError) -> None:
        """What a failed call says of how much the server can take: nothing where none was reached, or was late."""
        if isinstance(error, Overloaded):
            self.refused()
        elif not isinstance(error, Unavailable):
            self.answered()

    def _fade(self) -> None:
        """Let older calls count less."""
        now_ns = self._clock.monotonic_ns()
        kept = math.exp(-(now_ns - self._faded_ns) / _NS_PER_S / FADE_SECONDS)
        self._asked, self._answered, self._faded_ns = self._asked * kept, self._answered * kept, now_ns


class Throttles:
    """One for each feature service that is asked, and one for all other calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_service: dict[str, Throttle] = {}

    def of(self, request: Any) -> Throttle:
        """That of a request."""
        service = str(getattr(request, "feature_service", ""))
        found = self._by_service.get(service)
        return found if found is not None else self._by_service.setdefault(service, Throttle(self._clock))
