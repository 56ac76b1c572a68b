"""Who may ask what: real tokens of a real key, certificates, and Feast's permissions as Feast decides them."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import feast
import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from feast.permissions.action import AuthzedAction
from feast.permissions.enforcer import enforce_policy
from feast.permissions.permission import Permission as FeastPermission
from feast.permissions.policy import (
    AllowAll,
    CombinedGroupNamespacePolicy,
    GroupBasedPolicy,
    NamespaceBasedPolicy,
    RoleBasedPolicy,
)
from feast.permissions.user import User as FeastUser
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.cli.callers import open_callers
from featurestore.clock import SystemClock
from featurestore.core.spec.access import AccessSpec, Guarded, User
from featurestore.definitions.governance.access import issuer_keys
from featurestore.definitions.governance.access.auth_section import DISCOVERY_PATH, OidcSettings
from featurestore.definitions.governance.access.tokens import Tokens
from featurestore.errors import FeatureStoreError, InvalidRequest, PermissionDenied, Unauthenticated, Unavailable
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.messages import LookupBatch
from featurestore.serving.client.tls import ClientTls
from featurestore.serving.request.callers import Callers
from featurestore.serving.request.tls import Tls
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.wire.feast.access import access_of
from featurestore.wire.feast.protos import message_class
from tests.serving.issuer import AUDIENCE, ISSUER, Issuer
from tests.serving.payments import Payments, RegistryInMemory

SERVICE, ENTITY = "merchant_monitoring", {"merchant_id": 7}

both_servers = pytest.mark.parametrize("io", ["sync", "aio"])


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Of this test."""
    return Issuer(tmp_path / "keys.json")


def tokens_of(issuer: Issuer) -> Tokens:
    """Its tokens hold."""
    return Tokens(OidcSettings(ISSUER, AUDIENCE, str(issuer.path)), SystemClock())


def permission(name: str, policy: Any, **more: Any) -> FeastPermission:
    """Of feature services, to read them."""
    given = {"types": [feast.FeatureService], "actions": [AuthzedAction.READ_ONLINE], **more}
    return FeastPermission(name, policy=policy, **given)


def access(*permissions: FeastPermission) -> AccessSpec:
    """What a registry with them says; the service belongs to somebody."""
    registry = RegistryProto()
    for one in permissions:
        registry.permissions.append(one.to_proto())
    guarded = {("FEATURE_SERVICE", SERVICE): Guarded("FEATURE_SERVICE", SERVICE, "merchants@payments.example")}
    return replace(access_of(registry.SerializeToString(), "payments"), guarded=guarded)


Start = Callable[..., FeatureServer]


@pytest.fixture
def start(payments: Payments, registry: RegistryInMemory, clock: ManualClock) -> Iterator[Start]:
    """Starts servers that keep permissions."""
    started: list[FeatureServer] = []

    def begin(callers: Callers, spec: AccessSpec, **more: Any) -> FeatureServer:
        registry.change(replace(registry.repo, access=spec))
        listening = ServerSettings(port=0, **more)
        server = FeatureServer(registry, payments.store, clock, listening, http_port=0, callers=callers)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop(drain_seconds=1.0)


