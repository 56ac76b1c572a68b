"""What bodies of every version have in common: magic first, version second, a checksum at the end, and who receives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.spec import HOP_LADDER_MS
from featurestore.core.tiles.parts import Storage
from featurestore.core.tiles.tiles import TileLayout

MAGIC = 0xFB
MAGIC_BESIDE_HEAD = 0x04
"""All eight bits differ, so that no flipped one makes the one into the other; the commit script says both."""

CHECKSUM_BYTES = 8
NO_LIFETIME_TILE = -(1 << 63)
WIDTHS_MS = np.array([1, *HOP_LADDER_MS], dtype=np.int64)
"""By rung; appended to only, as bodies name them."""


class Columns(NamedTuple):
    """What receives the tiles of a body, in its first rows: `TileTable` without its strings."""

    start_ms: Int64Array
    end_ms: Int64Array
    ints: Int64Array
    floats: Float64Array
    begins: Int64Array
    ends: Int64Array

    @staticmethod
    def of(layout: TileLayout, count: int) -> Columns:
        """To be filled."""
        spans = np.empty((2, len(layout.blob_fields), count), dtype=np.int64)
        return Columns(
            np.empty(count, dtype=np.int64),
            np.empty(count, dtype=np.int64),
            np.empty((len(layout.int_fields), count), dtype=np.int64),
            np.empty((len(layout.float_fields), count), dtype=np.float64),
            spans[0],
            spans[1],
        )


class Rows(NamedTuple):
    """The row of a table that receives each field of a body, -1 for none: by storage, and all in one."""

    ints: Int64Array
    floats: Int64Array
    blobs: Int64Array
    columns: Int64Array

    @staticmethod
    def of(stored: TileLayout, wanted: TileLayout) -> Rows:
        """From the fields of one layout to those of another that has some of its parts."""
        rows = {
            Storage.INT: np.full(len(stored.int_fields), -1, dtype=np.int64),
            Storage.FLOAT: np.full(len(stored.float_fields), -1, dtype=np.int64),
            Storage.BLOB: np.full(len(stored.blob_fields), -1, dtype=np.int64),
        }
        for to in wanted.parts:
            for source, target in zip(stored.position_of(to.part).fields, to.fields, strict=True):
                rows[source.storage][source.row] = target.row
        ints, floats, blobs = rows[Storage.INT], rows[Storage.FLOAT], rows[Storage.BLOB]
        return Rows(ints, floats, blobs, np.concatenate((ints, floats, blobs)))
