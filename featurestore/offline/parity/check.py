"""Parity: every logged answer, recomputed from the event log by the engine of training sets.

    logged value ── recomputed from the whole log ── the same?                              equal
                    └─ no: recomputed from the events below the read's positions ── same?   explained: arrived later
                           └─ no: log behind, definition changed, window older than log?    explained, with the cause
                                  └─ no                                                     unexplained: a bug

The first step is a training set whose labels are the logged rows, so it costs one pass over the events, however many
rows there are; only values that differ go on to the second (see `parity.reads`). A payment in flight that was logged is
an event of its label; rows with one and rows without are a pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from featurestore.core.events import Int64Array
from featurestore.core.inputs import view_inputs
from featurestore.core.spec import Column, RepoSpec, ViewSpec
from featurestore.offline.parity.checking.batch import Batch, LoggedRows, ParityOptions, first_feature
from featurestore.offline.parity.checking.on_demand import Computed, OnDemandRows
from featurestore.offline.parity.checking.view import ViewCheck
from featurestore.offline.parity.feature_log import LoggedFeature, LoggedView, LogLayout, timestamp_column
from featurestore.offline.parity.reads import AS_OF, PinnedEventLogs, event_source, times_array
from featurestore.offline.parity.report import EXAMPLES_PER_FEATURE_MAX, FeatureName, ParityReport, ValueOutcome
from featurestore.offline.parity.values import differing, value_at
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.offline.training_set.plan import ViewOutputs, asked_part

BATCH_ROWS = 1 << 18
"""Logged rows that are recomputed together: one pass over the event log each."""


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
        as_asked = repo.counting_as(repo.service(layout.service))
        for table in _batches(layout, files, options):
            for mine, rows in _by_events(layout, table):
                _Check(Batch(as_asked, mine, rows, logs, plain or {}, options), report).check()
            on_rows(report.row_count)
    report.event_logs = logs.versions_read()
    return report


def _batches(layout: LogLayout, files: Sequence[LoggedRows], options: ParityOptions) -> Iterator[pa.Table]:
    """Rows of one layout, some files at a time; only the columns that are needed."""
    columns = [name for name in layout.schema.names if not name.endswith("__timestamp")]
    columns += [timestamp_column(first_feature(layout, view)) for view in layout.views]
    waiting: list[pa.Table] = []
    for file in files:
        waiting.append(file.read(columns, since_ms=options.since_ms, until_ms=options.until_ms))
        if sum(table.num_rows for table in waiting) >= BATCH_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(table.num_rows for table in waiting):
        yield pa.concat_tables(waiting)


def _by_events(layout: LogLayout, table: pa.Table) -> Iterator[tuple[LogLayout, pa.Table]]:
    """Rows that brought along events of the same sources together; their layout has just those."""
    if not layout.events:
        yield layout, table
        return
    is_there = np.stack([np.asarray(table.column(one.column).is_valid().to_numpy()) for one in layout.events])
    patterns, of_rows = np.unique(is_there, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T.tolist()):
        events = tuple(one for one, is_given in zip(layout.events, pattern, strict=True) if is_given)
        yield replace(layout, events=events), table.filter(pa.array(of_rows.ravel() == number))


class _Check:
    """Compares a batch.

    Args:
        batch: N rows.
        report: where it goes.
    """

    def __init__(self, batch: Batch, report: ParityReport) -> None:
        self._batch, self._report = batch, report

    def check(self) -> None:
        """Add everything about these rows to the report."""
        batch, report = self._batch, self._report
        report.add_rows(batch.as_of_ms)
        asked = {view: self._comparable(view) for view in batch.layout.views}
        recomputed = self._recompute(asked)
        found: dict[LoggedFeature, Int64Array] = {}
        for view, features in asked.items():
            event_time_ms, is_known = batch.event_time_ms(view)
            report.add_freshness(view.name, batch.as_of_ms - event_time_ms, is_known)
            found.update(self._without_comparison(view, features))
            if features:
                found.update(ViewCheck(batch, view, features, recomputed).outcomes(report))
        found.update(self._computed(recomputed, found))
        for feature, outcomes in found.items():
            name = FeatureName(batch.layout.service, feature.view, feature.name)
            report.add_outcomes(name, outcomes, batch.as_of_ms)

    def _computed(
        self, recomputed: pa.Table, found: Mapping[LoggedFeature, Int64Array]
    ) -> dict[LoggedFeature, Int64Array]:
        """Outcomes of the request-time features that can be computed anew."""
        batch, outcomes = self._batch, {}
        rows = OnDemandRows(batch.repo, batch.layout, batch.table)
        columns = dict(zip(recomputed.column_names, recomputed.columns, strict=True))
        for view in batch.layout.views:
            for feature in batch.features_of(view):
                if rows.knows(feature):
                    computed = rows.compute(view, feature, columns, found)
                    outcomes[feature] = computed.outcomes
                    self._add_examples(feature, computed)
        return outcomes

    def _add_examples(self, feature: LoggedFeature, computed: Computed) -> None:
        """Show some values that do not come of what was read; where that is wrong itself, it is shown there."""
        batch = self._batch
        logged = batch.table.column(feature.column)
        is_wrong = (computed.outcomes == ValueOutcome.UNEXPLAINED) & differing(logged, computed.of_logged)
        for row in np.flatnonzero(is_wrong)[:EXAMPLES_PER_FEATURE_MAX].tolist():
            values = [value_at(one, row) for one in (logged, computed.recomputed, computed.of_logged)]
            self._report.examples.append(batch.example(feature, batch.layout.join_keys, row, values, ()))

    def _recompute(self, asked: Mapping[LoggedView, Sequence[LoggedFeature]]) -> pa.Table:
        """The features from the whole histories."""
        together: dict[tuple[str, ...], list[LoggedFeature]] = {}
        rows: dict[tuple[str, ...], pa.Table] = {}
        for view, features in asked.items():
            if features:
                columns, sources = self._batch.rows_of(self._batch.spec_of(view))
                together.setdefault(sources, []).extend(features)
                rows[sources] = columns
        found: dict[str, pa.ChunkedArray] = {}
        for sources, features in together.items():
            table = build_training_set(
                self._batch.repo,
                [f"{feature.view}:{feature.name}" for feature in features],
                rows[sources].append_column(AS_OF, times_array(self._batch.as_of_ms)),
                history=self._batch.logs,
                plain=self._batch.plain,
                timestamp_column=AS_OF,
                full_names=True,
                event_sources=sources,
                memory_bytes=self._batch.options.memory_bytes,
            )
            found |= {feature.column: table.column(feature.column) for feature in features}
        return pa.table(found)

    def _comparable(self, view: LoggedView) -> list[LoggedFeature]:
        """Features of a view that are still registered as they were, and whose history is known."""
        registered = self._registered(view)
        if not registered or self._lacks_table(view) or self._lacks_event(view, registered):
            return []
        return registered

    def _registered(self, view: LoggedView) -> list[LoggedFeature]:
        """Features of a view that are still registered as they were; none of what is computed on demand."""
        spec = self._batch.repo.view(view.name) or self._batch.repo.plain_view(view.name)
        if spec is None or not set(spec.join_keys) <= set(self._batch.layout.join_keys):
            return []
        answers = set(spec.answers if isinstance(spec, ViewSpec) else spec.features)
        return [feature for feature in self._batch.features_of(view) if Column(feature.name, feature.type) in answers]

    def _lacks_table(self, view: LoggedView) -> bool:
        """Whether it is a plain view whose table was not given."""
        return self._batch.repo.plain_view(view.name) is not None and view.name not in self._batch.plain

    def _lacks_event(self, view: LoggedView, features: Sequence[LoggedFeature]) -> bool:
        """Whether the features, as registered now, read what is not in the log of the payments in flight."""
        spec = self._batch.spec_of(view)
        source = event_source(self._batch.layout, spec)
        if source is None or not isinstance(spec, ViewSpec):
            return False
        places = tuple(spec.answers.index(Column(feature.name, feature.type)) for feature in features)
        part = asked_part(ViewOutputs(spec, places, ())).view
        assert isinstance(part, ViewSpec), "it is a part of one"
        inputs, logged = view_inputs(part), {*source.columns, *self._batch.layout.join_keys}
        return not all(inputs.column(name) in logged for name in inputs.payload_columns)

    def _without_comparison(
        self, view: LoggedView, compared: Sequence[LoggedFeature]
    ) -> dict[LoggedFeature, Int64Array]:
        """Outcomes of a view's other features."""
        registered = set(self._registered(view))
        found = {}
        for feature in self._batch.features_of(view):
            if feature in compared:
                continue
            outcome = ValueOutcome.EVENT_NOT_LOGGED if feature in registered else ValueOutcome.NOT_DEFINED
            if self._batch.repo.on_demand_view(view.name) is not None:
                outcome = ValueOutcome.ON_DEMAND
            elif self._lacks_table(view):
                outcome = ValueOutcome.NO_TABLE
            found[feature] = np.full(len(self._batch.as_of_ms), outcome, dtype=np.int64)
        return found
