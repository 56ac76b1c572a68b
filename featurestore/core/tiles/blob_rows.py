"""Building rows of byte strings in bulk: fixed-width records with strings of any length, and merged states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from featurestore.core.compiled import BYTES, FLAGS, INT, INT_MATRIX, compiled
from featurestore.core.events import BlobRow, BoolArray, Int64Array
from featurestore.core.tiles.parts import Array


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
    return BlobRow.consecutive(out.tobytes(), ends)


def merge_states(
    states: BlobRow,
    lows: Int64Array,
    highs: Int64Array,
    merge: Callable[[Array, Int64Array, Int64Array, Array, Int64Array], int],
) -> BlobRow:
    """Merge ranges of states, none of which grows by it.

    Args:
        states: N states.
        lows: (W,) first state of each range.
        highs: (W,) the state behind its last; a range may be empty.
        merge: given the buffer of the states, where they begin and end, room for the results and for where each of them
            ends; writes the results one after another, and returns their size.

    Returns:
        (W,) merged states.
    """
    size = np.append(0, np.cumsum(states.ends - states.begins))
    out = np.empty(int((size[highs] - size[lows]).clip(0).sum()), dtype=np.uint8)
    out_ends = np.empty(len(lows), dtype=np.int64)
    used = merge(np.frombuffer(states.buffer, dtype=np.uint8), states.begins, states.ends, out, out_ends)
    return BlobRow.consecutive(out[:used].tobytes(), out_ends)


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
