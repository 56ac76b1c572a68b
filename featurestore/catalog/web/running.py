"""The catalog's process: one thread answers, one looks whether the registry has changed."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from featurestore.catalog.model import WatchedCatalog
from featurestore.catalog.web.app import LOOPBACK_NAMES, application
from featurestore.catalog.web.pages import Pages
from featurestore.errors import InvalidRequest

REFRESH_S = 2.0
"""How long a change of the registry may take to be seen."""

_LOOPBACK = ("127.", "localhost", "::1")


class CatalogServer:
    """Listens from the beginning; answers while it is run.

    Args:
        catalog: what is registered.
        pages: what is shown of it.
        host: an address of this machine.
        port: 0 takes a free one.
        names: host names under which it may be asked, beside those of a loopback address; none for any.

    Raises:
        InvalidRequest: the address cannot be bound.
    """

    def __init__(
        self, catalog: WatchedCatalog, pages: Pages, host: str, port: int, names: tuple[str, ...] = ()
    ) -> None:
        self._catalog = catalog
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise InvalidRequest(
                f'address "{host}:{port}" cannot be bound', detail=str(error), hint="give another --host or --port"
            ) from error
        # Who listens to the network alone knows what it is called there; a loopback address has just these names.
        hosts = (*LOOPBACK_NAMES, *names) if host.startswith(_LOOPBACK) or names else ("*",)
        settings = uvicorn.Config(
            application(pages, hosts=hosts), log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
        self._server = _Server(settings)
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._socket.getsockname()[1])

    def run(self) -> None:
        """Answer until `stop`, or until a signal ends the process in good order."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self.stop())
        watching = threading.Thread(target=self._watch, name="registry", daemon=True)
        watching.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._stopping.set()
            watching.join()

    def stop(self) -> None:
        """End `run` soon."""
        self._server.should_exit = True

    def _watch(self) -> None:
        while not self._stopping.wait(REFRESH_S):
            self._catalog.refresh()


class _Server(uvicorn.Server):
    """Leaves signals to whoever owns the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are."""
        yield