def status_of(server: FeatureServer, token: str | None) -> tuple[int, dict[str, Any]]:
    """HTTP's status of a lookup, and the answer."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{server.http_port}/v1/services/{SERVICE}:lookup"
    request = urllib.request.Request(url, json.dumps({"entities": {"merchant_id": [7]}}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@both_servers
def test_a_service_is_read_by_those_who_may(start: Start, issuer: Issuer, registry: RegistryInMemory, io: str) -> None:
    """Over gRPC, streams and HTTP alike; who is denied is told what is missing and whom to ask, and no more."""
    callers = Callers(tokens_of(issuer), certificates=False, anonymous=False)
    server = start(callers, access(permission("risk", RoleBasedPolicy(["risk"]))), io=io)
    address = f"127.0.0.1:{server.port}"

    def client(token: str | None) -> LookupClient:
        return LookupClient(address, token=None if token is None else lambda: token, timeout_s=30)

    with client(issuer.token("risk", "other")) as risk:
        # The layout is described to whoever may describe it; without a layout there is no result.
        with pytest.raises(PermissionDenied, match="may not DESCRIBE"):
            risk.lookup(SERVICE, ENTITY)
        describe = permission("all", AllowAll, actions=[AuthzedAction.DESCRIBE], types=[feast.FeatureService])
        registry.change(replace(registry.repo, access=access(permission("risk", RoleBasedPolicy(["risk"])), describe)))
        deadline = time.monotonic() + 30
        while True:
            try:
                assert risk.lookup(SERVICE, ENTITY).row_count == 1
                break
            except PermissionDenied:
                assert time.monotonic() < deadline
        assert [1] == [one.row_count for one in risk.lookup_stream(SERVICE, [LookupBatch({"merchant_id": [7]})])]
        with pytest.raises(PermissionDenied, match='may not DESCRIBE project "'):
            risk.services()
    assert status_of(server, issuer.token("risk"))[0] == 200

    with client(issuer.token("crm")) as crm:
        for ask in (
            lambda: crm.lookup(SERVICE, ENTITY),
            lambda: list(crm.lookup_stream(SERVICE, [LookupBatch({"merchant_id": [7]})])),
        ):
            with pytest.raises(PermissionDenied) as denied:
                ask()
            assert denied.value.message.endswith(f'"risk-model" may not READ_ONLINE feature service "{SERVICE}"')
            assert denied.value.detail == "It takes role risk."
            assert denied.value.hint == "ask merchants@payments.example for it"
        with pytest.raises(PermissionDenied) as unknown:
            crm.lookup("no_such_service", ENTITY)
        assert 'may not READ_ONLINE feature service "no_such_service"' in unknown.value.message
    status, problem = status_of(server, issuer.token("crm"))
    assert (403, "PermissionDenied") == (status, problem["featurestore_error"])

    with client(None) as nobody, pytest.raises(Unauthenticated, match="does not say who asks"):
        nobody.lookup(SERVICE, ENTITY)
    assert status_of(server, None)[0] == 401


def test_views_are_asked_for_as_feasts_own_server_asks(start: Start, issuer: Issuer) -> None:
    """A list of features takes the right to each view behind it."""
    merchants = permission(
        "merchants", RoleBasedPolicy(["risk"]), types=[feast.FeatureView], name_patterns=["merchant_activity"]
    )
    server = start(Callers(tokens_of(issuer), certificates=False, anonymous=False), access(merchants))
    ask: Any = message_class("feast.serving.GetOnlineFeaturesRequest")()
    ask.features.val.append("merchant_activity:count_1d")
    ask.entities["merchant_id"].val.add(int64_val=7)
    ask.entities["card_id"].val.add(string_val="c-1")
    metadata = (("authorization", f"Bearer {issuer.token('risk')}"),)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.unary_unary(
            "/feast.serving.ServingService/GetOnlineFeatures",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message_class("feast.serving.GetOnlineFeaturesResponse").FromString,
        )
        with pytest.raises(grpc.RpcError) as refused:
            call(ask, metadata=metadata, timeout=30)
        assert refused.value.code() is not grpc.StatusCode.PERMISSION_DENIED
        ask.features.val[0] = "merchant_activity@v1:count_1d"  # a version is the view's
        with pytest.raises(grpc.RpcError) as unknown:
            call(ask, metadata=metadata, timeout=30)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        ask.features.val.append("card_activity:count_1d")
        with pytest.raises(grpc.RpcError) as denied:
            call(ask, metadata=metadata, timeout=30)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert 'may not READ_ONLINE feature view "card_activity"' in str(denied.value)


def test_tokens_that_do_not_hold_are_refused(issuer: Issuer, tmp_path: Path) -> None:
    """Another audience, another issuer, yesterday's, somebody else's key, none, and the public key as a secret."""
    tokens = tokens_of(issuer)
    assert tokens.user_of(issuer.token("risk", groups=["eu"], namespaces=["payments"])) == User(
        "risk-model", frozenset({"risk"}), frozenset({"eu"}), frozenset({"payments"})
    )
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    wrong = {
        "another audience": issuer.token(aud="crm"),
        "another issuer": issuer.token(iss="https://issuer.example/realms/other"),
        "yesterday's": issuer.token(exp=int(time.time()) - 86_400),
        "without an end": jwt.encode(
            {"iss": ISSUER, "aud": AUDIENCE, "sub": "x"}, issuer.key, algorithm="RS256", headers={"kid": "first"}
        ),
        "somebody else's key": issuer.token(key=other),
        "not signed": issuer.token(key="", algorithm="none"),
        "signed with what everybody knows": issuer.token(key="k" * 64, algorithm="HS256"),
        "no token": "c-17",
        "nobody's": issuer.token(sub=None),
    }
    for what, token in wrong.items():
        with pytest.raises(Unauthenticated):
            pytest.fail(f"{what} holds: {tokens.user_of(token)}")
    tokens.stop()


def test_an_issuer_that_changes_its_keys_is_followed(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by discovery; a server that starts before its issuer says so, and goes on when it is there."""
    monkeypatch.setattr(issuer_keys, "RETRY_SECONDS", 0.05)
    is_up, was_asked = threading.Event(), threading.Event()

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not is_up.is_set():
                self.wfile.write(b"a proxy that speaks no HTTP\r\n")
                was_asked.set()
                return
            body = issuer.path.read_bytes()
            if self.path.endswith(DISCOVERY_PATH):
                body = json.dumps({"jwks_uri": f"http://127.0.0.1:{door.server_port}/keys"}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{door.server_port}"
    tokens = Tokens(OidcSettings(address, AUDIENCE), SystemClock())

    def name() -> str:
        try:
            return tokens.user_of(issuer.token(iss=address)).name
        except FeatureStoreError as error:
            return type(error).__name__

    def becomes(expected: str) -> None:
        deadline = time.monotonic() + 30
        while (found := name()) != expected:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    with pytest.raises(Unavailable, match="are not known"):
        tokens.user_of(issuer.token(iss=address))
    assert was_asked.wait(30)
    is_up.set()
    becomes("risk-model")
    issuer.rotate("second")
    becomes("risk-model")
    tokens.stop()
    door.shutdown()
    thread.join()


def test_the_names_of_a_certificate_are_roles(start: Start, tmp_path: Path) -> None:
    """Who shows a certificate that the authority signed is who it says."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:risk.example", "-days", "2"]
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    tls = Tls(certificate, key, client_authority=certificate)
    actions = [AuthzedAction.READ_ONLINE, AuthzedAction.DESCRIBE]
    callers = Callers(None, certificates=True, anonymous=False)
    mine = start(callers, access(permission("p", RoleBasedPolicy(["risk.example"]), actions=actions)), tls=tls)
    with LookupClient(f"localhost:{mine.port}", tls=ClientTls(certificate, certificate, key), timeout_s=30) as client:
        assert client.lookup(SERVICE, ENTITY).row_count == 1
    others = start(callers, access(permission("p", RoleBasedPolicy(["crm.example"]), actions=actions)), tls=tls)
    client = LookupClient(f"localhost:{others.port}", tls=ClientTls(certificate, certificate, key), timeout_s=30)
    with client, pytest.raises(PermissionDenied, match="localhost"):
        client.lookup(SERVICE, ENTITY)


NAMES = st.sampled_from(["risk", "crm", "eu"])
SOME = st.lists(NAMES, max_size=2)
ONE_OR_TWO = st.lists(NAMES, min_size=1, max_size=2)
POLICIES = st.one_of(
    st.just(AllowAll),
    ONE_OR_TWO.map(RoleBasedPolicy),
    ONE_OR_TWO.map(GroupBasedPolicy),
    ONE_OR_TWO.map(NamespaceBasedPolicy),
    st.builds(CombinedGroupNamespacePolicy, ONE_OR_TWO, SOME),
)
RESOURCES: dict[str, Any] = {
    "FEATURE_SERVICE": lambda name: feast.FeatureService(name=name, features=[]),
    "FEATURE_VIEW": lambda name: feast.FeatureView(name=name, source=feast.FileSource(path="x.parquet"), schema=[]),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_permissions_are_decided_as_feast_decides_them(data: st.DataObject) -> None:
    """By kind, name, action and policy, from the registry's bytes."""
    actions = st.lists(st.sampled_from(list(AuthzedAction)), min_size=1, max_size=4)
    kinds: st.SearchStrategy[Any] = st.lists(
        st.sampled_from([feast.FeatureService, feast.FeatureView, feast.StreamFeatureView, feast.Entity]), max_size=2
    )
    patterns = st.lists(st.sampled_from(["risk", "risk_.*", ".*_eu", "crm|risk_eu"]), max_size=2)
    permissions = [
        FeastPermission(f"p{number}", data.draw(kinds), data.draw(patterns), data.draw(actions), data.draw(POLICIES))
        for number in range(data.draw(st.integers(1, 3)))
    ]
    roles, groups, namespaces = data.draw(SOME), data.draw(SOME), data.draw(SOME)
    kind = data.draw(st.sampled_from(sorted(RESOURCES)))
    name = data.draw(st.sampled_from(["risk", "risk_eu", "crm", "crm_eu"]))
    action = data.draw(st.sampled_from(list(AuthzedAction)))
    registry = RegistryProto(permissions=[one.to_proto() for one in permissions])
    try:
        enforce_policy(permissions, FeastUser("u", roles, groups, namespaces), [RESOURCES[kind](name)], [action])
        expected = True
    except feast.errors.FeastPermissionError:
        expected = False

    user = User("u", frozenset(roles), frozenset(groups), frozenset(namespaces))
    found = access_of(registry.SerializeToString(), "p").missing(user, action.name, Guarded(kind, name))
    assert (found is None) is expected


def test_a_server_that_could_not_keep_permissions_is_not_started(tmp_path: Path) -> None:
    """Options that do not go together are named; and a registry with permissions wants to know who asks."""
    none: dict[str, Any] = dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca", "oidc_issuer", "oidc_audience"))
    none.update({"auth": (), "anonymous": False, "oidc_keys": "", "oidc_client": ""})
    open_one = RegistryInMemory()
    guarded = RegistryInMemory(repo=replace(open_one.repo, access=access(permission("p", AllowAll))))

    def opened(registry: RegistryInMemory, **options: Any) -> Callers | None:
        return open_callers(registry, {**none, **options}, SystemClock())

    with pytest.raises(InvalidRequest, match="no way to say who they are"):
        opened(guarded)
    with pytest.raises(click.UsageError, match="needs --tls-client-ca"):
        opened(open_one, auth=("mtls",))
    with pytest.raises(click.UsageError, match="needs --oidc-issuer and --oidc-audience"):
        opened(open_one, auth=("oidc",), oidc_issuer=ISSUER)
    keys = str(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    for place in (keys, str(tmp_path / "list.json")):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            opened(open_one, auth=("oidc",), oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_keys=place)
    (tmp_path / "none.json").write_text('{"keys": []}')
    with pytest.raises(InvalidRequest, match="holds no keys"):
        opened(open_one, auth=("oidc",), oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_keys=keys)
    assert opened(guarded, anonymous=True) is None
    assert opened(open_one) is None
