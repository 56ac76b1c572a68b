"""Where the fields of a view's tiles live: rows of a block for each storage, contiguous for each kind of merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.parts import Array, Field, Merge, Part, Storage

MERGE_ORDER = (Merge.ADD, Merge.MIN, Merge.MAX, Merge.OWN)

MERGE_UFUNCS: dict[Merge, np.ufunc] = {Merge.ADD: np.add, Merge.MIN: np.minimum, Merge.MAX: np.maximum}


@dataclass(frozen=True, slots=True)
class FieldPosition:
    """Where a field lives: row of its storage's block."""

    storage: Storage
    row: int


@dataclass(frozen=True, slots=True)
class PartPosition:
    """Where a part's fields and the fields it requires live."""

    part: Part
    fields: tuple[FieldPosition, ...]
    required: tuple[FieldPosition, ...]

    @property
    def has_own_merge(self) -> bool:
        """Whether the part merges itself."""
        return any(field.merge is Merge.OWN for field in self.part.fields)


@dataclass(frozen=True, slots=True)
class PairedBlock:
    """Rows of a block whose ranges are merged by `reduceat`: everything but integer sums.

    Attributes:
        storage: of the block.
        rows: which of its rows.
        ufunc: merges them.
        identities: (rows, 1) what an empty range gives.
    """

    storage: Storage
    rows: slice
    ufunc: np.ufunc
    identities: Array


def paired_blocks_of(storage: Storage, fields: Sequence[Field], blocks: Mapping[Merge, slice]) -> Iterator[PairedBlock]:
    """The paired blocks of one storage that have rows."""
    dtype = np.int64 if storage is Storage.INT else np.float64
    for merge, ufunc in MERGE_UFUNCS.items():
        rows = blocks[merge]
        if rows.start < rows.stop and not (storage is Storage.INT and merge is Merge.ADD):
            identities = np.array([[field.identity] for field in fields[rows]], dtype=dtype)
            yield PairedBlock(storage, rows, ufunc, identities)


def blocks_of(fields: Sequence[Field]) -> dict[Merge, slice]:
    """The contiguous rows of each kind of merge."""
    blocks, begin = {}, 0
    for merge in MERGE_ORDER:
        size = sum(field.merge is merge for field in fields)
        blocks[merge] = slice(begin, begin + size)
        begin += size
    return blocks
