"""Jars that tests need, by Maven, the first time; kept for the next.

kafka 4.1.1      .cache/kafka-4.1.1/*.jar
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

from featurestore.testing.servers.process import ServerDidNotStart

CACHE_VARIABLE = "FEATURESTORE_CACHE"
"""Environment variable: where fetched jars are kept; default is .cache of the working directory."""

_OUTPUT_CHARACTERS = 2_000
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>featurestore.testing</groupId>
  <artifactId>libs</artifactId>
  <version>1</version>
  <dependencies>
    {dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def cached_jars(name: str, version: str) -> Path:
    """Directory in which jars are kept; it is there once they are, all of them."""
    return Path(os.environ.get(CACHE_VARIABLE, ".cache")).resolve() / f"{name}-{version}"


def fetch_jars(name: str, *artifacts: str, version: str, groups: str = "") -> Path:
    """Artifacts and what they need to run, fetched if they are not there yet.

    Args:
        name: of the directory, and in messages.
        artifacts: group:artifact each, or group:artifact:version.
        version: of those that do not say another one.
        groups: only jars of these groups, with commas; empty for all.

    Returns:
        The directory of the jars.

    Raises:
        ServerDidNotStart: Maven failed.
    """
    jars = cached_jars(name, version)
    jars.parent.mkdir(parents=True, exist_ok=True)
    with open(jars.parent / f"{jars.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():
            return jars
        with tempfile.TemporaryDirectory(dir=jars.parent) as scratch:
            whole = [one.split(":") if one.count(":") == 2 else [*one.split(":"), version] for one in artifacts]
            dependencies = "\n    ".join(_DEPENDENCY.format(*one) for one in whole)
            (Path(scratch) / "pom.xml").write_text(_POM.format(dependencies=dependencies))
            wanted = [
                "-DincludeScope=runtime",
                "-DoutputDirectory=jars",
                *([f"-DincludeGroupIds={groups}"] * bool(groups)),
            ]
            command = ["mvn", "-B", "-q", "dependency:copy-dependencies", *wanted]
            maven = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if maven.returncode != 0:
                said = maven.stdout[-_OUTPUT_CHARACTERS:]
                raise ServerDidNotStart(f"Maven could not fetch {name} {version}\n{said}")
            (Path(scratch) / "jars").rename(jars)
    return jars
