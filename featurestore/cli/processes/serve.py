"""`featurestore serve`: the lookup server."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.callers import callers_options, open_callers, tls_of
from featurestore.cli.processes.observing import open_audit, open_feature_log, open_quotas, open_traces, usage_options
from featurestore.cli.settings import PORT, FiniteRange, Settings, load_settings, settings_options
from featurestore.process import spare_what_lives

if TYPE_CHECKING:
    from featurestore.definitions.registry import Registry
    from featurestore.online.redis.store import RedisStore
    from featurestore.serving.server import FeatureServer

DEFAULT_PORT = 6566
"""Where Feast's own clients look for a feature server."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter from others that want it. Python's own 5 ms are ten lookups."""

GC_THRESHOLDS = (20_000, 20, 20)
"""A request makes hundreds of objects and no cycle to speak of: with Python's own threshold of 700 every second payment
would wait for a walk that finds nothing."""

TYPED = "featurestore.serve.typed"

PROCESSES_MAX = 64

DEFAULT_QUEUE_MS = 50.0
QUEUE_MS_MAX = 10_000.0
DEFAULT_CONNECTION_SECONDS = 300.0

EXIT_UNFINISHED = 1
"""The process ended although a request did not."""

DEFAULT_LOG_SHARE = 0.01
DEFAULT_LOG_SECONDS = 300.0
LOG_SECONDS_MAX = 86_400.0


class NamedLimit(click.ParamType[tuple[str, int]]):
    """NAME=N."""

    name = "limit"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Parse one."""
        if isinstance(value, tuple):
            return value
        name, _, number = value.rpartition("=")
        if not name or not number.isdecimal() or not int(number):
            self.fail(f'"{value}" is not NAME=N with a whole number of at least 1', param, ctx)
        return name, int(number)


class ServeCommand(click.Command):
    """Remembers what was typed, for the processes that it may start."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and remember."""
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)


