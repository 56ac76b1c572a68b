"""When a client asks again: growing pauses after what may pass by itself, until nobody waits any more."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from featurestore.clock import Deadline
from featurestore.errors import DeadlineSpent, FeatureStoreError
from featurestore.serving.request.grpc_status import ERROR_KIND_KEY, error_of, is_transient

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 0.5
BACKOFF_GROWTH = 2.0
"""Pauses of 20, 40, 80 ... 500 ms, each shortened at random by up to half so that clients do not march in step."""

_MS_PER_SECOND = 1_000


def error_of_call(failure: Any) -> FeatureStoreError:
    """The server's error; `failure` is a grpc.RpcError that is also a grpc.Call."""
    metadata = dict(failure.trailing_metadata() or ())
    return error_of(failure.code(), failure.details() or "", metadata.get(ERROR_KIND_KEY))


def pauses_s() -> Iterator[float]:
    """Growing, jittered pauses between tries."""
    pause_s = BACKOFF_FIRST_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(pause_s * BACKOFF_GROWTH, BACKOFF_MAX_S)


def pause_before_retry_s(error: FeatureStoreError, deadline: Deadline, pauses: Iterator[float]) -> float | None:
    """How long to wait before trying again; None when that is pointless or there is no time."""
    return next_pause_s(deadline, pauses) if is_transient(error) else None


def next_pause_s(deadline: Deadline, pauses: Iterator[float]) -> float | None:
    """The next pause; None where there is no time for it."""
    pause_s = next(pauses)
    try:
        left_s = deadline.remaining_ms("another try") / _MS_PER_SECOND
    except DeadlineSpent:
        return None
    return pause_s if pause_s < left_s else None
