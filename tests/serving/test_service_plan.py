"""Plans: any selection of features, in any order, from any mix of views, lands where the schema says."""

import random
from dataclasses import replace

import numpy as np
import pytest

from featurestore.clock import Deadline
from featurestore.core.spec import ComputedColumn, FeatureReference, ServiceSpec, ValueType
from featurestore.online.answer.assembly import Answer
from featurestore.online.answer.schema import FeatureStatus, Matrix, ServedView, make_schema
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.client.messages import parse_schema
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.steps import run_blocking
from featurestore.serving.services.packed import describe_schema
from featurestore.testing.clock import ManualClock
from tests.serving.payments import (
    CARD_ID,
    FRAUD_DETECTION,
    MERCHANT_ACTIVITY,
    MERCHANT_ID,
    Payments,
    RegistryInMemory,
)

ENTITIES: dict[str, list[str] | list[int]] = {"card_id": ["c-1", "c-2", "c-1"], "merchant_id": [7, 404, 7]}


def cells(plan: ServicePlan, answer: Answer) -> dict[tuple[str, str], tuple[object, ...]]:
    """(view, feature) -> its values, nulls and statuses, found through the schema alone."""
    rows = answer.row_count
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for index, (reference, slot) in enumerate(zip(plan.references, plan.schema.features, strict=True)):
        if slot.matrix is Matrix.STRINGS:
            values = answer.strings[slot.slot * rows : (slot.slot + 1) * rows]
        else:
            values = (answer.doubles if slot.matrix is Matrix.DOUBLES else answer.integers)[slot.slot].tolist()
        shown = [None if gone else value for value, gone in zip(values, answer.null[index], strict=True)]
        found[reference.view, reference.feature] = (shown, answer.statuses[index].tolist(), slot.view)
    return found


@pytest.fixture
def catalog(registry: RegistryInMemory, payments: Payments) -> CatalogSource:
    """Over the store with payments in it."""
    return CatalogSource(registry, payments.store)


@pytest.mark.parametrize("seed", range(25))
def test_any_selection_in_any_order_gives_the_same_cells(
    catalog: CatalogSource, store: RedisStore, clock: ManualClock, seed: int
) -> None:
    """A feature's value does not depend on which other features are asked for, nor on where it stands."""
    lookup, snapshot = FeatureLookup(clock), catalog.snapshot()
    deadline = Deadline.after(clock, 1_000)
    full = snapshot.plan_of_service("fraud_detection")
    expected = cells(full, run_blocking(lookup.answer(snapshot.reader, full, ENTITIES, deadline=deadline), store))
    chosen = random.Random(seed).sample(FRAUD_DETECTION.features, k=seed % len(FRAUD_DETECTION.features) + 1)

    plan = snapshot.plan_of_references([f"{each.view}:{each.feature}" for each in chosen], full_names=True)
    keys = {key.name: ENTITIES[key.name] for key in plan.schema.join_keys}
    actual = cells(plan, run_blocking(lookup.answer(snapshot.reader, plan, keys, deadline=deadline), store))

    assert list(actual) == [(each.view, each.feature) for each in chosen]
    for name, (values, statuses, _) in actual.items():
        assert (values, statuses) == expected[name][:2]


def test_the_schema_id_changes_with_anything_that_a_client_relies_on(catalog: CatalogSource) -> None:
    """Equal layouts have equal ids, across processes; another name, type, order or definition has another id."""
    schema = catalog.snapshot().plan_of_service("fraud_detection").schema
    again = make_schema(schema.service, schema.join_keys, schema.features, schema.views)
    others = [
        make_schema("other", schema.join_keys, schema.features, schema.views),
        make_schema(schema.service, (MERCHANT_ID, CARD_ID), schema.features, schema.views),
        make_schema(schema.service, schema.join_keys, schema.features[::-1], schema.views),
        make_schema(schema.service, schema.join_keys, schema.features[:-1], schema.views),
        make_schema(schema.service, schema.join_keys, schema.features, schema.views[::-1]),
    ]

    assert again.schema_id == schema.schema_id
    assert len({other.schema_id for other in (schema, *others)}) == 1 + len(others)


def test_a_schema_survives_its_message(catalog: CatalogSource) -> None:
    """What a client parses is what the server planned."""
    schema = catalog.snapshot().plan_of_service("fraud_detection").schema

    assert parse_schema(describe_schema(schema)) == schema


