"""Parquet tables of a simulation: the transactions, their fraud labels, and what sales knows of merchants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.testing.simulator.markets import CATEGORIES, MARKETS
from featurestore.testing.simulator.payload import card_id, transaction_ids
from featurestore.testing.simulator.population import FIRST_MERCHANT_ID, FIRST_TERMINAL_ID, Population
from featurestore.testing.simulator.rows import FraudPattern, Rows

_TIME = pa.timestamp("ms", tz="UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())

TRANSACTION_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_time", _TIME),
        ("card_id", pa.string()),
        ("merchant_id", pa.int64()),
        ("terminal_id", pa.int64()),
        ("market", _TEXT),
        ("currency", _TEXT),
        ("amount", pa.int64()),
        ("is_declined", pa.bool_()),
        ("is_refund", pa.bool_()),
        ("is_card_present", pa.bool_()),
        ("merchant_category", _TEXT),
    ]
)
"""The payload's columns."""

LABEL_SCHEMA = pa.schema([("transaction_id", pa.string()), ("is_fraud", pa.bool_()), ("fraud_pattern", _TEXT)])
"""Labels are known weeks later, so they are never in the payload."""


class LabelsWriter:
    """Writes the label of every transaction; retries of a record repeat its label."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, LABEL_SCHEMA)
        self._patterns = pa.array([pattern.label for pattern in FraudPattern])

    def write(self, rows: Rows) -> None:
        """Append the labels of rows."""
        patterns = pa.DictionaryArray.from_arrays(rows["pattern"].astype(np.int32), self._patterns)
        columns = [_ids(rows), pa.array(rows["pattern"] != FraudPattern.NONE), patterns]
        self._writer.write_table(pa.table(columns, schema=LABEL_SCHEMA))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def transaction_table(population: Population, rows: Rows) -> pa.Table:
    """Rows as a table of TRANSACTION_SCHEMA, in the same order."""
    merchant = population.terminal_merchant[rows["terminal"]]
    market = population.merchant_market[merchant].astype(np.int32)
    category = population.merchant_category[merchant].astype(np.int32)
    columns = {
        "transaction_id": _ids(rows),
        "event_time": pa.array(rows["event_time_ms"].astype("datetime64[ms]")).cast(_TIME),
        "card_id": pa.array([card_id(card) for card in rows["card"].tolist()]),
        "merchant_id": pa.array(merchant + FIRST_MERCHANT_ID),
        "terminal_id": pa.array(rows["terminal"] + FIRST_TERMINAL_ID),
        "market": _named(market, [market.country for market in MARKETS]),
        "currency": _named(market, [market.currency for market in MARKETS]),
        "amount": pa.array(rows["amount"], mask=~rows["is_amount_known"]),
        "is_declined": pa.array(rows["is_declined"]),
        "is_refund": pa.array(rows["is_refund"]),
        "is_card_present": pa.array(rows["is_card_present"]),
        "merchant_category": _named(category, [category.name for category in CATEGORIES]),
    }
    return pa.table([columns[name] for name in TRANSACTION_SCHEMA.names], schema=TRANSACTION_SCHEMA)


def write_merchant_table(population: Population, path: Path, *, updated_at_ms: int, seed: int = 1) -> None:
    """Write one row a merchant: the nightly export that a batch feature view is materialized from."""
    random = np.random.default_rng([seed, 3])
    count = population.size.merchants
    columns = {
        "merchant_id": pa.array(np.arange(count) + FIRST_MERCHANT_ID),
        "updated_at": pa.array(np.full(count, updated_at_ms, dtype="datetime64[ms]")).cast(_TIME),
        "merchant_category": pa.array([CATEGORIES[index].name for index in population.merchant_category.tolist()]),
        "home_market": pa.array([MARKETS[index].country for index in population.merchant_market.tolist()]),
        "is_online_only": pa.array(population.merchant_is_online),
        "onboarded_days": pa.array(random.integers(1, 4_000, count)),
        "chargeback_share": pa.array(np.round(random.beta(1.2, 300.0, count), 5)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _ids(rows: Rows) -> pa.Array:
    return pa.array(transaction_ids(rows), pa.string())


def _named(codes: np.ndarray[tuple[int], np.dtype[np.int32]], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes, pa.array(names))
