"""Columns of tables with a past: what the stream gives an event, what history gives it, and what it is by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.events import ColumnValues
from featurestore.core.inputs import python_values
from featurestore.core.point_in_time import as_of_table
from featurestore.core.point_in_time.as_of_table import AsOfTable, TableRows
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    EnrichmentSpec,
    FeatureSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.errors import InvalidRequest, LimitExceeded
from featurestore.offline.bootstrap_events import LogEvents
from featurestore.offline.file_log import FileLog
from featurestore.offline.training_set.arrow_columns import ARROW_TYPES
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory, HistoricTables
from featurestore.testing.features.calculator import FeatureCalculator
from featurestore.testing.oracle.naive import NaiveEvent, naive_values
from featurestore.wire.entity_key import encode_key
from featurestore.wire.formats.columns import objects
from featurestore.wire.payloads import EventDecoder, RawBatch
from tests.offline.training_set.label_tables import HOUR_MS, NOON_MS, repo_of

RATE, OWNER = Column("fx_rate", ValueType.FLOAT64), Column("customer", ValueType.STRING)
RATES = SourceSpec(
    "rates",
    "rates",
    (Column("code", ValueType.STRING), Column("since", ValueType.INT64), Column("rate", ValueType.FLOAT64)),
    "since",
)
CARDS = SourceSpec(
    "cards",
    "cards",
    (Column("card", ValueType.INT64), Column("since", ValueType.INT64), Column("owner", ValueType.STRING)),
    "since",
)
PAYMENTS = SourceSpec(
    name="payments",
    topic="payments",
    columns=(
        Column("payment_id", ValueType.STRING),
        Column("paid_at", ValueType.INT64),
        Column("card", ValueType.INT64),
        Column("amount", ValueType.INT64),
        Column("currency", ValueType.STRING),
        RATE,
        OWNER,
    ),
    event_time_column="paid_at",
    event_id_column="payment_id",
    dedup_horizon_ms=HOUR_MS,
    enrichments=(
        EnrichmentSpec("card", "card", CARDS.columns[0], ((OWNER, "owner"),), stream=CARDS),
        EnrichmentSpec("fx", "currency", RATES.columns[0], ((RATE, "rate"),), stream=RATES),
    ),
    computed=(ComputedColumn("value", ValueType.FLOAT64, "amount * fx_rate"),),
)
DAY = Window(86_400_000, 1)
VIEW = ViewSpec(
    "spending",
    (OWNER,),
    PAYMENTS,
    (
        FeatureSpec("count", "count", None, DAY, ValueType.INT64),
        FeatureSpec("value", "sum", "value", DAY, ValueType.FLOAT64),
        FeatureSpec("dear", "count", None, DAY, ValueType.INT64, where="fx_rate >= 2.0"),
    ),
    None,
)
CONDITIONS = {"fx_rate >= 2.0": lambda row: row["fx_rate"] is not None and row["fx_rate"] >= 2.0}

TIMES = st.integers(0, 12).map(lambda step: NOON_MS + step)
"""So few that versions, events and each other often meet."""


@dataclass(frozen=True)
class Payment:
    """An event by hand."""

    at_ms: int
    card: int | None
    amount: int
    currency: str | None


@dataclass(frozen=True)
class Version:
    """A version of a row by hand."""

    key: object
    since_ms: int
    value: object


PAYMENTS_DRAWN = st.lists(
    st.builds(
        Payment, TIMES, st.sampled_from((1, 2, None)), st.integers(1, 9), st.sampled_from(("EUR", "USD", "GBP", None))
    ),
    max_size=12,
)
RATES_DRAWN = st.lists(
    st.builds(Version, st.sampled_from(("EUR", "USD")), TIMES, st.sampled_from((0.5, 2.0, 4.0, None))), max_size=12
)
CARDS_DRAWN = st.lists(
    st.builds(Version, st.sampled_from((1, 2)), TIMES, st.sampled_from(("ann", "bo", None))), max_size=8
)


def in_force(versions: Sequence[Version], key: object, at_ms: int) -> Any:
    """The value of the newest version of a key at or before a time; of equal ones the last."""
    value, newest_ms = None, -1
    for one in versions:
        if key is not None and one.key == key and newest_ms <= one.since_ms <= at_ms:
            value, newest_ms = one.value, one.since_ms
    return value


class Held:
    """Tables in memory, as a stream holds them (`Tables`)."""

    def __init__(self, **tables: AsOfTable) -> None:
        self.tables = tables

    def columns_at(
        self, source: str, enrichment: EnrichmentSpec, keys: ColumnValues, times_ms: np.ndarray
    ) -> dict[str, ColumnValues]:
        """See `Tables`."""
        found, _ = self.tables[enrichment.table].at(keys, times_ms)
        return {column.name: found[name] for column, name in enrichment.columns}


@settings(max_examples=40, deadline=None)
@given(payments=PAYMENTS_DRAWN, rates=RATES_DRAWN, cards=CARDS_DRAWN, pieces=st.integers(1, 4))
def test_stream_history_and_bootstrap_give_an_event_what_was_in_force(
    payments: list[Payment], rates: list[Version], cards: list[Version], pieces: int
) -> None:
    """Whatever order versions come in, with ties, nulls, unknown keys; by an enriched key, a sum and a condition."""
    rows = [by_hand(one, rates, cards) for one in payments]
    given = [(f"p{at}", one.at_ms, one.card, one.amount, one.currency) for at, one in enumerate(payments)]
    tables = {
        "payments": arrow(PAYMENTS, given),
        "rates": arrow(RATES, [(one.key, one.since_ms, one.value) for one in rates]),
        "cards": arrow(CARDS, [(one.key, one.since_ms, one.value) for one in cards]),
    }
    asks = [(owner, NOON_MS + at) for owner in ("ann", "bo") for at in (0, 4, 13)]
    labels = pa.table({"customer": [owner for owner, _ in asks], "event_timestamp": [at_ms for _, at_ms in asks]})

    decoded = rows_as_decoded(payments, held(rates, cards, pieces))
    answers = build_training_set(repo_of(VIEW), "all", labels, history=FileHistory(tables)).to_pylist()
    bootstrapped = rows_of_a_bootstrap(tables) if payments else []

    assert [(row["fx_rate"], row["customer"]) for row in rows] == decoded
    for (owner, at_ms), answer in zip(asks, answers, strict=True):
        events = [
            NaiveEvent(encode_key([owner]), one.at_ms, b"%d" % at, row)
            for at, (one, row) in enumerate(zip(payments, rows, strict=True))
            if row["customer"] == owner
        ]
        expected = naive_values(VIEW, events, at_ms, CONDITIONS)
        assert expected == {feature.name: answer[feature.name] for feature in VIEW.features}
    owned = [(row["customer"], row["value"]) for row in rows if row["customer"]]
    assert sorted(owned, key=repr) == sorted(bootstrapped, key=repr)


def by_hand(payment: Payment, rates: Sequence[Version], cards: Sequence[Version]) -> dict[str, Any]:
    """What a payment gets from the tables, and what is computed of that."""
    rate = in_force(rates, payment.currency, payment.at_ms)
    return {
        "fx_rate": rate,
        "customer": in_force(cards, payment.card, payment.at_ms),
        "value": None if rate is None else payment.amount * rate,
    }


def rows_of_a_bootstrap(tables: Mapping[str, pa.Table]) -> list[tuple[str, object]]:
    """Owner and value of each event, as a bootstrap sorts them by entity."""
    log = FileLog(tables["payments"], PAYMENTS, now_ms=NOON_MS + HOUR_MS)
    of_tables = HistoricTables(FileHistory(tables), None)
    events = LogEvents(log, VIEW, lane_count=4, now_ms=NOON_MS, tables=of_tables)
    found: list[tuple[str, object]] = []
    for _, batch in events.rows_by_bucket(lambda count: None):
        part = events.part_of(pa.Table.from_batches([batch]))
        owners = [part.keys[number].decode() for number in part.events.entity.tolist()]
        found += zip(owners, python_values(part.events.columns["value"], ValueType.FLOAT64), strict=True)
    return found


def held(rates: Sequence[Version], cards: Sequence[Version], pieces: int) -> Held:
    """The tables, filled a few versions at a time and looked at in between."""
    found = {}
    for source, versions in ((RATES, rates), (CARDS, cards)):
        key, _, value = source.columns
        table = AsOfTable(source.name, [value], 100)
        for piece in range(pieces):
            mine = versions[piece * len(versions) // pieces : (piece + 1) * len(versions) // pieces]
            times_ms = np.array([one.since_ms for one in mine], dtype=np.int64)
            columns = {value.name: values(value, [one.value for one in mine])}
            table.add(TableRows(values(key, [one.key for one in mine]), times_ms, columns))
            table.at(values(key, []), np.empty(0, dtype=np.int64))
        found[source.name] = table
    return Held(**found)


def values(column: Column, given: Sequence[Any]) -> ColumnValues:
    """A column of decoded records."""
    valid = np.array([one is not None for one in given], dtype=np.bool_)
    if column.type is ValueType.STRING:
        return ColumnValues(objects([(one or "").encode() for one in given]), valid)
    if column.type is ValueType.FLOAT64:
        return ColumnValues(np.array([one or 0.0 for one in given], dtype=np.float64), valid)
    return ColumnValues(np.array([one or 0 for one in given], dtype=np.int64), valid)


def rows_as_decoded(payments: Sequence[Payment], tables: Held) -> list[tuple[object, object]]:
    """Rate and owner of each payment, by the decoder of the stream."""
    records = [
        {"payment_id": f"p{at}", "paid_at": p.at_ms, "card": p.card, "currency": p.currency, "amount": p.amount}
        for at, p in enumerate(payments)
    ]
    payloads = [json.dumps(one).encode() for one in records]
    raw = RawBatch("payments", 0, 0, len(payloads), np.arange(len(payloads)), payloads)
    decoder = EventDecoder(PAYMENTS, ["fx_rate", "amount", "customer"], None, tables)
    decoded = decoder.decode(raw, now_ms=NOON_MS)
    assert decoded.dead_letters == ()
    columns = decoded.events.columns
    return list(zip(*(python_values(columns[one.name], one.type) for one in (RATE, OWNER)), strict=True))


def arrow(source: SourceSpec, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    """A history of a source: what its records have."""
    columns = [column for column in source.columns if column.name not in source.enriched]
    arrays = [pa.array([row[at] for row in rows], ARROW_TYPES[one.type]) for at, one in enumerate(columns)]
    return pa.table(arrays, names=[column.name for column in columns])


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few versions are enough for all that a large table does."""
    monkeypatch.setattr(as_of_table, "RECENT_ROWS_MIN", 3)


