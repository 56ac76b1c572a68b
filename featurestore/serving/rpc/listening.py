"""How a server listens: address, TLS, limits; the same for threads and asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from grpc_health.v1 import health_pb2

from featurestore.clock import Clock
from featurestore.errors import InvalidRequest
from featurestore.serving.request.admission import Admission, AdmissionSettings
from featurestore.serving.request.gate import Gate
from featurestore.serving.request.limits import (
    REQUEST_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
    WORKERS_DEFAULT,
)
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.tls import Tls, TlsBytes, TlsFiles
from featurestore.serving.request.usage.counts import Usage
from featurestore.serving.rpc.streams import Streams

if TYPE_CHECKING:
    # Brings OpenTelemetry, which a server that traces nothing does without.
    from featurestore.serving.request.traces import Traces

CONNECTION_AGE_S = 300.0
"""How long a client stays with one of several replicas."""

CONNECTION_GRACE_MS = 10_000
"""For the calls of a connection that is to end: longer than any deadline that the server sets itself."""

KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
"""How often a silent client is asked whether it is there, and how long for an answer is waited."""

_MS_PER_SECOND = 1_000

DEFAULT_PORT = 6566
"""Where Feast's own clients look for a feature server."""


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
        traces: makes the spans of requests; None for none.
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
    traces: Traces | None = None

    @property
    def at_work_max(self) -> int:
        """Requests at work at once."""
        return self.workers or WORKERS_DEFAULT[self.io]

    def admitting(
        self, clock: Clock, metrics: ServerMetrics, gate: Gate | None = None, usage: Usage | None = None
    ) -> Admission:
        """Who is let in, as these settings say; past the gate, and counted, if there are such."""
        admission = Admission(self.admission, self.at_work_max, clock, metrics.count_refusal, gate, usage)
        for lane in (admission.small, admission.large):
            metrics.watch_waiting(lane.name, lane.count_waiting)
        return admission

    def streaming(self, admission: Admission, clock: Clock, metrics: ServerMetrics) -> Streams:
        """The streams of chunks beside those who are let in."""
        streams = Streams(admission, clock, metrics.count_refusal)
        metrics.watch_waiting(streams.turns.name, streams.turns.count_waiting)
        return streams

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
        return server.add_secure_port(settings.address, _credentials(settings.tls))
    except RuntimeError as error:
        raise InvalidRequest(
            f'address "{settings.address}" cannot be bound', detail=str(error), hint="is another server running there?"
        ) from error


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """What gRPC asks for the files at every new connection, so that a renewed certificate needs no restart.

    Raises:
        InvalidRequest: a file cannot be read.
    """
    files = TlsFiles(tls)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        found = files.read_if_changed()
        return None if found is None else _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.read()),
        renewed,  # type: ignore[arg-type]  # may return None, which the stubs do not know
        require_client_authentication=tls.client_authority is not None,
    )


def _configuration(read: TlsBytes) -> grpc.ServerCertificateConfiguration:
    """Files as gRPC wants them."""
    return grpc.ssl_server_certificate_configuration([(read.key, read.certificate)], read.client_authority)


def health_status(is_serving: bool) -> Any:
    """The health service's word for it."""
    statuses = health_pb2.HealthCheckResponse
    return statuses.SERVING if is_serving else statuses.NOT_SERVING
