"""What Feast's own apply registers is what the author wrote, and compiles to the same specs every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.core.spec import Column, FeatureSpec, RepoSpec, ValueType, Window
from featurestore.definitions.registry import read_compilation, read_registry
from featurestore.definitions.repo import load_repo
from featurestore.wire.codecs.view_json import definition_hash

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

StockApply = Callable[[Path], Path]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def hashes_of(repo: RepoSpec) -> dict[str, str]:
    """Definition hash of every stream view."""
    return {view.name: definition_hash(view) for view in repo.views}


def test_the_example_repo_is_applied_by_stock_feast_and_compiles(example_repo: Path, stock_apply: StockApply) -> None:
    """Without Spark, without Kafka, without the history files; with no problem and no note."""
    compilation = read_compilation(stock_apply(example_repo))

    assert compilation.problems == ()
    assert compilation.notes == ()
    views = ["card_activity", "card_spending", "merchant_activity", "terminal_activity"]
    assert views == [view.name for view in compilation.spec.views]
    assert ["merchant_profile"] == [view.name for view in compilation.spec.plain_views]


def test_the_example_covers_what_a_fraud_model_needs(example_repo: Path) -> None:
    """At least 60 windowed features over three entities, from one minute to 90 days and lifetime."""
    repo = load_repo(example_repo, "payments").compile().require_sound()
    service = repo.service("fraud_detection")
    assert service is not None
    windows = {
        feature.window.length_ms
        for reference in service.features
        for view in repo.views
        if view.name == reference.view
        for feature in view.features
        if feature.name == reference.feature
    }
    windowed = [reference for reference in service.features if repo.view(reference.view)]

    assert len(windowed) >= 60
    assert ["card_id", "merchant_id", "terminal_id"] == [key.name for key in service.join_keys]
    assert {MINUTE_MS, 90 * DAY_MS, None} <= windows
    services = {"fraud_detection", "merchant_monitoring", "merchant_recommendations", "payment_decision"}
    assert services | {"card_watch", "spending_limits"} == {service.name for service in repo.services}
    assert all(reference.output_name == reference.feature for each in repo.services for reference in each.features)


def test_a_repo_of_plain_feast_objects_is_applied_and_compiles(plain_repo: Path, stock_apply: StockApply) -> None:
    """Somebody who has never seen the helpers writes Aggregations and Fields and gets windows."""
    (view,) = read_registry(stock_apply(plain_repo)).views

    assert (Column("driver_id", ValueType.INT64),) == view.join_keys
    assert (
        FeatureSpec("sum_fare_3600s", "sum", "fare", Window(HOUR_MS, MINUTE_MS), ValueType.FLOAT64),
        FeatureSpec("rides_1d", "count", "ride_id", Window(DAY_MS, 5 * MINUTE_MS), ValueType.INT64),
        FeatureSpec("mean_rating_604800s", "mean", "rating", Window(7 * DAY_MS, HOUR_MS), ValueType.FLOAT64),
    ) == view.features
    assert 30 * DAY_MS + MINUTE_MS == view.retention_ms


def test_a_second_apply_changes_no_hash(example_repo: Path, stock_apply: StockApply) -> None:
    """Feast mints new versions and returns sets in another order; the definitions stay what they are."""
    first = read_registry(stock_apply(example_repo))
    second = read_registry(stock_apply(example_repo))

    assert hashes_of(first) == hashes_of(second)
    assert first == second


def test_loading_a_repo_gives_what_applying_it_registers(example_repo: Path, stock_apply: StockApply) -> None:
    """So that a plan shows what an apply will do: specs are equal, not merely alike."""
    loaded = load_repo(example_repo, "payments").compile().require_sound()

    assert loaded == read_registry(stock_apply(example_repo))


def test_a_changed_hop_reaches_the_registry(plain_repo: Path, stock_apply: StockApply) -> None:
    """Feast compares views without their aggregations; a change of nothing else must not get lost."""
    (before,) = read_registry(stock_apply(plain_repo)).views
    definitions = plain_repo / "definitions.py"
    definitions.write_text(
        definitions.read_text().replace(
            "timedelta(minutes=5),\n            name", "timedelta(minutes=1),\n            name"
        )
    )
    (after,) = read_registry(stock_apply(plain_repo)).views

    assert 5 * MINUTE_MS == before.features[1].window.hop_ms
    assert MINUTE_MS == after.features[1].window.hop_ms
    assert definition_hash(before) != definition_hash(after)


def test_a_selection_keeps_its_order_through_apply(plain_repo: Path, stock_apply: StockApply) -> None:
    """view[["b", "a"]] answers b, a; a service that names a view by text answers in the view's order."""
    definitions = plain_repo / "definitions.py"
    definitions.write_text(
        definitions.read_text()
        + 'picked = FeatureService(name="picked", features=[driver_rides[["rides_1d", "sum_fare_3600s"]]])\n'
        + 'by_text = FeatureService(name="by_text", features=["driver_rides"])\n'
    )
    loaded = load_repo(plain_repo, "plain").compile().require_sound()
    repo = read_registry(stock_apply(plain_repo))
    orders = {service.name: [each.feature for each in service.features] for service in repo.services}

    assert ["rides_1d", "sum_fare_3600s"] == orders["picked"]
    assert ["sum_fare_3600s", "rides_1d", "mean_rating_604800s"] == orders["by_text"] == orders["driver_ranking"]
    assert loaded == repo
