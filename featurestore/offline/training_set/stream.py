"""One stream view of a training set: which events it wants, and its answers part by part."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from featurestore.core.point_in_time.answer import PointInTime
from featurestore.core.point_in_time.rows import CHUNK_ROWS, Chunk, EventsInFlight, Moments, chunks
from featurestore.core.spec import ViewSpec
from featurestore.core.view import CompiledView
from featurestore.offline.training_set.answer_parts import AnswerParts, PartAnswers
from featurestore.offline.training_set.entity_numbers import EntityNumbers
from featurestore.offline.training_set.event_partitions import EventPartitions
from featurestore.offline.training_set.plan import Labels, ViewOutputs
from featurestore.offline.training_set.view_events import LabelReach, WantedEvents, events_of_labels, reach_of


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How the work of one view is cut.

    Attributes:
        held_bytes: events kept in memory; 0 writes them to files in any case.
        partition_count: files by entity.
        block_rows: rows read at once.
        keeps_answers: whether answers go to files as well.
    """

    held_bytes: int
    partition_count: int
    block_rows: int
    keeps_answers: bool


def run_together(works: Sequence[StreamWork]) -> Iterator[int]:
    """Run several works side by side; while one sorts its events, another one's chunks are computed.

    Yields:
        The number of label rows after each step of any of them.
    """
    steps: SimpleQueue[int | Future[None]] = SimpleQueue()
    is_over = threading.Event()

    def drive(work: StreamWork, threads: ThreadPoolExecutor) -> None:
        for rows in work.run(threads):
            steps.put(rows)
            if is_over.is_set():
                return

    cores = len(os.sched_getaffinity(0))
    # Drivers wait for what the other threads compute, so they are threads of their own.
    with ThreadPoolExecutor(cores) as threads, ThreadPoolExecutor(max(len(works), 1)) as drivers:
        try:
            for work in works:
                drivers.submit(drive, work, threads).add_done_callback(steps.put)
            running = len(works)
            while running:
                step = steps.get()
                if isinstance(step, int):
                    yield step
                else:
                    running -= 1
                    step.result()
        finally:
            is_over.set()


class StreamWork:
    """One stream view of a training set.

    Args:
        outputs: the view and its features.
        labels: R rows.
        directory: of files, if there are any.
        limits: how to cut the work.
    """

    def __init__(self, outputs: ViewOutputs, labels: Labels, directory: Path, limits: StreamLimits) -> None:
        assert isinstance(outputs.view, ViewSpec), "plain views are joined"
        self.view, self.limits = outputs.view, limits
        self._outputs, self._labels = outputs, labels
        self._in_flight = events_of_labels(self.view, labels)
        self._engine = PointInTime(
            CompiledView(self.view), outputs.features, counts_in_flight=self._in_flight is not None
        )
        self._numbers = EntityNumbers(
            self.view.join_keys, {key.name: labels.table.column(key.name) for key in self.view.join_keys}
        )
        self._is_asked = labels.is_timed & (self._numbers.of_labels >= 0)
        directory = directory / self.view.name
        self.events = EventPartitions(self.view, limits.partition_count, directory, limits.held_bytes)
        self.answers = AnswerParts(outputs.columns, directory if limits.keeps_answers else None)

    @property
    def wanted(self) -> WantedEvents:
        """Which events decide about some label."""
        asked = self._labels.as_of_ms[self._is_asked]
        reach = reach_of(self.view, int(asked.min()), int(asked.max())) if len(asked) else LabelReach(0, 0)
        return WantedEvents(self.view, self._numbers, reach, self._engine.reads_event_ids)

    def run(self, threads: ThreadPoolExecutor) -> Iterator[int]:
        """Compute all parts that are not complete; yields the number of label rows after each step."""
        count = self.events.count
        part_of_labels = self.events.partition_of(self._numbers.of_labels)
        for part in range(count):
            rows = np.flatnonzero(self._is_asked & (part_of_labels == part))
            if self.answers.has(part):
                yield len(rows)
                continue
            moments = Moments(self._numbers.of_labels[rows] // count, self._labels.as_of_ms[rows])
            found = PartAnswers(self._outputs.columns, len(rows))
            in_flight = None if self._in_flight is None else self._in_flight.take(rows)

            def answer(chunk: Chunk, found: PartAnswers = found, in_flight: EventsInFlight | None = in_flight) -> int:
                found.put(chunk, self._engine.answer(chunk, in_flight))
                return chunk.moments.count

            entity_count = self._numbers.count // count + 1
            events = self.events.load(part)
            yield from threads.map(answer, chunks(events, moments, entity_count, CHUNK_ROWS, threads))
            self.answers.put(part, rows, found.table(threads))
            self.events.drop(part)
        self.answers.open(count)
