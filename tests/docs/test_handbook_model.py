"""The Handbook's features, and how its models are tested and judged; its data are not part of this project."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts import handbook_history
from scripts.handbook_model import (
    AS_THE_BOOK,
    CARDS_A_DAY,
    STRICTLY_BEFORE,
    TRAIN_FROM,
    Payments,
    card_precision,
    read_payments,
    split,
)


def test_card_precision_counts_a_card_once_and_blocks_it_when_it_is_caught() -> None:
    """By hand: three cards, the first of them compromised on both days, the third on the second."""
    payments = _payments(day=[1, 1, 1, 2, 2], customer=[1, 1, 2, 1, 3], is_fraud=[1, 0, 0, 1, 1])

    caught_on_both_days = (1 / CARDS_A_DAY + 1 / CARDS_A_DAY) / 2
    assert card_precision(payments, np.array([0.1, 0.9, 0.5, 0.9, 0.8])) == pytest.approx(caught_on_both_days)


def test_cards_of_known_frauds_leave_the_test_when_their_fraud_is_known() -> None:
    """A fraud of the training week at once, one of the week of delay a week and a day later, one of the test never."""
    first = int(np.datetime64(TRAIN_FROM).astype(np.int64))
    in_training, in_delay, in_test = 1, 2, 3
    days = [0, 7, 14, 14, 15, 14, 15]
    customers = [in_training, in_delay, in_training, in_delay, in_delay, in_test, in_test]
    payments = _payments(day=[first + day for day in days], customer=customers, is_fraud=[1, 1, 0, 0, 0, 1, 0])

    train, test = split(payments)
    assert train.customer.tolist() == [in_training]
    assert list(zip((test.day - first).tolist(), test.customer.tolist(), strict=True)) == [
        (14, in_delay),
        (14, in_test),
        (15, in_test),
    ]


def test_inputs_of_the_models_are_those_of_the_book(tmp_path: Path) -> None:
    """By hand: a fraud before the weeks that are asked for, then two payments of the same card at the same terminal.

    Friday 20 July 10:00   Wednesday 25 July 10:00   Saturday 28 July 3:00
    10.00, fraud           30.00                     20.00
    """
    paid_at = [datetime(2018, 7, 20, 10), datetime(2018, 7, 25, 10), datetime(2018, 7, 28, 3)]
    file = _transactions(tmp_path, paid_at=paid_at, card=[1] * 3, terminal=[5] * 3, cents=[1000, 3000, 2000])

    payments = read_payments(file)

    # Amount, weekend, night; number and mean of the card's in 1, 7, 30 days; number and risk of the terminal's.
    assert payments.inputs[STRICTLY_BEFORE].tolist() == [
        [30, 0, 0, 0, 0, 1, 10, 1, 10, 0, 0, 0, 0, 0, 0],
        [20, 1, 1, 0, 0, 1, 30, 2, 20, 1, 1, 1, 1, 1, 1],
    ]
    assert payments.inputs[AS_THE_BOOK].tolist() == [
        [30, 0, 0, 1, 30, 2, 20, 2, 20, 0, 0, 0, 0, 0, 0],
        [20, 1, 1, 1, 20, 2, 25, 3, 20, 1, 1, 1, 1, 1, 1],
    ]
    assert payments.is_fraud.tolist() == [False, False]


def test_a_training_set_of_all_payments_equals_what_duckdb_says(tmp_path: Path) -> None:
    """The comparison of the script, on payments of which some share a moment and some lie on the edge of a window."""
    draw, count = np.random.default_rng(5), 2_000
    slots = np.sort(draw.integers(0, 60 * 72, count)).tolist()
    paid_at = [datetime(2018, 4, 1) + timedelta(minutes=20 * slot) for slot in slots]
    cards, terminals = draw.integers(0, 20, count).tolist(), draw.integers(0, 30, count).tolist()
    cents = draw.integers(1, 100_000, count).tolist()
    file = _transactions(tmp_path, paid_at=paid_at, card=cards, terminal=terminals, cents=cents)

    done = subprocess.run(
        [sys.executable, handbook_history.__file__, file], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert (figures["rows"], figures["values_compared"], figures["mismatches"]) == (count, count * 12, 0)


def _transactions(
    directory: Path, *, paid_at: Sequence[datetime], card: Sequence[int], terminal: Sequence[int], cents: Sequence[int]
) -> Path:
    """A file like the Handbook's; each third payment is a fraud, the first among them."""
    columns = {
        "TRANSACTION_ID": range(len(paid_at)),
        "TX_DATETIME": paid_at,
        "CUSTOMER_ID": card,
        "TERMINAL_ID": terminal,
        "TX_AMOUNT": [amount / 100 for amount in cents],
        "TX_FRAUD": [int(place % 3 == 0) for place in range(len(paid_at))],
    }
    file = directory / "handbook_transactions.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def _payments(*, day: Sequence[int], customer: Sequence[int], is_fraud: Sequence[int]) -> Payments:
    """Payments without inputs."""
    inputs = {STRICTLY_BEFORE: np.zeros((len(day), 1))}
    return Payments(np.array(day), np.array(customer), np.array(is_fraud, dtype=np.bool_), inputs)
