"""Quotas: who spends his is refused and told when there is room again; others notice nothing."""

from __future__ import annotations

import random
import urllib.error
import urllib.request
from functools import partial

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.definitions.governance.quotas import Quota, Quotas, read_quotas
from featurestore.errors import InvalidRequest, Overloaded, QuotaSpent
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.request.admission import Admission, AdmissionSettings
from featurestore.serving.request.usage.buckets import Meter
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import Payments, RegistryInMemory

SERVICE = "merchant_monitoring"
FILE = """
quotas:
  - {caller: fraud, rows_per_second: 100}
  - {caller: "batch-*", rows_per_second: 10, burst_seconds: 1}
  - {caller: "*", requests_per_second: 5}
  - {service: check, rows_per_second: 200}
  - {caller: "batch-*", service: check, rows_per_second: 3, burst_seconds: 1}
"""


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_nobody_gets_more_than_his_quota_nor_less(seed: int) -> None:
    """Against a plain account of each caller: what there was, what came, what was taken.

    Whoever is refused would be let in after the time that he is told, and not before.
    """
    draw, clock, refusals = random.Random(seed), ManualClock(), list[str]()
    quotas = Quotas(
        (Quota("a", rows_per_second=8.0, burst_seconds=1.0), Quota("*", requests_per_second=4.0, burst_seconds=0.5)),
        (Quota(service="s", rows_per_second=16.0, burst_seconds=2.0),),
    )
    meter = Meter(quotas, clock, refusals.append)
    rates = {"a": (8.0, 8.0, True), "b": (4.0, 2.0, False), "s": (16.0, 32.0, True)}
    left = {name: most for name, (_, most, _) in rates.items()}
    for _ in range(draw.randint(1, 40)):
        passed_ms = draw.choice([0, 125, 500, 2_000])
        clock.advance_ms(passed_ms)
        for name, (rate, most, _) in rates.items():
            left[name] = min(most, left[name] + rate * passed_ms / 1_000)
        caller, service, rows = draw.choice("ab"), draw.choice(["s", "t"]), draw.randint(1, 20)
        held = [caller, *(["s"] if service == "s" else [])]
        if all(left[name] > 0 for name in held):
            meter.take(caller, service, partial(int, rows))
            for name in held:
                left[name] -= rows if rates[name][2] else 1
            continue
        with pytest.raises(QuotaSpent) as spent:
            meter.take(caller, service, lambda: 1)
        wait_ms = max((1 - left[name]) / rates[name][0] * 1_000 for name in held if left[name] <= 0)
        assert wait_ms <= spent.value.retry_after_ms < wait_ms + 1
    assert set(refusals) <= {"quota"}


def test_the_first_rule_that_fits_holds() -> None:
    """Of the rules about the same; and what is no rule is named with its place."""
    quotas = read_quotas(FILE, "quotas.yaml")
    rows = {name: quotas.of_caller(name) for name in ("fraud", "batch-7", "x")}
    assert [(100.0, None), (10.0, None), (None, 5.0)] == [
        (one.rows_per_second, one.requests_per_second) for one in rows.values() if one is not None
    ]
    pair = quotas.of_pair("batch-7", "check")
    assert pair is not None
    assert pair.rows_per_second == 3.0
    assert quotas.of_pair("fraud", "check") is None

    for wrong, said in {
        "quotas: [{caller: x, rows_per_second: 0}]": 'rows_per_second is "0"',
        "quotas: [{caller: x, rows_per_secnd: 1}]": 'did you mean "rows_per_second"',
        "quotas: [{rows_per_second: 1}]": "names neither a caller nor a service",
        "quotas: [{caller: x}]": "limits nothing",
        "quotas: [{caller: x, service: y, share: 0.5}]": "a share that is none",
        "quotes: []": "is not a list",
    }.items():
        with pytest.raises(InvalidRequest) as refused:
            read_quotas(wrong, "quotas.yaml")
        assert said in str(refused.value)


def test_a_share_leaves_room_for_others() -> None:
    """A caller with a quarter of the room is refused beyond it, while somebody else is let in."""
    quotas = read_quotas("quotas: [{caller: batch, share: 0.05}]", "q")
    admission = Admission(AdmissionSettings(quotas=quotas), 4, ManualClock(), lambda _full: None)
    assert admission.clients is not None
    taken, refused = 0, ""
    while taken < 10 and not refused:
        try:
            admission.clients.take("batch")
            taken += 1
        except Overloaded as error:
            refused = error.message
    assert refused == f'client "batch" has {taken} requests under way, which is its limit'
    for _ in range(100):
        admission.clients.take("fraud")


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_a_server_keeps_quotas(payments: Payments, registry: RegistryInMemory, clock: ManualClock, io: str) -> None:
    """RESOURCE_EXHAUSTED with the time to wait over gRPC, 429 with Retry-After over HTTP; another caller goes on."""
    quotas = read_quotas("quotas: [{caller: batch, rows_per_second: 2, burst_seconds: 1}]", "q")
    server = FeatureServer(
        *(registry, payments.store, clock),
        ServerSettings(port=0, io=io, admission=AdmissionSettings(client_key="team", quotas=quotas)),
        http_port=0,
    )
    request = pb.LookupRequest(feature_service=SERVICE)
    request.entities.add(join_key="merchant_id").integers.extend([7, 8, 9, 10])
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(
            "/featurestore.v1.FeatureLookup/Lookup",
            request_serializer=pb.LookupRequest.SerializeToString,
            response_deserializer=pb.LookupResponse.FromString,
        )
        assert call(request, metadata=(("team", "batch"),), timeout=30).row_count == 4
        with pytest.raises(grpc.RpcError) as refused:
            call(request, metadata=(("team", "batch"),), timeout=30)
        for _ in range(5):
            assert call(request, metadata=(("team", "fraud"),), timeout=30).row_count == 4
        http = urllib.request.Request(
            f"http://127.0.0.1:{server.http_port}/v1/services/{SERVICE}:lookup",
            b'{"entities": {"merchant_id": [7]}}',
            {"team": "batch"},
        )
        with pytest.raises(urllib.error.HTTPError) as too_many:
            urllib.request.urlopen(http, timeout=30)
        clock.advance_ms(1_501)
        assert call(request, metadata=(("team", "batch"),), timeout=30).row_count == 4
    server.stop(drain_seconds=1.0)

    error: grpc.Call = refused.value  # type: ignore[assignment]  # as every error of a call is
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 'the quota of caller "batch" is spent\nThere is room again in 1.5 s.' in (error.details() or "")
    assert ("grpc-retry-pushback-ms", "1500") in tuple(map(tuple, error.trailing_metadata() or ()))
    assert (429, "2") == (too_many.value.code, too_many.value.headers["retry-after"])
