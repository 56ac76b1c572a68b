"""A repo with request-time features of every type, rows that ask for them, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureReference,
    OnDemandInput,
    OnDemandViewSpec,
    PythonFunction,
    RepoSpec,
    ServiceSpec,
    ValueType,
)
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import (
    CARD_ACTIVITY,
    CARD_ID,
    HOUR_MS,
    MERCHANT_ACTIVITY,
    MERCHANT_ID,
    MERCHANT_PROFILE,
    NOW_MS,
    REPO,
    Payments,
    RegistryInMemory,
)

AMOUNT, COUNTRY = Column("amount", ValueType.FLOAT64), Column("country", ValueType.STRING)
IS_NEW, PAID_AT = Column("is_new", ValueType.BOOL), Column("paid_at", ValueType.TIMESTAMP)
REQUEST = (AMOUNT, COUNTRY, IS_NEW, PAID_AT)

INPUTS: Mapping[str, OnDemandInput] = {
    name: OnDemandInput(name, view.name, name.rpartition("__")[2], column.type)
    for view in (CARD_ACTIVITY, MERCHANT_ACTIVITY)
    for column in view.answers
    for name in (f"{view.name}__{column.name}", *([] if column.name == "count_1h" else [column.name]))
} | {
    column.name: OnDemandInput(column.name, MERCHANT_PROFILE.name, column.name, column.type)
    for column in MERCHANT_PROFILE.features
    if column.name != "opened_at"
}

SQL: Mapping[str, str] = {
    "amount_ratio": "amount / nullif(amount_mean_7d, 0)",
    "is_abroad": "country <> market_last_7d",
    "both_counts": "card_activity__count_1h + 100 * merchant_activity__count_1h",
    "tier": "coalesce(risk_tier || ':' || country, 'unknown')",
    "is_odd": "is_new and not is_declined_last_7d or amount > 10 * price_mean_7d",
    "opened_to_paid": "epoch_ms(paid_at) - epoch_ms(opened_at_max_7d)",
    "moment": "paid_at",
}
"""Of every type, over features of every kind of view and columns of every type."""


def on_demand(name: str, sql: Mapping[str, str], request: Sequence[Column] = REQUEST) -> OnDemandViewSpec:
    """A view as the compiler makes it."""
    types = {each.name: each.type for each in INPUTS.values()} | {column.name: column.type for column in request}
    compiled = {feature: compile_expression(text, types) for feature, text in sql.items()}
    read = sorted(set().union(*(one.columns for one in compiled.values())) & INPUTS.keys())
    return OnDemandViewSpec(
        name,
        (CARD_ID, MERCHANT_ID),
        tuple(INPUTS[each] for each in read),
        tuple(request),
        tuple(ComputedColumn(feature, one.type, one.text) for feature, one in compiled.items()),
    )


CHECKS = on_demand("checks", SQL)
BY_PYTHON = OnDemandViewSpec(
    "by_python",
    (CARD_ID,),
    (INPUTS["amount_mean_7d"],),
    (Column("limit", ValueType.FLOAT64),),
    (ComputedColumn("left", ValueType.FLOAT64, ""),),
    PythonFunction("by_python", "def by_python(inputs): return {}", "python"),
)


def repo_with(*views: OnDemandViewSpec) -> RepoSpec:
    """The payments repo, and a service "with_request" of the views and one stored feature of each kind."""
    references = (
        FeatureReference("card_activity", "market_last_7d", "market_last_7d"),
        *(FeatureReference(view.name, feature.name, feature.name) for view in views for feature in view.features),
        FeatureReference("merchant_profile", "risk_tier", "risk_tier"),
        FeatureReference("card_activity", "count_1h", "count_1h"),
    )
    service = ServiceSpec("with_request", references, (CARD_ID, MERCHANT_ID))
    return replace(REPO, on_demand_views=tuple(views), services=(*REPO.services, service))


ROWS: Mapping[str, Sequence[Any]] = {
    "card_id": ["c-1", "c-2", "c-1", "nobody"],
    "merchant_id": [7, 7, 404, 404],
    "amount": [12.5, 80, None, -1.0],
    "country": ["FR", "FR", None, "DE"],
    "is_new": [True, None, False, True],
    "paid_at": [NOW_MS, NOW_MS - HOUR_MS, None, NOW_MS + 7],
}


@contextmanager
def server_of(repo: RepoSpec, payments: Payments, clock: ManualClock) -> Iterator[FeatureServer]:
    """A server of another repo."""
    started = FeatureServer(RegistryInMemory(repo), payments.store, clock, ServerSettings(port=0))
    try:
        yield started
    finally:
        started.stop(drain_seconds=1.0)


@contextmanager
def serving(repo: RepoSpec, payments: Payments, clock: ManualClock) -> Iterator[LookupClient]:
    """A client of a server of another repo."""
    with (
        server_of(repo, payments, clock) as server,
        LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
    ):
        yield client
