# mypy: disable-error-code="import-untyped"
"""The Fraud Detection Handbook's baseline models on features of ours, beside the figures that the book has published.

    python -m scripts.handbook_model PATH_TO/handbook_transactions.parquet

    train 2018-07-25 .. 07-31 | a week until frauds are known | test 2018-08-08 .. 08-14, cards of known frauds left out

As in chapter 3, "Baseline fraud detection system" (fraud-detection-handbook.github.io), with the book's fifteen inputs:
amount, weekend, night; number and mean amount of a customer's payments; number and share of frauds of a terminal's,
delayed by seven days; over 1, 7 and 30 days. The features are two columns of figures:

    as the book     a customer's windows include the payment that is judged, as the book's rolling windows do
    strictly before they do not: what a lookup answers before the payment has happened, which is all a server can say

One follows from the other, since the payment itself is known. The book's XGBoost is not used here; scikit-learn's
boosting stands beside it. The file is not part of this project (see scripts/handbook.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from featurestore.training import FileHistory, build_training_set, read_registry
from scripts.handbook_history import DAY_MS, SERVICE, WINDOW_DAYS, apply_repo, read_transactions

TRAIN_FROM = "2018-07-25"
TRAIN_DAYS = DELAY_DAYS = TEST_DAYS = 7
CARDS_A_DAY = 100
"""How many cards the investigators look at."""

NIGHT_ENDS_HOUR = 6
"""The book's night is 0:00 to 6:59."""

CENTS = 100

BoolArray = NDArray[np.bool_]
Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]

_HOUR_MS = 3_600_000
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, Monday is 0


@dataclass(frozen=True, slots=True)
class Figures:
    """How good a model is on the test week.

    Attributes:
        auc_roc: area under the receiver operating characteristic.
        average_precision: over all payments.
        card_precision: share of compromised cards among the most suspicious ones of a day, mean over days.
    """

    auc_roc: float
    average_precision: float
    card_precision: float


PUBLISHED: Mapping[str, Figures] = {
    "logistic regression": Figures(0.871, 0.606, 0.291),
    "decision tree, depth 2": Figures(0.763, 0.496, 0.241),
    "decision tree, any depth": Figures(0.788, 0.309, 0.243),
    "random forest": Figures(0.867, 0.658, 0.287),
    "boosting": Figures(0.862, 0.639, 0.273),
}
"""Section "Performances using standard prediction models" of the chapter, on its test week; its boosting is XGBoost."""


@dataclass(frozen=True, slots=True)
class Payments:
    """N payments by time, with the inputs of a model.

    Attributes:
        day: (N,) days since 1970.
        customer: (N,) whose card.
        is_fraud: (N,) the label.
        inputs: of each way to count, (N, 15).
    """

    day: Int64Array
    customer: Int64Array
    is_fraud: BoolArray
    inputs: Mapping[str, Float64Array]

    def take(self, rows: BoolArray | Int64Array) -> Payments:
        """Some of them."""
        inputs = {name: matrix[rows] for name, matrix in self.inputs.items()}
        return Payments(self.day[rows], self.customer[rows], self.is_fraud[rows], inputs)


AS_THE_BOOK, STRICTLY_BEFORE = WAYS = ("as the book", "strictly before")
"""Whether a customer's windows include the payment that is judged."""


