"""Lookups over HTTP: the values, statuses and metadata of gRPC by their names, and its errors by their kinds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from featurestore.errors import FeatureStoreError
from featurestore.online.redis.store import RedisStore
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.result import LookupResult
from featurestore.serving.request.grpc_status import code_of
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.habits import CARDS, REPO, write_habits
from tests.serving.http.caller import Caller
from tests.serving.payments import HOUR_MS, MERCHANT_ACTIVITY, NOW_MS, Payments, RegistryInMemory, event_of

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAVAILABLE: 503,
}

PAIRS: dict[str, list[Any]] = {"card_id": ["c-1", "c-2", "nobody"], "merchant_id": [7, 404, 7]}


@pytest.fixture
def client(server: FeatureServer) -> Iterator[LookupClient]:
    """A gRPC client of the same server."""
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as connected:
        yield connected


def assert_same(answer: Any, result: LookupResult) -> None:
    """The JSON of an answer says what gRPC says."""
    assert list(answer["features"]) == list(result.names)
    for row, values in enumerate(result.rows()):
        for name, value in values.items():
            column = answer["features"][name]
            assert (_plain(value), result.status(name)[row].name) == (column["values"][row], column["statuses"][row])
            assert type(_plain(value)) is type(column["values"][row]), name


def _plain(value: Any) -> Any:
    """As JSON has it: what it cannot say is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("as_of_ms", [None, NOW_MS - HOUR_MS, [NOW_MS, NOW_MS - 8, NOW_MS - HOUR_MS]])
def test_a_lookup_answers_what_grpc_answers(caller: Caller, client: LookupClient, as_of_ms: Any) -> None:
    """Every type of number and text, present, null and unknown, at one read time or at one for each row."""
    answer = caller.lookup("fraud_detection", entities=PAIRS, as_of_ms=as_of_ms, include_metadata=True).json
    result = client.lookup("fraud_detection", PAIRS, as_of_ms=as_of_ms, with_metadata=True)

    assert_same(answer, result)
    assert (str(result.schema.schema_id), 3) == (answer["schema_id"], answer["row_count"])
    assert list(result.as_of_ms) == answer["as_of_ms"]
    assert [view.name for view in result.schema.views] == list(answer["views"])
    for view, metadata in zip(answer["views"].values(), result.views, strict=True):
        assert [moment or None for moment in metadata.event_time_ms] == view["event_time_ms"]
        assert [None if age < 0 else age for age in metadata.freshness_ms] == view["freshness_ms"]
        positions = [[tuple(at.values()) for at in each["positions"]] for each in view["checkpoints"]]
        assert [[(at.topic, at.partition, at.next_offset) for at in row] for row in metadata.positions] == [
            positions[index] for index in view["checkpoint_index"]
        ]


def test_lists_and_maps_are_arrays_and_objects(store: RedisStore, clock: ManualClock) -> None:
    """Empty ones are not null."""
    write_habits(Payments(store, clock))
    server = FeatureServer(RegistryInMemory(REPO), store, clock, ServerSettings(port=0), http_port=0)
    with Caller(server) as caller, LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        answer = caller.lookup("card_review", entities={"card_id": CARDS}).json

        assert_same(answer, client.lookup("card_review", {"card_id": CARDS}))
    server.stop(drain_seconds=1.0)

    statuses = ["PRESENT", "PRESENT", "NULL_VALUE", "NOT_FOUND"]
    assert {"values": [[3, -(2**63)], [], None, None], "statuses": statuses} == answer["features"]["alert_codes"]


