"""Transactions as the JSON records of the payments topic.

    {"transaction_id":"09f3...","event_time":"2026-11-22T10:00:00.123Z","card_id":"card-00000017","merchant_id":1000003,
     "terminal_id":50000011,"market":"SE","currency":"SEK","merchant_category":"grocery","amount":12900,
     "is_declined":false,"is_refund":false,"is_card_present":true}

Written by filling a template: what depends on the terminal or on the flags alone is written once. No value needs
escaping. About a million records a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.testing.simulator.markets import CATEGORIES, MARKETS
from featurestore.testing.simulator.population import FIRST_MERCHANT_ID, FIRST_TERMINAL_ID, Population
from featurestore.testing.simulator.rows import Rows


def card_id(card: int) -> str:
    """Payload's text of a card's index.

    >>> card_id(17)
    'card-00000017'
    """
    return f"card-{card:08d}"


def transaction_ids(rows: Rows) -> list[str]:
    """Payload's texts of the rows' ids, 16 hexadecimal digits each."""
    digits = rows["id"].astype(">u8").tobytes().hex()
    return [digits[start : start + 16] for start in range(0, len(digits), 16)]


class PayloadEncoder:
    """Encodes rows of one population."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._card_texts = [f'"card_id":"{card_id(card)}"' for card in range(population.size.cards)]
        self._terminal_texts: list[str] = [""] * len(population.terminal_merchant)
        self._flag_texts = [
            f'"is_declined":{_json(code & 1)},"is_refund":{_json(code & 2)},"is_card_present":{_json(code & 4)}'
            for code in range(8)
        ]

    def encode(self, rows: Rows) -> list[bytes]:
        """One record a row, in order, without a line end."""
        return [text.encode() for text in self.texts(rows)]

    def lines(self, rows: Rows) -> list[bytes]:
        """One line of an embedded log a row."""
        return self.encode(rows)

    def lines_of(self, records: Sequence[Mapping[str, object]]) -> list[bytes]:
        """As `lines`, of records by their columns; whatever these are."""
        return [json.dumps(record).encode() for record in records]

    def texts(self, rows: Rows) -> list[str]:
        """As `encode`, before UTF-8; pure ASCII."""
        moments = np.datetime_as_string(rows["event_time_ms"].astype("datetime64[ms]"), unit="ms").tolist()
        amounts: list[int | str] = rows["amount"].tolist()
        for unknown in np.flatnonzero(~rows["is_amount_known"]).tolist():
            amounts[unknown] = "null"
        self._write_terminals(np.unique(rows["terminal"]))
        ids, cards, terminals, flags = transaction_ids(rows), self._card_texts, self._terminal_texts, self._flag_texts
        flag_codes = rows["is_declined"] + 2 * rows["is_refund"] + 4 * rows["is_card_present"]
        return [
            f'{{"transaction_id":"{ids[index]}","event_time":"{moments[index]}Z",{cards[card]},{terminals[terminal]},'
            f'"amount":{amounts[index]},{flags[code]}}}'
            for index, (card, terminal, code) in enumerate(
                zip(rows["card"].tolist(), rows["terminal"].tolist(), flag_codes.tolist(), strict=True)
            )
        ]

    def _write_terminals(self, terminals: Int64Array) -> None:
        """Fill the fragments of terminals that turn up for the first time."""
        population, texts = self._population, self._terminal_texts
        for terminal in terminals.tolist():
            if texts[terminal]:
                continue
            merchant = int(population.terminal_merchant[terminal])
            market = MARKETS[int(population.merchant_market[merchant])]
            category = CATEGORIES[int(population.merchant_category[merchant])]
            texts[terminal] = (
                f'"merchant_id":{FIRST_MERCHANT_ID + merchant},"terminal_id":{FIRST_TERMINAL_ID + terminal},'
                f'"market":"{market.country}","currency":"{market.currency}","merchant_category":"{category.name}"'
            )


def _json(flag: int) -> str:
    return "true" if flag else "false"
