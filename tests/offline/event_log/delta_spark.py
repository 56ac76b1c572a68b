"""Spark with Delta's own package, in a process of its own: the suite's own session has other jars.

    with delta_spark() as spark:
        spark.rows('rows = spark.read.format("delta").load("data/event_log/payments")')

The process executes what it is sent, with `spark` as a session; the jars come from Maven, once, as Kafka's do.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from featurestore.testing.servers.maven import cached_jars, fetch_jars
from featurestore.testing.servers.process import ServerDidNotStart

DELTA_VERSION = "4.3.1"
"""Built for the Spark of the dev extra."""

GROUPS = "io.delta,io.unitycatalog"
"""Of all that it names Spark has the rest: Hadoop, Jackson, ANTLR, Scala."""

ROOT = Path(__file__).resolve().parents[3]

SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "768m",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
"""Delta's two, and a small session: these jobs are over before a compiler pays."""

REFUSAL_CHARACTERS = 1_500
"""Of what Spark says; behind that are hundreds of lines of its own calls."""

_ANSWER = "answer: "


class SparkRefused(AssertionError):
    """What was executed has raised something in Spark."""


class DeltaSpark:
    """A running Spark, for one caller at a time.

    Args:
        process: that executes.
        directory: for results.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._result = directory / "rows.arrow"
        self._lock = threading.Lock()

    def rows(self, code: str) -> pa.Table:
        """What the code has left in `rows`, a frame.

        Raises:
            SparkRefused: it raised something.
        """
        with self._lock:
            self._ask({"code": code, "result": str(self._result)})
            with pa.ipc.open_file(self._result) as found:
                return found.read_all()

    def run(self, sql: str) -> None:
        """Execute a statement.

        Raises:
            SparkRefused: Spark raised something.
        """
        with self._lock:
            self._ask({"code": f"spark.sql({sql!r}).collect()", "result": None})

    def _ask(self, request: dict[str, str | None]) -> None:
        """Send one request and wait for its answer; what else Spark prints is passed over."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(_ANSWER):
                refusal = json.loads(line.removeprefix(_ANSWER))
                if refusal:
                    raise SparkRefused(refusal)
                return
        raise SparkRefused("Spark has ended")


@contextlib.contextmanager
def delta_spark() -> Iterator[DeltaSpark]:
    """A Spark that ends with the block."""
    jars = ",".join(str(path) for path in sorted(_delta_jars().glob("*.jar")))
    with tempfile.TemporaryDirectory(prefix="featurestore-delta-spark-") as directory:
        log_path = Path(directory) / "spark.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.offline.event_log.delta_spark", jars, directory],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            yield DeltaSpark(process, Path(directory))
        finally:
            assert process.stdin is not None
            process.stdin.close()  # it ends when it has nothing more to do
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def delta_jars_missing() -> str | None:
    """Why Spark cannot read Delta tables here, as a sentence with a remedy; None when it can."""
    if shutil.which("java") is None:
        return "Spark needs Java 17 or newer: install openjdk-17-jre-headless"
    if cached_jars("delta-spark", DELTA_VERSION).is_dir() or shutil.which("mvn") is not None:
        return None
    return "Delta's jars for Spark are fetched by Maven: install maven"


def _delta_jars() -> Path:
    """Directory of Delta's jars; fetches them with Maven the first time.

    Raises:
        ServerDidNotStart: there is no Java, no jars and no Maven, or Maven failed.
    """
    missing = delta_jars_missing()
    if missing is not None:
        raise ServerDidNotStart(missing)
    return fetch_jars("delta-spark", "io.delta:delta-spark_2.13", version=DELTA_VERSION, groups=GROUPS)


def _serve(jars: str, directory: str, requests: IO[str]) -> None:
    """Execute what comes, until nothing more can come."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    for name, value in {**SETTINGS, "spark.jars": jars, "spark.sql.warehouse.dir": directory}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    for line in requests:
        request = json.loads(line)
        scope: dict[str, object] = {"spark": spark}
        refusal = ""
        try:
            exec(request["code"], scope)
            if request["result"] is not None:
                found = scope["rows"].toArrow()  # type: ignore[attr-defined]  # a frame
                with pa.OSFile(request["result"], "wb") as sink, pa.ipc.new_file(sink, found.schema) as writer:
                    writer.write_table(found)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the caller's
            refusal = f"{type(error).__name__}: {error}"[:REFUSAL_CHARACTERS]
        print(_ANSWER + json.dumps(refusal), flush=True)
    spark.stop()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], sys.stdin)
