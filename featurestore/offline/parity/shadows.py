"""Logged answers beside those of the service's shadow to the same requests: what a new definition would change.

feature        rows    equal   largest difference    null     null of the shadow
count_1h       1000    98.8%   3 (card_id=c-17)      2.0%     2.0%
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import ValueType
from featurestore.offline.parity.checking.batch import LoggedRows
from featurestore.offline.parity.feature_log import REQUEST_ID, REQUEST_ROW, LoggedFeature, LogLayout, status_column
from featurestore.offline.parity.values import differing
from featurestore.wire.codecs.view_json import base_name

_NOT_READY = 4
"""Status, by its number in proto/featurestore_api/v1."""

_NUMBERS = (ValueType.INT64, ValueType.FLOAT64)


@dataclass(slots=True)
class ShadowDifference:
    """How a feature of the shadow differs from the one that was answered.

    Attributes:
        view, feature: which; the view without a version.
        rows: that were compared; those in which one of both was still being computed are not.
        not_ready: those rows.
        differing: rows in which the values are not the same: integers and texts exactly, floats to 1e-9.
        null, null_of_shadow: rows without a value.
        largest: greatest absolute difference of two numbers; None where no two numbers differ.
        largest_at: whose that is; empty for nobody.
        largest_request: and the id of the request.
    """

    view: str
    feature: str
    rows: int = 0
    not_ready: int = 0
    differing: int = 0
    null: int = 0
    null_of_shadow: int = 0
    largest: float | None = None
    largest_at: dict[str, object] = field(default_factory=dict)
    largest_request: str = ""


@dataclass(slots=True)
class ShadowReport:
    """What a feature log says of a service and its shadow.

    Attributes:
        service: what was asked.
        shadows: names of its shadows, if it had several one after the other.
        rows: answers of the service.
        both: those that have an answer of the shadow.
        features: that both have, by view and name.
        only_answered, only_shadow: "view:feature" that one of both has.
    """

    service: str
    shadows: list[str] = field(default_factory=list)
    rows: int = 0
    both: int = 0
    features: dict[tuple[str, str], ShadowDifference] = field(default_factory=dict)
    only_answered: set[str] = field(default_factory=set)
    only_shadow: set[str] = field(default_factory=set)


def compare_shadow(
    logged: Iterable[LoggedRows], service: str, *, since_ms: int | None = None, until_ms: int | None = None
) -> ShadowReport:
    """Compare all answers of a service with its shadow's.

    Args:
        logged: files of the feature log, or messages, of all services.
        service: what was asked.
        since_ms: only rows that were logged from then on; None for no bound.
        until_ms: only rows that were logged before; likewise.

    Raises:
        Unavailable: a file cannot be read.
    """
    answered: dict[LogLayout, list[LoggedRows]] = {}
    shadowed: dict[LogLayout, list[LoggedRows]] = {}
    for rows in logged:
        if rows.layout.shadow_of == service:
            shadowed.setdefault(rows.layout, []).append(rows)
        elif rows.layout.service == service and not rows.layout.shadow_of:
            answered.setdefault(rows.layout, []).append(rows)
    report = ShadowReport(service, sorted({layout.service for layout in shadowed}))

    def table_of(layout: LogLayout, files: Sequence[LoggedRows]) -> pa.Table:
        columns = [key.name for key in layout.join_keys]
        columns += [name for one in layout.features for name in (one.column, status_column(one))]
        wanted = [*columns, REQUEST_ID, REQUEST_ROW]
        return pa.concat_tables(file.read(wanted, since_ms=since_ms, until_ms=until_ms) for file in files)

    shadows = [(layout, table_of(layout, files)) for layout, files in shadowed.items()]
    for layout, files in answered.items():
        table = table_of(layout, files)
        report.rows += table.num_rows
        for shadow_layout, shadow in shadows:
            places = pc.index_in(_row_names(table), value_set=_row_names(shadow))
            mine = table.filter(places.is_valid())
            if mine.num_rows:
                report.both += mine.num_rows
                _compare(report, layout, mine, shadow_layout, shadow.take(places.drop_null()))
    return report


def _row_names(table: pa.Table) -> pa.ChunkedArray:
    """Names of the rows: request and row of it."""
    return pc.binary_join_element_wise(table.column(REQUEST_ID), table.column(REQUEST_ROW).cast(pa.string()), "/")


def _compare(report: ShadowReport, layout: LogLayout, table: pa.Table, of_shadow: LogLayout, shadow: pa.Table) -> None:
    """Add rows of both, side by side, to the report."""
    pairs = dict(_pairs(layout, of_shadow))
    report.only_answered |= {_title(one) for one in layout.features if one not in pairs}
    report.only_shadow |= {_title(one) for one in of_shadow.features if one not in set(pairs.values())}
    for left, right in pairs.items():
        name = base_name(left.view), left.name
        found = report.features.setdefault(name, ShadowDifference(*name))
        is_ready = _statuses(table, left) & _statuses(shadow, right)
        found.not_ready += int((~is_ready).sum())
        rows = np.flatnonzero(is_ready)
        one, other = table.column(left.column).take(pa.array(rows)), shadow.column(right.column).take(pa.array(rows))
        if left.type is not right.type:
            one, other = one.cast(pa.float64()), other.cast(pa.float64())
        found.rows += len(rows)
        found.null += one.null_count
        found.null_of_shadow += other.null_count
        differs = differing(one, other)
        found.differing += int(differs.sum())
        if left.type in _NUMBERS and differs.any():
            _find_largest(found, layout, table, rows, one, other)


def _pairs(layout: LogLayout, of_shadow: LogLayout) -> Iterator[tuple[LoggedFeature, LoggedFeature]]:
    """Features that both have: of the same version of a view if there is one, else of any."""
    for one in layout.features:
        alike = [
            other
            for other in of_shadow.features
            if (base_name(other.view), other.name) == (base_name(one.view), one.name)
            and (other.type is one.type or {other.type, one.type} <= set(_NUMBERS))
        ]
        if alike:
            yield one, next((other for other in alike if other.view == one.view), alike[0])


def _title(feature: LoggedFeature) -> str:
    return f"{feature.view}:{feature.name}"


def _statuses(table: pa.Table, feature: LoggedFeature) -> BoolArray:
    """(N,) whether a feature was ready to answer."""
    is_ready: BoolArray = np.asarray(table.column(status_column(feature)).to_numpy()) != _NOT_READY
    return is_ready


def _find_largest(
    found: ShadowDifference,
    layout: LogLayout,
    table: pa.Table,
    rows: Int64Array,
    one: pa.ChunkedArray,
    other: pa.ChunkedArray,
) -> None:
    """The greatest difference of two numbers, and whose it is; a number and NaN: no difference is larger."""
    distance = pc.abs(pc.subtract(one.cast(pa.float64()), other.cast(pa.float64())))
    far = np.asarray(distance.fill_null(0.0).to_numpy(), dtype=np.float64)
    both_nan = np.asarray(
        pc.and_kleene(pc.is_nan(one.cast(pa.float64())), pc.is_nan(other.cast(pa.float64()))).fill_null(False)
    )
    far = np.where(both_nan, 0.0, np.where(np.isnan(far), np.inf, far))
    at = int(far.argmax())
    if far[at] > (found.largest or 0.0):
        row = int(rows[at])
        found.largest = float(far[at])
        found.largest_at = {key.name: table.column(key.name)[row].as_py() for key in layout.join_keys}
        found.largest_request = table.column(REQUEST_ID)[row].as_py()
