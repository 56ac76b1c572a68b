"""Where the fields of a view's tiles live: rows of a block for each storage, contiguous for each kind of merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.tiles.parts import Field, Lift, Merge, Part, Storage

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

    @property
    def lifts_itself(self) -> bool:
        """Whether the part's own `lift` is needed."""
        return any(field.lift is Lift.OWN for field in self.part.fields)


def blocks_of(fields: Sequence[Field]) -> dict[Merge, slice]:
    """The contiguous rows of each kind of merge."""
    blocks, begin = {}, 0
    for merge in MERGE_ORDER:
        size = sum(field.merge is merge for field in fields)
        blocks[merge] = slice(begin, begin + size)
        begin += size
    return blocks
