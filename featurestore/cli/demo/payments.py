"""What the demo's cards do: weeks of history, the last hours with many frauds, and live payments on top.

    history    [ now - days ................... now - 3 h )   what the cards do by themselves
    recent                                  [ now - 3 h ......................... end )   the same, and fraud campaigns
    live                                                       [ live start ..... end )   honest payments at a set rate

Stolen cards are used over hours, so the campaigns that a minute of live payments shows must have begun long before it.
All three draw from one population. What has arrived by the time that the history is written belongs to the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurestore.cli.demo.score import Features
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.definitions.schemas.directory import BASE64_ENDING
from featurestore.serving.client.messages import EntityValues, RequestValues
from featurestore.testing.simulator import (
    LogDirectorySink,
    Population,
    PopulationSize,
    Scenario,
    Simulation,
    write_merchant_table,
)
from featurestore.testing.simulator.avro_payload import line_of
from featurestore.testing.simulator.markets import CATEGORIES, MARKETS
from featurestore.testing.simulator.payload import card_id
from featurestore.testing.simulator.payments import DAY_MS, HOUR_MS
from featurestore.testing.simulator.population import FIRST_MERCHANT_ID, FIRST_TERMINAL_ID
from featurestore.testing.simulator.rates import euros_of
from featurestore.testing.simulator.rows import FraudPattern, Rows, empty_rows

TOPIC = "transactions"
PARTITIONS = 4
MERCHANTS = 2_000

RECENT_MS = 3 * HOUR_MS
CAMPAIGNS_PER_CARD_DAY = 0.2
"""Far more than in life, so that a minute shows some."""

CATCH_UP_MS_MAX = 10 * 60_000
"""The longest that may pass between the end of the history and the live payments."""

BROKEN_RECORDS: tuple[bytes, ...] = (
    b"\0\0\0\0\1\x10broken-1",  # torn
    b"\0\0\0\0\7\x10broken-2",  # of a schema that the registry does not know
    b'{"transaction_id":"broken-3"}',  # not even Avro
)
"""Sent among the live payments; none of them can be decoded."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the shop asks for it.

    Attributes:
        event_time_ms: when.
        card_id, merchant_id, terminal_id: entity keys of the risk model's features.
        category, market: of the merchant.
        amount: minor units; None while it is open.
        amount_text: in major units, with the currency.
        is_card_present: whether the card was read.
        pattern: the truth, which the risk model does not get.
    """

    event_time_ms: int
    card_id: str
    merchant_id: int
    terminal_id: int
    category: str
    market: str
    amount: int | None
    amount_text: str
    is_card_present: bool
    pattern: FraudPattern

    @property
    def entities(self) -> dict[str, EntityValues]:
        """Join key -> value."""
        return {"card_id": self.card_id, "merchant_id": self.merchant_id, "terminal_id": self.terminal_id}

    @property
    def event(self) -> dict[str, RequestValues]:
        """What the shop knows of the event that the stream will bring; nobody knows yet whether it is declined."""
        return {
            "event_time": self.event_time_ms,
            "amount": self.amount,
            "market": self.market,
            "merchant_category": self.category,
            "is_declined": None,
            "is_refund": False,
            "is_card_present": self.is_card_present,
        }


class DemoPayments:
    """Writes the payments to a log directory, and remembers them to check the features with.

    Args:
        log_dir: the embedded log.
        cards: how many.
        seed: equal seeds give equal cards and merchants.
    """

    def __init__(self, log_dir: Path, *, cards: int, seed: int) -> None:
        self._log_dir = log_dir
        self._seed = seed
        self._size = PopulationSize(cards=cards, merchants=MERCHANTS)
        self.population = Population(self._size, seed)
        self._sink = LogDirectorySink(log_dir, self.population, topic=TOPIC, partitions=PARTITIONS)
        self._written: list[Rows] = []
        self._recent = empty_rows()
        self.records_written = 0

    def write_history(self, *, days: float, now_ms: int, on_progress: Callable[[int], None]) -> None:
        """Write what has arrived until now, as fast as possible.

        Args:
            days: length of the history.
            now_ms: its end.
            on_progress: told the records written so far.
        """
        recent_ms = now_ms - RECENT_MS
        history = self._simulation(start_ms=now_ms - round(days * DAY_MS), end_ms=recent_ms)
        for rows in history.batches():
            self.send(rows)
            on_progress(self.records_written)
        per_day = self._size.cards * CAMPAIGNS_PER_CARD_DAY
        recent = self._simulation(start_ms=recent_ms, end_ms=now_ms + CATCH_UP_MS_MAX, campaigns_per_day=per_day)
        rows = np.concatenate(list(recent.batches()))
        has_arrived = rows["arrival_ms"] < now_ms
        self.send(rows[has_arrived])
        self._recent = rows[~has_arrived]
        on_progress(self.records_written)

    def live(self, *, start_ms: int, end_ms: int, per_second: float) -> Rows:
        """All records that arrive before the end and are not written yet, by arrival; retries and late ones included.

        Args:
            start_ms: when the additional payments begin.
            end_ms: when everything ends.
            per_second: rate of the additional payments.
        """
        honest = self._simulation(start_ms=start_ms, end_ms=end_ms, campaigns_per_day=0.0, per_second=per_second)
        rows = np.concatenate([self._recent, *honest.batches()])
        rows = rows[rows["arrival_ms"] < end_ms]
        return rows[np.argsort(rows["arrival_ms"], kind="stable")]

    def send(self, rows: Rows) -> None:
        """Append rows to the log; a reader can see them when this returns."""
        if len(rows):
            self._sink.write(rows)
            self._written.append(rows)
            self.records_written += len(rows)

    def send_broken(self) -> None:
        """Append records that nobody can decode, as a producer with a bug does."""
        with open(self._log_dir / TOPIC / f"0{BASE64_ENDING}", "ab") as file:
            file.write(b"".join(line_of(record) + b"\n" for record in BROKEN_RECORDS))

    def close(self) -> None:
        """Close the log's files."""
        self._sink.close()

    def write_merchant_table(self, path: Path, *, updated_at_ms: int) -> None:
        """Write what sales knows of the merchants, for materialize."""
        write_merchant_table(self.population, path, updated_at_ms=updated_at_ms, seed=self._seed)

    def payment(self, row: Rows) -> Payment:
        """One row in words."""
        terminal = int(row["terminal"])
        merchant = int(self.population.terminal_merchant[terminal])
        market = MARKETS[int(self.population.merchant_market[merchant])]
        amount = int(row["amount"]) if row["is_amount_known"] else None
        digits = market.minor_digits
        return Payment(
            event_time_ms=int(row["event_time_ms"]),
            card_id=card_id(int(row["card"])),
            merchant_id=FIRST_MERCHANT_ID + merchant,
            terminal_id=FIRST_TERMINAL_ID + terminal,
            category=CATEGORIES[int(self.population.merchant_category[merchant])].name,
            market=market.country,
            amount=amount,
            amount_text="open" if amount is None else f"{amount / 10**digits:,.{digits}f} {market.currency}",
            is_card_present=bool(row["is_card_present"]),
            pattern=FraudPattern(int(row["pattern"])),
        )

    def recount(self) -> CardTotals:
        """Count and sum of everything written, by a plain pass over it."""
        rows = np.concatenate(self._written)
        _, first = np.unique(rows["id"], return_index=True)  # a retry repeats its id, and counts once
        rows = rows[first]
        counts = np.bincount(rows["card"], minlength=self._size.cards)
        sums = np.zeros(self._size.cards, dtype=np.int64)
        known = rows[rows["is_amount_known"]]
        np.add.at(sums, known["card"], known["amount"])
        spent, euros = known[~known["is_declined"] & ~known["is_refund"]], np.zeros(self._size.cards)
        np.add.at(euros, spent["card"], euros_of(self.population, spent))
        return CardTotals(counts, sums, euros)

    def _simulation(
        self,
        *,
        start_ms: int,
        end_ms: int,
        campaigns_per_day: float | None = None,
        per_second: float | None = None,
    ) -> Simulation:
        scenario = Scenario(
            start_ms,
            max(start_ms, end_ms),
            seed=self._seed,
            size=self._size,
            per_second=per_second,
            campaigns_per_day=campaigns_per_day,
        )
        return Simulation(scenario, self.population)


