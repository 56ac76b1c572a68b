"""Building rows of byte strings in bulk: fixed-width records with strings of any length behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, compiled
from featurestore.core.events import BlobRow, BoolArray, Int64Array
from featurestore.core.parts import Array


def interleave(fixed: Array, strings: Sequence[BlobRow], valid: BoolArray | None) -> BlobRow:
    """N byte strings, each a fixed-width record followed by strings.

    Args:
        fixed: (N,) structured, packed and little-endian.
        strings: N strings each, in the order in which they follow.
        valid: (N,) False where the result is empty; None where it never is.
    """
    count, width = len(fixed), fixed.dtype.itemsize
    begins = np.arange(0, count * width, width, dtype=np.int64)
    records = BlobRow(fixed.tobytes(), begins, begins + width)
    if not strings:
        return records if valid is None else records.keep(valid)
    buffers = {id(piece.buffer): piece.buffer for piece in (records, *strings)}
    shifts, size = {}, 0
    for identity, buffer in buffers.items():
        shifts[identity] = size
        size += len(buffer)
    shift = [shifts[id(piece.buffer)] for piece in (records, *strings)]
    begin = np.array([piece.begins + by for piece, by in zip((records, *strings), shift, strict=True)])
    end = np.array([piece.ends + by for piece, by in zip((records, *strings), shift, strict=True)])
    if valid is not None:
        end = np.where(valid, end, begin)
    ends = np.cumsum((end - begin).sum(axis=0))
    out = np.empty(int(ends[-1]) if count else 0, dtype=np.uint8)
    _copy(np.frombuffer(b"".join(buffers.values()), dtype=np.uint8), begin, end, out)
    return BlobRow(out.tobytes(), np.append(0, ends[:-1])[:count], ends)


@compiled(INT, BYTES, INT_MATRIX, INT_MATRIX, FLAGS)
def _copy(buffer: Array, begins: Int64Array, ends: Int64Array, out: Array) -> int:
    """Spans (P, N) of the buffer, those of one row after another."""
    cursor = 0
    for row in range(begins.shape[1]):
        for piece in range(begins.shape[0]):
            for at in range(begins[piece, row], ends[piece, row]):
                out[cursor] = buffer[at]
                cursor += 1
    return cursor
