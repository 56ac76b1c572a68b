"""Logging of what was answered: which requests, and how they leave the request path at once.

    request ── takes()? ── answer, with the lanes' checkpoints ── add() ──> queue, bounded ──> thread ──> writer
               one comparison                                     append    full: dropped, counted    Parquet, Kafka

Taking every n-th request would run in step with whatever repeats itself in the traffic. So the sample walks the unit
interval by the golden ratio (Weyl's sequence) and takes a request when the point lies below the share: the share is met
as closely as can be after any number of requests, the gaps between samples have at most three lengths, and no period
of the traffic matches them. What a request asks, and whom it is about, has no influence: shares of the log are shares
of the traffic. Nothing is random, so a server that is asked the same again logs the same again.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import pyarrow as pa

from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError, InvalidRequest
from featurestore.offline.parity.feature_log import LogLayout
from featurestore.serving.sampling.answered import AnsweredRequest
from featurestore.serving.sampling.rows import SampledAnswer, encode_rows, grouped, layout_of

QUEUE_ROWS_MAX = 16_384
"""Rows that wait for the thread: some ten megabytes, and many seconds of any traffic that one process can answer."""

SHADOW_BYTES_MAX = 64 << 20
"""Bytes of the store that wait for the thread to make shadows' answers of them; beyond, shadows are dropped."""

REQUESTS_PER_STEP = 256
"""Requests that become rows in one go: about a millisecond in which the interpreter is not let go."""

WAKE_SECONDS = 0.5
"""How long the thread sleeps when nothing hurries it."""

HURRY_ROWS, HURRY_BYTES = QUEUE_ROWS_MAX // 4, SHADOW_BYTES_MAX // 4
"""A queue as full as this, or so many bytes that wait for shadows, wake the thread."""

_POINTS = 1 << 64
_GOLDEN_STEP = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio."""

_log = logging.getLogger(__name__)


class FeatureRowsWriter(Protocol):
    """Where rows go. Used by one thread; each method returns how many rows became durable by the call."""

    def write(self, layout: LogLayout, table: pa.Table, now_ms: int) -> int:
        """Take rows of one log date.

        Raises:
            FeatureStoreError: rows could not be written.
        """
        ...

    def advance(self, now_ms: int) -> int:
        """Write what has waited long enough."""
        ...

    def close(self, now_ms: int) -> int:
        """Write all that waits."""
        ...


class RowCounter(Protocol):
    """What is told about rows; the server's metrics."""

    def count_logged_rows(self, outcome: str, row_count: int) -> None:
        """Rows that were "written" or "dropped"; "shadow_dropped", "shadow_failed": of shadows, never to be written."""
        ...

    def count_log_failure(self) -> None:
        """A write that failed."""
        ...


