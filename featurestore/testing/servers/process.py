"""A child process that can be stopped, killed and started again, with its output in a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from featurestore.clock import Clock, SystemClock

STOP_TIMEOUT_S = 15.0
"""After SIGTERM; then SIGKILL."""

PORT_ATTEMPTS = 5

_T = TypeVar("_T")
_POLL_S = 0.02
_PORT_IS_TAKEN = ("already in use", "in use by another process")
_LOG_TAIL_BYTES = 4_000


class ServerDidNotStart(AssertionError):
    """A server of the testing kit ended or stayed silent instead of becoming ready."""


def on_free_ports(start: Callable[[], _T]) -> _T:
    """Start something on ports that were free a moment ago; where somebody was faster, again, on others.

    Args:
        start: picks ports and starts; raises ServerDidNotStart, and leaves nothing running then.
    """
    for _ in range(PORT_ATTEMPTS - 1):
        try:
            return start()
        except ServerDidNotStart as failure:
            if not any(words in str(failure) for words in _PORT_IS_TAKEN):
                raise
    return start()


class ServerProcess:
    """One server process; every start runs the same command on the same data.

    Args:
        name: what it is, for messages.
        command: program and arguments.
        directory: working directory; the log is `<name>.log` in it.
        environment: the process's whole environment; None is ours.
    """

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.directory = directory
        self.log_path = directory / f"{name}.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives; it may not be ready."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; does not wait until it is ready."""
        assert not self.is_running, f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the test, which then stops its servers in order
            )

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help; nothing when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def pause(self) -> None:
        """SIGSTOP, until `resume`; returns when the process stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # a signal is sent before it is delivered

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel's memory killer does; returns when the process is gone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float, clock: Clock | None = None) -> None:
        """Wait until the server is ready.

        Raises:
            ServerDidNotStart: it ended or the time is up; carries the end of its log.
        """
        clock = clock or SystemClock()
        deadline_ns = clock.monotonic_ns() + int(timeout_s * 1e9)
        while not is_ready():
            if not self.is_running or clock.monotonic_ns() > deadline_ns:
                raise ServerDidNotStart(f"{self.name} did not become ready\n{self.log_tail()}")
            clock.sleep(_POLL_S)

    def wait(self, timeout_s: float) -> int:
        """Exit code of a process that ends by itself; negative for the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        assert self._process is not None, f"{self.name} is not running"
        return self._process.wait(timeout_s)

    def log_tail(self) -> str:
        """The end of what the server wrote."""
        return self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if self.log_path.exists() else ""


@contextlib.contextmanager
def server_directory(name: str) -> Iterator[Path]:
    """A temporary directory for one server's data; kept, and named in the error, when the block fails."""
    directory = Path(tempfile.mkdtemp(prefix=f"featurestore-{name}-"))
    try:
        yield directory
    except BaseException as failure:
        failure.add_note(f"data and logs of {name} are kept in {directory}")
        raise
    shutil.rmtree(directory, ignore_errors=True)
