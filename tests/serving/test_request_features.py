"""Request-time features: SQL over features of several views and columns of the request, against DuckDB."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import grpc
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.cli.lookup.command import command
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureReference,
    FeatureSpec,
    OnDemandInput,
    OnDemandViewSpec,
    ServiceSpec,
    ValueType,
    Window,
)
from featurestore.errors import InvalidRequest, UnknownRequestColumn
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import naive_value
from featurestore.testing.oracle.tolerance import agrees
from featurestore.wire.entity_key import encode_key
from featurestore.wire.feast.protos import message_class
from tests.serving.payments import (
    CARD_ACTIVITY,
    HOUR_MS,
    MERCHANT_ACTIVITY,
    NOW_MS,
    REPO,
    Payments,
    RegistryInMemory,
    with_feature,
)
from tests.serving.request_features import (
    AMOUNT,
    BY_PYTHON,
    CHECKS,
    COUNTRY,
    INPUTS,
    IS_NEW,
    PAID_AT,
    REQUEST,
    ROWS,
    SQL,
    on_demand,
    repo_with,
    serving,
)


@pytest.fixture
def registry() -> RegistryInMemory:
    """The payments repo with the service "with_request"."""
    return RegistryInMemory(repo_with(CHECKS, BY_PYTHON))


def lookup(client: LookupClient, rows: Mapping[str, Sequence[Any]], **options: Any) -> dict[str, list[Any]]:
    """The service "with_request" of those rows."""
    keys = {name: rows[name] for name in ("card_id", "merchant_id")}
    request = {name: values for name, values in rows.items() if name not in keys}
    return client.lookup("with_request", keys, request=request, **options).to_dict()


def expected(payments: Payments, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Each feature by DuckDB from the oracle's values."""
    types = {
        ValueType.INT64: "BIGINT",
        ValueType.FLOAT64: "DOUBLE",
        ValueType.STRING: "VARCHAR",
        ValueType.BOOL: "BOOLEAN",
        ValueType.TIMESTAMP: "BIGINT",
    }
    profile: dict[str, Any] = {"risk_tier": "high", "chargeback_rate": 0.25, "onboarding_days": 400, "is_online": True}
    found: dict[str, list[Any]] = {name: [] for name in SQL}
    for row in range(len(rows["card_id"])):
        values: dict[str, tuple[Any, ValueType]] = {
            column.name: (rows[column.name][row], column.type) for column in REQUEST
        }
        for name, each in INPUTS.items():
            if each.view == "merchant_profile":
                values[name] = (profile[each.feature] if rows["merchant_id"][row] == 7 else None, each.type)
                continue
            view, key = (
                (CARD_ACTIVITY, "card_id") if each.view == "card_activity" else (MERCHANT_ACTIVITY, "merchant_id")
            )
            events = payments.events.get((view.name, encode_key([rows[key][row]])), [])
            feature = next(one for one in view.features if one.name == each.feature)
            values[name] = (naive_value(feature, events, NOW_MS), each.type)
        columns = ", ".join(f'CAST(? AS {types[kind]}) AS "{name}"' for name, (_, kind) in values.items())
        # Moments are numbers here: DuckDB's own would drag in the session's time zone.
        sql = {name: text.replace("epoch_ms(", "(") for name, text in SQL.items()}
        query = f"SELECT {', '.join(f'{text} AS {name}' for name, text in sql.items())} FROM (SELECT {columns})"
        answer = duckdb.execute(query, [value for value, _ in values.values()]).fetchall()[0]
        assert answer is not None
        for name, value in zip(SQL, answer, strict=True):
            found[name].append(value)
    return found


