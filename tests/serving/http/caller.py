"""Somebody who speaks HTTP: by Python's own client, or byte by byte."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from featurestore.serving.server import FeatureServer
from tests.serving.crowds import PATIENCE_S

LOOKUP = "/v1/services/merchant_monitoring:lookup"
MERCHANT = {"entities": {"merchant_id": [7]}}


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP's.
        headers: by name in lower case.
        body: its bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Caller:
    """One connection by Python's own client, kept alive.

    Args:
        server: whom to ask.
        tls: how, in clear text unless given.
    """

    def __init__(self, server: FeatureServer, tls: ssl.SSLContext | None = None) -> None:
        assert server.http_port is not None
        self._connection = (
            http.client.HTTPConnection("localhost", server.http_port, timeout=PATIENCE_S)
            if tls is None
            else http.client.HTTPSConnection("localhost", server.http_port, timeout=PATIENCE_S, context=tls)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST of JSON, or of bytes as they are."""
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers)

    def lookup(self, service: str = "merchant_monitoring", **body: Any) -> Answer:
        """A lookup."""
        return self.post(f"/v1/services/{service}:lookup", body)

    def ask(self, verb: str, path: str, body: bytes | None, **headers: str) -> Answer:
        """Any request."""
        self._connection.request(verb, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = self._connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


class Wire:
    """A connection whose bytes are the test's.

    Args:
        server: whom to ask.
    """

    def __init__(self, server: FeatureServer) -> None:
        assert server.http_port is not None
        self._socket = socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE_S)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def answer(self) -> Answer:
        """The next answer."""
        status = int(self._line().split(b" ")[1])
        headers = {}
        while line := self._line():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return Answer(status, headers, self._file.read(int(headers.get("content-length", "0"))))

    def is_ended(self) -> bool:
        """Whether the server ends the connection, without another byte."""
        return self._file.read() == b""

    def _line(self) -> bytes:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), "the connection ended"
        return line[:-2]


def request(body: bytes | str | dict[str, Any] = b"", *headers: str, path: str = LOOKUP, verb: str = "POST") -> bytes:
    """A request as it goes over the wire."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    lines = [f"{verb} {path} HTTP/1.1", "host: localhost", f"content-length: {len(data)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data