class FeatureLog:
    """Samples answers and writes them in a thread of its own.

    Args:
        writer: where rows go.
        clock: dates rows.
        share: of the requests, 0 to 1.

    Raises:
        InvalidRequest: the share is none.
    """

    def __init__(self, writer: FeatureRowsWriter, clock: Clock, *, share: float) -> None:
        if not 0 <= share <= 1:
            raise InvalidRequest(f"the share {share} of requests to log is not between 0 and 1")
        self._writer = writer
        self._clock = clock
        self._below = round(share * _POINTS)
        self._point = 0
        # Unique among processes, and a request's number within this one.
        self._token = secrets.token_hex(6)
        self._number = 0
        self._queue: deque[SampledAnswer] = deque()
        self._queued_rows = 0
        self._shadow_bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = False
        self._counter: RowCounter | None = None
        self._thread = threading.Thread(target=self._run, name="feature-log", daemon=True)

    def start(self, counter: RowCounter) -> None:
        """Begin to write."""
        self._counter = counter
        self._thread.start()

    def stop(self) -> None:
        """Write everything that was added, and end."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()

    def takes(self) -> bool:
        """Whether the next request is logged. Two threads at once may take one step together, which does no harm."""
        point = self._point = (self._point + _GOLDEN_STEP) % _POINTS
        return point < self._below

    def add(self, answered: AnsweredRequest) -> None:
        """Queue an answer that `takes` chose; when the queue is full it is dropped and counted."""
        row_count, has_shadow = answered.answer.row_count, answered.shadow is not None
        with self._lock:
            is_full = self._queued_rows + row_count > QUEUE_ROWS_MAX
            is_heavy = self._shadow_bytes + answered.shadow_bytes > SHADOW_BYTES_MAX
            if is_heavy:
                answered = replace(answered, shadow=None, shadow_bytes=0)
            if not is_full:
                self._queued_rows += row_count
                self._shadow_bytes += answered.shadow_bytes
                self._number += 1
                request_id = f"{self._token}-{self._number}"
                self._queue.append(SampledAnswer(request_id, answered, self._clock.now_ms()))
        if is_full:
            self._count("dropped", row_count)
        if has_shadow and (is_full or is_heavy):
            self._count("shadow_dropped", row_count)
        if self._queued_rows > HURRY_ROWS or self._shadow_bytes > HURRY_BYTES:
            self._wake.set()

    def _run(self) -> None:
        """The thread: rows out of the queue, until told to stop and nothing is left."""
        while not self._is_stopping:
            self._wake.wait(WAKE_SECONDS)
            self._wake.clear()
            self._drain(len(self._queue))
            self._attempt(lambda: self._writer.advance(self._clock.now_ms()))
        while self._queue:
            self._drain(len(self._queue))
        self._attempt(lambda: self._writer.close(self._clock.now_ms()))

    def _drain(self, count: int) -> None:
        """Write so many requests of the queue, some at a time.

        What comes meanwhile waits for the next time: making columns of a few rows costs as much as of hundreds.
        """
        for begin in range(0, count, REQUESTS_PER_STEP):
            with self._lock:
                some = [self._queue.popleft() for _ in range(min(count - begin, REQUESTS_PER_STEP))]
                self._queued_rows -= sum(sampled.answered.answer.row_count for sampled in some)
            shadows = [shadow for sampled in some if (shadow := self._shadow(sampled)) is not None]
            for group in grouped([*some, *shadows]):
                self._attempt(partial(self._write, group))

    def _shadow(self, sampled: SampledAnswer) -> SampledAnswer | None:
        """What the shadow of a service answers to a request; None where it has none, or none comes of it."""
        answered = sampled.answered
        if answered.shadow is None:
            return None
        try:
            return replace(sampled, answered=answered.shadow())
        except FeatureStoreError as error:
            _log.debug("the shadow of %s has no answer: %s", answered.plan.schema.service, error)
        except Exception:  # noqa: BLE001  # the thread's edge, as below
            _log.warning("the shadow of %s failed", answered.plan.schema.service, exc_info=True)
        finally:
            with self._lock:
                self._shadow_bytes -= answered.shadow_bytes
        self._count("shadow_failed", answered.answer.row_count)
        return None

    def _write(self, group: Sequence[SampledAnswer]) -> int:
        """Hand the rows of one plan and date to the writer."""
        layout = layout_of(group[0].answered.plan, shadow_of=group[0].answered.shadow_of)
        return self._writer.write(layout, encode_rows(group, layout), self._clock.now_ms())

    def _attempt(self, work: Callable[[], int]) -> None:
        """Do something with the writer; what goes wrong is logged and counted, and requests never notice."""
        try:
            written = work()
        except Exception as error:  # noqa: BLE001  # the thread's edge: one bad row must not end the log
            _log.warning("%s", error, exc_info=not isinstance(error, FeatureStoreError))
            if self._counter is not None:
                self._counter.count_log_failure()
        else:
            if written:
                self._count("written", written)

    def _count(self, outcome: str, row_count: int) -> None:
        """Tell the metrics."""
        if self._counter is not None:
            self._counter.count_logged_rows(outcome, row_count)
