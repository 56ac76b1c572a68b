"""The lookup server as a whole: two services, health and reflection on one port, HTTP and metrics on others.

    registry, generations -> CatalogSource --snapshot--> PackedService, FeastService --> LookupServer, HttpServer
                                  |--> health: NOT_SERVING while the store is down
                                  '--> metrics

Handlers are the same for threads and asyncio. Both overlap the waits of several requests for the store; the event loop
saves the hand-over to a thread; benchmarks/ measures both, and the default is the better one there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from featurestore.clock import Clock
from featurestore.definitions.registry import Registry
from featurestore.errors import InvalidRequest
from featurestore.online.store import OnlineStore
from featurestore.process import serve_metrics
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.catalog.functions import PythonFunctions
from featurestore.serving.http.operations import all_operations
from featurestore.serving.http.server import HttpServer
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.admission import Admission
from featurestore.serving.request.callers import Callers
from featurestore.serving.request.gate import Gate
from featurestore.serving.request.limits import DRAIN_SECONDS
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.usage.counts import AuditLog, Usage
from featurestore.serving.rpc.event_loop import AsyncServer
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.rpc.methods import Method, all_methods
from featurestore.serving.rpc.threads import ThreadedServer
from featurestore.serving.services.explain import ExplainService
from featurestore.serving.services.feast import FeastService
from featurestore.serving.services.packed import PackedService

if TYPE_CHECKING:
    # Knows Arrow, which a server that logs nothing does without.
    from featurestore.serving.sampling.sample import FeatureLog

_log = logging.getLogger(__name__)


class LookupServer(Protocol):
    """A gRPC server that was started."""

    @property
    def port(self) -> int:
        """The bound port."""
        ...

    def set_serving(self, is_serving: bool) -> None:
        """What the health service answers."""
        ...

    def stop(self, drain_seconds: float) -> bool:
        """Answer NOT_SERVING, refuse new requests, let those in flight end; whether all did."""
        ...


class FeatureServer:
    """Everything that `featurestore serve` runs; serves when constructed.

    Args:
        registry: where definitions come from.
        store: the online store; it may be down.
        clock: processing time.
        settings: how to listen.
        metrics_port: where Prometheus finds /metrics, 0 for a free port, None for nowhere.
        metrics_host: at which address; that of the server unless given.
        http_port: where HTTP is spoken as well, at the address and with the TLS of `settings`; 0 for a free port, None
            for nowhere.
        feature_log: keeps a sample of the answers; started and stopped with the server.
        python_features: run the Python functions of on-demand views, which whoever writes the registry has written.
        callers: says who asks, whereupon the registry's permissions are kept; None lets everybody ask everything.
        audit: where it is written who asks what, and the share of single calls; None counts for the metrics alone.

    Attributes:
        port: the bound gRPC port.
        http_port: the bound HTTP port, None for nowhere.
        metrics_port: the bound metrics port, None for nowhere.

    Raises:
        FeatureStoreError: the registry cannot be read, or an address cannot be bound.
    """

    def __init__(
        self,
        registry: Registry,
        store: OnlineStore,
        clock: Clock,
        settings: ServerSettings,
        *,
        metrics_port: int | None = None,
        metrics_host: str | None = None,
        http_port: int | None = None,
        feature_log: FeatureLog | None = None,
        python_features: bool = False,
        callers: Callers | None = None,
        audit: tuple[AuditLog, float] | None = None,
    ) -> None:
        self._metrics = ServerMetrics()
        self.metrics_port: int | None = None
        self._stop_metrics: Callable[[], None] = lambda: None
        self._http: HttpServer | None = None
        with ExitStack() as undo:
            if metrics_port is not None:
                # Before anything that would have to be stopped again if the port is taken.
                host = metrics_host or settings.host
                self.metrics_port, self._stop_metrics = serve_metrics(self._metrics.registry, host, metrics_port)
                undo.callback(self._stop_metrics)
            functions = PythonFunctions(clock, self._metrics) if python_features else None
            self._catalog = CatalogSource(registry, store, None if functions is None else functions.of)
            lookup = FeatureLookup(clock, counts=self._metrics.answers, sink=feature_log, traces=settings.traces)
            packed, feast = PackedService(self._catalog, lookup), FeastService(self._catalog, lookup)
            # One for both protocols: they share the interpreter.
            gate = None if callers is None else Gate(callers, self._catalog.project, self._catalog.access)
            log, share = audit or (None, 0.0)
            usage = Usage(self._catalog.access, clock, log, share)
            admission = settings.admitting(clock, self._metrics, gate, usage)
            if http_port is not None:
                self._http = HttpServer(
                    *(all_operations(packed, feast), store, clock, self._metrics, admission),
                    host=settings.host,
                    port=http_port,
                    tls=settings.tls,
                    share_port=settings.share_port,
                    connection_age_s=settings.connection_age_s,
                )
                undo.callback(self._http.stop, 0.0)
            methods = all_methods(packed, ExplainService(self._catalog, lookup), feast)
            self._server = start_server(methods, store, clock, self._metrics, settings, admission)
            undo.pop_all()
        self._feature_log, self._traces, self._callers = feature_log, settings.traces, callers
        self._usage = usage
        usage.start(self._metrics)
        if feature_log is not None:
            feature_log.start(self._metrics)
        self.port = self._server.port
        self.http_port = None if self._http is None else self._http.port
        self._was_serving: bool | None = None
        self._catalog.start(self._show_state)

    def stop(self, drain_seconds: float = DRAIN_SECONDS) -> bool:
        """End: NOT_SERVING first, then requests in flight, then everything else.

        Returns:
            Whether every request has ended; if not, some thread still hangs.
        """
        self._catalog.stop()
        ending = None if self._http is None else self._http.begin_stop(drain_seconds)
        has_ended = self._server.stop(drain_seconds)
        if self._http is not None and ending is not None:
            has_ended = self._http.end_stop(ending, drain_seconds) and has_ended
        if self._feature_log is not None:
            self._feature_log.stop()
        if self._traces is not None:
            self._traces.stop()
        if self._callers is not None:
            self._callers.stop()
        self._usage.stop()
        self._stop_metrics()
        return has_ended

    def _show_state(self, catalog: CatalogSource) -> None:
        """After each poll: health and gauges."""
        is_store_up = catalog.store_error is None
        if is_store_up is not self._was_serving:
            self._server.set_serving(is_store_up)
            if self._http is not None:
                self._http.set_serving(is_store_up)
            self._was_serving = is_store_up
        self._metrics.show_state(
            store_up=is_store_up, registry_up=catalog.registry_error is None, service_count=catalog.service_count
        )
        self._metrics.show_store(catalog.newest_event_ms, catalog.memory)


def start_server(
    methods: Sequence[Method],
    store: OnlineStore,
    clock: Clock,
    metrics: ServerMetrics,
    settings: ServerSettings,
    admission: Admission,
) -> LookupServer:
    """Listen and serve.

    Raises:
        InvalidRequest: the address cannot be bound, a TLS file cannot be read, or `io` is unknown.
    """
    if settings.io == "sync":
        return ThreadedServer(methods, store, clock, metrics, settings, admission)
    if settings.io == "aio":
        return AsyncServer(methods, store, clock, metrics, settings, admission)
    raise InvalidRequest(f'io "{settings.io}" is unknown', hint='use "sync" or "aio"')
