"""What goes into the audit log about things that are too large for it: their digests, and where they come from."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

GIT_SECONDS = 5.0


class _Digest:
    """A file that only counts and hashes what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Take some bytes."""
        view = memoryview(data)
        self.hash.update(view)
        return view.nbytes

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to close."""


def rows_digest(table: Any) -> str:
    """SHA-256 of an Arrow table's rows: the same for the same columns and rows, however they are cut into batches.

    Args:
        table: pyarrow.Table.
    """
    import pyarrow as pa

    digest = _Digest()
    whole = table.replace_schema_metadata(None).combine_chunks()
    with pa.PythonFile(digest, mode="w") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return digest.hash.hexdigest()


def rows_evidence(rows: Any, timestamp_column: str, at_ms: int | None = None) -> dict[str, object]:
    """What is kept of a training set's label rows: how many, their digest, and the first and last label time.

    Args:
        rows: pyarrow.Table, or a data frame of pandas or Polars; of a stream, which can be read once, nothing.
        timestamp_column: the label times' column.
        at_ms: the one moment for all rows, instead.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(rows, pa.Table):
        if type(rows).__module__.partition(".")[0] not in ("pandas", "polars"):
            return {}
        rows = pa.table(rows)
    found: dict[str, object] = {"rows": rows.num_rows, "rows_digest": rows_digest(rows)}
    if at_ms is not None:
        return {**found, "at_ms": at_ms}
    if timestamp_column in rows.column_names:
        ends = pc.min_max(rows[timestamp_column]).as_py()
        found |= {"first_label": str(ends["min"]), "last_label": str(ends["max"])}
    return found


def checkout_of(directory: Path) -> dict[str, object]:
    """The commit of a git checkout, and whether something in the directory differs from it; nothing elsewhere."""
    commit = _git(directory, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {"commit": commit, "is_changed": bool(_git(directory, "status", "--porcelain", "--", "."))}


def _git(directory: Path, *words: str) -> str:
    """What git says; "" where there is none, or no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
