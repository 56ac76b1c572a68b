"""Unit tests of features: given these events, what is their value at that moment?

    pytest_plugins = ["featurestore.testing.features.fixture"]          in conftest.py

    def test_declined_payments_are_not_spent(features):
        given = {"payments": [{"event_time": "-1h", "card_id": "a", "amount": 100, "is_declined": True}]}
        assert features.values(["card_activity:amount_sum_7d"], given, at="2026-01-01", entity={"card_id": "a"}) == ...

`featurestore test` does the same for YAML files. The calculator is that of training sets, which parity proves to answer
what a lookup does; there is no store, no stream and no clock.
"""

from featurestore.testing.features.calculator import FeatureCalculator as FeatureCalculator
