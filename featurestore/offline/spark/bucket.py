"""One bucket of a training set under Spark: what runs in an executor's Python, on Arrow tables, without Spark.

    labels of some entities ─┐
                             ├── the local engine, as if there were nothing else ──> labels + features
    rows of those entities ──┘   (put back in order of arrival, which a shuffle loses)

A bucket holds whole entities, so its answers do not depend on other buckets: they are those of a training set of its
own. One thread computes it, because Spark gives each core a task of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray
from featurestore.core.expressions import compile_expression
from featurestore.core.spec import Column, PlainViewSpec
from featurestore.errors import InvariantBroken
from featurestore.offline.training_set.arrow_columns import cast_column
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.label_times import label_moments_ms
from featurestore.offline.training_set.plain_join import PlainHistory, join_plain_view
from featurestore.offline.training_set.plan import Labels, OnDemandOutput, ViewOutputs
from featurestore.offline.training_set.stream import StreamLimits, StreamWork
from featurestore.offline.training_set.view_events import BLOCK_ROWS, LabelReach, scan_events

BUCKET = "__featurestore_bucket"
"""Column that tells a row's bucket, on both sides."""

_WHOLE = StreamLimits(held_bytes=sys.maxsize, partition_count=1, block_rows=BLOCK_ROWS, keeps_answers=False)
"""A bucket is held in memory and computed at once: Spark has cut the work already."""


@dataclass(frozen=True, slots=True)
class LabelMoments:
    """Where label times come from.

    Attributes:
        timestamp_column: a column; not looked at when there is one moment.
        at_ms: one moment for all rows.
        event_sources: names of sources of which each row is an event.
        columns: those of the labels themselves; an event has no others, whatever was joined to its row before.
    """

    timestamp_column: str
    at_ms: int | None
    event_sources: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def events(self, labels: Labels) -> Labels:
        """Rows as the events that they are; the same rows if they are none."""
        if not self.event_sources:
            return labels
        return replace(labels, table=labels.table.select(list(self.columns)), event_sources=self.event_sources)

    def labels(self, table: pa.Table) -> Labels:
        """Rows with their moments."""
        if self.at_ms is None:
            as_of_ms, is_timed = label_moments_ms(table.column(self.timestamp_column), self.timestamp_column)
            return Labels(table, as_of_ms, is_timed, self.timestamp_column)
        every = np.full(table.num_rows, self.at_ms, dtype=np.int64)
        return Labels(table, every, np.ones(table.num_rows, dtype=np.bool_), None)


