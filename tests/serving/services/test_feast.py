"""feast.serving.ServingService, spoken as Feast's own clients speak it."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from featurestore.online.answer.on_demand_plan import plan_service
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.serving.catalog import catalog
from featurestore.serving.client.clients import LookupClient
from featurestore.testing.strategies import DAY_MS
from featurestore.wire.feast.protos import descriptor_pool, message_class
from tests.serving.payments import NOW_MS, Payments, code_name

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4

Request: Any = message_class("feast.serving.GetOnlineFeaturesRequest")
Response: Any = message_class("feast.serving.GetOnlineFeaturesResponse")
InfoRequest: Any = message_class("feast.serving.GetFeastServingInfoRequest")
InfoResponse: Any = message_class("feast.serving.GetFeastServingInfoResponse")

GetOnlineFeatures = Callable[..., Any]


@pytest.fixture
def get_online_features(channel: grpc.Channel) -> GetOnlineFeatures:
    """Call the method with columns of str or int; other options become fields of the request."""
    call = channel.unary_unary(
        "/feast.serving.ServingService/GetOnlineFeatures",
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )

    def get(
        entities: Mapping[str, Sequence[str | int]],
        features: Sequence[str] = (),
        *,
        narrow: bool = False,
        **options: Any,
    ) -> Any:
        request = Request(**options)
        request.features.val.extend(features) if features else None
        for name, values in entities.items():
            for value in values:
                added = request.entities[name].val.add()
                if isinstance(value, str):
                    added.string_val = value
                else:
                    setattr(added, "int32_val" if narrow else "int64_val", value)
        return call(request, timeout=30)

    return get


def vectors(response: Any) -> dict[str, Any]:
    """Feature name -> its vector."""
    return dict(zip(response.metadata.feature_names.val, response.results, strict=True))


def test_feature_service_gives_a_full_vector_for_every_name(
    get_online_features: GetOnlineFeatures, payments: Payments
) -> None:
    """Join keys come first, and every vector has value, status and timestamp for each row, as Java's client assumes."""
    response = get_online_features(
        {"card_id": ["c-1", "nobody"], "merchant_id": [7, 404]}, feature_service="fraud_detection"
    )

    names = list(response.metadata.feature_names.val)
    assert names[:3] == ["card_id", "merchant_id", "card_activity__count_1h"]
    assert len(names) == len(response.results) == 2 + 16
    for vector in response.results:
        assert (len(vector.values), len(vector.statuses), len(vector.event_timestamps)) == (2, 2, 2)
    assert response.status


def test_values_statuses_and_times_are_those_of_the_packed_api(
    get_online_features: GetOnlineFeatures, client: LookupClient, payments: Payments
) -> None:
    """Both services answer from one lookup, so a model may move from one to the other."""
    entities: dict[str, list[str | int]] = {"card_id": ["c-1", "c-2", "nobody"], "merchant_id": [7, 7, 404]}
    found = vectors(get_online_features(entities, feature_service="fraud_detection"))
    packed = client.lookup("fraud_detection", {"card_id": ["c-1", "c-2", "nobody"], "merchant_id": [7, 7, 404]})

    for name, values in packed.to_dict().items():
        for row, value in enumerate(values):
            kind = found[name].values[row].WhichOneof("val")
            actual = None if kind is None else getattr(found[name].values[row], kind)
            expected = value // 1000 if kind == "unix_timestamp_val" and isinstance(value, int) else value
            assert actual == expected, name
    assert list(found["card_activity__count_1h"].statuses) == [PRESENT, PRESENT, NOT_FOUND]
    assert list(found["amount_mean_7d"].statuses) == [PRESENT, NULL_VALUE, NOT_FOUND]
    stamp = found["amount_mean_7d"].event_timestamps[0]
    assert stamp.seconds * 1000 + stamp.nanos // 1_000_000 == NOW_MS - 7


def test_a_list_of_references_is_answered_in_its_order(
    get_online_features: GetOnlineFeatures, payments: Payments
) -> None:
    """Lists of "view:feature" work without a feature service, and need only the join keys of their views."""
    found = get_online_features({"merchant_id": [7]}, ["merchant_profile:risk_tier", "merchant_activity:count_1h"])

    assert list(found.metadata.feature_names.val) == ["merchant_id", "risk_tier", "count_1h"]
    assert found.results[1].values[0].string_val == "high"
    assert found.results[2].values[0].int64_val == 2


