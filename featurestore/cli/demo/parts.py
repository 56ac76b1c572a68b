"""The parts that a demo runs on: a directory of its own, an embedded store, and child processes; all gone at the end.

<temporary directory>/
  feature_repo/     a copy, with its registry
  log/              the embedded log instead of Kafka
  store/            the embedded Valkey
  *.log             what the children print
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import featurestore
from featurestore.cli.settings import FILE_NAME
from featurestore.definitions.schemas.directory import SCHEMAS, SCHEME
from featurestore.errors import FeatureStoreError, InvalidRequest
from featurestore.online.embedded import EmbeddedStore
from featurestore.testing.servers.process import ServerDidNotStart, ServerProcess

CHORE_TIMEOUT_S = 120.0
"""Longest time for a command that ends by itself, such as apply."""

SERVER_TIMEOUT_S = 60.0
"""Longest time until the gRPC server is ready."""

_READY = "serving project "
_FOREIGN_PREFIXES = ("FEATURESTORE_", "BYTEWAX_")


class DemoFailed(FeatureStoreError):
    """A part of the demo did not do what it should."""


class DemoParts:
    """Starts parts, and stops those that still run when the demo ends, however it ends; see `demo_parts`.

    Attributes:
        directory: holds everything.
        repo: the copy of the feature repo.
        log_dir: the embedded log.
        project: Feast project.
    """

    def __init__(self, directory: Path, repo: Path, interrupts: Interrupts) -> None:
        self.directory = directory
        self.repo = directory / "feature_repo"
        self.log_dir = directory / "log"
        shutil.copytree(repo, self.repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
        self.log_dir.mkdir()
        self._store = EmbeddedStore(directory / "store")
        self._interrupts = interrupts
        self._environment = _clean_environment()
        # Of the log, in the place of the registry that the repo names.
        self._environment["FEATURESTORE_SCHEMA_REGISTRY_OPTION"] = f"url={SCHEME}{self.log_dir / SCHEMAS}"
        self._processes: list[ServerProcess] = []

    def start_store(self) -> str:
        """Start the embedded store; returns its url."""
        with self._interrupts.held():
            url = self._store.ensure()
        self._environment["FEATURESTORE_STORE_URL"] = url
        return url

    def start_command(self, name: str, *arguments: str) -> ServerProcess:
        """Run a `featurestore` command beside this process."""
        return self._start(name, [sys.executable, "-m", "featurestore", *arguments])

    def start_feast(self, name: str, *arguments: str) -> ServerProcess:
        """Run a command of the stock Feast CLI on the repo, beside this process."""
        feast = "from feast.cli.cli import cli; cli(prog_name='feast')"
        return self._start(name, [sys.executable, "-c", feast, "--chdir", str(self.repo), *arguments])

    def start_server(self) -> ServerProcess:
        """Start the gRPC server on a free port; see `server_address`."""
        return self.start_command("serve", "serve", "--repo", str(self.repo), "--port", "0")

    def server_address(self, server: ServerProcess) -> str:
        """Where the server listens, once it does.

        Raises:
            DemoFailed: it does not.
        """
        try:
            server.wait_until(lambda: _READY in server.log_tail(), timeout_s=SERVER_TIMEOUT_S)
        except ServerDidNotStart as error:
            raise DemoFailed("the server did not start", detail=server.log_tail()) from error
        line = next(line for line in server.log_tail().splitlines() if line.startswith(_READY))
        return line.partition(" on ")[2].partition(",")[0]

    def finish(self, chore: ServerProcess) -> None:
        """Wait for a command that ends by itself.

        Raises:
            DemoFailed: it failed, or takes too long.
        """
        try:
            exit_code = chore.wait(CHORE_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(f"{chore.name} takes longer than {CHORE_TIMEOUT_S:.0f} s") from error
        if exit_code != 0:
            raise DemoFailed(f"{chore.name} failed with exit code {exit_code}", detail=chore.log_tail())

    def require_running(self, *servers: ServerProcess) -> None:
        """Make sure that servers still live.

        Raises:
            DemoFailed: one has ended.
        """
        for server in servers:
            if not server.is_running:
                raise DemoFailed(f"{server.name} ended during the demo", detail=server.log_tail())

    def stop(self) -> None:
        """Stop everything that still runs, last started first, the store at the end."""
        for process in reversed(self._processes):
            process.stop()
        self._store.stop()

    def _start(self, name: str, command: list[str]) -> ServerProcess:
        process = ServerProcess(name, command, self.directory, environment=self._environment)
        with self._interrupts.held():
            self._processes.append(process)
            process.start()
        return process


@contextlib.contextmanager
def demo_parts(repo: Path) -> Iterator[DemoParts]:
    """A directory with a copy of the repo; at the end its processes and itself are gone, also after Ctrl-C.

    Raises:
        InvalidRequest: there is no repo to copy.
    """
    if not (repo / FILE_NAME).is_file():
        raise InvalidRequest(
            f'"{repo}" is not a feature repo', hint="run the demo in the project's directory, or name a repo by --repo"
        )
    with _interrupts() as interrupts, interrupts.held():
        directory = Path(tempfile.mkdtemp(prefix="featurestore-demo-"))
        parts: DemoParts | None = None
        try:
            parts = DemoParts(directory, repo, interrupts)
            with interrupts.let_through():
                yield parts
        finally:
            # A second Ctrl-C must not interrupt the clean-up; it ends within STOP_TIMEOUT_S a process anyway.
            if parts is not None:
                parts.stop()
            shutil.rmtree(directory, ignore_errors=True)


class Interrupts:
    """Ctrl-C, SIGTERM and a closed terminal as KeyboardInterrupt, but never in the middle of starting a process.

    A process whose start was interrupted would be nobody's: it runs, and nothing has its id.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._is_pending = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        if self._is_held:
            self._is_pending = True
        else:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What comes during the block is raised behind it."""
        with self._holding(True):
            yield

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Inside `held`: what comes during the block, or came before it, is raised at once."""
        with self._holding(False):
            yield

    @contextlib.contextmanager
    def _holding(self, is_held: bool) -> Iterator[None]:
        before = self._is_held
        self._set(is_held)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, is_held: bool) -> None:
        self._is_held = is_held
        if self._is_pending and not is_held:
            self._is_pending = False
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts() -> Iterator[Interrupts]:
    """Interrupts of the block; handlers are put back behind it."""
    interrupts = Interrupts()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupts.handle) for number in numbers}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clean_environment() -> dict[str, str]:
    """Our environment, without settings that would lead the children to somebody's real store or registry."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}
    # The children work in another directory, and must find this very package.
    packages = str(Path(featurestore.__file__).parents[1])
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = packages if not inherited else f"{packages}{os.pathsep}{inherited}"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return environment
