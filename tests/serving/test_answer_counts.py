"""What the server counts of its answers, by feature service and by view, is what its clients got."""

from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from featurestore.serving import answer_counts
from featurestore.serving.answer_counts import AGE_BOUNDS_MS, OTHERS
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.result import LookupResult
from featurestore.serving.server import FeatureServer
from tests.serving.crowds import metrics_of

REQUESTS: list[tuple[str, dict[str, int | str | list[int] | list[str]]]] = [
    ("fraud_detection", {"card_id": ["c-1", "c-404", "c-1"], "merchant_id": [7, 8, 404]}),
    ("fraud_detection", {"card_id": "c-1", "merchant_id": 7}),
    ("merchant_monitoring", {"merchant_id": [7, 404]}),
]


def samples(server: FeatureServer) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names) -> value."""
    families = text_string_to_metric_families(metrics_of(server))
    return {
        (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
        for family in families
        for one in family.samples
    }


def test_values_rows_and_ages_are_counted_as_they_were_answered(metered_server: FeatureServer) -> None:
    """Every value that a client received is in its view's count of its status, every row in its view's ages."""
    with LookupClient(f"127.0.0.1:{metered_server.port}", timeout_s=30) as client:
        results = [client.lookup(service, keys, with_metadata=True) for service, keys in REQUESTS]
        counted = samples(metered_server)

    values, ages, below = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for result in results:
        count_values(result, values)
        for view, metadata in zip(result.schema.views, result.views, strict=True):
            known = [age for age in metadata.freshness_ms.tolist() if age >= 0]
            ages[view.name] += len(known)
            below[view.name] += sum(age <= AGE_BOUNDS_MS[4] for age in known)

    assert len(values) > 4
    for (view_name, status), count in values.items():
        assert count == counted["featurestore_view_values_total", status, view_name], (view_name, status)
    for view_name, count in ages.items():
        assert count == counted.get(("featurestore_view_age_seconds_count", view_name), 0)
        assert below[view_name] == counted.get(("featurestore_view_age_seconds_bucket", "60.0", view_name), 0)
    assert 4 == counted["featurestore_rows_total", "fraud_detection"]
    assert 2 == counted["featurestore_rows_total", "merchant_monitoring"]
    assert 2 == counted["featurestore_feature_service_latency_seconds_count", "fraud_detection"]
    # The clock of these tests stands still.
    assert 0 == counted["featurestore_feature_service_latency_seconds_sum", "fraud_detection"]


def count_values(result: LookupResult, values: "Counter[tuple[str, str]]") -> None:
    """Add a result's values by view and status."""
    for feature in result.schema.features:
        for status in result.status(feature.name):
            values[result.schema.views[feature.view].name, status.name] += 1


def test_names_beyond_the_room_are_counted_together(
    metered_server: FeatureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many definitions come and go, the page has a bounded number of lines, and loses nothing."""
    monkeypatch.setattr(answer_counts, "NAMES_MAX", 1)
    with LookupClient(f"127.0.0.1:{metered_server.port}", timeout_s=30) as client:
        for service, keys in REQUESTS:
            client.lookup(service, keys)
        counted = samples(metered_server)

    views = {labels[1] for name, *labels in counted if name == "featurestore_view_values_total"}
    assert (2, True) == (len(views), OTHERS in views)
    assert 6 == sum(value for (name, *_), value in counted.items() if name == "featurestore_rows_total")
