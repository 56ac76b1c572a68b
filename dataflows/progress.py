"""How far the stream is: a live line on a terminal, log lines elsewhere, and the same figures as Prometheus metrics.

    12,345,678 read · 83,211/s · lag 0 · freshness 38 ms · 3 dead letters (undecodable 2, beyond_retention 1)

Lag counts the records behind the committed position, by partition in the metric and summed in the line, with the worst
partition named; also those that an open transaction of Kafka holds back. A partition that cannot be read counts as one
record at least: how many there are, nobody knows. Freshness is the clock minus the newest committed event time of the
view that is furthest behind.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from prometheus_client import Counter, Gauge, Histogram

from featurestore.clock import Clock
from featurestore.core.events import KeyedBatch
from featurestore.core.spec.access import AccessSpec
from featurestore.core.windows.durations import readable_duration
from featurestore.online.generation import Generation
from featurestore.online.write.report import WriteReport
from featurestore.wire.payloads import DeadLetter

TERMINAL_SECONDS = 0.5
"""Time between two refreshes of a terminal's line."""

EVENTS_READ = Counter("featurestore_stream_records_read", "Records read from the source.", ["topic"])
EVENTS_APPLIED = Counter("featurestore_stream_events_applied", "Events folded and committed.", ["view"])
DUPLICATES = Counter("featurestore_stream_duplicates_dropped", "Events whose id was seen within the horizon.", ["view"])
REPLAYED = Counter("featurestore_stream_replayed_skipped", "Events read again that had been committed.", ["view"])
ERASED = Counter("featurestore_stream_erased_dropped", "Events that are erased, and came again or late.", ["view"])
DEAD_LETTERS = Counter("featurestore_stream_dead_letters", "Records refused.", ["topic", "view", "reason"])
WORK_SECONDS = Counter(
    "featurestore_stream_work_seconds",
    "Processor time that a view or storage group took: computing and keying its columns, preparing its commits.",
    ["view", "step"],
)
WRITTEN_BYTES = Counter("featurestore_stream_written_bytes", "Rows and bodies given to the online store.", ["view"])
STEP_SECONDS = Histogram(
    "featurestore_stream_step_seconds",
    "By the clock, for each read or micro-batch: from when Kafka's first record of it was written to when it was read, "
    "decoding, keying, waiting for the commit before, preparing a commit, the store's part of it.",
    ["step"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
VIEW_OWNER = Gauge(
    "featurestore_stream_view_owner",
    "Which team answers for a view, 1; of a storage group, each team's share of its views. To join what views cost.",
    ["view", "owner"],
)
SET_ASIDE = Counter("featurestore_stream_entities_set_aside", "Entities whose stored bytes are damaged.", ["view"])
LAG_RECORDS = Gauge("featurestore_stream_lag_records", "Records not committed yet.", ["topic", "partition"])
FRESHNESS_MS = Gauge("featurestore_stream_freshness_ms", "Clock minus newest committed event time.", ["view"])
COMMIT_SECONDS = Histogram(
    "featurestore_stream_commit_seconds",
    "Commit of a micro-batch that holds events of the view.",
    ["view"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)

_logger = logging.getLogger(__name__)


class StreamProgress:
    """Counts what the steps of this process do, and shows it. Thread safe.

    Args:
        clock: processing time.
        interval_seconds: time between plain lines.
        terminal: where the live line goes; None, or not a terminal, for plain lines.
    """

    def __init__(self, clock: Clock, *, interval_seconds: float, terminal: TextIO | None = sys.stderr) -> None:
        self._clock = clock
        self._terminal = terminal if terminal is not None and terminal.isatty() else None
        seconds = interval_seconds if self._terminal is None else min(interval_seconds, TERMINAL_SECONDS)
        self._interval_ns = int(seconds * 1e9)
        self._lock = threading.Lock()
        self._records_read = 0
        self._records_shown = 0
        self._shown_ns = clock.monotonic_ns()
        self._starts: dict[tuple[str, int], int] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._unreadable: set[tuple[str, int]] = set()
        self._committed: dict[tuple[str, int], dict[str, int]] = {}
        self._newest_ms: dict[str, int] = {}
        self._dead_letters: Tally[str] = Tally()
        self._kept_beside: Sequence[Callable[[bool], None]] = ()
        self._note_commit: Callable[[Generation, WriteReport], None] = lambda generation, report: None

    def keep_beside(self, *keep: Callable[[bool], None], note: Callable[[Generation, WriteReport], None]) -> None:
        """Let other figures be kept when it may be time to; at last, they are told. `note` hears of commits."""
        self._kept_beside, self._note_commit = keep, note

    def opened(self, topic: str, partition: int, start: int, end_offset: int) -> None:
        """A partition is read from `start` on, where everything before is committed; it ends at `end_offset` now."""
        with self._lock:
            self._starts[topic, partition] = min(start, self._starts.get((topic, partition), start))
            self._ends.setdefault((topic, partition), end_offset)

    def read(self, topic: str, partition: int, records: int, end_offset: int) -> None:
        """Records were read, or there were none; `end_offset` is where the partition ends now."""
        if records:
            EVENTS_READ.labels(topic).inc(records)
        with self._lock:
            self._records_read += records
            self._ends[topic, partition] = end_offset
            self._unreadable.discard((topic, partition))

    def not_read(self, topic: str, partition: int, start: int) -> None:
        """A partition cannot be read now; everything before `start` is committed."""
        with self._lock:
            self._starts.setdefault((topic, partition), start)
            self._ends.setdefault((topic, partition), start)
            self._unreadable.add((topic, partition))

    def dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters were written."""
        for letter in letters:
            DEAD_LETTERS.labels(letter.topic, letter.view or "", str(letter.reason)).inc()
        with self._lock:
            self._dead_letters.update(str(letter.reason) for letter in letters)

    def committed(
        self, generation: Generation, batches: Sequence[KeyedBatch], report: WriteReport, duration_ns: int
    ) -> None:
        """Batches of one generation were committed."""
        self._note_commit(generation, report)
        name = generation.view.name
        EVENTS_APPLIED.labels(name).inc(report.events_applied)
        DUPLICATES.labels(name).inc(report.duplicates_dropped)
        REPLAYED.labels(name).inc(report.replayed_skipped)
        ERASED.labels(name).inc(report.erased_dropped)
        COMMIT_SECONDS.labels(name).observe(duration_ns / 1e9)
        WRITTEN_BYTES.labels(name).inc(report.bytes_written)
        writer = f"{name}@{generation.number}"
        with self._lock:
            for batch in batches:
                self._committed.setdefault((batch.topic, batch.partition), {})[writer] = batch.next_offset
            self._newest_ms[name] = max(self._newest_ms.get(name, 0), report.newest_event_time_ms)

    def worked(self, name: str, step: str, worked_ns: int) -> None:
        """A step took so much of the processor for a view or storage group."""
        WORK_SECONDS.labels(name, step).inc(worked_ns / 1e9)

    def passed(self, step: str, duration_ns: int) -> None:
        """A read or micro-batch has spent so long in a step, or before it."""
        STEP_SECONDS.labels(step).observe(duration_ns / 1e9)

    def set_aside(self, generation: Generation, damaged: Sequence[str]) -> None:
        """Entities of a generation are damaged; readers are refused them, and everything else goes on."""
        SET_ASIDE.labels(generation.view.name).inc(len(damaged))
        for one in damaged:
            _logger.error(
                "%s: %s; the entity is set aside, and another generation fills in the place of %d",
                generation.view.title,
                one,
                generation.number,
            )

    def logged(self, topic: str, partition: int, next_offset: int) -> None:
        """The event log has all records of a partition below an offset."""
        with self._lock:
            self._committed.setdefault((topic, partition), {})["event log"] = next_offset

    def committed_offset(self, topic: str, partition: int) -> int:
        """Next offset of a partition that every view's commits have passed; 0 before the first."""
        with self._lock:
            return min(self._committed.get((topic, partition), {}).values(), default=0)

    def tick(self) -> None:
        """Show the figures if it is time to."""
        self._keep_others(is_last=False)
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._shown_ns >= self._interval_ns:
            self.show(now_ns)

    def show(self, now_ns: int | None = None, *, is_last: bool = False) -> None:
        """Show the figures now."""
        if is_last:
            self._keep_others(is_last=True)
        now_ns = self._clock.monotonic_ns() if now_ns is None else now_ns
        with self._lock:
            line = self._line(now_ns)
            self._shown_ns, self._records_shown = now_ns, self._records_read
        if self._terminal is None:
            _logger.info("%s", line)
            return
        # \x1b[2K clears what a longer line left behind.
        self._terminal.write(f"\r\x1b[2K{line}" + ("\n" if is_last else ""))
        self._terminal.flush()

    def _keep_others(self, *, is_last: bool) -> None:
        """Keep the figures beside these."""
        for keep in self._kept_beside:
            keep(is_last)

    def _line(self, now_ns: int) -> str:
        """The figures as text; metrics that depend on the clock are set on the way."""
        seconds = max(1e-9, (now_ns - self._shown_ns) / 1e9)
        rate = (self._records_read - self._records_shown) / seconds
        parts = [f"{self._records_read:,} read", f"{rate:,.0f}/s", self._lag(), self._freshness()]
        total = sum(self._dead_letters.values())
        if total:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._dead_letters.most_common())
            parts.append(f"{total:,} dead letters ({reasons})")
        return " · ".join(part for part in parts if part)

    def _lag(self) -> str:
        """Records behind the committed positions; nothing while no partition has been opened."""
        if not self._ends:
            return ""
        lags: dict[tuple[str, int], int] = {}
        for partition, end_offset in self._ends.items():
            committed = min(self._committed.get(partition, {}).values(), default=self._starts.get(partition, 0))
            lags[partition] = max(int(partition in self._unreadable), end_offset - committed)
            LAG_RECORDS.labels(partition[0], str(partition[1])).set(lags[partition])
        if not any(lags.values()):
            return "lag 0"
        if self._unreadable:
            unreadable = ", ".join(f"{topic}[{number}]" for topic, number in sorted(self._unreadable))
            return f"lag at least {sum(lags.values()):,} ({unreadable} cannot be read)"
        (topic, number), worst = max(lags.items(), key=lambda lag: lag[1])
        return f"lag {sum(lags.values()):,} (most in {topic}[{number}]: {worst:,})"

    def _freshness(self) -> str:
        """The view that is furthest behind."""
        now_ms = self._clock.now_ms()
        ages_ms = {view: now_ms - newest_ms for view, newest_ms in self._newest_ms.items() if newest_ms}
        for view, age_ms in ages_ms.items():
            FRESHNESS_MS.labels(view).set(age_ms)
        if not ages_ms:
            return ""
        return f"freshness {readable_duration(max(ages_ms.values()))}"


def show_owners(generations: Iterable[Generation], access: AccessSpec) -> None:
    """Which team answers for each view and storage group that is written."""
    VIEW_OWNER.clear()
    for view in {one.view.name: one.view for one in generations}.values():
        names = [member.name for member in view.members] or [view.name]
        for owner, count in Tally(access.view(name).owner for name in names).items():
            VIEW_OWNER.labels(view.name, owner).set(count / len(names))
