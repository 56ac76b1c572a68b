"""Parts: the mergeable pieces that tiles are made of, shared by every feature of a view that needs them.

An aggregation does not own its accumulator. It names the parts it needs; a view stores each distinct part once, so
count, sum, mean and stddev of one column cost four numbers and not eight. A part is a few fields, and a field says
how one event becomes a value of it (`Lift`) and how two values become one (`Merge`). Most merge by a plain ADD, MIN or
MAX, and those of all parts are merged together as blocks of a matrix; a field that merges as its OWN (a spread, the
newest value) is merged by its part.

    laws required     merge is associative; identity() is neutral. Commutative too, since arrival order must not
                      change a value.
    storage           INT int64, FLOAT float64, BLOB bytes of any length
    time              merging N tiles: O(N) for every field

Source: the lift / combine / lower decomposition of Tangwongsan, Hirzel, Schneider and Wu, "General incremental
sliding-window aggregation", VLDB 2015; Gray et al. 1997 for the distributive / algebraic / holistic split.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BlobRow, ColumnValues, Int64Array, ObjectArray

Array = NDArray[Any]
"""(N,) int64 or float64, as the field's storage says."""

LOW_BITS = 32
"""An integer sum is kept as high * 2**32 + low, so that 2**31 values of any int64 size cannot overflow it."""


RangeFamily = Callable[..., Any]
"""Makes ready to merge ranges for all parts of one kind; `core.ranges` has its types and the reason for it."""

FieldValues = Array | BlobRow
"""Values of one field, N of them."""


class Storage(enum.Enum):
    """How a field is stored."""

    INT = "int"
    FLOAT = "float"
    BLOB = "blob"


class Merge(enum.Enum):
    """How two values of a field become one."""

    ADD = "add"
    MIN = "min"
    MAX = "max"
    OWN = "own"


class Lift(enum.IntEnum):
    """What one event is worth in a field; where the field's column is null, the identity. Numbers are the kernels'."""

    ONE = 0
    """1; the column's nulls count as well."""
    VALID = 1
    """1 where the column has a value."""
    VALUE = 2
    """The column's value."""
    HIGH = 3
    """The upper half of an integer value, see `LOW_BITS`."""
    LOW = 4
    """The lower half."""
    TIME = 5
    """The event time."""
    NOTHING = 6
    """The identity, whatever the event."""
    EVENT_ID = 7
    """The event id; empty where the source declares none."""
    OWN = 8
    """What the part's `lift` says."""


@dataclass(frozen=True, slots=True)
class Field:
    """One number (or byte string) a tile keeps for a part.

    Attributes:
        name: unique within the part.
        storage, merge, identity, lift: see there.
        column: the input that `lift` looks at; None looks at the event itself.
        is_read: whether `Aggregation.lower` is given it; False for what only merging needs.
    """

    name: str
    storage: Storage
    merge: Merge
    identity: int | float | bytes
    lift: Lift
    column: str | None = None
    is_read: bool = True


@dataclass(frozen=True, slots=True)
class EventRows:
    """N events to lift: what a part may look at.

    Attributes:
        event_time_ms: (N,) event time.
        event_ids: (N,) canonical bytes; None where the source declares no id.
        columns: the inputs, N rows each.
    """

    event_time_ms: Int64Array
    event_ids: ObjectArray | BlobRow | None
    columns: Mapping[str, ColumnValues]

    @property
    def count(self) -> int:
        """N."""
        return len(self.event_time_ms)


class Part(Protocol):
    """A mergeable piece of a tile; two equal parts of a view are one.

    `key` orders parts canonically and therefore is part of the byte layout.
    """

    @property
    def key(self) -> str:
        """Canonical text, unique among unequal parts."""
        ...

    @property
    def fields(self) -> tuple[Field, ...]:
        """What is stored; the shape of every tuple of arrays below."""
        ...

    @property
    def requires(self) -> tuple[Part, ...]:
        """Parts that OWN merges read; they are stored too."""
        ...

    @property
    def reads_event_ids(self) -> bool:
        """Whether lifting needs the events' ids; heads of views that do not leave them out."""
        ...

    @property
    def family(self) -> RangeFamily | None:
        """Merges ranges for all parts of this kind at once (see `core.ranges`); None: `merge_ranges` does."""
        ...

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """(N,) values, or (1,) where all are the same, of each field whose lift is OWN, by its name."""
        ...

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """Merge runs of rows into one row each: G runs, `starts` ascending from 0, none empty.

        Only OWN fields are used of the result; parts without any are never asked.
        """
        ...

    def merge_ranges(
        self, mine: Sequence[FieldValues], lows: Int64Array, highs: Int64Array
    ) -> tuple[FieldValues | None, ...]:
        """Merge W ranges [lows[w], highs[w]) of rows, which may overlap or be empty; None for fields not read.

        Only asked where there are OWN fields and no `family`.
        """
        ...

    def normalize(self, mine: Sequence[FieldValues]) -> tuple[FieldValues, ...]:
        """An equal accumulator in its most compact form; what a body stores."""
        ...