def test_planning_an_unknown_list_holds_nobody_up(
    get_online_features: GetOnlineFeatures, client: LookupClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's new list takes as long to plan as it takes; lookups of others are answered meanwhile."""
    planning, proceed = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> ServicePlan:
        planning.set()
        assert proceed.wait(30)
        return plan_service(*arguments)

    monkeypatch.setattr(catalog, "plan_service", slow)
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(get_online_features, {"merchant_id": [7]}, ["merchant_activity:count_lifetime"])
        try:
            assert planning.wait(30)
            assert client.lookup("merchant_monitoring", {"merchant_id": 7}, timeout_s=30).row_count == 1
        finally:
            proceed.set()

        assert vectors(asked.result(5))["count_lifetime"].values[0].int64_val == 5


def test_full_feature_names_tell_equal_names_apart(get_online_features: GetOnlineFeatures, payments: Payments) -> None:
    """Two views with a feature of one name need full_feature_names, and the error says so."""
    entities: dict[str, list[str | int]] = {"card_id": ["c-1"], "merchant_id": [7]}
    clashing = ["card_activity:count_1h", "merchant_activity:count_1h"]

    with pytest.raises(grpc.RpcError, match="full_feature_names"):
        get_online_features(entities, clashing)
    found = get_online_features(entities, clashing, full_feature_names=True)
    assert list(found.metadata.feature_names.val)[2:] == ["card_activity__count_1h", "merchant_activity__count_1h"]


def test_a_narrow_integer_key_is_accepted(get_online_features: GetOnlineFeatures, payments: Payments) -> None:
    """A client may send an Int32 join key where the entity is declared Int64."""
    found = get_online_features({"merchant_id": [7]}, feature_service="merchant_monitoring", narrow=True)

    assert vectors(found)["count_lifetime"].values[0].int64_val == 5


@pytest.mark.parametrize(
    ("entities", "features", "code", "said"),
    [
        ({"merchant_id": ["7"]}, ["merchant_activity:count_1h"], "INVALID_ARGUMENT", "must be int64, not string_val"),
        ({}, ["merchant_activity:count_1h"], "INVALID_ARGUMENT", '"merchant_id" .*is missing'),
        ({"merchant_id": [7], "x": [1]}, ["merchant_activity:count_1h"], "INVALID_ARGUMENT", '"x" is not a join key'),
        ({"merchant_id": [7]}, ["merchant_activty:count_1h"], "NOT_FOUND", 'did you mean "merchant_activity"'),
        ({"merchant_id": [7]}, ["merchant_activity:count_2h"], "NOT_FOUND", 'did you mean "count_1h"'),
        ({"merchant_id": [7]}, ["count_1h"], "INVALID_ARGUMENT", "is not a feature reference"),
        ({"merchant_id": [7]}, [], "INVALID_ARGUMENT", "names no features"),
    ],
)
def test_a_wrong_call_gets_a_telling_status(
    get_online_features: GetOnlineFeatures,
    payments: Payments,
    entities: dict[str, list[str | int]],
    features: list[str],
    code: str,
    said: str,
) -> None:
    """Feast's clients see which key or feature is wrong, not INTERNAL."""
    with pytest.raises(grpc.RpcError, match="(?s)" + said) as raised:
        get_online_features(entities, features)

    assert code_name(raised.value) == code


def test_a_stale_profile_is_outside_max_age(
    get_online_features: GetOnlineFeatures, payments: Payments, clock: Any
) -> None:
    """Feast's status for values beyond their ttl."""
    clock.set_now_ms(NOW_MS + 31 * DAY_MS)

    found = get_online_features({"merchant_id": [7]}, ["merchant_profile:risk_tier"])

    assert list(found.results[1].statuses) == [OUTSIDE_MAX_AGE]
    assert found.results[1].values[0].WhichOneof("val") is None


def test_serving_info_names_this_server(channel: grpc.Channel, payments: Payments) -> None:
    """Feast's clients ask for the version when they connect."""
    call = channel.unary_unary(
        "/feast.serving.ServingService/GetFeastServingInfo",
        request_serializer=InfoRequest.SerializeToString,
        response_deserializer=InfoResponse.FromString,
    )

    assert call(InfoRequest(), timeout=30).version.startswith("featurestore ")


FEAST_FIELDS = """
import importlib.util, json, sys, types
package = types.ModuleType("feast")  # Feast's package without running its __init__, which takes seconds
root = importlib.util.find_spec("feast").submodule_search_locations[0]
package.__path__ = [root, root + "/protos/feast"]
sys.modules["feast"] = package
from feast.protos.feast.serving import ServingService_pb2 as serving
from feast.protos.feast.types import Value_pb2 as values
def fields(message):
    found = {message.full_name: {f.name: [f.number, f.type, f.is_repeated] for f in message.fields}}
    for nested in message.nested_types:
        found |= fields(nested)
    return found
found = {}
for file in (serving, values):
    for message in file.DESCRIPTOR.message_types_by_name.values():
        found |= fields(message)
methods = {m.name: [m.input_type.full_name, m.output_type.full_name]
    for m in serving.DESCRIPTOR.services_by_name["ServingService"].methods}
statuses = {v.name: v.number for v in serving.DESCRIPTOR.enum_types_by_name["FieldStatus"].values}
print(json.dumps([found, methods, statuses]))
"""


def test_the_contract_is_that_of_the_installed_feast() -> None:
    """Every message, field number, type, method and status that we declare is the one Feast's own module has."""
    printed = subprocess.run([sys.executable, "-c", FEAST_FIELDS], check=True, capture_output=True, text=True).stdout
    feast_messages, feast_methods, feast_statuses = json.loads(printed)
    file: Any = descriptor_pool().FindFileByName("feast/serving/ServingService.proto")
    values: Any = descriptor_pool().FindFileByName("feast/types/Value.proto")

    def compare(message: Any) -> None:
        for field in message.fields:
            shape = [field.number, field.type, field.is_repeated]
            assert shape == feast_messages[message.full_name][field.name], field.full_name
        for nested in message.nested_types:
            compare(nested)

    for message in (*file.message_types_by_name.values(), *values.message_types_by_name.values()):
        compare(message)
    methods = {
        method.name: [method.input_type.full_name, method.output_type.full_name]
        for method in file.services_by_name["ServingService"].methods
    }
    assert methods == feast_methods
    assert {value.name: value.number for value in file.enum_types_by_name["FieldStatus"].values} == feast_statuses
