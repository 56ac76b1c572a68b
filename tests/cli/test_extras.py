"""A package that is not installed is named with the extra that brings it, by every command, also where it execs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from featurestore.cli.extras import EXTRA_OF, PACKAGES
from featurestore.cli.main import COMMANDS
from tests.serving.registries import write_registry

ROOT = Path(__file__).resolve().parents[2]

IMPORTED_AS = {
    "pyjwt": "jwt",
    "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "confluent-kafka": "confluent_kafka",
    "grpcio": "grpc",
    "grpcio-tools": "grpc_tools",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
}


def run_without(
    package: str, directory: Path, *arguments: str, module: str = "featurestore"
) -> subprocess.CompletedProcess[str]:
    """A command in a process, and in whatever that becomes, which cannot import a package."""
    (directory / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    environment = {**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=directory)


STORE = ["--store-url", "redis://127.0.0.1:1", "--registry", "registry.db", "--project", "payments"]
REGISTRY = ["--registry", "registry.db", "--project", "payments"]

CASES = [
    ("feast", "feast", ["plan"]),
    ("feast", "feast", ["apply"]),
    ("bytewax", "stream", ["stream", *STORE]),
    ("confluent_kafka", "stream", ["stream", *STORE]),
    ("numba", "stream", ["stream", *STORE]),
    ("bytewax", "stream", ["event-log run", *REGISTRY, "--event-log", "log"]),
    ("pyarrow", "stream", ["event-log show", "--event-log", "log"]),
    ("pyarrow", "feast", ["history", *REGISTRY, "--entities", "labels.csv", "--service", "s", "--out", "out.parquet"]),
    (
        "pyspark",
        "spark",
        ["history", *REGISTRY, "--entities", "labels.csv", "--service", "s", "--out", "o/", "--engine", "spark"],
    ),
    ("pyarrow", "stream", ["bootstrap", "merchant_activity", *STORE, "--event-log", "log"]),
    ("numpy", "compute", ["status", *STORE]),
    ("numba", "compute", ["warm-up"]),
    ("grpc", "server", ["serve", *STORE]),
    ("grpc", "client", ["lookup", "s", "k=1"]),
    ("pyarrow", "parity", ["parity", *REGISTRY, "--log", "log", "--events", "log"]),
    ("pyarrow", "testing", ["simulate", "--to", "parquet:d.parquet", "--days", "0.001", "--cards", "5"]),
    ("grpc", "all", ["demo"]),
]


@pytest.mark.parametrize(("package", "extra", "arguments"), CASES, ids=[f"{c[2][0]}-{c[0]}" for c in CASES])
def test_a_missing_package_is_one_fact_and_one_remedy(
    package: str, extra: str, arguments: list[str], tmp_path: Path
) -> None:
    """Two lines, which name the command, the package and the extra; no traceback, and exit code 1."""
    (tmp_path / "feature_store.yaml").write_text("project: payments\nprovider: local\nregistry: registry.db\n")
    (tmp_path / "labels.csv").write_text("event_timestamp\n")
    (tmp_path / "log").mkdir()
    write_registry(tmp_path / "registry.db")
    done = run_without(package, tmp_path, *arguments[0].split(), *arguments[1:])
    told, hint = done.stderr.splitlines() if done.returncode == 1 else ("", "")

    assert re.fullmatch(
        rf'error: `featurestore .*` needs the Python package "{package}", which is not installed', told
    ), done.stderr
    assert hint == f'hint: pip install "featurestore[{extra}]"'


def test_a_table_of_an_unusual_kind_names_its_own_extra(tmp_path: Path) -> None:
    """What reads Iceberg comes with no command's extra; whoever has no such table needs it not."""
    write_registry(tmp_path / "registry.db")
    (tmp_path / "labels.csv").write_text("merchant_id,event_timestamp\n1,2026-01-01\n")
    command = ["history", *REGISTRY, "--entities", "labels.csv", "--service", "merchant_monitoring"]
    done = run_without(
        "pyiceberg", tmp_path, *command, "--out", "train.parquet", "--event-log", "iceberg://lake/bank.payments"
    )

    assert done.stderr.splitlines() == [
        'error: `featurestore history` needs the Python package "pyiceberg", which is not installed',
        'hint: pip install "featurestore[iceberg]"',
    ]


@pytest.mark.parametrize("program", ["dataflows.log_to_tiles", "dataflows.log_to_table"])
def test_a_program_that_is_started_by_itself_says_the_same(program: str, tmp_path: Path) -> None:
    """`python -m` without the command around it."""
    done = run_without("bytewax", tmp_path, module=program)

    told, hint = done.stderr.splitlines()
    assert done.returncode == 1
    assert told.endswith('needs the Python package "bytewax", which is not installed')
    assert hint == 'hint: pip install "featurestore[stream]"'


@pytest.mark.parametrize("package", ["opentelemetry", "grpc"])
def test_warm_up_loads_what_can_run(package: str, tmp_path: Path) -> None:
    """An image of the stream has no gRPC, and few servers make traces."""
    done = run_without(package, tmp_path, "warm-up")

    assert (0, "") == (done.returncode, done.stderr)
    assert "loops are ready" in done.stdout


def test_the_extras_are_those_of_the_package() -> None:
    """Every command but those of the base has one, and it brings what is said to come with it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def brought(extra: str) -> set[str]:
        names = {re.split(r"[><=;\s]|(?<!featurestore)\[", line)[0] for line in declared[extra]}
        own = {name for name in names if not name.startswith("featurestore[")}
        return {IMPORTED_AS.get(name, name) for name in own} | (brought("compute") if len(own) < len(names) else set())

    assert {extra: set(packages) for extra, packages in PACKAGES.items()} == {
        extra: brought(extra) for extra in PACKAGES
    }
    assert COMMANDS.keys() - EXTRA_OF.keys() == {"init"}
    assert set(EXTRA_OF.values()) <= {*declared}
