"""One text for all that a table holds: what is computed from equal tables needs to be computed once."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from typing_extensions import Buffer


def content_digest(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> str:
    """Text that changes with any name, type or value.

    It is that of the Arrow stream: a column's own buffers would hold more than a slice has, and not its dictionary.
    """
    sink = _DigestSink()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.digest.hexdigest()


class _DigestSink(io.RawIOBase):
    """A file of which only the digest is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = hashlib.blake2b(digest_size=16)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Buffer) -> int:
        """Take all of it."""
        self.digest.update(content)
        return memoryview(content).nbytes