def main() -> int:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    payments = read_payments(parser.parse_args().file)
    train, test = split(payments)
    print(f"train {len(train.day):,} payments, {train.is_fraud.sum():,} frauds")
    print(f"test  {len(test.day):,} payments, {test.is_fraud.sum():,} frauds\n")
    columns = ("the book", *WAYS)
    print("| model | " + " | ".join(f"{name}: AUC ROC, AP, CP@{CARDS_A_DAY}" for name in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for model, published in PUBLISHED.items():
        measured = [assess(model, train, test, way) for way in WAYS]
        cells = [
            f"{each.auc_roc:.3f}, {each.average_precision:.3f}, {each.card_precision:.3f}"
            for each in (published, *measured)
        ]
        print(f"| {model} | {' | '.join(cells)} |", flush=True)
    return 0


def read_payments(file: Path) -> Payments:
    """The payments of the three weeks, their features from all payments before."""
    first = np.datetime64(TRAIN_FROM)
    end = first + np.timedelta64(TRAIN_DAYS + DELAY_DAYS + TEST_DAYS, "D")
    database = duckdb.connect()
    read_transactions(database, file)
    events = database.table("transactions").to_arrow_table()
    asked = database.sql(
        f"select * from transactions where paid_at >= '{first}' and paid_at < '{end}' order by transaction_id"
    ).to_arrow_table()
    with tempfile.TemporaryDirectory(prefix="handbook-") as directory:
        repo = read_registry(apply_repo(Path(directory)))
    table = build_training_set(repo, SERVICE, asked, history=FileHistory(events), timestamp_column="paid_at")
    paid_at_ms = _column(table, "paid_at").astype(np.int64)
    return Payments(
        day=paid_at_ms // DAY_MS,
        customer=_column(table, "customer_id").astype(np.int64),
        is_fraud=_column(table, "is_fraud").astype(np.bool_),
        inputs={way: _inputs(table, paid_at_ms, includes_itself=way == AS_THE_BOOK) for way in WAYS},
    )


def split(payments: Payments) -> tuple[Payments, Payments]:
    """Training and test set; a card is out of the test from the day on which a fraud of it is known."""
    first = int(np.datetime64(TRAIN_FROM).astype(np.int64))
    train = payments.take((payments.day >= first) & (payments.day < first + TRAIN_DAYS))
    test_from = first + TRAIN_DAYS + DELAY_DAYS
    known = set(train.customer[train.is_fraud].tolist())
    kept = np.zeros(len(payments.day), dtype=np.bool_)
    for day in range(test_from, test_from + TEST_DAYS):
        # The last day whose frauds are known on the morning of this one is one before the delay.
        learnt = (payments.day == day - DELAY_DAYS - 1) & payments.is_fraud
        known.update(payments.customer[learnt].tolist())
        kept |= (payments.day == day) & ~np.isin(payments.customer, list(known))
    return train, payments.take(kept)


def assess(model: str, train: Payments, test: Payments, way: str) -> Figures:
    """Fit one model to the training week and judge it by the test week."""
    classifier = _classifiers()[model]
    classifier.fit(train.inputs[way], train.is_fraud)
    score = classifier.predict_proba(test.inputs[way])[:, 1]
    return Figures(
        auc_roc=float(roc_auc_score(test.is_fraud, score)),
        average_precision=float(average_precision_score(test.is_fraud, score)),
        card_precision=card_precision(test, score),
    )


def card_precision(payments: Payments, score: Float64Array) -> float:
    """The book's card precision: each day the CARDS_A_DAY highest cards; one that is found is blocked from then on.

    Args:
        payments: N test payments.
        score: (N,) the model's.
    """
    found = np.empty(0, dtype=np.int64)
    precisions = []
    for day in np.unique(payments.day).tolist():
        rows = np.flatnonzero((payments.day == day) & ~np.isin(payments.customer, found))
        cards, card = np.unique(payments.customer[rows], return_inverse=True)
        highest, is_compromised = np.zeros(len(cards)), np.zeros(len(cards), dtype=np.bool_)
        np.maximum.at(highest, card, score[rows])
        np.logical_or.at(is_compromised, card, payments.is_fraud[rows])
        suspects = np.argsort(-highest, kind="stable")[:CARDS_A_DAY]
        caught = cards[suspects[is_compromised[suspects]]]
        precisions.append(len(caught) / CARDS_A_DAY)
        found = np.concatenate((found, caught))
    return float(np.mean(precisions))


class Classifier(Protocol):
    """What is used of scikit-learn's models."""

    def fit(self, inputs: Float64Array, labels: BoolArray) -> object:
        """Learn from (N, F) inputs and (N,) labels."""
        ...

    def predict_proba(self, inputs: Float64Array) -> Float64Array:
        """(N, 2) probabilities of honest and fraud."""
        ...


def _classifiers() -> dict[str, Classifier]:
    """The book's models with its settings, unfitted."""
    return {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(random_state=0)),
        "decision tree, depth 2": DecisionTreeClassifier(max_depth=2, random_state=0),
        "decision tree, any depth": DecisionTreeClassifier(random_state=0),
        "random forest": RandomForestClassifier(random_state=0, n_jobs=-1),
        "boosting": HistGradientBoostingClassifier(random_state=0),
    }


def _inputs(table: pa.Table, paid_at_ms: Int64Array, *, includes_itself: bool) -> Float64Array:
    """(N, 15) the book's inputs, in its order; a terminal without known payments has the risk 0, as in the book."""
    amount = _column(table, "amount") / CENTS
    weekday = (paid_at_ms // DAY_MS + _EPOCH_WEEKDAY) % 7
    hour = paid_at_ms // _HOUR_MS % 24
    columns: list[NDArray[np.generic]] = [amount, weekday >= 5, hour <= NIGHT_ENDS_HOUR]
    for days in WINDOW_DAYS:
        count = _column(table, f"customer_count_{days}d")
        total = np.nan_to_num(_column(table, f"customer_amount_mean_{days}d") / CENTS) * count
        if includes_itself:
            count, total = count + 1, total + amount
        columns += [count, total / np.maximum(count, 1)]
    for days in WINDOW_DAYS:
        known = _column(table, f"terminal_known_{days}d_offset_{DELAY_DAYS}d")
        columns += [known, np.nan_to_num(_column(table, f"terminal_risk_{days}d"))]
    return np.column_stack([column.astype(np.float64) for column in columns])


def _column(table: pa.Table, name: str) -> Float64Array:
    """(N,) one column as numbers, NaN where null; moments are milliseconds, which a float64 holds exactly."""
    column = table[name]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    return np.asarray(column.to_numpy(), dtype=np.float64)


if __name__ == "__main__":
    sys.exit(main())
