"""Exchange rates of the simulated markets: a version a quarter, the same on every machine.

currency   valid_from    minor_units_per_euro
SEK        2026-10-01    1,130.0 or some percent more or less: it moves with the years
EUR        2026-10-01      100.0
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.core.events import Float64Array, Int64Array
from featurestore.testing.simulator.markets import MARKETS
from featurestore.testing.simulator.population import Population
from featurestore.testing.simulator.rows import Rows

QUARTERS = tuple(datetime(2016 + quarter // 4, 1 + 3 * (quarter % 4), 1, tzinfo=UTC) for quarter in range(80))
"""Since when a version holds: twenty years. The first one holds for everything before, too."""

SWING = 0.04
"""How far a currency moves off its usual rate, as a share of it."""

_BEGIN_MS = 0
_PERIOD_QUARTERS = 11


def minor_units_per_euro(currency: int, quarter: int) -> float:
    """The rate of a currency, by the index of one of its markets, in a quarter; of the euro always the same."""
    market = MARKETS[currency]
    usual = market.units_per_euro * 10.0**market.minor_digits
    if market.currency == "EUR":
        return usual
    return round(usual * (1 + SWING * math.sin(2 * math.pi * (quarter + currency) / _PERIOD_QUARTERS)), 4)


def write_rate_table(path: Path) -> None:
    """Write the versions of all rates."""
    first = {market.currency: index for index, market in reversed(list(enumerate(MARKETS)))}
    versions = [(name, quarter) for name in sorted(first) for quarter in range(len(QUARTERS))]
    columns = {
        "currency": pa.array([name for name, _ in versions]),
        "valid_from": pa.array([_begins_ms()[quarter] for _, quarter in versions], pa.timestamp("ms", tz="UTC")),
        "minor_units_per_euro": pa.array([minor_units_per_euro(first[name], quarter) for name, quarter in versions]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="zstd")


def euros_of(population: Population, rows: Rows) -> Float64Array:
    """(N,) amounts in euros, by a plain look at each row's market and time; open amounts mean nothing."""
    first = {market.currency: index for index, market in reversed(list(enumerate(MARKETS)))}
    rates = np.array(
        [[minor_units_per_euro(first[m.currency], quarter) for quarter in range(len(QUARTERS))] for m in MARKETS]
    )
    market = population.merchant_market[population.terminal_merchant[rows["terminal"]]]
    begins: Int64Array = np.array(_begins_ms(), dtype=np.int64)
    quarter = np.searchsorted(begins, rows["event_time_ms"], side="right") - 1
    euros: Float64Array = rows["amount"] / rates[market, quarter]
    return euros


def _begins_ms() -> list[int]:
    """Since when each quarter's version holds."""
    return [_BEGIN_MS, *(round(begin.timestamp() * 1_000) for begin in QUARTERS[1:])]
