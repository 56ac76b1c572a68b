"""The newest rows of an event log, held against the rules of a contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.core.events import EventBatch
from featurestore.core.expressions import compile_expression
from featurestore.core.spec import Expectation, OnFail, SourceSpec
from featurestore.definitions.limits import DAY_MS
from featurestore.definitions.schemas.data_contract import rules_of
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog, begin_of
from featurestore.offline.training_set.arrow_columns import column_values
from featurestore.wire.contracts import ContractCheck


def broken_in(
    event_logs: str, source: SourceSpec, described: Mapping[str, Any], rows_max: int
) -> tuple[int, list[str]]:
    """Hold rows against what a contract promises of each record.

    Args:
        event_logs: directory or URI of the event logs.
        source: whose log.
        described: what the contract says of its topic.
        rows_max: so many of the newest rows, about: whole batches are checked.

    Returns:
        Rows that were checked, and one sentence for each rule that too many of them break.

    Raises:
        InvalidRequest: there is no such log.
    """
    check = ContractCheck(source, _expected(source, described))
    if enriched := sorted(source.enriched.intersection(check.columns)):
        raise InvalidRequest(
            f'a rule reads column "{enriched[0]}", which events get from a table',
            detail="The event log does not hold what they got.",
            hint="leave --event-log out; the stream counts how the rule is kept (`featurestore status`)",
        )
    failed: dict[str, int] = {}
    first: dict[str, str] = {}
    checked = 0
    for batch in _newest(EventLog(below(event_logs, source.name)), check.columns, rows_max):
        events = check.flagged(_events(batch, source, check.columns))
        for one in check.failures(events):
            name, row = one.expectation.name, int(one.rows[-1])
            failed[name] = failed.get(name, 0) + len(one.rows)
            first.setdefault(name, "/".join(str(batch.column(part)[row].as_py()) for part in _PLACE))
        checked += batch.num_rows
    facts = [
        f'rule "{one.name}": {failed[one.name]:,} of {checked:,} rows break it, such as {first[one.name]}; '
        f"{one.at_most:.2%} may"
        for one in check.expectations
        if one.name in failed and failed[one.name] > one.at_most * checked
    ]
    return checked, facts


_PLACE = ("topic", "partition", "offset")


def _expected(source: SourceSpec, described: Mapping[str, Any]) -> list[Expectation]:
    """The rules of a contract that this source's columns can be asked about."""
    types = {column.name: column.type for column in source.columns}
    types.update({column.name: column.type for column in source.computed})
    found = []
    for rule in rules_of(described)[0]:
        try:
            condition = compile_expression(rule.condition, types)
        except InvalidRequest:
            continue  # said where the contract is held against the definitions
        if condition.is_condition:
            found.append(Expectation(source.name, rule.name, condition.text, OnFail.COUNT, rule.at_most))
    return found


def _newest(log: EventLog, columns: Sequence[str], rows_max: int) -> Iterator[pa.RecordBatch]:
    """Batches of rows, newest dates first."""
    left = rows_max
    for event_date in reversed(log.dates()):
        begin_ms = begin_of(event_date)
        names = list(dict.fromkeys([*columns, *_PLACE, "event_time_ms"]))
        for batch in log.scan(names, from_ms=begin_ms, to_ms=begin_ms + DAY_MS):
            yield batch
            left -= batch.num_rows
            if left <= 0:
                return


def _events(batch: pa.RecordBatch, source: SourceSpec, columns: Sequence[str]) -> EventBatch:
    """Rows as what comes out of a decoder."""
    values = {}
    for name in columns:
        column = source.column(name)
        assert column is not None, "a check reads columns of its source"
        values[name] = column_values(batch.column(name), column)
    offsets = batch.column("offset").to_numpy()
    return EventBatch(
        topic=source.topic,
        partition=0,
        from_offset=0,
        next_offset=int(np.max(offsets, initial=-1)) + 1,
        offsets=offsets,
        event_time_ms=batch.column("event_time_ms").to_numpy(),
        event_ids=None,
        columns=values,
    )