def test_the_later_of_two_versions_of_one_time_holds_in_whichever_run_they_are() -> None:
    """Four rows are a large run; a correction of one of them lies beside it."""
    key, value = RATES.columns[0], RATES.columns[2]
    table, asked = AsOfTable("rates", [value], 100), (values(key, ["a", "b"]), np.array([1, 9]))
    first = values(value, [1.0, 2.0, 3.0, 4.0])
    table.add(TableRows(values(key, ["a", "b", "c", "d"]), np.array([1, 1, 1, 1]), {"rate": first}))
    assert [1.0, 2.0] == python_values(table.at(*asked)[0]["rate"], value.type)
    table.add(TableRows(values(key, ["a"]), np.array([1]), {"rate": values(value, [9.0])}))

    found, is_found = table.at(*asked)

    assert [9.0, 2.0] == python_values(found["rate"], value.type)
    assert is_found.all()


def test_a_table_of_too_many_versions_is_refused() -> None:
    """By name, with what to do; what was added twice counts once."""
    key, value = RATES.columns[0], RATES.columns[2]
    table = AsOfTable('table "rates"', [value], 3)
    rows = TableRows(values(key, ["a", "b", "c"]), np.array([1, 2, 3]), {"rate": values(value, [1.0, 2.0, 3.0])})
    table.add(rows)
    table.add(rows)

    with pytest.raises(LimitExceeded, match='table "rates" has more than 3 versions'):
        table.add(replace(rows, times_ms=rows.times_ms + 1))


def test_a_feature_test_gives_events_what_tables_would() -> None:
    """Nothing is read for it."""
    event = {"paid_at": NOON_MS - 1, "customer": "ann", "amount": 3, "fx_rate": 2.0}

    calculator = FeatureCalculator(repo_of(VIEW))
    found = calculator.values("all", {"payments": [event]}, at=NOON_MS, entity={"customer": "ann"})

    assert {"count": 1, "value": 6.0, "dear": 1} == found


def test_a_table_that_history_does_not_have_is_named() -> None:
    """It is not taken for an empty one."""
    labels = pa.table({"customer": ["ann"], "event_timestamp": [NOON_MS]})
    history = FileHistory({"payments": arrow(PAYMENTS, []), "rates": arrow(RATES, [])})

    with pytest.raises(InvalidRequest, match='no history of source "cards"'):
        build_training_set(repo_of(VIEW), "all", labels, history=history)
