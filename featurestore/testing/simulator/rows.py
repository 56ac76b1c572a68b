"""Transactions as rows of one structured array: the working form of the simulation."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW = np.dtype(
    [
        ("id", np.uint64),  # unique a simulation, scrambled; the same for a producer's retry
        ("event_time_ms", np.int64),
        ("arrival_ms", np.int64),  # when the record reaches the topic
        ("card", np.int64),  # index, not the payload's text
        ("terminal", np.int64),
        ("amount", np.int64),  # minor units
        ("is_amount_known", np.bool_),
        ("is_declined", np.bool_),
        ("is_refund", np.bool_),
        ("is_card_present", np.bool_),
        ("pattern", np.int8),  # FraudPattern
    ]
)
"""One transaction."""

Rows = NDArray[Any]
"""(N,) of ROW."""


class FraudPattern(enum.IntEnum):
    """Why a transaction is fraud; lower-case names are the label's text, NONE is ""."""

    NONE = 0
    CARD_TESTING = 1
    STOLEN_CARD = 2
    COMPROMISED_TERMINAL = 3

    @property
    def label(self) -> str:
        """Text of the label."""
        return "" if self is FraudPattern.NONE else self.name.lower()


def empty_rows(count: int = 0) -> Rows:
    """`count` rows of zeros; the amount is known."""
    rows = np.zeros(count, dtype=ROW)
    rows["is_amount_known"] = True
    return rows