@dataclass(frozen=True, slots=True)
class CardTotals:
    """What each of C cards has done in its life.

    Attributes:
        counts: (C,) records.
        amount_sums: (C,) minor units, open amounts left out.
        spent_euros: (C,) the same in euros, declined payments and refunds left out as well.
    """

    counts: Int64Array
    amount_sums: Int64Array
    spent_euros: Float64Array

    def agree(self, card: int, features: Features) -> bool:
        """Whether the features of a card say the same."""
        # A sum over no events is 0, so that nothing has to be said of cards that never paid.
        found = features["card_count_lifetime"], features["card_amount_sum_lifetime"]
        spent = features["card_spent_lifetime"]
        is_equal = found == (int(self.counts[card]), int(self.amount_sums[card]))
        return (
            is_equal and isinstance(spent, float) and math.isclose(spent, float(self.spent_euros[card]), abs_tol=1e-9)
        )


def asks_the_model(rows: Rows, *, since_ms: int) -> BoolArray:
    """(N,) the rows that are a shop's question: new payments, not refunds, nor a producer's retries."""
    _, first = np.unique(rows["id"], return_index=True)
    is_first = np.zeros(len(rows), dtype=np.bool_)
    is_first[first] = True
    asked: BoolArray = is_first & ~rows["is_refund"] & (rows["event_time_ms"] >= since_ms)
    return asked
