"""A real schema registry that speaks Confluent's interface: Apicurio, in memory, up in three seconds."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featurestore.online.probe import LOOPBACK, free_port
from featurestore.testing.servers.maven import cached_jars
from featurestore.testing.servers.process import ServerDidNotStart, ServerProcess, on_free_ports, server_directory

APICURIO_VERSION = "2.6.13.Final"
"""The last line of versions that runs on Java 17."""

START_TIMEOUT_S = 120.0

_ARTIFACT = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"


@dataclass(frozen=True, slots=True)
class SchemaRegistry:
    """A running registry.

    Attributes:
        process: to kill and stop it; its schemas are gone then.
        url: for clients of Confluent's registry.
    """

    process: ServerProcess
    url: str


@contextlib.contextmanager
def schema_registry() -> Iterator[SchemaRegistry]:
    """An empty registry on loopback.

    Raises:
        ServerDidNotStart: it cannot be had, or does not come up.
    """
    home = _fetched()
    with server_directory("schema-registry") as directory:
        registry = on_free_ports(lambda: _start(home, Path(tempfile.mkdtemp(dir=directory))))
        try:
            yield registry
        finally:
            registry.process.stop()


def _start(home: Path, directory: Path) -> SchemaRegistry:
    """A registry that is ready."""
    port = free_port()
    (jar,) = home.glob("apicurio-registry-app-*-runner.jar")
    command = ("java", "-Xmx256m", f"-Dquarkus.http.host={LOOPBACK}", f"-Dquarkus.http.port={port}", "-jar", str(jar))
    registry = SchemaRegistry(
        ServerProcess("schema-registry", command, directory), f"http://{LOOPBACK}:{port}/apis/ccompat/v7"
    )
    registry.process.start()
    try:
        registry.process.wait_until(lambda: _answers(registry.url), timeout_s=START_TIMEOUT_S)
    except BaseException:
        registry.process.stop()
        raise
    return registry


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _fetched() -> Path:
    """The registry's directory; fetched by Maven the first time, and kept for the next."""
    home = cached_jars("apicurio", APICURIO_VERSION)
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.parent / f"{home.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.is_dir():
            return home
        if shutil.which("mvn") is None or shutil.which("java") is None:
            raise ServerDidNotStart("a schema registry needs Java 17 and Maven: install openjdk-17-jre-headless, maven")
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            _maven("dependency:get", f"-Dartifact={_ARTIFACT}", "-Dtransitive=false", directory=scratch)
            _maven("dependency:copy", f"-Dartifact={_ARTIFACT}", "-DoutputDirectory=got", directory=scratch)
            (archive,) = Path(scratch, "got").glob("*.tar.gz")
            shutil.unpack_archive(archive, Path(scratch, "home"))
            Path(scratch, "home").rename(home)
    return home


def _maven(*arguments: str, directory: str) -> None:
    maven = subprocess.run(["mvn", "-B", "-q", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if maven.returncode != 0:
        raise ServerDidNotStart(f"Maven could not fetch {_ARTIFACT}\n{maven.stdout[-2_000:]}")
