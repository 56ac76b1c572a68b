"""The disk of the dead letters: one that may be full, and what is in its files."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path


class Disk:
    """`os.write` of a disk that may be full."""

    def __init__(self) -> None:
        self._write = os.write
        self._short_writes = 0

    def fill(self, writes: int) -> None:
        """Let some writes find hardly any room."""
        self._short_writes = writes

    def write(self, descriptor: int, content: bytes) -> int:
        """Half of it at first, and nothing afterwards."""
        if not self._short_writes:
            return self._write(descriptor, content)
        self._short_writes -= 1
        if len(content) > 1 and self._short_writes:
            return self._write(descriptor, bytes(content)[: len(content) // 2])
        raise OSError(28, "No space left on device")


def payloads_in(directory: Path) -> set[bytes]:
    """Payloads of all letters.

    Raises:
        ValueError: a line is not whole.
    """
    lines = [line for path in directory.rglob("*.jsonl") for line in path.read_bytes().splitlines(keepends=True)]
    if any(not line.endswith(b"\n") for line in lines):
        raise ValueError("a line of the dead letters has no end")
    return {base64.b64decode(json.loads(line)["payload"]) for line in lines}
