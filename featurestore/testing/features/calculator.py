"""Values of features over a handful of events in memory, by the calculator of training sets.

given rows ──columns of the source──> Arrow table ──FileHistory──> build_training_set ──> one row of values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from featurestore.core.spec import (
    CHANGE_ID,
    Column,
    PlainViewSpec,
    RepoSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
)
from featurestore.core.windows.durations import parse_duration_ms
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.offline.training_set.plain_join import PlainHistory
from featurestore.wire.formats.iso8601 import parse_text

Cell = object
Rows = Sequence[Mapping[str, Cell]]

LABEL_TIME = "event_timestamp"

_ARROW: Mapping[ValueType, pa.DataType] = {
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT64: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.TIMESTAMP: pa.timestamp("ms", "UTC"),
}
_MS_OF_UNIT = {"s": 1_000, "ms": 1}
_UNITS_OF_MS = {"us": 1_000, "ns": 1_000_000}
_SINCE = "since"
"""Column of a plain view's given rows: since when they hold."""


class FeatureCalculator:
    """Computes features of a repo's definitions.

    Args:
        repo: the definitions.
    """

    def __init__(self, repo: RepoSpec) -> None:
        # What events get from tables, they are given.
        views = tuple(replace(view, source=replace(view.source, enrichments=())) for view in repo.views)
        self.repo = replace(repo, views=views)
        self._sources = {view.source.name: view.source for view in views}

    def values(
        self,
        features: str | Sequence[str],
        given: Mapping[str, Rows],
        *,
        at: Cell,
        entity: Mapping[str, Cell],
        request: Mapping[str, Cell] | None = None,
        in_flight: str = "",
    ) -> dict[str, object]:
        """Values of features at a moment, by "view:feature", or by the names that a service answers with.

        Args:
            features: name of a service, or "view:feature" texts.
            given: source -> its events in order of arrival, column -> value; or plain view -> its rows, with "since".
                A time may be a duration before `at`, such as "-2h". A missing column is null; a missing id is made.
            at: the moment: ISO 8601 text, datetime, or milliseconds UTC.
            entity: join key -> value.
            request: columns of the request, and of the event in flight.
            in_flight: source of which the request is an event, at that moment: its features count it.

        Raises:
            InvalidRequest: something is unknown, or of a wrong type; it says what.
        """
        at_ms = moment_ms(at, "at")
        row = {**entity, **(request or {})}
        types = self._types(in_flight)
        columns = {name: _array([value], types.get(name), name, at_ms) for name, value in row.items()}
        profiles = [view.name for view in self.repo.plain_views if view.name in given]
        columns[LABEL_TIME] = pa.array([at_ms], _ARROW[ValueType.TIMESTAMP])
        table = build_training_set(
            self.repo,
            features,
            pa.table(columns),
            history=FileHistory({name: self._events(name, given.get(name, ()), at_ms) for name in self._sources}),
            plain={name: _profile(given[name], at_ms) for name in profiles},
            timestamp_column=LABEL_TIME,
            full_names=not isinstance(features, str),
            event_sources=[in_flight] if in_flight else [],
        )
        self._refuse_unknown(given)
        (answers,) = table.drop_columns(list(columns)).to_pylist(maps_as_pydicts="strict")
        return answers if isinstance(features, str) else dict(zip(features, answers.values(), strict=True))

    def _types(self, in_flight: str) -> dict[str, ValueType]:
        """Types of join keys, and of what comes with a request."""
        known: dict[str, ValueType] = {}
        if in_flight in self._sources:
            known |= {column.name: column.type for column in self._sources[in_flight].columns}
        for on_demand in self.repo.on_demand_views:
            known |= {column.name: column.type for column in on_demand.request_columns}
        views: tuple[ViewSpec | PlainViewSpec, ...] = (*self.repo.views, *self.repo.plain_views)
        return known | {column.name: column.type for view in views for column in view.join_keys}

    def _refuse_unknown(self, given: Mapping[str, Rows]) -> None:
        """Given is only what somebody reads."""
        known = [*self._sources, *(view.name for view in self.repo.plain_views)]
        for name in given:
            if name not in known:
                raise InvalidRequest(f'given are rows of "{name}", which no view reads', hint=suggest(name, known))

    def _events(self, name: str, rows: Rows, at_ms: int) -> pa.Table:
        """The events of a source as its history."""
        source = self._sources[name]
        columns = {column.name: column for column in source.columns}
        for number, row in enumerate(rows, 1):
            for key in row:
                if key not in columns:
                    fact = f'event {number} of "{name}" has a column "{key}", which its source does not have'
                    raise InvalidRequest(fact, hint=suggest(key, list(columns)))
            if row.get(source.event_time_column) is None:
                raise InvalidRequest(f'event {number} of "{name}" has no "{source.event_time_column}"')
        unit = source.event_time_unit
        return pa.table(
            {
                column.name: _array(
                    [_cell(source, column, row, number) for number, row in enumerate(rows, 1)],
                    column.type,
                    f"{name}.{column.name}",
                    at_ms,
                    unit=unit if column.name == source.event_time_column else "",
                )
                for column in source.columns
            }
        )