class PartBase:
    """What most parts are: they need no ids and no other part, blocks merge them, and they are compact as they are."""

    @property
    def reads_event_ids(self) -> bool:
        """No."""
        return False

    @property
    def requires(self) -> tuple[Part, ...]:
        """None."""
        return ()

    @property
    def family(self) -> RangeFamily | None:
        """None: blocks, or the part itself."""
        return None

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """Never asked of a part without a field whose lift is OWN."""
        raise NotImplementedError("no field lifts on its own")

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """Never asked of a part whose fields all merge as ADD, MIN or MAX, or that names a family for ranges."""
        raise NotImplementedError("the tile table or a family merges it")

    def merge_ranges(
        self, mine: Sequence[FieldValues], lows: Int64Array, highs: Int64Array
    ) -> tuple[FieldValues | None, ...]:
        """Never asked of a part whose fields all merge as ADD, MIN or MAX, or that names a family for ranges."""
        raise NotImplementedError("the tile table or a family merges it")

    def normalize(self, mine: Sequence[FieldValues]) -> tuple[FieldValues, ...]:
        """Already compact."""
        return tuple(mine)


@dataclass(frozen=True, slots=True)
class RowCount(PartBase):
    """How many events, nulls included."""

    @property
    def key(self) -> str:
        """Canonical text."""
        return "rows"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One integer."""
        return (Field("count", Storage.INT, Merge.ADD, 0, Lift.ONE),)


@dataclass(frozen=True, slots=True)
class ValueCount(PartBase):
    """How many events have a value in `column`; tells an empty answer from a real one for every other part."""

    column: str

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"values({self.column})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One integer."""
        return (Field("count", Storage.INT, Merge.ADD, 0, Lift.VALID, self.column),)


@dataclass(frozen=True, slots=True)
class IntSum(PartBase):
    """Exact sum of an integer column: high * 2**32 + low, so no overflow can pass unseen."""

    column: str

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"sum({self.column})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Two integers."""
        return (
            Field("high", Storage.INT, Merge.ADD, 0, Lift.HIGH, self.column),
            Field("low", Storage.INT, Merge.ADD, 0, Lift.LOW, self.column),
        )

    def normalize(self, mine: Sequence[FieldValues]) -> tuple[FieldValues, ...]:
        """Carry the low half into the high one, leaving low in [-2**31, 2**31)."""
        high, low = np.asarray(mine[0]), np.asarray(mine[1])
        carry_high, rest = split_int(low)
        return high + carry_high, rest


@dataclass(frozen=True, slots=True)
class FlagSum(PartBase):
    """How often a BOOL column is true; 0s and 1s cannot overflow, so one integer will do."""

    column: str

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"sum({self.column})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One integer."""
        return (Field("sum", Storage.INT, Merge.ADD, 0, Lift.VALUE, self.column),)


@dataclass(frozen=True, slots=True)
class FloatSum(PartBase):
    """Sum of a float column."""

    column: str

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"sum({self.column})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One float."""
        return (Field("sum", Storage.FLOAT, Merge.ADD, 0.0, Lift.VALUE, self.column),)


def split_int(values: Array) -> tuple[Int64Array, Int64Array]:
    """(N,) int64 as (high, low) with values == high * 2**32 + low and low in [-2**31, 2**31).

    A signed low half keeps small negative sums small in both halves, so that bodies store them in few bytes.
    """
    high = (values >> LOW_BITS) + ((values >> (LOW_BITS - 1)) & 1)
    return high, values - (high << LOW_BITS)


def join_float(high: Array, low: Array) -> Array:
    """The sum as float64, correct to one rounding: both halves are exact as floats.

    Lifted and normalized low halves are at most 2**31, so those of four million merged rows still are below 2**53.
    """
    return high * float(1 << LOW_BITS) + low
