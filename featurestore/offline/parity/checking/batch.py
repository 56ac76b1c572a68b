"""Logged rows of one layout that brought along events of the same sources, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    timestamp_column,
)
from featurestore.offline.parity.reads import PinnedEventLogs, rows_of_view
from featurestore.offline.parity.report import Example, FeatureName
from featurestore.offline.training_set.build import MEMORY_BYTES_DEFAULT
from featurestore.offline.training_set.plain_join import PlainHistory

Positions = tuple[tuple[str, int, int], ...]
"""(topic, partition, next offset) each."""


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


@dataclass(frozen=True)
class Batch:
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

    def features_of(self, view: LoggedView) -> list[LoggedFeature]:
        """The logged features of a view."""
        return [feature for feature in self.layout.features if feature.view == view.name]

    def event_time_ms(self, view: LoggedView) -> tuple[Int64Array, BoolArray]:
        """(N,) newest event time behind each row's values, and whether there is one."""
        column = self.table.column(timestamp_column(first_feature(self.layout, view)))
        times_ms = column.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
        is_known = np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)
        return np.asarray(times_ms.fill_null(0).to_numpy(), dtype=np.int64), is_known

    def rows_of(self, view: ViewSpec | PlainViewSpec) -> tuple[pa.Table, tuple[str, ...]]:
        """See `rows_of_view`."""
        return rows_of_view(self.layout, self.table, view)

    def spec_of(self, view: LoggedView) -> ViewSpec | PlainViewSpec:
        """A view that is registered."""
        spec = self.repo.view(view.name) or self.repo.plain_view(view.name)
        assert spec is not None, "only features of registered views are compared"
        return spec

    def example(
        self, feature: LoggedFeature, keys: Sequence[Column], row: int, values: Sequence[object], positions: Positions
    ) -> Example:
        """A value that nothing explains.

        Args:
            feature: of the log.
            keys: join keys that tell whose it is.
            row: of the batch.
            values: the logged one, the recomputed one, and what comes of what had been read.
            positions: how far that was.
        """
        logged, recomputed, at_positions = values
        return Example(
            name=FeatureName(self.layout.service, feature.view, feature.name),
            request_id=self.table.column(REQUEST_ID)[row].as_py(),
            request_row=self.table.column(REQUEST_ROW)[row].as_py(),
            as_of_ms=int(self.as_of_ms[row]),
            entity={key.name: self.table.column(key.name)[row].as_py() for key in keys},
            logged=logged,
            recomputed=recomputed,
            at_positions=at_positions,
            positions=positions,
        )


def first_feature(layout: LogLayout, view: LoggedView) -> LoggedFeature:
    """Any feature of a view: they share event times."""
    return next(feature for feature in layout.features if feature.view == view.name)
