"""Debezium's own engine on a real Postgres: what it sends of a table, line by line, until it is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featurestore.online.probe import LOOPBACK, free_port
from featurestore.testing.servers import ServerDidNotStart, ServerProcess
from featurestore.testing.servers.maven import fetch_jars
from featurestore.testing.servers.process import on_free_ports

DEBEZIUM_VERSION = "3.0.8.Final"
"""The last line of versions that runs on Java 17."""

START_TIMEOUT_S = 120.0
OWNER = "postgres"
"""Postgres refuses to run as root, so it runs as the user that its package makes."""

_ARTIFACTS = (
    "io.debezium:debezium-embedded",
    "io.debezium:debezium-connector-postgres",
    "org.slf4j:slf4j-simple:1.7.36",
)
_RECORDER = Path(__file__).with_name("DebeziumRecorder.java")
_SETTINGS = """
wal_level = logical
listen_addresses = '127.0.0.1'
fsync = off
"""


@dataclass(frozen=True)
class Postgres:
    """A running server.

    Attributes:
        process: the server.
        port: on loopback.
        bin: its programs.
    """

    process: ServerProcess
    port: int
    bin: Path

    def run(self, sql: str) -> str:
        """Run a script; what it printed, a row a line, columns with |."""
        where = ["-h", LOOPBACK, "-p", str(self.port), "-U", OWNER, "-d", "postgres"]
        command = [str(self.bin / "psql"), *where, "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Connector:
    """The engine with a connector of one server's tables; each start goes on where it has noted that it was.

    Args:
        postgres: the server.
        directory: for its offsets and what it sends.
    """

    def __init__(self, postgres: Postgres, directory: Path) -> None:
        jars = fetch_jars("debezium", *_ARTIFACTS, version=DEBEZIUM_VERSION)
        self._properties = directory / "connector.properties"
        self._settings: dict[str, object] = {
            "name": "shop",
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": LOOPBACK,
            "database.port": postgres.port,
            "database.user": OWNER,
            "database.password": "none",
            "database.dbname": "postgres",
            "topic.prefix": "shop",
            "plugin.name": "pgoutput",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": directory / "offsets",
            "decimal.handling.mode": "double",
            "skipped.operations": "none",
        }
        self.sent = directory / "sent"
        command = ("java", "-Xmx256m", "-cp", f"{jars}/*", str(_RECORDER), str(self._properties), str(self.sent))
        self.process = ServerProcess("debezium", command, directory)

    def start(self, *, notes_every_ms: int) -> None:
        """Start it; what it sends after it has noted last where it is, it sends again after a kill."""
        settings = {**self._settings, "offset.flush.interval.ms": notes_every_ms}
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.process.start()

    def lines(self, topic: str) -> list[list[str]]:
        """What it has sent to a topic: the value beside its schema, and alone; empty of a tombstone."""
        if not self.sent.exists():
            return []
        whole = self.sent.read_text(encoding="utf-8").split("\n")[:-1]
        return [rest for first, *rest in (line.split("\t") for line in whole) if first == topic]

    def wait_for(self, topic: str, text: str) -> None:
        """Wait until it has sent something with a text to a topic."""
        self.process.wait_until(lambda: any(text in line[-1] for line in self.lines(topic)), timeout_s=START_TIMEOUT_S)


def debezium_missing() -> str:
    """What has to be installed before; "" where everything is there."""
    if not _programs():
        return "there is no Postgres: install postgresql"
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"Debezium needs {' and '.join(missing)}: install openjdk-17-jdk-headless, maven" if missing else ""


def _programs() -> list[Path]:
    """Directories of a server's programs, the newest last."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """An empty Postgres with logical decoding on loopback.

    Raises:
        ServerDidNotStart: it does not come up.
    """
    programs = _programs()
    as_owner = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"] if os.geteuid() == 0 else []
    # Not below a test's directory, which is its user's alone.
    directory = Path(tempfile.mkdtemp(prefix="featurestore-postgres-"))
    try:
        if as_owner:
            shutil.chown(directory, OWNER, OWNER)
        init = [*as_owner, str(programs[-1] / "initdb"), "-D", str(directory / "data"), "-U", OWNER, "-A", "trust"]
        done = subprocess.run(init, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerDidNotStart(f"Postgres cannot be initialized\n{done.stderr}")
        with (directory / "data" / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS + f"unix_socket_directories = '{directory}'\n")
        server = on_free_ports(lambda: _start(as_owner, programs[-1], directory))
        try:
            yield server
        finally:
            server.process.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start(as_owner: list[str], programs: Path, directory: Path) -> Postgres:
    """A server that answers."""
    port = free_port()
    command = (*as_owner, str(programs / "postgres"), "-D", str(directory / "data"), "-p", str(port))
    server = Postgres(ServerProcess("postgres", command, directory), port, programs)
    server.process.start()
    ready = [str(programs / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port)]
    try:
        server.process.wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, timeout_s=START_TIMEOUT_S)
    except BaseException:
        server.process.stop()
        raise
    return server
