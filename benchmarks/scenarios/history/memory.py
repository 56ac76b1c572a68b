"""Peak memory of one training set, in a process of its own.

python -m benchmarks.scenarios.history.memory EVENTS.parquet LABELS.parquet MEMORY_BYTES
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import environment
from benchmarks.scenario import digest
from benchmarks.scenarios.history.shapes import train, wide_views

KIB_PER_MIB = 1024

_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
"""Of this program alone: what `getrusage` says starts with what the parent had taken."""


def peak_mib(events: Path, labels: Path, memory_bytes: int) -> tuple[float, str]:
    """What the process took at most, MiB, and the digest of its answer."""
    words = [sys.executable, "-m", "benchmarks.scenarios.history.memory", str(events), str(labels), str(memory_bytes)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    mib, hashed = done.stdout.split()
    return float(mib), hashed


def digest_of(table: pa.Table) -> str:
    """Digest of every number, nulls included."""
    parts = []
    for column in table.columns:
        array = column.combine_chunks()
        if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
            parts += [
                array.is_valid().to_numpy(zero_copy_only=False).tobytes(),
                array.fill_null(0).to_numpy().tobytes(),
            ]
    return digest(parts)


if __name__ == "__main__":
    found = train(wide_views()[:1], Path(sys.argv[1]), pq.read_table(sys.argv[2]), int(sys.argv[3]))
    peak = _PEAK.search(Path("/proc/self/status").read_text(encoding="utf-8"))
    assert peak is not None, "Linux tells what a process has taken at most"
    print(int(peak[1]) / KIB_PER_MIB, digest_of(found))
