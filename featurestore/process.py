"""What servers and streams do alike as processes: show what they count, and spare the garbage collector what stays.

Definitions, plans and compiled loops are some hundred thousand objects. A full collection walks them all, and payments
wait: 70 to 350 ms where there are sixty views.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server

from featurestore.errors import InvalidRequest


def spare_what_lives() -> None:
    """Let the collector pass over everything that is alive now; to be called once all is made that stays."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve a registry of metrics as /metrics over HTTP, until told to end.

    Args:
        registry: what is counted.
        host: an address of this machine.
        port: 0 takes a free one.

    Returns:
        The bound port, and a function that ends the listener.

    Raises:
        InvalidRequest: the address cannot be bound.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise InvalidRequest(
            f'metrics address "{host}:{port}" cannot be bound',
            detail=str(error),
            hint="is another process running there? give another --metrics-port, and an address of this machine as "
            "--host",
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return int(server.server_port), stop
