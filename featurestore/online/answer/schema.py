"""The layout of a feature service's answer: names, types, and where each value stands.

Shared by server and client, so that both address the packed matrices in the same way. Matrices are feature-major:
for N rows the value of a feature is at [slot, row] of the (slots, N) matrix that its type selects.

    FLOAT64                    doubles             INT64_LIST     integer_lists     INT64_MAP     integer_maps
    INT64, BOOL, TIMESTAMP     integers            FLOAT64_LIST   double_lists      FLOAT64_MAP   double_maps
    STRING                     strings             STRING_LIST    string_lists      AS_STORED     as_stored
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import xxhash

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.errors import LimitExceeded
from featurestore.wire.codecs.plain_row import StoredValue
from featurestore.wire.entity_key import KEY_BYTES_MAX, EntityValue, encode_key, encode_value


class FeatureStatus(enum.IntEnum):
    """What stands behind a value; the numbers are those of proto/featurestore_api/v1."""

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    NOT_READY = 4
    OUTSIDE_MAX_AGE = 5


Collection: TypeAlias = list[int] | list[float] | list[str] | dict[str, int] | dict[str, float]
"""The value of a list or map feature; no element is null, a float may be NaN."""

Cell: TypeAlias = Collection | StoredValue | None
"""A value of a matrix of objects; None is null."""


class Matrix(enum.Enum):
    """The packed value columns of an answer, by their names in proto/featurestore_api/v1; AS_STORED is never sent."""

    DOUBLES = "doubles"
    INTEGERS = "integers"
    STRINGS = "strings"
    INTEGER_LISTS = "integer_lists"
    DOUBLE_LISTS = "double_lists"
    STRING_LISTS = "string_lists"
    INTEGER_MAPS = "integer_maps"
    DOUBLE_MAPS = "double_maps"
    AS_STORED = "as_stored"


SCALAR_MATRICES = (Matrix.DOUBLES, Matrix.INTEGERS, Matrix.STRINGS)
MAP_MATRICES = (Matrix.INTEGER_MAPS, Matrix.DOUBLE_MAPS)
COLLECTION_MATRICES = (Matrix.INTEGER_LISTS, Matrix.DOUBLE_LISTS, Matrix.STRING_LISTS, *MAP_MATRICES)
"""Those of lists and maps."""
OBJECT_MATRICES = (*COLLECTION_MATRICES, Matrix.AS_STORED)
"""Those whose cells are Python objects."""

MATRIX_OF: dict[ValueType, Matrix] = {
    ValueType.FLOAT64: Matrix.DOUBLES,
    ValueType.INT64: Matrix.INTEGERS,
    ValueType.BOOL: Matrix.INTEGERS,
    ValueType.TIMESTAMP: Matrix.INTEGERS,
    ValueType.STRING: Matrix.STRINGS,
    ValueType.INT64_LIST: Matrix.INTEGER_LISTS,
    ValueType.FLOAT64_LIST: Matrix.DOUBLE_LISTS,
    ValueType.STRING_LIST: Matrix.STRING_LISTS,
    ValueType.INT64_MAP: Matrix.INTEGER_MAPS,
    ValueType.FLOAT64_MAP: Matrix.DOUBLE_MAPS,
    ValueType.AS_STORED: Matrix.AS_STORED,
}


@dataclass(frozen=True, slots=True)
class FeatureSlot:
    """One feature of the answer.

    Attributes:
        name: name in the answer.
        type: selects the matrix.
        slot: row of that matrix.
        view: index into the schema's views.
        zero_when_not_found: the value over no events is 0 (of a series: its list), not null.
    """

    name: str
    type: ValueType
    slot: int
    view: int
    zero_when_not_found: bool = False

    @property
    def matrix(self) -> Matrix:
        """The packed column that holds its values."""
        return MATRIX_OF[self.type]


@dataclass(frozen=True, slots=True)
class ServedView:
    """A view behind the answer.

    Attributes:
        name: the Feast view's name.
        definition_hash: of the definition that answers now; empty for plain views and views not yet filled.
    """

    name: str
    definition_hash: str = ""


@dataclass(frozen=True, slots=True)
class EventSource:
    """A source of which a request may bring a payment in flight.

    Attributes:
        name: the Feast data source's name.
        event_time_column: when it happened, the read time of its row.
        columns: what must be sent, event time first; join keys need not be, nor what only features read that are not
            answered yet.
    """

    name: str
    event_time_column: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class ServiceSchema:
    """The answer of one feature service.

    Attributes:
        service: its name.
        join_keys: what a request must give.
        features: in answer order; a status stands at the feature's index here.
        views: in order of first use.
        schema_id: unsigned 64-bit digest of all of the above and of the columns below; equal ids, equal layouts.
        request_columns: what a request may give beside its keys, by name.
        event_sources: of which a request may bring a payment in flight; no part of the layout.
    """

    service: str
    join_keys: tuple[Column, ...]
    features: tuple[FeatureSlot, ...]
    views: tuple[ServedView, ...]
    schema_id: int
    request_columns: tuple[Column, ...] = ()
    event_sources: tuple[EventSource, ...] = ()

    @cached_property
    def features_of(self) -> dict[Matrix, Int64Array]:
        """For each matrix, the index in `features` of each of its rows."""
        return {
            matrix: np.array(
                [at for at, feature in enumerate(self.features) if feature.matrix is matrix], dtype=np.int64
            )
            for matrix in Matrix
        }

    @cached_property
    def object_counts(self) -> dict[Matrix, int]:
        """How many features each matrix of objects has; only those that have any."""
        counts = {matrix: len(self.features_of[matrix]) for matrix in OBJECT_MATRICES}
        return {matrix: count for matrix, count in counts.items() if count}

    @cached_property
    def zero_when_not_found(self) -> BoolArray:
        """(F,) True for features whose value over no events is 0 or a list, not null."""
        return np.array([feature.zero_when_not_found for feature in self.features], dtype=np.bool_)

    def entity_keys(
        self, key_columns: Sequence[int], columns: Sequence[Sequence[EntityValue]], row_count: int
    ) -> list[bytes]:
        """Canonical entity key of each row for one view.

        Args:
            key_columns: indices into `join_keys`, in the order that forms the entity key.
            columns: values of the join keys, N each.
            row_count: N.

        Raises:
            LimitExceeded: a key is too long.
        """
        if not key_columns:
            return [encode_key(())] * row_count  # one row for all
        if len(key_columns) == 1:
            keys = [encode_value(value) for value in columns[key_columns[0]]]
        else:
            keys = [encode_key(values) for values in zip(*(columns[index] for index in key_columns), strict=True)]
        longest = max(map(len, keys), default=0)
        if longest > KEY_BYTES_MAX:
            names = ", ".join(self.join_keys[index].name for index in key_columns)
            raise LimitExceeded(
                f'a value of join key "{names}" is {longest} bytes long, the limit is {KEY_BYTES_MAX}',
                hint="send shorter keys",
            )
        return keys


def make_schema(
    service: str,
    join_keys: tuple[Column, ...],
    features: tuple[FeatureSlot, ...],
    views: tuple[ServedView, ...],
    request_columns: tuple[Column, ...] = (),
) -> ServiceSchema:
    """A schema with its id."""
    digest = xxhash.xxh3_64()
    for part in (
        service,
        *(text for key in join_keys for text in (key.name, key.type.value)),
        "features",
        *(
            text
            for feature in features
            for text in (
                feature.name,
                feature.type.value,
                f"{feature.slot}:{feature.view}:{feature.zero_when_not_found:d}",
            )
        ),
        "views",
        *(text for view in views for text in (view.name, view.definition_hash)),
        # Nothing where there is none: the ids of other services stay as they were.
        *(text for column in request_columns for text in ("request", column.name, column.type.value)),
    ):
        encoded = part.encode()
        # The length goes first, so that ("ab", "c") and ("a", "bc") differ.
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return ServiceSchema(service, join_keys, features, views, digest.intdigest(), request_columns)
