"""Waiting for parts that do not answer: the store, the source, a file system."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from dataflows.logs.sources import Shared
from featurestore.errors import Unavailable

RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 2.0
"""An outage is asked about often at first, when it may be a hiccup, and then less."""

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


def patiently(
    shared: Shared, action: Callable[[], Result], *, place: str = "", on_outage: Callable[[], None] = lambda: None
) -> Result:
    """Do something that needs other parts, again and again while they do not answer.

    Args:
        shared: says for how long, and whether the flow ends.
        action: must be safe to repeat, whether or not it arrived.
        place: who waits, for the log.
        on_outage: called before each repetition.

    Raises:
        Unavailable: it lasted longer than the patience, or the flow ends meanwhile; nothing is lost.
    """
    clock = shared.clock
    deadline_ns = clock.monotonic_ns() + int(shared.patience_seconds * 1e9)
    retry_seconds = RETRY_SECONDS_MIN
    while True:
        try:
            return action()
        except Unavailable as error:
            on_outage()
            if clock.monotonic_ns() >= deadline_ns or shared.conductor.is_ending:
                raise
            _logger.warning("%s%s; retrying", place and f"{place}: ", error.message)
        # Who waits may hold the step up that shows the figures otherwise, and they say how far behind the stream is.
        shared.progress.tick()
        clock.sleep(retry_seconds)
        retry_seconds = min(RETRY_SECONDS_MAX, 2 * retry_seconds)
