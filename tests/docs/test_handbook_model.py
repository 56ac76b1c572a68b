"""How the Handbook's models are tested and judged, by hand; its data are not part of this project."""

from collections.abc import Sequence

import numpy as np
import pytest

from scripts.handbook_model import CARDS_A_DAY, STRICTLY_BEFORE, TRAIN_FROM, Payments, card_precision, split


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


def _payments(*, day: Sequence[int], customer: Sequence[int], is_fraud: Sequence[int]) -> Payments:
    """Payments without inputs."""
    inputs = {STRICTLY_BEFORE: np.zeros((len(day), 1))}
    return Payments(np.array(day), np.array(customer), np.array(is_fraud, dtype=np.bool_), inputs)
