"""Feature tests: the example's own, what a wrong one says, and what a request brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.definitions.repo import load_repo
from featurestore.errors import InvalidRequest
from featurestore.testing.features.calculator import FeatureCalculator
from featurestore.testing.features.cases import read_cases, run_case

REPO = Path(__file__).resolve().parents[2] / "feature_repo"
NOW = "2026-03-01T12:00:00Z"
ENTITY = {"card_id": "c-1", "merchant_id": 7}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def calculator() -> FeatureCalculator:
    """Of the example repo."""
    return FeatureCalculator(load_repo(REPO, "tests").compile().require_sound())


def test_the_examples_own_tests_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """As typed; the registry need not be there."""
    assert main(["test", "--repo", str(REPO)]) == 0
    assert "3 passed, 0 failed" in capsys.readouterr().out


def test_a_wrong_value_an_unknown_name_and_a_wrong_type_are_told(tmp_path: Path, calculator: FeatureCalculator) -> None:
    """Each by its place, with what it is or what was meant; the others still run."""
    path = tmp_path / "cards.yaml"
    path.write_text(
        "view: card_activity\n"
        "given: {transactions: [{event_time: -1m, card_id: c-1, amount: 5, is_declined: false}]}\n"
        "tests:\n"
        f"  - {{name: wrong, at: {NOW}, for: {{card_id: c-1}}, expect: {{card_count_1h: 2, card_count_1d: 1}}}}\n"
        f"  - {{name: unknown, at: {NOW}, for: {{card_id: c-1}}, expect: {{card_cuont_1h: 2}}}}\n"
        f"  - {{name: typed, at: {NOW}, for: {{card_id: c-1}}, expect: {{card_count_1h: 1}},\n"
        "     given: {transactions: [{event_time: -1m, card_id: c-1, amount: much}]}}\n"
        f"  - {{name: fine, at: {NOW}, for: {{card_id: c-1}}, expect: {{card_count_1h: 1, card_amount_sum_1h: 5}}}}\n"
    )
    wrong, unknown, typed, fine = (run_case(case, calculator) for case in read_cases(path))

    assert wrong.differences == {"card_count_1h": (2, 1)}
    assert "card_count_1h" in unknown.error
    assert '"transactions.amount" is not int64' in typed.error
    assert fine.has_passed
    path.write_text("view: card_activity\ntests: [{at: 2026-01-01, expcet: {}}]\n")
    with pytest.raises(InvalidRequest, match='"expcet" is not known'):
        read_cases(path)


def test_an_event_in_flight_and_a_profile_are_part_of_the_answer(calculator: FeatureCalculator) -> None:
    """The request is an event that waits: counts have it, means do not, and features of the request read it."""
    given = {
        "transactions": [{"event_time": "-2h", "card_id": "c-1", "merchant_id": 7, "amount": 100}],
        "merchant_profile": [{"merchant_id": 7, "home_market": "DE"}],
    }
    asked = {
        "card_activity:card_count_1d": 2,
        "card_activity:card_amount_mean_30d": 100.0,
        "payment_habits:amount_to_card_mean": 3.0,
        "merchant_profile:home_market": "DE",
    }
    request = {"amount": 300}

    assert asked == calculator.values(
        list(asked), given, at=NOW, entity=ENTITY, request=request, in_flight="transactions"
    )
    alone = calculator.values(["card_activity:card_count_1d"], given, at=NOW, entity=ENTITY)
    assert alone == {"card_activity:card_count_1d": 1}
