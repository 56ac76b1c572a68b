"""How a server listens: address, TLS, limits; the same for threads and asyncio."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2

from featurestore.clock import Clock
from featurestore.errors import InvalidRequest
from featurestore.serving.request.limits import (
    REQUEST_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
    WORKERS_DEFAULT,
)
from featurestore.serving.rpc.admission import Admission, AdmissionSettings
from featurestore.serving.rpc.metrics import ServerMetrics

CONNECTION_AGE_S = 300.0
"""How long a client stays with one of several replicas."""

CONNECTION_GRACE_MS = 10_000
"""For the calls of a connection that is to end: longer than any deadline that the server sets itself."""

KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
"""How often a silent client is asked whether it is there, and how long for an answer is waited."""

_MS_PER_SECOND = 1_000
_log = logging.getLogger(__name__)

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
        """What gRPC asks for the files at every new connection, so that a renewed certificate needs no restart.

        Raises:
            InvalidRequest: a file cannot be read.
        """
        files = _TlsFiles(self)
        return grpc.dynamic_ssl_server_credentials(
            files.read(),
            files.read_if_changed,  # type: ignore[arg-type]  # may return None, which the stubs do not know
            require_client_authentication=self.client_authority is not None,
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        own = (self.certificate, self.key)
        return own if self.client_authority is None else (*own, self.client_authority)


class _TlsFiles:
    """Files that somebody else replaces.

    Args:
        tls: the files.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamp: object = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """All files.

        Raises:
            InvalidRequest: one cannot be read.
        """
        tls = self._tls
        try:
            # First, so that what is replaced while it is read is read again.
            stamp = self._stamp_now()
            authority = None if tls.client_authority is None else tls.client_authority.read_bytes()
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        except OSError as error:
            raise InvalidRequest("a TLS file cannot be read", detail=str(error)) from error
        # Not before: a file that may not be read yet looks the same once it may.
        self._stamp = stamp
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """All files if one was replaced; None for what is in use, also where they cannot be read now."""
        try:
            if self._stamp_now() == self._stamp:
                return None
            found = self.read()
        except (OSError, InvalidRequest) as error:
            _log.error("TLS files cannot be read, those in use stay so: %s", error)
            return None
        _log.info("TLS files have changed and were read again")
        return found

    def _stamp_now(self) -> object:
        """Changes when a file does."""
        return [(each.st_mtime_ns, each.st_size, each.st_ino) for each in map(Path.stat, self._tls.paths)]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How to listen.

    Attributes:
        host: address to bind.
        port: TCP port; 0 takes a free one.
        io: "sync" (thread pool) answers a single call sooner; "aio" (asyncio) saturates later, and
            holds no thread while a store hangs. With several clients below saturation they are even.
        workers: requests at work at once; None for the usual number of `io`.
        tls: None listens in clear text.
        share_port: let several processes listen on one port; the kernel spreads connections over them.
        reflection: whether anybody may ask what the server speaks.
        admission: how many requests are let in.
        connection_age_s: after so long, give or take a tenth, a client has to connect anew; None never.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    io: str = "sync"
    workers: int | None = None
    tls: Tls | None = None
    share_port: bool = False
    reflection: bool = True
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    connection_age_s: float | None = CONNECTION_AGE_S

    @property
    def at_work_max(self) -> int:
        """Requests at work at once."""
        return self.workers or WORKERS_DEFAULT[self.io]

    def admitting(self, clock: Clock, metrics: ServerMetrics) -> Admission:
        """Who is let in, as these settings say."""
        admission = Admission(self.admission, self.at_work_max, clock, metrics.count_refusal)
        for lane in (admission.small, admission.large):
            metrics.watch_waiting(lane.name, lane.count_waiting)
        return admission

    @property
    def address(self) -> str:
        """Host and port as gRPC writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def options(self) -> Sequence[tuple[str, int]]:
        """Channel arguments."""
        age: tuple[tuple[str, int], ...] = ()
        if self.connection_age_s is not None:
            # Clients keep their connection for ever, and would never find a replica that was added.
            age = (
                ("grpc.max_connection_age_ms", round(self.connection_age_s * _MS_PER_SECOND)),
                ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
            )
        return (
            *age,
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
            # gRPC shares ports unless told otherwise: a server started twice by mistake would answer every other call.
            ("grpc.so_reuseport", int(self.share_port)),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
            # Risk models keep a channel open between payments.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            # A peer that has vanished without a word takes its connection with it.
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
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