def test_integers_keep_all_their_bits(payments: Payments, server: FeatureServer, caller: Caller) -> None:
    """Keys and values beyond 2^53, where doubles begin to skip."""
    key, count = 2**63 - 1, 2**53 + 1
    payments.write(MERCHANT_ACTIVITY, [event_of(b"%d" % key, NOW_MS - 5)])
    payments.materialize(key, NOW_MS - 5, {"onboarding_days": count})
    entities = {"card_id": ["c-1"], "merchant_id": [key]}
    answer = caller.lookup("fraud_detection", entities=entities)

    assert f'"onboarding_days":{{"values":[{count}]' in answer.body.decode()
    assert [1] == answer.json["features"]["count_lifetime"]["values"]
    assert 400 == caller.lookup("fraud_detection", entities=entities | {"merchant_id": [2**63]}).status


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_null_and_present(payments: Payments, caller: Caller, value: float) -> None:
    """So it is told from a value that is not there."""
    payments.materialize(8, NOW_MS - 5, {"chargeback_rate": value})
    answer = caller.lookup("fraud_detection", entities={"card_id": ["c-1"], "merchant_id": [8]}).json["features"]

    assert {"values": [None], "statuses": ["PRESENT"]} == answer["chargeback_rate"]
    assert {"values": [None], "statuses": ["NULL_VALUE"]} == answer["risk_tier"]


@pytest.mark.parametrize(
    ("service", "entities", "as_of_ms"),
    [
        pytest.param("fraud", PAIRS, None, id="unknown service"),
        pytest.param("fraud_detection", {"card_id": ["c-1"]}, None, id="missing key"),
        pytest.param("merchant_monitoring", PAIRS, None, id="key too many"),
        pytest.param("merchant_monitoring", {"merchant_id": ["7"]}, None, id="wrong type"),
        pytest.param("merchant_monitoring", {"merchant_id": []}, None, id="no rows"),
        pytest.param("merchant_monitoring", {"merchant_id": list(range(1_001))}, None, id="too many rows"),
        pytest.param("fraud_detection", PAIRS, [1, 2], id="two read times for three rows"),
        pytest.param("merchant_monitoring", {"merchant_id": [7]}, 1 << 60, id="read time out of range"),
    ],
)
def test_errors_are_those_of_grpc(
    caller: Caller, client: LookupClient, service: str, entities: Any, as_of_ms: Any
) -> None:
    """The same kind, message, detail and hint, as problem+json."""
    with pytest.raises(FeatureStoreError) as raised:
        client.lookup(service, entities, as_of_ms=as_of_ms)
    error, kind = raised.value, type(raised.value).__name__
    answer = caller.lookup(service, entities=entities, as_of_ms=as_of_ms)
    problem = answer.json

    assert (HTTP_STATUS[code_of(error)], "application/problem+json", kind) == (
        answer.status,
        answer.headers["content-type"],
        answer.headers["featurestore-error"],
    )
    assert (answer.status, kind, f"urn:featurestore:error:{kind}") == (
        problem["status"],
        problem["featurestore_error"],
        problem["type"],
    )
    assert "\n".join(filter(None, (error.message, error.detail))) == problem["detail"]
    assert error.hint == problem["hint"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "truncated", id="nothing"),
        pytest.param(b"\xff\xfe", "malformed", id="no JSON"),
        pytest.param({"entity": {}}, "unknown field `entity`", id="unknown member"),
        pytest.param({"entities": {"merchant_id": 7}}, "$.entities[...]", id="not a list"),
        pytest.param({"entities": {"merchant_id": [7, None]}}, "$.entities[...][1]", id="null"),
        pytest.param({"entities": {"merchant_id": [7.0]}}, "$.entities[...][0]", id="a double"),
        pytest.param({"entities": {"merchant_id": [7, "7"]}}, 'join key "merchant_id"', id="mixed"),
        pytest.param({"entities": {"merchant_id": [10**30]}}, "$.entities[...][0]", id="beyond 64 bits"),
    ],
)
def test_a_body_that_cannot_be_read_is_told_where(caller: Caller, body: Any, says: str) -> None:
    """Never answered by half."""
    answer = caller.post("/v1/services/merchant_monitoring:lookup", body)

    assert (400, "InvalidRequest") == (answer.status, answer.headers["featurestore-error"])
    assert says in answer.json["detail"]