def test_every_value_is_what_sql_makes_of_the_oracles_values(client: LookupClient, payments: Payments) -> None:
    """Of every type, for known, half-known and unknown entities and with nulls among the columns of the request."""
    found = lookup(client, ROWS)

    wanted = expected(payments, ROWS)
    for name in SQL:
        for row, (value, actual) in enumerate(zip(wanted[name], found[name], strict=True)):
            assert agrees(value, actual), f"{name} of row {row}"
    assert [value is None for value in found["amount_ratio"]] == [False, True, True, True]
    assert found["market_last_7d"] == ["DE", "FR", "DE", None]
    assert found["risk_tier"] == ["high", "high", None, None]
    assert found["count_1h"] == [2, 0, 2, 0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_request_gives_what_sql_makes_of_the_oracles_values(data: st.DataObject) -> None:
    """Whatever the columns hold: DuckDB's answer is that of what Feast's SDK calls, which a server evaluates too."""
    from featurestore.on_demand import compute

    count = data.draw(st.integers(1, 5))
    numbers = st.one_of(st.none(), st.floats(-1e9, 1e9, allow_nan=False))
    texts = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5))
    columns: dict[str, tuple[str, str, st.SearchStrategy[Any]]] = {
        "amount": ("float64", "DOUBLE", numbers),
        "mean": ("float64", "DOUBLE", numbers),
        "seen": ("int64", "BIGINT", st.one_of(st.none(), st.integers(-(2**40), 2**40))),
        "country": ("string", "VARCHAR", texts),
        "market": ("string", "VARCHAR", texts),
        "is_new": ("bool", "BOOLEAN", st.one_of(st.none(), st.booleans())),
    }
    sql = {
        "ratio": "amount / nullif(mean, 0)",
        "abroad": "country <> market or is_new",
        "seen_twice": "coalesce(seen, 0) * 2",
        "place": "coalesce(country, market) || '!'",
        "late": "case when amount > mean then seen when is_new then 1 end",
    }
    rows = {
        name: data.draw(st.lists(values, min_size=count, max_size=count)) for name, (_, _, values) in columns.items()
    }

    found = compute(rows, {name: kind for name, (kind, _, _) in columns.items()}, sql)

    cast = ", ".join(f'CAST(? AS {kind}) AS "{name}"' for name, (_, kind, _) in columns.items())
    query = f"SELECT {', '.join(sql.values())} FROM (SELECT {cast})"
    for row in range(count):
        answer = duckdb.execute(query, [rows[name][row] for name in columns]).fetchall()[0]
        assert answer is not None
        for name, value in zip(sql, answer, strict=True):
            # What is beyond every double is infinite there, and null with us: no feature is no number.
            is_endless = isinstance(value, float) and math.isinf(value)
            assert agrees(None if is_endless else value, found[name][row]), name


