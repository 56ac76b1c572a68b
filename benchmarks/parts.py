"""The product's processes as users run them, with what they cost: applied repo, stream, gRPC server."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.machine import ROOT, environment
from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import read_registry
from featurestore.testing.servers.process import ServerProcess

PROJECT = "payments"
LEFT_OUT = ("data", "__pycache__", "spending_views.py")
"""Of the example: data, and what reads tables, so that figures of before stand beside those of now."""

STREAM_TIMEOUT_S = 400.0
READY_TIMEOUT_S = 300.0
"""The first server of a fresh checkout compiles its loops."""

_SERVING = "serving project "


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took from start to end: wall clock, processor (user and system), seconds."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class AppliedRepo:
    """The payments example, registered.

    Attributes:
        registry: its registry file.
        spec: the compiled definitions.
    """

    registry: Path
    spec: RepoSpec


def applied_repo(directory: Path) -> AppliedRepo:
    """Copy the example into a directory and apply it; once a directory."""
    repo = directory / "feature_repo"
    registry = repo / "data" / "registry.db"
    if not registry.exists():
        shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns(*LEFT_OUT))
        command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(repo)]
        subprocess.run(command, env=environment(), check=True, capture_output=True)
    return AppliedRepo(registry, read_registry(registry))


def stream_process(repo: AppliedRepo, directory: Path, store_url: str, *options: str) -> ServerProcess:
    """The stream, not started."""
    command = [sys.executable, "-m", "dataflows.log_to_tiles", "--project", PROJECT, "--registry", str(repo.registry)]
    command += ["--store-url", store_url, *options]
    return ServerProcess("stream", command, directory, environment=environment())


def run_to_end(process: ServerProcess) -> Cost:
    """Run a process that ends by itself; what it cost.

    Raises:
        RuntimeError: it failed.
    """
    cpu_before_s = _children_cpu_seconds()
    begun_s = time.monotonic()
    process.start()
    code = process.wait(STREAM_TIMEOUT_S)
    wall_s = time.monotonic() - begun_s
    if code != 0:
        raise RuntimeError(f"{process.name} ended with code {code}\n{process.log_tail()}")
    return Cost(wall_s, _children_cpu_seconds() - cpu_before_s)


@contextlib.contextmanager
def running(process: ServerProcess, ready: str) -> Iterator[str]:
    """Start a process and stop it; yields the line that says it is ready."""
    process.log_path.unlink(missing_ok=True)  # an earlier start's line would be taken for this one's
    process.start()
    try:
        process.wait_until(lambda: ready in process.log_tail(), timeout_s=READY_TIMEOUT_S)
        yield next(line for line in process.log_tail().splitlines() if ready in line)
    finally:
        process.stop()


@contextlib.contextmanager
def grpc_server(
    repo: AppliedRepo, directory: Path, store_url: str, io: str, *options: str
) -> Iterator[tuple[str, int]]:
    """`featurestore serve`; yields its address and process id."""
    command = [sys.executable, "-m", "featurestore", "serve", "--registry", str(repo.registry)]
    command += ["--project", PROJECT, "--store-url", store_url, "--port", "0", "--io", io, *options]
    process = ServerProcess("".join(["serve-", io, *options]), command, directory, environment=environment())
    with running(process, _SERVING) as line:
        yield re.split("[, ]", line.partition(" on ")[2])[0], process.pid


def module_process(name: str, directory: Path, module: str, arguments: Sequence[str]) -> ServerProcess:
    """A module of this package as a process, not started."""
    return ServerProcess(name, [sys.executable, "-m", module, *arguments], directory, environment=environment())


def cpu_seconds(pid: int) -> float:
    """Processor time that a running process has taken, its threads and the processes that it has started included."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def cpu_seconds_since(pid: int, before_s: float) -> float:
    """Processor time since `cpu_seconds` said so much; at least one tick, for no less can be told from nothing."""
    return max(cpu_seconds(pid) - before_s, 1 / os.sysconf("SC_CLK_TCK"))


def _children_cpu_seconds() -> float:
    """Processor time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
