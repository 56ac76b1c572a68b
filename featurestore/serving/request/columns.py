"""Columns that come with a request, checked against what a feature service declares: amounts, currencies, devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from featurestore.core.events import ColumnValues
from featurestore.core.lowering.request_time import RequestValue, column_of
from featurestore.core.spec import Column
from featurestore.errors import InvalidRequest, UnknownRequestColumn
from featurestore.errors.near_names import suggest
from featurestore.online.answer.service_plan import ServicePlan

RequestColumns = Mapping[str, Sequence[RequestValue]]
"""Name -> one value for each row, None where null."""


def typed_columns(plan: ServicePlan, given: RequestColumns, row_count: int) -> dict[str, ColumnValues]:
    """The columns that a plan reads, typed.

    Args:
        plan: the feature service.
        given: as sent.
        row_count: N.

    Raises:
        UnknownRequestColumn: one is missing, or none of the plan's.
        InvalidRequest: wrong types or lengths.
    """
    required = plan.on_demand.required if plan.on_demand is not None else frozenset[str]()
    if not given and not required:
        return {}
    schema = plan.schema
    known = {column.name: column for column in schema.request_columns}
    what = f'feature service "{schema.service}"' if schema.service else "the requested features"
    for name in given:
        if name not in known:
            hint = suggest(name, known) if known else "leave it out: no feature of it reads the request"
            raise UnknownRequestColumn(f'{what} reads no column "{name}" of the request', hint=hint)
    for name in sorted(required):
        if name not in given:
            raise UnknownRequestColumn(
                f'column "{name}" of the request is missing, which {what} reads',
                hint=f"send the columns {_names([known[each] for each in sorted(required)])}",
            )
    columns = {}
    for name in required:
        values = given[name]
        if len(values) != row_count:
            raise InvalidRequest(
                f'column "{name}" of the request has {len(values)} values for {row_count} rows',
                hint="send one value for each row",
            )
        columns[name] = column_of(name, values, known[name].type)
    return columns


def _names(columns: Sequence[Column]) -> str:
    """Columns with their types, for hints."""
    return ", ".join(f"{column.name} ({column.type.value})" for column in columns)