def test_a_service_of_one_materialized_view_needs_no_stream(
    catalog: CatalogSource, store: RedisStore, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """Plain views alone are served too."""
    reference = FeatureReference("merchant_profile", "risk_tier", "risk_tier")
    service = ServiceSpec("profiles", (reference,), (MERCHANT_ID,))
    registry.change(type(registry.repo)("payments", (), registry.repo.plain_views, (service,)))
    catalog.poll()
    snapshot = catalog.snapshot()

    steps = FeatureLookup(clock).answer(
        snapshot.reader,
        snapshot.plan_of_service("profiles"),
        {"merchant_id": [7, 404]},
        deadline=Deadline.after(clock, 1_000),
    )
    answer = run_blocking(steps, store)

    assert answer.strings == ["high", ""]
    assert answer.null.tolist() == [[False, True]]


def test_a_null_double_is_nan_on_the_wire(catalog: CatalogSource, store: RedisStore, clock: ManualClock) -> None:
    """Clients that feed the matrix to a model as it is see a missing value, not a zero."""
    snapshot = catalog.snapshot()
    plan = snapshot.plan_of_references(["merchant_activity:price_mean_7d"], full_names=False)

    steps = FeatureLookup(clock).answer(
        snapshot.reader, plan, {"merchant_id": [404]}, deadline=Deadline.after(clock, 1_000)
    )
    answer = run_blocking(steps, store)

    assert np.isnan(answer.doubles).tolist() == [[True]]


def test_a_feature_whose_type_changed_is_not_ready(
    catalog: CatalogSource, store: RedisStore, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """The old generation's value has the wrong type, so the new one is waited for."""
    changed = replace(
        MERCHANT_ACTIVITY,
        features=(
            replace(MERCHANT_ACTIVITY.features[0], function="mean", column="amount", type=ValueType.FLOAT64),
            *MERCHANT_ACTIVITY.features[1:],
        ),
    )
    views = tuple(changed if view.name == changed.name else view for view in registry.repo.views)
    registry.change(replace(registry.repo, views=views))
    catalog.poll()
    snapshot = catalog.snapshot()

    steps = FeatureLookup(clock).answer(
        snapshot.reader,
        snapshot.plan_of_service("merchant_monitoring"),
        {"merchant_id": [7]},
        deadline=Deadline.after(clock, 1_000),
    )
    answer = run_blocking(steps, store)

    assert answer.statuses[:2].ravel().tolist() == [FeatureStatus.NOT_READY, FeatureStatus.PRESENT]


def test_a_feature_that_was_renamed_is_answered_at_once(
    catalog: CatalogSource, store: RedisStore, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """The serving generation has it under its old name, windowed or derived, while the new one fills."""
    derived = ComputedColumn("price_mean_1d_twice", ValueType.FLOAT64, "2 * price_mean_7d")
    windowed = MERCHANT_ACTIVITY.features[0]
    before = replace(MERCHANT_ACTIVITY, derived=(derived,))
    after = replace(
        before,
        features=(replace(windowed, name="renamed"), *before.features[1:]),
        derived=(replace(derived, name="renamed_too"),),
    )
    generation = GenerationCatalog(store, registry.repo.project).register(before)
    GenerationCatalog(store, registry.repo.project).promote(generation)
    answers = []
    for view, names in ((before, (windowed.name, derived.name)), (after, ("renamed", "renamed_too"))):
        views = tuple(view if one.name == view.name else one for one in registry.repo.views)
        registry.change(replace(registry.repo, views=views, services=()))
        catalog.poll()
        snapshot = catalog.snapshot()
        plan = snapshot.plan_of_references([f"{view.name}:{name}" for name in names], full_names=False)
        steps = FeatureLookup(clock).answer(
            snapshot.reader, plan, {"merchant_id": [7]}, deadline=Deadline.after(clock, 1_000)
        )
        answer = run_blocking(steps, store)
        statuses = [FeatureStatus(status).name for status in answer.statuses.ravel().tolist()]
        answers.append((statuses, [cell[0] for cell in cells(plan, answer).values()]))

    assert answers[0] == answers[1]
    assert "NOT_READY" not in str(answers)


def test_names_that_only_join_to_the_same_text_have_different_ids() -> None:
    """The digest knows where one name ends and the next begins."""
    ids = {
        make_schema("s", (), (), (ServedView("ab", "c"),)).schema_id,
        make_schema("s", (), (), (ServedView("a", "bc"),)).schema_id,
    }

    assert len(ids) == 2