@dataclass(frozen=True, slots=True)
class LabelSpans:
    """Measures labels: for each view how many rows have key and time, and their first and last moment.

    Attributes:
        moments: where label times come from.
        join_keys: of each view.
    """

    moments: LabelMoments
    join_keys: tuple[tuple[Column, ...], ...]

    SCHEMA = "view int, rows bigint, first_ms bigint, last_ms bigint"
    """Of the answers, as Spark writes it."""

    def measure(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Up to one row for each view and batch."""
        for batch in batches:
            labels = self.moments.labels(pa.Table.from_batches([batch]))
            found = []
            for view, keys in enumerate(self.join_keys):
                is_asked = labels.is_timed
                for key in keys:
                    is_asked = is_asked & _is_valid(cast_column(labels.table.column(key.name), key))
                asked_ms = labels.as_of_ms[is_asked]
                if len(asked_ms):
                    found.append((view, len(asked_ms), int(asked_ms.min()), int(asked_ms.max())))
            columns = list(zip(*found, strict=True)) or [(), (), (), ()]
            yield pa.RecordBatch.from_arrays(
                [pa.array(columns[0], pa.int32()), *(pa.array(values, pa.int64()) for values in columns[1:])],
                names=["view", "rows", "first_ms", "last_ms"],
            )


@dataclass(frozen=True, slots=True)
class Bucket:
    """Answers one view for the labels of a bucket.

    Attributes:
        outputs: the view and its features.
        moments: where label times come from.
        reach: event times that decide about labels, of this bucket or another: a running sum begins where the local
            engine's does.
        table: of a plain view, its time columns; its `data` is not looked at.
        arrival: columns of the rows that put them in order of arrival; empty when nothing does.
        schema: of the answer: the labels' columns, then the features.
    """

    outputs: ViewOutputs
    moments: LabelMoments
    reach: LabelReach
    table: PlainHistory | None
    arrival: tuple[str, ...]
    schema: pa.Schema

    def answer(self, labels: pa.Table, rows: pa.Table) -> pa.Table:
        """Labels with the view's features.

        Args:
            labels: those of a bucket, with BUCKET.
            rows: of the history, for the same entities and maybe others, with BUCKET.
        """
        if not labels.num_rows:
            return self.schema.empty_table()
        given = self.moments.labels(labels.drop_columns([BUCKET]).combine_chunks())
        rows = self._in_order(rows)
        if isinstance(self.outputs.view, PlainViewSpec):
            assert self.table is not None, "a plain view has a table"
            answers = join_plain_view(self.outputs, given, replace(self.table, data=rows))
        else:
            answers = self._windowed(given, rows)
        columns = [*given.table.columns, *answers.columns]
        return pa.table(
            [column.cast(kind) for column, kind in zip(columns, self.schema.types, strict=True)], schema=self.schema
        )

    def _windowed(self, labels: Labels, rows: pa.Table) -> pa.Table:
        """Answers of a stream view."""
        work = StreamWork(self.outputs, self.moments.events(labels), Path(), _WHOLE)
        for block in scan_events(FileHistory(rows), [replace(work.wanted, reach=self.reach)], BLOCK_ROWS):
            work.events.add(block.events[0])
        work.events.finish()
        with ThreadPoolExecutor(1) as thread:
            for _ in work.run(thread):
                pass
        return work.answers.block(0, labels.count)

    def _in_order(self, rows: pa.Table) -> pa.Table:
        """The rows as they arrived, without the columns that say so."""
        rows = rows.drop_columns([BUCKET]).combine_chunks()
        if not self.arrival:
            return rows
        for name in self.arrival:
            if rows.column(name).null_count:
                raise InvariantBroken("Spark has read a row of a file that it did not list")
        order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in self.arrival])
        return rows.drop_columns(list(self.arrival)).take(order)


@dataclass(frozen=True, slots=True)
class OnDemandColumn:
    """A feature that is computed behind the views; it travels as SQL.

    Attributes:
        column: name in the output, and type.
        text: SQL.
        reads: for each name in it that is a feature, the column with its values.
        request: columns of the labels that it reads.
    """

    column: Column
    text: str
    reads: Mapping[str, Column]
    request: tuple[Column, ...]

    @classmethod
    def of(cls, output: OnDemandOutput) -> OnDemandColumn:
        """The same for another process."""
        return cls(output.column, output.expression.text, output.reads, output.request)

    def output(self) -> OnDemandOutput:
        """The same, ready to compute."""
        types = {name: column.type for name, column in self.reads.items()}
        types |= {column.name: column.type for column in self.request}
        return OnDemandOutput(self.column, compile_expression(self.text, types), self.reads, self.request)


@dataclass(frozen=True, slots=True)
class OnDemandStage:
    """Computes the request-time features of labels that have the features of all views.

    Attributes:
        computed: what to add.
        schema: of the answer: the rows as they come, then the features.
    """

    computed: tuple[OnDemandColumn, ...]
    schema: pa.Schema

    def answer(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows with the features."""
        outputs = [one.output() for one in self.computed]
        for batch in batches:
            table = pa.Table.from_batches([batch])
            columns = dict(zip(table.column_names, table.columns, strict=True))
            found = [*table.columns, *(one.answer(columns, table) for one in outputs)]
            arrays = [column.cast(kind) for column, kind in zip(found, self.schema.types, strict=True)]
            yield from pa.table(arrays, schema=self.schema).to_batches()


def _is_valid(column: pa.ChunkedArray) -> BoolArray:
    """(N,) True where not null."""
    return np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)