@click.command("serve", cls=ServeCommand)
@settings_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port",
    type=PORT,
    default=DEFAULT_PORT,
    show_default=True,
    help="gRPC port; 0 takes a free one.",
)
@click.option(
    "--http",
    "http_port",
    metavar="PORT",
    type=PORT,
    help="Speak HTTP and JSON there as well; 0 takes a free port. Default: nowhere.",
)
@click.option(
    "--metrics-port",
    type=PORT,
    help="Serve Prometheus metrics there; 0 takes a free port. Default: nowhere.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, PROCESSES_MAX),
    default=1,
    show_default=True,
    help="Server processes on the port: one for each core that may be used. Limits are those of each.",
)
@click.option("--child", is_flag=True, hidden=True, help="One of several, to end with its standard input.")
@click.option("--workers", type=click.IntRange(1, 256), help="Requests at work at once. Default: 4, with --io aio 8.")
@click.option(
    "--io",
    type=click.Choice(["sync", "aio"]),
    default="sync",
    show_default=True,
    help="A thread pool, quicker for one payment; or asyncio, which takes more of them at once.",
)
@click.option(
    "--queue-ms",
    type=FiniteRange(0, QUEUE_MS_MAX),
    default=DEFAULT_QUEUE_MS,
    show_default=True,
    help="Longest that a request waits for its turn; those that would wait longer are refused at once.",
)
@click.option("--client-limit", type=click.IntRange(1), help="Requests of one client at once. Default: no limit.")
@click.option(
    "--client-key",
    metavar="KEY",
    default="",
    show_default="its certificate, else its address",
    help="Metadata key that names the client.",
)
@click.option(
    "--service-limit",
    "service_limits",
    metavar="NAME=N",
    type=NamedLimit(),
    multiple=True,
    help="Requests of a feature service at once; may be repeated.",
)
@click.option(
    "--connection-seconds",
    type=FiniteRange(0, LOG_SECONDS_MAX),
    default=DEFAULT_CONNECTION_SECONDS,
    show_default=True,
    help="Age at which a connection is ended, so that clients find new replicas; 0 for never.",
)
@callers_options
@click.option("--reflection/--no-reflection", default=True, help="Whether to tell anybody what the server speaks.")
@click.option(
    "--python-features",
    is_flag=True,
    help="Run the Python functions of on-demand views: code that whoever may write the registry has written.",
)
@click.option("--share-port", is_flag=True, help="Let several server processes listen on one port.")
@click.option(
    "--log-features",
    metavar="DIR|URI|kafka://HOST:PORT/TOPIC",
    envvar="FEATURESTORE_LOG_FEATURES",
    show_envvar=True,
    help="Keep a sample of the answers there, for `featurestore parity`. Default: nowhere.",
)
@click.option(
    "--log-share",
    type=FiniteRange(0, 1),
    default=DEFAULT_LOG_SHARE,
    envvar="FEATURESTORE_LOG_SHARE",
    show_default=True,
    show_envvar=True,
    help="Share of the requests that is kept.",
)
@click.option(
    "--log-seconds",
    type=FiniteRange(0.1, LOG_SECONDS_MAX),
    default=DEFAULT_LOG_SECONDS,
    envvar="FEATURESTORE_LOG_SECONDS",
    show_default=True,
    show_envvar=True,
    help="How long a row waits for its Parquet file, at the longest.",
)
@click.option(
    "--traces",
    type=click.Choice(["none", "otlp"]),
    default="none",
    envvar="OTEL_TRACES_EXPORTER",
    show_default=True,
    show_envvar=True,
    help="Send OpenTelemetry traces to an OTLP receiver, by gRPC; OTEL_EXPORTER_OTLP_ENDPOINT says where it is.",
)
@usage_options
def command(
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
    host: str,
    port: int,
    http_port: int | None,
    metrics_port: int | None,
    processes: int,
    child: bool,
    workers: int | None,
    io: str,
    queue_ms: float,
    client_limit: int | None,
    client_key: str,
    service_limits: tuple[tuple[str, int], ...],
    connection_seconds: float,
    reflection: bool,
    python_features: bool,
    share_port: bool,
    log_features: str | None,
    log_share: float,
    log_seconds: float,
    traces: str,
    **callers: Any,
) -> int:
    """Serve features over gRPC, and HTTP if asked to, until SIGTERM or Ctrl-C, then let requests in flight end.

    New and changed feature services are picked up from the registry without a restart. One line is printed when the
    server is ready. Exit code 1: an error, or requests that did not end in time and were given up.

    With --processes, SIGHUP puts a new process in the place of each, one after the other.
    """
    tls = tls_of(callers)
    # gRPC takes longest to load; a wrong option should not have to wait for it.
    from featurestore.clock import SystemClock
    from featurestore.serving.request.admission import AdmissionSettings
    from featurestore.serving.rpc.listening import ServerSettings
    from featurestore.serving.server import FeatureServer

    stopping = begin_process(is_child=child)
    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    features = registry_that_is_there(settings)
    if processes > 1:
        return serve_processes(
            settings, stopping, processes, host, (port, http_port, metrics_port), is_shared=share_port
        )
    clock = SystemClock()
    asking, quotas = open_callers(features, callers, clock, settings.auth), open_quotas(settings.quotas)
    with store_to_serve(settings) as store:
        server = FeatureServer(
            *(features, store, clock),
            ServerSettings(
                *(host, port, io, workers, tls, share_port, reflection),
                admission=AdmissionSettings(queue_ms, client_limit, client_key, dict(service_limits), quotas),
                connection_age_s=connection_seconds or None,
                traces=open_traces(traces, clock),
            ),
            metrics_port=metrics_port,
            metrics_host="127.0.0.1" if child else host,  # of one process among several only their parent asks
            http_port=http_port,
            feature_log=open_feature_log(log_features, log_share, log_seconds, clock),
            python_features=python_features,
            callers=asking,
            audit=open_audit(settings.audit, clock),
        )
    return run_until(stopping, server, store, settings.project, host)


def registry_that_is_there(settings: Settings) -> Registry:
    """The configured registry; one that is not there must not leave a store behind that was started for nothing.

    Raises:
        InvalidRequest, SourceUnavailable: there is none.
    """
    from featurestore.definitions.registry import open_registry

    found = open_registry(settings.registry, settings.project)
    found.stamp()
    return found


