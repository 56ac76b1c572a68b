"""Two definitions of a view side by side: the same entities, one read of the store, one read time.

feature        rows    differ   largest difference   null
count_1h       1000        12   3 (card_id=c-17)     0.02, 0.02
mean_1d        1000         0   -                    0.02, 0.02
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.clock import Deadline
from featurestore.core.tolerance import agrees
from featurestore.online.answer.assembly import Answer, Assembly, DistinctReads, KeyColumns
from featurestore.online.answer.schema import SCALAR_MATRICES, Cell, FeatureSlot, Matrix
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.online.read.reader import Reader

Value = Cell | int | float | str


@dataclass(slots=True)
class FeatureDifference:
    """How one feature differs, over all rows that were added.

    Attributes:
        feature: its name.
        rows: that were compared.
        differing: rows in which the values are not the same: integers and texts exactly, floats to 1e-9.
        null_left, null_right: rows without a value.
        largest: greatest absolute difference of two numbers; None where no two numbers differ.
        largest_at: the row where that is, counted over all rows.
    """

    feature: str
    rows: int = 0
    differing: int = 0
    null_left: int = 0
    null_right: int = 0
    largest: float | None = None
    largest_at: int = -1

    def add(self, left: Sequence[Value], right: Sequence[Value]) -> None:
        """Compare some rows more."""
        for row, (one, other) in enumerate(zip(left, right, strict=True), start=self.rows):
            self.null_left += one is None
            self.null_right += other is None
            if agrees(one, other):
                continue
            self.differing += 1
            if isinstance(one, int | float) and isinstance(other, int | float):
                difference = abs(one - other)
                # A number and none: no difference is larger.
                difference = math.inf if math.isnan(difference) else difference
                if self.largest is None or difference > self.largest:
                    self.largest, self.largest_at = difference, row
        self.rows += len(left)


class Comparison:
    """Compares features of one plan in pairs.

    Args:
        plan: both definitions' features.
        pairs: for each feature its name, and where both sides are among the plan's.
    """

    def __init__(self, plan: ServicePlan, pairs: Mapping[str, tuple[int, int]]) -> None:
        self._plan = plan
        self._pairs = pairs
        self.features = {name: FeatureDifference(name) for name in pairs}

    def add(self, reader: Reader, columns: KeyColumns, row_count: int, as_of_ms: int, deadline: Deadline) -> None:
        """Read some entities, and compare all features.

        Raises:
            FeatureStoreError: see `Assembly.answer` and `Reader.read`.
        """
        reads = DistinctReads(self._plan, columns, row_count)
        found = reader.read(reads.wanted)
        answer = Assembly(self._plan, reads, found, (as_of_ms,), deadline, is_as_of_given=True).answer(
            with_checkpoint=False
        )
        slots = self._plan.schema.features
        for name, (left, right) in self._pairs.items():
            self.features[name].add(cells(answer, slots[left], left), cells(answer, slots[right], right))


def cells(answer: Answer, slot: FeatureSlot, index: int) -> list[Value]:
    """The values of a feature, row by row; None for null.

    Args:
        answer: of a plan.
        slot: the feature.
        index: of it among the plan's features.
    """
    first = slot.slot * answer.row_count
    span = slice(first, first + answer.row_count)
    if slot.matrix not in SCALAR_MATRICES:
        return list(answer.objects[slot.matrix][span])
    values: Sequence[Value]
    if slot.matrix is Matrix.STRINGS:
        values = answer.strings[span]
    else:
        matrix = answer.doubles if slot.matrix is Matrix.DOUBLES else answer.integers
        values = matrix[slot.slot].tolist()
    return [
        None if null else value for null, value in zip(np.asarray(answer.null[index]).tolist(), values, strict=True)
    ]