def _cell(source: SourceSpec, column: Column, row: Mapping[str, Cell], number: int) -> Cell:
    """A value as it was given; an event without an id gets one of its own."""
    value = row.get(column.name)
    if value is None and column.name in (source.event_id_column, CHANGE_ID):
        return number if column.type is ValueType.INT64 else f"given-{number}"
    return value


def _profile(rows: Rows, at_ms: int) -> PlainHistory:
    """Rows of a plain view as its table."""
    names = dict.fromkeys(name for row in rows for name in row if name != _SINCE)
    since = pa.array([moment_ms(row.get(_SINCE, "-1ms"), _SINCE, at_ms) for row in rows], _ARROW[ValueType.TIMESTAMP])
    return PlainHistory(pa.table({**{name: [row.get(name) for row in rows] for name in names}, _SINCE: since}), _SINCE)


def _array(values: Sequence[Cell], value_type: ValueType | None, what: str, at_ms: int, *, unit: str = "") -> pa.Array:
    """Values of a column; of an unknown type as they are."""
    if value_type is ValueType.TIMESTAMP or unit:
        moments = [None if value is None else moment_ms(value, what, at_ms, unit) for value in values]
        if value_type is ValueType.TIMESTAMP:
            return pa.array(moments, _ARROW[ValueType.TIMESTAMP])
        factor, divisor = _UNITS_OF_MS.get(unit, 1), _MS_OF_UNIT.get(unit, 1)
        return pa.array([None if one is None else one * factor // divisor for one in moments], pa.int64())
    try:
        return pa.array(values, None if value_type is None else _ARROW[value_type])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InvalidRequest(
            f'"{what}" is not {value_type}', detail=str(error), hint="write it as that type"
        ) from error


def moment_ms(value: Cell, what: str, at_ms: int | None = None, unit: str = "") -> int:
    """A moment in milliseconds UTC.

    Args:
        value: ISO 8601 text, datetime, number, or "-2h": so long before `at_ms`.
        what: it is, for messages.
        at_ms: what durations count from; None where there is nothing.
        unit: of numbers; "" is milliseconds.

    Raises:
        InvalidRequest: it is none.
    """
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    if isinstance(value, date):
        return moment_ms(datetime(value.year, value.month, value.day, tzinfo=UTC), what)
    if isinstance(value, int) and not isinstance(value, bool):
        return value * _MS_OF_UNIT.get(unit, 1) // _UNITS_OF_MS.get(unit, 1)
    if isinstance(value, str):
        if value.startswith("-") and at_ms is not None:
            return at_ms - parse_duration_ms(value[1:])
        if (found := parse_text(value)) is not None:
            return found
    hint = 'write "2026-01-01T12:00:00Z"' + (
        "" if at_ms is None else ', or a duration before the moment, such as "-2h"'
    )
    raise InvalidRequest(f'"{what}" is {value!r}, not a moment', hint=hint)


def features_of(repo: RepoSpec, view: str, names: Sequence[str]) -> list[str]:
    """Features of a view as "view:feature".

    Raises:
        InvalidRequest: the view or a feature is unknown.
    """
    found = repo.view(view) or repo.plain_view(view) or repo.on_demand_view(view)
    if found is None:
        known = [one.name for one in repo.views] + [one.name for one in repo.plain_views]
        known += [one.name for one in repo.on_demand_views]
        raise InvalidRequest(f'there is no feature view "{view}"', hint=suggest(view, known))
    if isinstance(found, ViewSpec):
        features = [one.name for one in found.answers]
    else:
        features = [one.name for one in found.features]
    for name in names:
        if name not in features:
            raise InvalidRequest(f'feature view "{view}" has no feature "{name}"', hint=suggest(name, features))
    return [f"{view}:{name}" for name in names]
