"""Parity: every logged answer, recomputed from the event log by the engine of training sets.

    logged value ── recomputed from the whole log ── the same?                              equal
                    └─ no: recomputed from the events below the read's positions ── same?   explained: arrived later
                           └─ no: log behind, definition changed, window older than log?    explained, with the cause
                                  └─ no                                                     unexplained: a bug

The first step is a training set whose labels are the logged rows, so it costs one pass over the events, however many
rows there are; only values that differ go on to the second (see `parity_reads`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import Column, PlainViewSpec, RepoSpec, ViewSpec
from featurestore.offline.parity.feature_log import (
    AS_OF_MS,
    REQUEST_ID,
    REQUEST_ROW,
    LoggedFeature,
    LoggedView,
    LogLayout,
    status_column,
    timestamp_column,
)
from featurestore.offline.parity.reads import (
    AS_OF,
    PinnedEventLogs,
    ReadPositions,
    ServedReads,
    magnitudes_at_reads,
    recompute_at_reads,
    times_array,
)
from featurestore.offline.parity.report import (
    EXAMPLES_PER_FEATURE_MAX,
    Example,
    FeatureName,
    ParityReport,
    ValueOutcome,
)
from featurestore.offline.parity.values import differing, value_at
from featurestore.offline.training_set.build import MEMORY_BYTES_DEFAULT, build_training_set
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.wire.codecs.view_json import definition_hash

BATCH_ROWS = 1 << 18
"""Logged rows that are recomputed together: one pass over the event log each."""

_NOT_READY, _OUTSIDE_MAX_AGE = 4, 5
"""Statuses, by their numbers in proto/featurestore_api/v1."""


class LoggedRows(Protocol):
    """Some rows of a feature log: `feature_log.LoggedFile`, `feature_log_json.LoggedMessages`."""

    @property
    def layout(self) -> LogLayout:
        """What they hold."""
        ...

    def read(self, columns: Sequence[str], *, since_ms: int | None = None, until_ms: int | None = None) -> pa.Table:
        """Some columns of the rows that were logged in [since_ms, until_ms)."""
        ...


@dataclass(frozen=True, slots=True)
class ParityOptions:
    """How to check.

    Attributes:
        since_ms, until_ms: only rows that were logged in between, None for no bound.
        stream_since_ms: windows that reach back further could not be complete in the store; None: all could.
        memory_bytes: see `build_training_set`.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    stream_since_ms: int | None = None
    memory_bytes: int = MEMORY_BYTES_DEFAULT


def check_parity(
    repo: RepoSpec,
    logged: Iterable[LoggedRows],
    logs: PinnedEventLogs,
    *,
    plain: Mapping[str, PlainHistory] | None = None,
    options: ParityOptions | None = None,
    on_rows: Callable[[int], None] = lambda _row_count: None,
) -> ParityReport:
    """Recompute what a server logged, and say of each value what came of it.

    Args:
        repo: the definitions, as registered now.
        logged: files of the feature log, or messages.
        logs: the event logs.
        plain: tables of plain views, by name of the view; views without one are not compared.
        options: bounds and memory.
        on_rows: is told how many rows are done, from time to time.

    Raises:
        InvalidRequest: there is no event log of a source, or a table lacks a column.
        Unavailable: a file cannot be read now.
    """
    report = ParityReport()
    options = options or ParityOptions()
    by_layout: dict[LogLayout, list[LoggedRows]] = {}
    for file in logged:
        by_layout.setdefault(file.layout, []).append(file)
    for layout, files in by_layout.items():
        for table in _batches(layout, files, options):
            _Batch(repo, layout, table, logs, plain or {}, options).check(report)
            on_rows(report.row_count)
    report.event_logs = logs.versions_read()
    return report


def _batches(layout: LogLayout, files: Sequence[LoggedRows], options: ParityOptions) -> Iterator[pa.Table]:
    """Rows of one layout, some files at a time; only the columns that are needed."""
    columns = [name for name in layout.schema.names if not name.endswith("__timestamp")]
    columns += [timestamp_column(_first_feature(layout, view)) for view in layout.views]
    waiting: list[pa.Table] = []
    for file in files:
        waiting.append(file.read(columns, since_ms=options.since_ms, until_ms=options.until_ms))
        if sum(table.num_rows for table in waiting) >= BATCH_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(table.num_rows for table in waiting):
        yield pa.concat_tables(waiting)