def run_until(stopping: threading.Event, server: FeatureServer, store: RedisStore, project: str, host: str) -> int:
    """Say that the server is ready, and let it serve until somebody wishes its end; the exit code."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    spare_what_lives()
    http = "" if server.http_port is None else f", HTTP on {host}:{server.http_port}"
    metrics = "" if server.metrics_port is None else f", metrics on http://{host}:{server.metrics_port}/metrics"
    click.echo(f"serving project {project} on {host}:{server.port}{http}{metrics}")
    quiet_collector()
    stopping.wait()
    drain(server, store)
    return 0


def serve_processes(
    settings: Settings,
    stopping: threading.Event,
    count: int,
    host: str,
    ports: tuple[int, int | None, int | None],
    *,
    is_shared: bool,
) -> int:
    """Run several server processes as one.

    Args:
        settings: what they serve.
        stopping: set when they shall end.
        count: of processes.
        host: where they listen.
        ports: for gRPC, HTTP and metrics.
        is_shared: whether servers that others started listen there too.
    """
    from featurestore.cli.processes.server_processes import ServerProcesses

    (port, http_port, metrics_port), renewing = ports, threading.Event()
    signal.signal(signal.SIGHUP, lambda _number, _frame: renewing.set())

    def next_wish() -> str:
        if stopping.wait(1.0):
            return "stop"
        if renewing.is_set():
            renewing.clear()
            return "renew"
        return ""

    typed = click.get_current_context().meta[TYPED]
    stop_metrics: Callable[[], None] = lambda: None  # noqa: E731  # until there are some
    with store_to_serve(settings):
        servers = ServerProcesses(typed, count, host, port, http_port, is_shared=is_shared)
        http = "" if servers.http_port is None else f", HTTP on {host}:{servers.http_port}"
        metrics = ""
        if metrics_port is not None:
            metrics_port, stop_metrics = servers.listen(host, metrics_port)
            metrics = f", metrics on http://{host}:{metrics_port}/metrics"
        servers.start()
    click.echo(f"serving project {settings.project} on {host}:{servers.port}{http} with {count} processes{metrics}")
    servers.watch(next_wish)
    click.echo("draining")
    has_ended = servers.stop()
    stop_metrics()
    return 0 if has_ended else EXIT_UNFINISHED


@contextmanager
def store_to_serve(settings: Settings) -> Iterator[RedisStore]:
    """The configured store, else the repo's embedded one, which is started when it does not run.

    When the block fails, an embedded store that was started for it is stopped again.
    """
    from featurestore.online.embedded import EmbeddedStore
    from featurestore.online.redis.store import RedisStore

    embedded = None if settings.store.url else EmbeddedStore.for_repo(settings.repo)
    was_running = embedded is None or embedded.status() is not None
    url = settings.store.url if embedded is None else embedded.ensure()
    assert url is not None, "one of the two has it"
    try:
        yield RedisStore(url, cluster=settings.store.cluster)
    except BaseException:
        if embedded is not None and not was_running:
            embedded.stop()
        raise


def begin_process(*, is_child: bool) -> threading.Event:
    """Log, and be told to stop: by SIGTERM and Ctrl-C, and in one process of several by the end of their parent.

    Before the server starts: a wish that comes while it does must end it too, and cleanly.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    if is_child:
        from featurestore.cli.processes.server_processes import end_with_parent

        end_with_parent(stopping)
    return stopping


def drain(server: FeatureServer, store: RedisStore) -> None:
    """Let requests end; the process ends here if a thread hangs, for which the interpreter would wait."""
    click.echo("draining")
    has_ended = server.stop()
    store.close()
    if not has_ended:
        logging.error("requests did not end in time and were given up")
        logging.shutdown()
        os._exit(EXIT_UNFINISHED)


def quiet_collector() -> None:
    """Keep the collector out of requests. What lives by now lives until the end, Numba's many objects included."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
