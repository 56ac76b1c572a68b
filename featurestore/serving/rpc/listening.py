"""How a server listens: address, TLS, limits; the same for threads and asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2

from featurestore.errors import InvalidRequest
from featurestore.serving.request.limits import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, WORKERS_DEFAULT

DEFAULT_PORT = 6566
"""Where Feast's own clients look for a feature server."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS.

    Attributes:
        certificate, key: PEM files of the server.
        client_authority: PEM file; when given, clients must present a certificate that it signed.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """The files' contents as gRPC wants them.

        Raises:
            InvalidRequest: a file cannot be read.
        """
        try:
            authority = None if self.client_authority is None else self.client_authority.read_bytes()
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
        except OSError as error:
            raise InvalidRequest("a TLS file cannot be read", detail=str(error)) from error
        return grpc.ssl_server_credentials(
            [pair], root_certificates=authority, require_client_auth=authority is not None
        )


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to listen.

    Attributes:
        host: address to bind.
        port: TCP port; 0 takes a free one.
        io: "sync" (thread pool) answers a single call sooner; "aio" (asyncio) saturates later, and
            holds no thread while a store hangs. With several clients below saturation they are even.
        workers: threads of the pool.
        tls: None listens in clear text.
        share_port: let several processes listen on one port; the kernel spreads connections over them.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    io: str = "sync"
    workers: int = WORKERS_DEFAULT
    tls: Tls | None = None
    share_port: bool = False

    @property
    def address(self) -> str:
        """Host and port as gRPC writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def options(self) -> Sequence[tuple[str, int]]:
        """Channel arguments."""
        return (
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
            # gRPC shares ports unless told otherwise: a server started twice by mistake would answer every other call.
            ("grpc.so_reuseport", int(self.share_port)),
            # Risk models keep a channel open between payments.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        )


class _Bindable(Protocol):
    """What grpc.Server and grpc.aio.Server have in common."""

    def add_insecure_port(self, address: str) -> int: ...

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int: ...


def bind(server: _Bindable, settings: ServerSettings) -> int:
    """Bind the settings' address; the port.

    Raises:
        InvalidRequest: it cannot be bound, or a TLS file cannot be read.
    """
    try:
        if settings.tls is None:
            return server.add_insecure_port(settings.address)
        return server.add_secure_port(settings.address, settings.tls.credentials())
    except RuntimeError as error:
        raise InvalidRequest(
            f'address "{settings.address}" cannot be bound', detail=str(error), hint="is another server running there?"
        ) from error


def health_status(is_serving: bool) -> Any:
    """The health service's word for it."""
    statuses = health_pb2.HealthCheckResponse
    return statuses.SERVING if is_serving else statuses.NOT_SERVING
