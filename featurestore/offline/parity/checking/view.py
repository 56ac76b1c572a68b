"""One view of some logged rows: of each value whether it is right, and where it differs, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import ViewSpec
from featurestore.offline.parity.checking.batch import Batch
from featurestore.offline.parity.feature_log import LoggedFeature, LoggedView, status_column
from featurestore.offline.parity.reads import (
    AS_OF,
    ReadPositions,
    ServedReads,
    magnitudes_at_reads,
    recompute_at_reads,
)
from featurestore.offline.parity.report import EXAMPLES_PER_FEATURE_MAX, FeatureName, ParityReport, ValueOutcome
from featurestore.offline.parity.values import differing, value_at
from featurestore.offline.training_set.build import build_training_set
from featurestore.wire.codecs.view_json import definition_hash

NOT_READY, OUTSIDE_MAX_AGE = 4, 5
"""Statuses, by their numbers in proto/featurestore_api/v1."""


class ViewCheck:
    """One view of a batch.

    Args:
        batch: N rows.
        view: of the log.
        features: those that are compared.
        recomputed: N rows with their columns, from the whole history.
    """

    def __init__(self, batch: Batch, view: LoggedView, features: Sequence[LoggedFeature], recomputed: pa.Table) -> None:
        self._batch, self._view, self._features, self._recomputed = batch, view, features, recomputed
        self._table = batch.table
        self._spec = batch.spec_of(view)

    def outcomes(self, report: ParityReport) -> dict[LoggedFeature, Int64Array]:
        """(N,) an outcome for each row, by feature; unexplained ones become examples."""
        found: dict[LoggedFeature, Int64Array] = {}
        for feature in self._features:
            logged, recomputed = self._table.column(feature.column), self._recomputed.column(feature.column)
            differs = differing(logged, recomputed)
            found[feature] = np.where(differs, np.int64(ValueOutcome.UNEXPLAINED), np.int64(ValueOutcome.EQUAL))
            found[feature][self._statuses(feature) == NOT_READY] = ValueOutcome.NOT_READY
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
        keys, sources = self._batch.rows_of(self._spec)
        positions = ReadPositions.of(self._table.column(self._view.positions_column).take(pa.array(rows)))
        reads = ServedReads(keys.take(pa.array(rows)), self._batch.as_of_ms[rows], positions, sources)
        names = [feature.name for feature in self._features]
        memory_bytes = self._batch.options.memory_bytes
        return recompute_at_reads(self._spec, names, reads, self._batch.logs, memory_bytes=memory_bytes), reads

    def _at_event_times(self, rows: Int64Array) -> pa.Table:
        """A plain view's features for some rows, as of the row that was stored; null where it was too old, or none."""
        event_time_ms, is_known = self._batch.event_time_ms(self._view)
        is_seen = is_known & (self._statuses(self._features[0]) != OUTSIDE_MAX_AGE)
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
            values = (
                value_at(self._table.column(feature.column), row),
                value_at(self._recomputed.column(feature.column), row),
                value_at(at_reads.column(feature.name), index),
            )
            read = tuple((one["topic"], one["partition"], one["next_offset"]) for one in positions)
            report.examples.append(self._batch.example(feature, self._spec.join_keys, row, values, read))


def _oldest_ms(view: ViewSpec, name: str, as_of_ms: Int64Array) -> Int64Array:
    """(R,) oldest event time that a feature's window can reach, the view's widest for a derived one."""
    windows = [feature.window for feature in view.features if feature.name == name]
    windows = windows or [feature.window for feature in view.features]
    if any(window.length_ms is None for window in windows):
        return np.full(len(as_of_ms), np.iinfo(np.int64).min)
    return as_of_ms - max(window.reach_ms for window in windows)
