"""Whose something is: written beside what it means, never part of it, and found again."""

from __future__ import annotations

from typing import TypedDict

import pytest

from featurestore.core.spec import RepoSpec
from featurestore.definitions.compile.repo import Compilation
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.governance.about import About, check_about
from featurestore.definitions.governance.catalog import Item, catalog_of, item_called, search_items
from featurestore.definitions.problems import ProblemList
from featurestore.definitions.registry import compile_registry
from featurestore.errors import InvalidRequest
from featurestore.features import (
    DerivedFeature,
    WindowedFeature,
    about,
    aggregate,
    count,
    derive,
    kafka_source,
    stream_view,
)
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.authors import authored_in

with skip_typeguard():
    from feast import Entity, FeatureService, ValueType
    from feast.protos.feast.core.Registry_pb2 import Registry

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")


class TellsFeature(TypedDict):
    """What a feature is told about."""

    description: str
    tags: dict[str, str]


class Told(TellsFeature):
    """What everything else is."""

    owner: str


def registry_of(*, is_told: bool, tier: str = "1") -> bytes:
    """A repo with everything that people are told, or with nothing of it."""
    tags = about(on_call="#risk", pii="pseudonymous", use_case="fraud", docs="https://wiki") | {"tier": tier}
    told: Told = {"owner": "risk", "description": "said", "tags": tags}
    mine: TellsFeature = {"description": "spent", "tags": about(owner="growth")}
    if not is_told:
        told, mine = {"owner": "", "description": "", "tags": {}}, {"description": "", "tags": {}}
    card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
    payments = kafka_source(
        name="payments",
        topic="payments",
        columns={"at": "timestamp", "card_id": "string", "amount": "bigint"},
        event_time="at",
        **told,
    )
    features: list[WindowedFeature | DerivedFeature] = [
        *count(over="1h"),
        *aggregate("amount", "sum", over="7d", where="amount > 0", **mine),
        *derive("mean", "amount_sum_7d / nullif(count_1h, 0)", **mine),
    ]
    view = stream_view(name="cards", entities=[card], source=payments, features=features, prefix="card_", **told)
    service = FeatureService(name="model", features=[view], **told)
    registry = Registry()
    registry.projects.add().spec.name = "shop"
    for target, one in (
        (registry.entities, card),
        (registry.stream_feature_views, view),
        (registry.feature_services, service),
    ):
        message = one.to_proto()
        message.spec.project = "shop"
        target.append(message)
    return bytes(registry.SerializeToString())


def catalog(content: bytes) -> tuple[RepoSpec, list[Item]]:
    """What is registered, compiled and for people."""
    compiled: Compilation = compile_registry(content)
    return compiled.require_sound(), catalog_of(compiled.spec, content)


def test_what_people_are_told_is_found_again_and_changes_no_hash() -> None:
    """On source, view, feature and service; a feature says what its view does not; definitions mean the same."""
    (plain, _), (told, items) = catalog(registry_of(is_told=False)), catalog(registry_of(is_told=True))
    whole = About("risk", "#risk", "1", "said", "pseudonymous", "fraud", "https://wiki")

    assert definition_hash(plain.views[0]) == definition_hash(told.views[0])
    assert [item_called(items, name).about for name in ("payments", "cards", "model")] == [whole] * 3
    spent, counted = item_called(items, "card_amount_sum_7d"), item_called(items, "cards:card_count_1h")
    assert (spent.about.owner, spent.about.description, spent.about.on_call) == ("growth", "spent", "#risk")
    assert (counted.about.owner, counted.about.description, counted.about.tier) == ("risk", "", "1")
    assert item_called(items, "card_mean").about.owner == "growth"
    assert spent.meaning == (
        "sum of amount in the payments of a card_id over 7 days, exact to 1 h at the old end; only where amount > 0"
    )
    assert (spent.facts["window"], spent.facts["exactness"]) == ("over 7 days", "to 1 h at the old end")
    assert item_called(items, "cards").facts["read by"] == "model"


def test_search_wants_all_words_and_puts_names_first() -> None:
    """Of names, descriptions, owners and meanings."""
    _, items = catalog(registry_of(is_told=True))

    assert [one.name for one in search_items(items, ["GROWTH", "over 7"])] == ["cards:card_amount_sum_7d"]
    assert search_items(items, ["cards"])[0].name == "cards"
    assert search_items(items, ["growth", "nowhere"]) == []
    with pytest.raises(InvalidRequest, match='nothing is called "crads"') as caught:
        item_called(items, "crads")
    assert '"cards"' in caught.value.hint


def test_a_tier_that_is_none_is_a_mistake_of_the_plan_alone() -> None:
    """A server goes on with a registry that has one: it never asks."""
    content = registry_of(is_told=True, tier="gold")
    problems = ProblemList()
    check_about(authored_in(content, "shop"), problems)

    catalog(content)
    assert [str(one) for one in problems.found] == [
        f'{place}: tag "tier" is "gold"; write 1 (most depends on it) to 4'
        for place in ('source "payments"', 'feature view "cards"', 'feature service "model"')
    ]
