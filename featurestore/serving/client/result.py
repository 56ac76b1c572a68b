"""What a client gets: rows of features with names, as a numpy matrix, dicts or a pandas frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.online.answer.schema import Collection, FeatureSlot, FeatureStatus, Matrix, ServiceSchema

if TYPE_CHECKING:
    import pandas

FeatureValue = int | float | str | bool | Collection | None
"""A value as Python has it; TIMESTAMP features are integer milliseconds, maps are dicts."""


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """How far one source partition had been read: everything before `next_offset` is in the answer."""

    topic: str
    partition: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class ViewFreshness:
    """How current a view's values are, for N rows.

    Attributes:
        view: its name.
        event_time_ms: (N,) newest event behind the values, 0 where there is none.
        freshness_ms: (N,) read time minus event_time_ms, -1 where there is none.
        positions: for each row, how far the sources had been read; empty for materialized views.
    """

    view: str
    event_time_ms: Int64Array
    freshness_ms: Int64Array
    positions: tuple[tuple[SourcePosition, ...], ...]


@dataclass(frozen=True)
class LookupResult:
    """N rows of F features.

    Attributes:
        schema: names, types and places.
        row_count: N.
        doubles: (D, N), NaN where null.
        integers: (I, N), 0 where null.
        strings: S x N texts, feature-major.
        collections: of each matrix of lists or maps that the schema uses S x N values, feature-major, empty where null.
        statuses: (F, N) of FeatureStatus.
        as_of_ms: the read time that the server used, one or N.
        views: event times, freshness and positions, if the lookup asked for them.
    """

    schema: ServiceSchema
    row_count: int
    doubles: Float64Array
    integers: Int64Array
    strings: Sequence[str]
    collections: Mapping[Matrix, Sequence[Collection]]
    statuses: NDArray[np.uint8]
    as_of_ms: tuple[int, ...]
    views: tuple[ViewFreshness, ...] = ()

    @property
    def names(self) -> list[str]:
        """Feature names in answer order."""
        return [feature.name for feature in self.schema.features]

    @cached_property
    def null(self) -> BoolArray:
        """(F, N) True where there is no value; a count of an unknown entity is 0 and not null."""
        has_zero: BoolArray = (self.statuses == FeatureStatus.NOT_FOUND) & self.schema.zero_when_not_found[
            :, np.newaxis
        ]
        null: BoolArray = (self.statuses != FeatureStatus.PRESENT) & ~has_zero
        return null

    def to_numpy(self) -> Float64Array:
        """(N, F) float64, one row a model input, NaN where null.

        Raises:
            InvalidRequest: the service has STRING, list or map features, which are no numbers. They are not left out,
                because a model takes its features by position.
        """
        places = self.schema.features_of
        if len(places[Matrix.DOUBLES]) + len(places[Matrix.INTEGERS]) < len(self.schema.features):
            feature = next(each for each in self.schema.features if each.matrix not in _NUMBERS)
            raise InvalidRequest(
                f'feature "{feature.name}" of type {feature.type.value} fits no matrix of numbers',
                hint="use to_dict() or to_pandas(), or ask for a feature service without it",
            )
        matrix = np.empty((len(self.schema.features), self.row_count))
        matrix[places[Matrix.DOUBLES]] = self.doubles
        matrix[places[Matrix.INTEGERS]] = self.integers
        matrix[self.null] = np.nan
        return matrix.T

    def to_dict(self) -> dict[str, list[FeatureValue]]:
        """Feature name -> N values, None where null."""
        return {feature.name: self._values(index, feature) for index, feature in enumerate(self.schema.features)}

    def rows(self) -> list[dict[str, FeatureValue]]:
        """N dicts of feature name -> value, None where null."""
        columns = self.to_dict()
        return [{name: values[row] for name, values in columns.items()} for row in range(self.row_count)]

    def status(self, name: str) -> list[FeatureStatus]:
        """Status of a feature in each row.

        Raises:
            KeyError: the service has no such feature.
        """
        return [FeatureStatus(code) for code in self.statuses[self._index[name]]]

    def to_pandas(self) -> pandas.DataFrame:
        """A frame of N rows and F columns; needs pandas.

        Columns have pandas' nullable types; those of lists and maps hold Python's lists and dicts, None where null.
        """
        import pandas as pd  # takes longer to import than a thousand lookups

        columns = {}
        for index, feature in enumerate(self.schema.features):
            values = self._values(index, feature)
            dtype = _PANDAS_TYPES.get(feature.type)
            columns[feature.name] = pd.Series(values, dtype=object) if dtype is None else pd.array(values, dtype=dtype)
        return pd.DataFrame(columns)

    @cached_property
    def _index(self) -> dict[str, int]:
        """Feature name -> index."""
        return {feature.name: index for index, feature in enumerate(self.schema.features)}

    def _values(self, index: int, feature: FeatureSlot) -> list[FeatureValue]:
        """N values of one feature."""
        raw: list[FeatureValue]
        if feature.matrix is Matrix.DOUBLES:
            raw = self.doubles[feature.slot].tolist()
        elif feature.matrix is Matrix.STRINGS:
            raw = list(self.strings[self._cells(feature)])
        elif feature.matrix in self.collections:
            # Copies: what a caller does to his list is not done to the result.
            raw = [cell.copy() for cell in self.collections[feature.matrix][self._cells(feature)]]
        else:
            raw = self.integers[feature.slot].tolist()
            if feature.type is ValueType.BOOL:
                raw = [bool(value) for value in raw]
        return [None if gone else value for value, gone in zip(raw, self.null[index].tolist(), strict=True)]

    def _cells(self, feature: FeatureSlot) -> slice:
        """Where a feature's N values are in a feature-major sequence."""
        return slice(feature.slot * self.row_count, (feature.slot + 1) * self.row_count)


_NUMBERS = (Matrix.DOUBLES, Matrix.INTEGERS)

_PANDAS_TYPES: dict[ValueType, str] = {
    ValueType.FLOAT64: "Float64",
    ValueType.INT64: "Int64",
    ValueType.TIMESTAMP: "Int64",
    ValueType.BOOL: "boolean",
    ValueType.STRING: "string",
}