def test_a_feature_of_a_python_function_is_not_ready_and_the_log_says_how(
    payments: Payments, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the service is served; its columns of the request are neither needed nor refused."""
    request = {name: ROWS[name][0] for name in ("amount", "country", "is_new", "paid_at")}
    with caplog.at_level(logging.WARNING), serving(repo_with(CHECKS, BY_PYTHON), payments, clock) as client:
        result = client.lookup("with_request", {"card_id": "c-1", "merchant_id": 7}, request={**request, "limit": 5.0})

    assert result.status("left") == [FeatureStatus.NOT_READY]
    assert result.to_dict()["left"] == [None]
    assert result.status("amount_ratio") == [FeatureStatus.PRESENT]
    [line] = [record.getMessage() for record in caplog.records if "NOT_READY" in record.getMessage()]
    assert '"by_python"' in line
    assert '"with_request"' in line
    assert "--python-features" in line


def test_what_reads_a_feature_that_is_not_ready_is_not_ready(payments: Payments, clock: ManualClock) -> None:
    """A definition that is still being filled lacks a feature: what is computed from it would be another value."""
    view = with_feature(
        CARD_ACTIVITY, FeatureSpec("count_2h", "count", None, Window(2 * HOUR_MS, 60_000), ValueType.INT64)
    )
    new = OnDemandInput("count_2h", "card_activity", "count_2h", ValueType.INT64)
    more = ComputedColumn("more", ValueType.INT64, "coalesce(count_2h, 0)")
    repo = repo_with(replace(CHECKS, inputs=(*CHECKS.inputs, new), features=(*CHECKS.features, more)))
    keys = {name: ROWS[name] for name in ("card_id", "merchant_id")}
    request = {name: values for name, values in ROWS.items() if name not in keys}
    with serving(replace(repo, views=(view, *repo.views[1:])), payments, clock) as client:
        found = client.lookup("with_request", keys, request=request)

    assert found.status("more") == [FeatureStatus.NOT_READY] * 4
    assert found.status("amount_ratio")[0] is FeatureStatus.PRESENT


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"amount": None}, UnknownRequestColumn, 'column "amount" of the request is missing'),
        ({"amuont": [1.0] * 4}, UnknownRequestColumn, 'reads no column "amuont" of the request'),
        ({"amount": ["12"] * 4}, InvalidRequest, "column \"amount\" must be float64, and has '12'"),
        ({"country": [1.5] * 4}, InvalidRequest, 'column "country" must be string, and has 1.5'),
        ({"is_new": [2, 0, 0, 0]}, InvalidRequest, 'column "is_new" must be bool, and has 2'),
        ({"paid_at": [0.5] * 4}, InvalidRequest, 'column "paid_at" must be timestamp, and has 0.5'),
        ({"amount": [1.0]}, InvalidRequest, 'column "amount" of the request has 1 values for 4 rows'),
    ],
)
def test_wrong_columns_are_refused_by_name(
    client: LookupClient, change: dict[str, Any], error: type[InvalidRequest], message: str
) -> None:
    """Missing, unknown, of another type or length: the message says which, and the hint what to send."""
    rows = {name: values for name, values in {**ROWS, **change}.items() if values is not None}

    with pytest.raises(error) as refused:
        lookup(client, rows)

    assert message in refused.value.message
    assert type(refused.value) is error
    assert refused.value.hint


def test_a_service_describes_the_columns_of_its_requests(client: LookupClient) -> None:
    """By name and type, those of views that nothing computes here among them."""
    schema = client.describe("with_request")

    assert schema.request_columns == (AMOUNT, COUNTRY, IS_NEW, Column("limit", ValueType.FLOAT64), PAID_AT)
    assert [view.name for view in schema.views][-2:] == ["checks", "by_python"]


def test_another_expression_is_another_schema(payments: Payments, clock: ManualClock) -> None:
    """A client that keeps layouts by their id sees that something has changed; an equal definition changes nothing."""
    other = {**SQL, "amount_ratio": "amount / amount_mean_7d"}
    ids = []
    for sql in (SQL, {**SQL, "tier": " " + SQL["tier"]}, other):
        with serving(repo_with(on_demand("checks", sql)), payments, clock) as client:
            ids.append(client.describe("with_request").schema_id)

    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


@pytest.mark.parametrize("place", ["request_context", "entities"])
def test_feasts_clients_send_columns_as_request_context(
    channel: grpc.Channel, client: LookupClient, place: str
) -> None:
    """Or beside the join keys, as its Python SDK has them; the values are those of the packed API."""
    request: Any = message_class("feast.serving.GetOnlineFeaturesRequest")(feature_service="with_request")
    kinds = {"amount": "double_val", "country": "string_val", "is_new": "bool_val", "paid_at": "unix_timestamp_val"}
    kinds |= {"card_id": "string_val", "merchant_id": "int64_val"}
    rows = {**ROWS, "paid_at": [NOW_MS, NOW_MS - HOUR_MS, None, NOW_MS]}
    assert NOW_MS % 1000 == 0
    for name, values in rows.items():
        target = request.entities if name in ("card_id", "merchant_id") else getattr(request, place)
        for value in values:
            added = target[name].val.add()
            if value is not None:
                setattr(added, kinds[name], value // 1000 if name == "paid_at" else value)
    response_class: Any = message_class("feast.serving.GetOnlineFeaturesResponse")
    call = channel.unary_unary(
        "/feast.serving.ServingService/GetOnlineFeatures",
        request_serializer=type(request).SerializeToString,
        response_deserializer=response_class.FromString,
    )

    response = call(request, timeout=30)

    vectors = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
    packed = lookup(client, rows)
    for name in SQL:
        for row, value in enumerate(packed[name]):
            kind = vectors[name].values[row].WhichOneof("val")
            actual = None if kind is None else getattr(vectors[name].values[row], kind)
            assert actual == (value // 1000 if kind == "unix_timestamp_val" else value), name


def test_a_single_row_needs_no_lists(client: LookupClient) -> None:
    """As of entity keys."""
    found = client.lookup(
        "with_request",
        {"card_id": "c-1", "merchant_id": 7},
        request={"amount": 12, "country": "FR", "is_new": None, "paid_at": NOW_MS},
    )

    assert found.row_count == 1
    assert found.rows()[0]["is_abroad"] is True


def test_a_service_may_read_the_request_alone(payments: Payments, clock: ManualClock) -> None:
    """Then the columns say how many rows there are."""
    doubled = ComputedColumn("doubled", ValueType.FLOAT64, "(amount * 2e0)")
    service = ServiceSpec("pure", (FeatureReference("pure", "doubled", "doubled"),), ())
    repo = replace(
        REPO, on_demand_views=(OnDemandViewSpec("pure", (), (), (AMOUNT,), (doubled,)),), services=(service,)
    )
    with serving(repo, payments, clock) as client:
        found = client.lookup("pure", {}, request={"amount": [1.5, None, 2]}, with_metadata=True)

    assert found.to_dict() == {"doubled": [3.0, None, 4.0]}


def test_an_explanation_shows_what_a_feature_of_the_request_is_computed_from(client: LookupClient) -> None:
    """Values are those of a lookup; the stored features behind them come with their tiles, the columns as sent."""
    keys = {name: ROWS[name][0] for name in ("card_id", "merchant_id")}
    request = {name: values[0] for name, values in ROWS.items() if name not in keys}

    explanation = client.explain("with_request", keys, as_of_ms=NOW_MS, request=request)
    looked_up = client.lookup("with_request", keys, as_of_ms=NOW_MS, request=request)
    by_name = {feature.name: feature for feature in explanation.features}
    ratio = by_name["amount_ratio"]
    (mean,) = ratio.reads

    assert looked_up.names == list(by_name)
    for name, feature in by_name.items():
        assert repr(looked_up.to_dict()[name][0]) == repr(feature.value), name
        assert looked_up.status(name)[0] is feature.status
    assert explanation.request == request
    assert ratio.meaning == f"{CHECKS.features[0].expression}, computed when it is asked for"
    assert explanation.views[ratio.view].name == "checks"
    assert (mean.name, explanation.views[mean.view].name) == ("amount_mean_7d", "card_activity")
    assert mean.partials
    assert mean.value is not None
    assert ratio.value == request["amount"] / mean.value
    assert by_name["left"].status is FeatureStatus.NOT_READY


def test_one_feature_of_the_request_is_explained_alone(client: LookupClient) -> None:
    """With the views that it reads, and no others."""
    keys = {name: ROWS[name][0] for name in ("card_id", "merchant_id")}
    request = {name: values[0] for name, values in ROWS.items() if name not in keys}

    explanation = client.explain("with_request", keys, features=["checks:tier"], request=request)

    assert ["tier"] == [feature.name for feature in explanation.features]
    assert ["merchant_profile", "checks"] == [view.name for view in explanation.views]


def asked(server: FeatureServer, *arguments: str) -> Result:
    """`featurestore lookup` of the service "with_request" for one known card and merchant."""
    fixed = ["with_request", "card_id=c-1", "merchant_id=7", "--address", f"127.0.0.1:{server.port}"]
    return CliRunner().invoke(command, [*fixed, *arguments], env={"COLUMNS": "120"})


def test_the_command_takes_columns_as_it_takes_keys(server: FeatureServer, client: LookupClient) -> None:
    """Typed as the service declares them, empty for null, several for several rows."""
    columns = ["amount=12.5", "country=FR", "is_new=true", f"paid_at={NOW_MS}"]
    found = json.loads(asked(server, *columns, "--format", "json").output)
    two = json.loads(asked(server, *columns[1:], "amount=1e2", "amount=", "--format", "json").output)

    assert found["request"] == {"amount": 12.5, "country": "FR", "is_new": True, "paid_at": NOW_MS}
    assert found["entity"] == {"card_id": "c-1", "merchant_id": 7}
    row = {name: values[:1] for name, values in ROWS.items()}
    expected_values = {name: values[0] for name, values in lookup(client, row).items()}
    assert {name: found["features"][name]["value"] for name in SQL} == {name: expected_values[name] for name in SQL}
    assert [each["features"]["amount_ratio"]["status"] for each in two] == ["PRESENT", "NULL_VALUE"]
    assert "amount=12.5" in asked(server, *columns).output


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("amount=much", 'column "amount" is of type float64, "much" is not'),
        ("is_new=perhaps", 'column "is_new" is of type bool, "perhaps" is not'),
        ("amuont=1", '"amuont" is no join key of feature service "with_request", and no column of its requests'),
    ],
)
def test_the_command_refuses_what_is_no_value_of_a_column(server: FeatureServer, column: str, told: str) -> None:
    """Before it asks."""
    refused = asked(server, column)

    assert refused.exit_code != 0
    assert told in f"{refused.output}{refused.exception}"