def _first_feature(layout: LogLayout, view: LoggedView) -> LoggedFeature:
    """Any feature of a view: they share event times."""
    return next(feature for feature in layout.features if feature.view == view.name)


@dataclass(frozen=True)
class _Batch:
    """Logged rows of one layout.

    Attributes:
        repo: definitions.
        layout: of the rows.
        table: N rows.
        logs, plain: histories.
        options: see `check_parity`.
    """

    repo: RepoSpec
    layout: LogLayout
    table: pa.Table
    logs: PinnedEventLogs
    plain: Mapping[str, PlainHistory]
    options: ParityOptions
    as_of_ms: Int64Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "as_of_ms", np.asarray(self.table.column(AS_OF_MS).to_numpy(), dtype=np.int64))

    def check(self, report: ParityReport) -> None:
        """Add everything about these rows to a report."""
        report.add_rows(self.as_of_ms)
        asked = {view: self._comparable(view) for view in self.layout.views}
        recomputed = self._recompute([feature for features in asked.values() for feature in features])
        for view, features in asked.items():
            self._add_freshness(view, report)
            outcomes = self._without_comparison(view, features)
            if features:
                outcomes.update(_View(self, view, features, recomputed).outcomes(report))
            for feature, found in outcomes.items():
                name = FeatureName(self.layout.service, feature.view, feature.name)
                report.add_outcomes(name, found, self.as_of_ms)

    def features_of(self, view: LoggedView) -> list[LoggedFeature]:
        """The logged features of a view."""
        return [feature for feature in self.layout.features if feature.view == view.name]

    def event_time_ms(self, view: LoggedView) -> tuple[Int64Array, BoolArray]:
        """(N,) newest event time behind each row's values, and whether there is one."""
        column = self.table.column(timestamp_column(_first_feature(self.layout, view)))
        times_ms = column.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
        is_known = np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)
        return np.asarray(times_ms.fill_null(0).to_numpy(), dtype=np.int64), is_known

    def labels(self) -> pa.Table:
        """Join keys and read times as a label table."""
        keys = self.table.select([key.name for key in self.layout.join_keys])
        return keys.append_column(AS_OF, times_array(self.as_of_ms))

    def _recompute(self, features: Sequence[LoggedFeature]) -> pa.Table:
        """The features from the whole histories."""
        if not features:
            return pa.table({})
        return build_training_set(
            self.repo,
            [f"{feature.view}:{feature.name}" for feature in features],
            self.labels(),
            history=self.logs,
            plain=self.plain,
            timestamp_column=AS_OF,
            full_names=True,
            memory_bytes=self.options.memory_bytes,
        )

    def _comparable(self, view: LoggedView) -> list[LoggedFeature]:
        """Features of a view that are still registered as they were, and whose history is known."""
        spec = self.repo.view(view.name) or self.repo.plain_view(view.name)
        if spec is None or not set(spec.join_keys) <= set(self.layout.join_keys):
            return []
        if isinstance(spec, PlainViewSpec) and view.name not in self.plain:
            return []
        registered = set(spec.answers if isinstance(spec, ViewSpec) else spec.features)
        return [feature for feature in self.features_of(view) if Column(feature.name, feature.type) in registered]

    def _without_comparison(
        self, view: LoggedView, compared: Sequence[LoggedFeature]
    ) -> dict[LoggedFeature, Int64Array]:
        """Outcomes of a view's other features."""
        is_plain = self.repo.plain_view(view.name) is not None
        outcome = ValueOutcome.NO_TABLE if is_plain and view.name not in self.plain else ValueOutcome.NOT_DEFINED
        if self.repo.on_demand_view(view.name) is not None:
            outcome = ValueOutcome.ON_DEMAND
        others = [feature for feature in self.features_of(view) if feature not in compared]
        return {feature: np.full(len(self.as_of_ms), outcome, dtype=np.int64) for feature in others}

    def _add_freshness(self, view: LoggedView, report: ParityReport) -> None:
        """How old the newest event behind each row was."""
        event_time_ms, is_known = self.event_time_ms(view)
        report.add_freshness(view.name, self.as_of_ms - event_time_ms, is_known)