def test_the_payment_in_flight_counts_as_over_grpc(caller: Caller, client: LookupClient) -> None:
    """Its columns by name; null is null, and what is wrong with them is said as gRPC says it."""
    payment: dict[str, list[Any]] = {
        "event_time": [NOW_MS],
        "amount": [5_000],
        "price": [None],
        "market": ["SE"],
        "is_declined": [True],
        "opened_at": [NOW_MS],
    }
    keys: dict[str, list[Any]] = {"card_id": ["c-1"], "merchant_id": [7]}
    (source,) = client.describe("fraud_detection").event_sources
    given = {column.name: payment[column.name] for column in source.columns}
    events = [{"source": source.name, "columns": given}]

    asked = "/v1/services/fraud_detection:lookup"

    answer = caller.post(asked, {"entities": keys, "events": events})
    result = client.lookup("fraud_detection", keys, events={source.name: given})
    without = caller.post(asked, {"entities": keys, "as_of_ms": NOW_MS})
    wrong = caller.post(asked, {"entities": keys, "events": [{"source": "nowhere", "columns": given}]})

    assert_same(answer.json, result)
    assert answer.json["features"] != without.json["features"]
    assert (400, "InvalidRequest") == (wrong.status, wrong.headers["featurestore-error"])


def test_columns_of_the_request_are_not_passed_over(caller: Caller) -> None:
    """An answer without them would be another one than was asked for."""
    answer = caller.lookup(entities={"card_id": ["c-1"], "merchant_id": [7]}, columns={"amount": [1.5]})

    assert (400, "UnknownJoinKey") == (answer.status, answer.headers["featurestore-error"])


def test_services_are_listed_and_described_as_over_grpc(caller: Caller, client: LookupClient) -> None:
    """Names, types and layout, by name instead of by number."""
    listed = caller.get("/v1/services").json["services"]
    schema = client.describe("fraud_detection")
    described = caller.get("/v1/services/fraud_detection").json

    assert client.services() == [each["name"] for each in listed]
    assert {"name": "fraud_detection", "join_keys": ["card_id", "merchant_id"], "feature_count": 16} in listed
    assert str(schema.schema_id) == described["schema_id"]
    assert [(each.name, each.type.name, each.zero_when_not_found) for each in schema.features] == [
        (each["name"], each["type"], each["zero_when_not_found"]) for each in described["features"]
    ]
    views = [schema.views[each.view].name for each in schema.features]
    assert views == [each["view"] for each in described["features"]]
    assert [(key.name, key.type.name) for key in schema.join_keys] == [
        (key["name"], key["type"]) for key in described["join_keys"]
    ]


def test_a_name_may_have_any_characters(caller: Caller) -> None:
    """Percent-encoded; a slash in clear is a path of its own."""
    for path, name in (("caf%C3%A9%20%2F%3A", "café /:"), ("a%22b", 'a\\"b')):
        answer = caller.get(f"/v1/services/{path}")
        assert (404, "UnknownFeatureService") == (answer.status, answer.headers["featurestore-error"])
        assert f'feature service \\"{name}\\"' in json.dumps(answer.json, ensure_ascii=False).replace('\\\\\\"', '\\"')
    assert "featurestore-error" not in caller.get("/v1/services/a/b").headers
    assert "POST" == caller.get("/v1/services/a:lookup").headers.get("allow", "POST")


@pytest.mark.parametrize(
    ("verb", "path", "status", "allowed"),
    [("GET", "/", 404, None), ("PUT", "/v1/services", 405, "GET"), ("GET", "/get-online-features", 405, "POST")],
)
def test_what_is_not_there_is_told_from_what_is_not_done(
    caller: Caller, verb: str, path: str, status: int, allowed: str | None
) -> None:
    """With the verbs that a path has."""
    answer = caller.ask(verb, path, None)

    assert (status, allowed) == (answer.status, answer.headers.get("allow"))
    assert "about:blank" == answer.json["type"]
