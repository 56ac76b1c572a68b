"""Who may ask a schema registry: users, tokens and certificates, on a real registry behind a door that checks them."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from dataflows.logs.schemas import SchemaRegistries, registries_of
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import FeatureStoreError, InvalidRequest, SourceUnavailable
from featurestore.testing.servers import SchemaRegistry

SECRET = "kept-from-all-eyes"
USER = f"basic.auth.user.info=store:{SECRET}"
TOKEN = f"bearer.auth.credentials.source=STATIC_TOKEN\nbearer.auth.token={SECRET}\nbearer.auth.logical.cluster=lsrc-1"
BASIC = f"Basic {base64.b64encode(f'store:{SECRET}'.encode()).decode()}"
SCHEMA = json.dumps({"type": "record", "name": "Payment", "fields": [{"name": "at", "type": "long"}]})
SUBJECT = "registry-access-value"


@dataclass
class Door:
    """What stands before a registry.

    Attributes:
        url: of the registry behind it.
        authorization: what a request has to say; "" asks for nothing.
        seen: paths that were let through.
    """

    url: str
    authorization: str = ""
    seen: list[str] = field(default_factory=list)


@contextmanager
def door(registry: SchemaRegistry, *, authorization: str = "", tls: ssl.SSLContext | None = None) -> Iterator[Door]:
    """A door before a registry: over TLS, if it has a context for that."""
    behind = urlsplit(registry.url)
    opened = Door("", authorization)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if opened.authorization and self.headers.get("Authorization") != opened.authorization:
                # As some do: the answer quotes what it was given.
                given = self.headers.get("Authorization", "")
                self._answer(401, json.dumps({"error_code": 40101, "message": f"denied: {given}"}).encode())
                return
            opened.seen.append(self.path)
            connection = http.client.HTTPConnection(behind.netloc, timeout=30)
            connection.request("GET", self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
            answer = connection.getresponse()
            self._answer(answer.status, answer.read())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    opened.url = f"{scheme}://{host}:{server.server_port}{behind.path}"
    try:
        yield opened
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def schema_id(registry_of_schemas: SchemaRegistry) -> int:
    """A schema that the registry has."""
    return int(SchemaRegistryClient({"url": registry_of_schemas.url}).register_schema(SUBJECT, Schema(SCHEMA, "AVRO")))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Certificates of a door and of a client, each its own authority, with their keys; and a stranger's."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    for name in ("door", "client", "stranger"):
        made = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run([*command, *made], check=True, capture_output=True)
    return tmp_path


def source_of(url: str) -> SourceSpec:
    """A source whose registry is there."""
    return SourceSpec("s", "t", (Column("at", ValueType.INT64),), "at", format="avro", schema_registry=url)


def configured(directory: Path, text: str) -> SchemaRegistries:
    """Registries with a file of settings, as users keep secrets in."""
    path = directory / "registry.properties"
    path.write_text(f"# of the stream\n{text}\ntimeout = 5\nmax.retries=0\n")
    return registries_of(str(path), "")


@pytest.mark.kafka
@pytest.mark.parametrize(("settings", "expected"), [(USER, BASIC), (TOKEN, f"Bearer {SECRET}")], ids=["user", "token"])
def test_users_and_tokens_are_let_in_and_never_told(
    registry_of_schemas: SchemaRegistry,
    schema_id: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    settings: str,
    expected: str,
) -> None:
    """The right one gets its schema, a wrong one a clear refusal; neither error nor log has the secret."""
    caplog.set_level(logging.DEBUG)
    with door(registry_of_schemas, authorization=expected) as opened:
        source = source_of(opened.url)
        assert configured(tmp_path, settings).of(source).text(schema_id) == SCHEMA
        assert opened.seen
        opened.authorization = "somebody else's"
        with pytest.raises(InvalidRequest, match=f"refuses schema {schema_id}") as refused:
            configured(tmp_path, settings).of(source).text(schema_id)
    assert refused.value.hint == "give its user, token or certificate by --schema-registry-config"
    encoded = BASIC.partition(" ")[2]
    for text in (caplog.text, everything(refused.value)):
        assert SECRET not in text
        assert encoded not in text


@pytest.mark.kafka
def test_certificates_are_checked_on_both_sides(
    registry_of_schemas: SchemaRegistry, schema_id: int, files: Path
) -> None:
    """A private authority, and a client's certificate; without either nothing is read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "door.pem", files / "door.key")
    context.load_verify_locations(files / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    trusted = f"ssl.ca.location={files / 'door.pem'}"

    def own(name: str) -> str:
        return f"ssl.certificate.location={files / name}.pem\nssl.key.location={files / name}.key"

    with door(registry_of_schemas, tls=context) as opened:
        source = source_of(opened.url)
        assert configured(files, f"{trusted}\n{own('client')}").of(source).text(schema_id) == SCHEMA
        for lacking in (trusted, own("client"), f"{trusted}\n{own('stranger')}"):
            with pytest.raises(SourceUnavailable, match=r"schema registry https://localhost:\d+\S* does not answer"):
                configured(files, lacking).of(source).text(schema_id)


WRONG: dict[str, tuple[str, Callable[[Path], str]]] = {
    "no file": ("ssl.ca.location={0}/nowhere.pem", lambda files: f'"{files}/nowhere.pem"'),
    "no certificate": ("ssl.ca.location={0}/client.key", lambda files: f'"{files}/client.key"'),
    "another key": (
        "ssl.certificate.location={0}/client.pem\nssl.key.location={0}/stranger.key",
        lambda files: f'"{files}/stranger.key"',
    ),
    "no number": ("timeout=soon", lambda files: "soon"),
    "no password": ("basic.auth.user.info=store", lambda files: "{username}:{password}"),
    "unknown": ("basic.auth.user=store", lambda files: "basic.auth.user"),
}


@pytest.mark.parametrize(("settings", "named"), WRONG.values(), ids=WRONG.keys())
def test_a_setting_that_is_wrong_is_named(files: Path, settings: str, named: Callable[[Path], str]) -> None:
    """Also a file that is there and holds something else."""
    asked = registries_of("", settings.format(files))

    with pytest.raises(InvalidRequest, match="schema registry options are not usable") as refused:
        asked.of(source_of("https://localhost:1"))
    assert named(files) in refused.value.detail


def test_a_user_in_an_address_is_refused_and_its_password_is_not_told() -> None:
    """It would be registered for all to read, and be in every message that names the registry."""
    asked = SchemaRegistries({"url": f"http://store:{SECRET}@localhost:1/v1"})

    with pytest.raises(InvalidRequest, match="http://localhost:1/v1 has a user in it") as refused:
        asked.of(source_of(""))
    assert SECRET not in everything(refused.value)


def test_an_issuer_of_tokens_that_does_not_answer_is_waited_for() -> None:
    """As the registry is; its client's secret is in no message."""
    settings = {
        "bearer.auth.credentials.source": "OAUTHBEARER",
        "bearer.auth.client.id": "store",
        "bearer.auth.client.secret": SECRET,
        "bearer.auth.scope": "schemas",
        "bearer.auth.issuer.endpoint.url": "http://127.0.0.1:1/token",
        "bearer.auth.logical.cluster": "lsrc-1",
    }
    with pytest.raises(SourceUnavailable, match="does not answer") as silent:
        SchemaRegistries(settings).of(source_of("http://127.0.0.1:1")).text(1)
    assert SECRET not in everything(silent.value)


def everything(error: BaseException) -> str:
    """All that an error and its causes say."""
    told = f"{error.message} {error.detail} {error.hint}" if isinstance(error, FeatureStoreError) else ""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{error!r} {error} {told} " + ("" if cause is None else everything(cause))
