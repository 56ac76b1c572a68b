"""Who asks a server for what is written down, off the way of those who ask; whatever becomes of the log."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import feast
import pytest
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto

from featurestore.clock import SystemClock
from featurestore.core.spec.access import AccessSpec, Guarded
from featurestore.definitions.governance.access.auth_section import OidcSettings
from featurestore.definitions.governance.access.tokens import Tokens
from featurestore.definitions.governance.audit.journal import Journal
from featurestore.definitions.governance.audit.reading import callers_of, find_entries, verify
from featurestore.errors import PermissionDenied, Unauthenticated
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.messages import LookupBatch
from featurestore.serving.request.callers import Callers
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.wire.feast.access import access_of
from tests.full_disk import files_of_at_most
from tests.serving.issuer import AUDIENCE, ISSUER, Issuer
from tests.serving.payments import Payments, RegistryInMemory

SERVICE = "merchant_monitoring"
ON = f'feature service "{SERVICE}"'


def access(*, is_personal: bool = False) -> AccessSpec:
    """Those of risk may read; the service is somebody's."""
    actions = [AuthzedAction.READ_ONLINE, AuthzedAction.DESCRIBE]
    kinds: Any = [feast.FeatureService]
    risk = Permission("risk", kinds, actions=actions, policy=RoleBasedPolicy(["risk"]))
    guarded = {("FEATURE_SERVICE", SERVICE): Guarded("FEATURE_SERVICE", SERVICE, "merchants", {}, is_personal)}
    registry = RegistryProto(permissions=[risk.to_proto()]).SerializeToString()
    return replace(access_of(registry, "payments"), guarded=guarded)


@pytest.mark.parametrize("io", ["sync", "aio"])
def test_who_asks_for_what_is_in_the_log(
    payments: Payments,
    registry: RegistryInMemory,
    clock: ManualClock,
    tmp_path: Path,
    io: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lookups are added up by caller and service; each of a personal one is there by itself, and each refusal."""
    monkeypatch.setattr(ManualClock, "worked_ns", lambda _clock: SystemClock().worked_ns())
    issuer = Issuer(tmp_path / "keys.json")
    callers = Callers(
        Tokens(OidcSettings(ISSUER, AUDIENCE, str(issuer.path)), SystemClock()), certificates=False, anonymous=False
    )
    registry.change(replace(registry.repo, access=access(is_personal=io == "aio")))
    log = tmp_path / "audit"
    server = FeatureServer(
        *(registry, payments.store, clock, ServerSettings(port=0, io=io)),
        http_port=0,
        metrics_port=0,
        callers=callers,
        audit=(Journal(log, SystemClock()), 0.0),
    )

    def client(**claims: Any) -> LookupClient:
        return LookupClient(f"127.0.0.1:{server.port}", token=issuer.token(*claims.pop("roles", ["risk"]), **claims))

    with client() as risk:
        risk.lookup(SERVICE, {"merchant_id": [7, 8, 9]})
        assert [2] == [one.row_count for one in risk.lookup_stream(SERVICE, [LookupBatch({"merchant_id": [7, 8]})])]
    with client(sub="fraud-2") as other:
        other.lookup(SERVICE, {"merchant_id": 7})
    with client(sub="news", roles=["crm"]) as crm, pytest.raises(PermissionDenied):
        crm.lookup(SERVICE, {"merchant_id": 7})
    with LookupClient(f"127.0.0.1:{server.port}") as nobody, pytest.raises(Unauthenticated):
        nobody.lookup(SERVICE, {"merchant_id": 7})
    server._usage.write(is_over=True)  # a minute is over
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    server.stop(drain_seconds=1.0)

    labels = f'{{owner="merchants",service="{SERVICE}"}}'
    assert f"featurestore_usage_rows_total{labels} 6.0" in metrics
    assert float(re.findall(r"usage_cpu_seconds_total\S+ (\S+)", metrics)[0]) > 0
    assert verify(log).problems == ()
    assert [("risk-model", 2, 5), ("fraud-2", 1, 1)] == [
        (one.who, one.requests, one.rows) for one in callers_of(log, SERVICE)
    ]
    lookups = find_entries(log, what="lookup")
    assert {("token", ON, "merchants")} == {(one.known_by, one.on, one.details["owner"]) for one in lookups}
    assert all(one.details["bytes"] > 0 and one.details["cpu_us"] > 0 for one in lookups)
    assert (3 if io == "aio" else 0) == len(find_entries(log, what="call"))
    refused = {(one.who, one.known_by): one.on for one in find_entries(log, what="refused")}
    assert refused["news", "token"].startswith('"news" may not ')
    assert refused["ipv4:127.0.0.1", "address"] == "the request does not say who asks"


def test_a_full_disk_stops_the_log_and_nobody_else(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, tmp_path: Path
) -> None:
    """Lookups are answered, the trouble is counted and logged, and everything is written when there is room."""
    server = FeatureServer(
        *(registry, payments.store, clock, ServerSettings(port=0)),
        audit=(Journal(tmp_path, SystemClock()), 1.0),
    )
    with LookupClient(f"127.0.0.1:{server.port}") as client:
        with files_of_at_most(0):
            for _ in range(5):
                assert client.lookup(SERVICE, {"merchant_id": 7}).row_count == 1
            server._usage.write(is_over=True)
        assert (server._metrics.registry.get_sample_value("featurestore_audit_failures_total") or 0) >= 1
        assert not find_entries(tmp_path)
    server.stop(drain_seconds=1.0)

    assert verify(tmp_path).problems == ()
    assert 5 == len(find_entries(tmp_path, what="call")) == callers_of(tmp_path, SERVICE)[0].requests