class _View:
    """One view of a batch.

    Args:
        batch: N rows.
        view: of the log.
        features: those that are compared.
        recomputed: N rows with their columns, from the whole history.
    """

    def __init__(
        self, batch: _Batch, view: LoggedView, features: Sequence[LoggedFeature], recomputed: pa.Table
    ) -> None:
        self._batch, self._view, self._features, self._recomputed = batch, view, features, recomputed
        self._table = batch.table
        spec = batch.repo.view(view.name) or batch.repo.plain_view(view.name)
        assert spec is not None, "only features of registered views are compared"
        self._spec = spec

    def outcomes(self, report: ParityReport) -> dict[LoggedFeature, Int64Array]:
        """(N,) an outcome for each row, by feature; unexplained ones become examples."""
        found: dict[LoggedFeature, Int64Array] = {}
        for feature in self._features:
            logged, recomputed = self._table.column(feature.column), self._recomputed.column(feature.column)
            differs = differing(logged, recomputed)
            found[feature] = np.where(differs, np.int64(ValueOutcome.UNEXPLAINED), np.int64(ValueOutcome.EQUAL))
            found[feature][self._statuses(feature) == _NOT_READY] = ValueOutcome.NOT_READY
        rows = np.flatnonzero(np.any([each == ValueOutcome.UNEXPLAINED for each in found.values()], axis=0))
        if not len(rows):
            return found
        is_stream = isinstance(self._spec, ViewSpec)
        at_reads, reads = self._at_reads(rows) if is_stream else (self._at_event_times(rows), None)
        proven = ValueOutcome.ARRIVED_LATER if is_stream else ValueOutcome.MATERIALIZED_LATER
        for feature, outcomes in found.items():
            mine = outcomes[rows]
            is_open = mine == ValueOutcome.UNEXPLAINED
            logged = self._table.column(feature.column).take(pa.array(rows))
            mine[is_open & ~differing(logged, at_reads.column(feature.name))] = proven
            outcomes[rows] = mine
        if reads is not None:
            self._allow_rounding(found, rows, at_reads, reads)
        for feature, outcomes in found.items():
            mine = outcomes[rows]
            if reads is not None:
                self._find_cause(feature, mine, reads)
            outcomes[rows] = mine
            self._add_examples(feature, rows, mine, at_reads, report)
        return found

    def _allow_rounding(
        self, found: Mapping[LoggedFeature, Int64Array], rows: Int64Array, at_reads: pa.Table, reads: ServedReads
    ) -> None:
        """Settle floats that differ only by the rounding of larger numbers that cancelled out; in place."""
        assert isinstance(self._spec, ViewSpec)
        is_open = {feature: outcomes[rows] == ValueOutcome.UNEXPLAINED for feature, outcomes in found.items()}
        open_rows = np.flatnonzero(np.any(list(is_open.values()), axis=0))
        names = [feature.name for feature, is_its in is_open.items() if is_its.any()]
        if not names:
            return
        memory_bytes = self._batch.options.memory_bytes
        scales = magnitudes_at_reads(
            self._spec, names, reads.take(open_rows), self._batch.logs, memory_bytes=memory_bytes
        )
        places, in_reads = pa.array(rows[open_rows]), pa.array(open_rows)
        for feature, outcomes in found.items():
            if feature.name not in scales:
                continue
            mine = outcomes[rows[open_rows]]
            logged = self._table.column(feature.column).take(places)
            for outcome, column in (
                (ValueOutcome.EQUAL, self._recomputed.column(feature.column).take(places)),
                (ValueOutcome.ARRIVED_LATER, at_reads.column(feature.name).take(in_reads)),
            ):
                is_near = ~differing(logged, column, scales[feature.name])
                mine[is_near & (mine == ValueOutcome.UNEXPLAINED)] = outcome
            outcomes[rows[open_rows]] = mine

    def _statuses(self, feature: LoggedFeature) -> Int64Array:
        """(N,) logged statuses."""
        return np.asarray(self._table.column(status_column(feature)).to_numpy(), dtype=np.int64)

    def _at_reads(self, rows: Int64Array) -> tuple[pa.Table, ServedReads]:
        """The view's features for some rows, from the events that had been applied."""
        assert isinstance(self._spec, ViewSpec)
        taken = self._table.take(pa.array(rows))
        keys = taken.select([key.name for key in self._spec.join_keys])
        positions = ReadPositions.of(taken.column(self._view.positions_column))
        reads = ServedReads(keys, self._batch.as_of_ms[rows], positions)
        names = [feature.name for feature in self._features]
        memory_bytes = self._batch.options.memory_bytes
        return recompute_at_reads(self._spec, names, reads, self._batch.logs, memory_bytes=memory_bytes), reads

    def _at_event_times(self, rows: Int64Array) -> pa.Table:
        """A plain view's features for some rows, as of the row that was stored; null where it was too old, or none."""
        event_time_ms, is_known = self._batch.event_time_ms(self._view)
        is_seen = is_known & (self._statuses(self._features[0]) != _OUTSIDE_MAX_AGE)
        times = pa.array(event_time_ms[rows], mask=~is_seen[rows]).cast(pa.timestamp("ms", tz="UTC"))
        keys = self._table.select([key.name for key in self._spec.join_keys]).take(pa.array(rows))
        return build_training_set(
            self._batch.repo,
            [f"{self._view.name}:{feature.name}" for feature in self._features],
            keys.append_column(AS_OF, times),
            history=self._batch.logs,
            plain=self._batch.plain,
            timestamp_column=AS_OF,
        )

    def _find_cause(self, feature: LoggedFeature, outcomes: Int64Array, reads: ServedReads) -> None:
        """Give values that are still unexplained the first cause that holds; in place."""
        assert isinstance(self._spec, ViewSpec)
        source, logs = self._spec.source, self._batch.logs
        ends = logs.positions(source)
        log_end = np.array([ends.get(place, 0) for place in reads.positions.columns], dtype=np.int64)
        begin_ms, stream_since_ms = logs.begin_ms(source), self._batch.options.stream_since_ms
        oldest_ms = _oldest_ms(self._spec, feature.name, reads.as_of_ms)
        every = np.ones(len(outcomes), dtype=np.bool_)
        causes: list[tuple[ValueOutcome, BoolArray]] = [
            (ValueOutcome.LOG_BEHIND, every & (reads.positions.next_offset[:, :-1] > log_end).any(axis=1)),
            (ValueOutcome.DEFINITION_CHANGED, every & (self._view.definition_hash != definition_hash(self._spec))),
            (ValueOutcome.HISTORY_BEGINS_LATER, every & (begin_ms is not None and oldest_ms < begin_ms)),
            (ValueOutcome.STREAM_BEGAN_LATER, every & (stream_since_ms is not None and oldest_ms < stream_since_ms)),
        ]
        for cause, holds in causes:
            outcomes[holds & (outcomes == ValueOutcome.UNEXPLAINED)] = cause

    def _add_examples(
        self, feature: LoggedFeature, rows: Int64Array, outcomes: Int64Array, at_reads: pa.Table, report: ParityReport
    ) -> None:
        """Show some unexplained values."""
        name = FeatureName(self._batch.layout.service, feature.view, feature.name)
        known = sum(example.name == name for example in report.examples)
        for index in np.flatnonzero(outcomes == ValueOutcome.UNEXPLAINED)[: EXAMPLES_PER_FEATURE_MAX - known].tolist():
            row = int(rows[index])
            positions = self._table.column(self._view.positions_column)[row].as_py() or ()
            report.examples.append(
                Example(
                    name=name,
                    request_id=self._table.column(REQUEST_ID)[row].as_py(),
                    request_row=self._table.column(REQUEST_ROW)[row].as_py(),
                    as_of_ms=int(self._batch.as_of_ms[row]),
                    entity={key.name: self._table.column(key.name)[row].as_py() for key in self._spec.join_keys},
                    logged=value_at(self._table.column(feature.column), row),
                    recomputed=value_at(self._recomputed.column(feature.column), row),
                    at_positions=value_at(at_reads.column(feature.name), index),
                    positions=tuple((one["topic"], one["partition"], one["next_offset"]) for one in positions),
                )
            )


def _oldest_ms(view: ViewSpec, name: str, as_of_ms: Int64Array) -> Int64Array:
    """(R,) oldest event time that a feature's window can reach, the view's widest for a derived one."""
    windows = [feature.window for feature in view.features if feature.name == name]
    windows = windows or [feature.window for feature in view.features]
    if any(window.length_ms is None for window in windows):
        return np.full(len(as_of_ms), np.iinfo(np.int64).min)
    return as_of_ms - max(window.reach_ms for window in windows)
