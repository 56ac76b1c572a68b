"""On what a figure was measured: commit, versions, processor; and the environment of measured processes."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = (
    "numpy",
    "msgspec",
    "xxhash",
    "redis",
    "hiredis",
    "grpcio",
    "protobuf",
    "bytewax",
    "confluent-kafka",
    "feast",
)


def describe() -> Mapping[str, str]:
    """Label -> text, in the order in which to print it."""
    return {
        "commit": _commit(),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} logical cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        "redis-server": _output("redis-server", "--version").partition(" sha=")[0] or "none on PATH (Valkey's wheel)",
    }


def environment() -> dict[str, str]:
    """For child processes: they find this package, and no settings of somebody's real store."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FEATURESTORE_", "BYTEWAX_"))}
    return {**clean, "PYTHONPATH": str(ROOT)}


def _commit() -> str:
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return commit + (" with uncommitted changes" if _output("git", "status", "--porcelain", "--", "*.py") else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    """What a program prints; nothing when it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
