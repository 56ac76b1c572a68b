"""A table with its past, in memory: which version of a row was in force at a moment.

    version    key EUR   from 12:00   rate 1.10        an event of EUR at 12:59:59 has 1.10
               key EUR   from 13:00   rate 1.12        one at 13:00:00 has 1.12, and one at 11:59 has nothing

A version holds from its own time on, that moment included, until the next version of its key. Of two of one key and one
time the one that was added last holds. In which order others are added makes no difference.

Versions lie in two sorted runs, as a merge tree has them: what was added since is sorted at the next question, and put
into the large run when it is an eighth of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from featurestore.core.events import BlobRow, BoolArray, ColumnValues, Int64Array
from featurestore.core.spec import Column, EnrichmentSpec, ValueType
from featurestore.errors import InvalidRequest, LimitExceeded

RECENT_ROWS_MIN = 4_096
"""The small run is this long at least before it is merged."""

_BASE_SHARE = 8


class Tables(Protocol):
    """The tables that events are enriched from."""

    def columns_at(
        self, source: str, enrichment: EnrichmentSpec, keys: ColumnValues, times_ms: Int64Array
    ) -> Mapping[str, ColumnValues]:
        """The enrichment's columns of N events, by their names there; null where the table has no row.

        Args:
            source: name of the events' source.
            enrichment: which table, and what of it.
            keys: (N,) of the rows.
            times_ms: (N,) event times.
        """
        ...


class NoTables:
    """Of those who read none."""

    def columns_at(
        self, source: str, enrichment: EnrichmentSpec, keys: ColumnValues, times_ms: Int64Array
    ) -> Mapping[str, ColumnValues]:
        """Refuse.

        Raises:
            InvalidRequest: always.
        """
        names = ", ".join(f'"{column.name}"' for column, _ in enrichment.columns)
        raise InvalidRequest(
            f'events get {names} from table "{enrichment.table}", which is not read here',
            hint="ask for features without these columns",
        )


@dataclass(frozen=True, slots=True)
class TableRows:
    """N versions of rows.

    Attributes:
        keys: (N,) of the rows, without nulls.
        times_ms: (N,) since when each holds.
        columns: by name.
    """

    keys: ColumnValues
    times_ms: Int64Array
    columns: Mapping[str, ColumnValues]


@dataclass(frozen=True, slots=True)
class _Run:
    """Versions by (number of the key, time), each pair once."""

    numbers: Int64Array
    times_ms: Int64Array
    columns: Mapping[str, ColumnValues]

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, numbers: Int64Array, times_ms: Int64Array) -> Int64Array:
        """(N,) index of the newest version of each key at or before each time; -1 for none."""
        begin = np.searchsorted(self.numbers, numbers, "left")
        low, high = begin, np.searchsorted(self.numbers, numbers, "right")
        while (is_open := low < high).any():
            middle = np.minimum((low + high) // 2, len(self) - 1)
            is_before = self.times_ms[middle] <= times_ms
            low, high = (
                np.where(is_open & is_before, middle + 1, low),
                np.where(is_open & ~is_before, middle, high),
            )
        return np.where(low > begin, low - 1, -1)


class AsOfTable:
    """One table.

    Args:
        what: it is, for messages.
        columns: those that are kept of it.
        rows_max: versions that it may have.
    """

    def __init__(self, what: str, columns: Sequence[Column], rows_max: int) -> None:
        self._what = what
        self._columns = tuple(columns)
        self._rows_max = rows_max
        self._number_of: dict[object, int] = {}
        self._base = self._recent = _Run(*_nothing(), {one.name: _no_values(one) for one in self._columns})
        self._waiting: list[_Run] = []
        self._waiting_rows = 0

    @property
    def row_count(self) -> int:
        """Versions that it has; those that were added twice may count twice."""
        return len(self._base) + len(self._recent) + self._waiting_rows

    def add(self, rows: TableRows) -> None:
        """Take versions.

        Raises:
            LimitExceeded: there are too many.
        """
        number_of = self._number_of
        numbers = [number_of.setdefault(key, len(number_of)) for key in _keys_of(rows.keys)]
        columns = {one.name: _owned(rows.columns[one.name]) for one in self._columns}
        self._waiting.append(_Run(np.array(numbers, dtype=np.int64), rows.times_ms, columns))
        self._waiting_rows += len(numbers)
        if self.row_count > self._rows_max:
            self._settle()
        if self.row_count > self._rows_max:
            raise LimitExceeded(
                f"{self._what} has more than {self._rows_max:,} versions of rows",
                detail="A table is held in memory, with its past.",
                hint="keep fewer versions in it, such as one a day, or aggregate by the key instead",
            )

    def at(self, keys: ColumnValues, times_ms: Int64Array) -> tuple[dict[str, ColumnValues], BoolArray]:
        """The columns of the row that was in force for each key at each time, and whether there was one.

        Args:
            keys: (N,) of rows; null has no row.
            times_ms: (N,) moments.
        """
        self._settle()
        find = self._number_of.get
        numbers = np.fromiter((find(key, -1) for key in _keys_of(keys)), dtype=np.int64, count=len(times_ms))
        if keys.valid is not None:
            numbers[~keys.valid] = -1
        base, recent = self._base.at(numbers, times_ms), self._recent.at(numbers, times_ms)
        is_recent = recent >= 0
        both = np.flatnonzero(is_recent & (base >= 0))
        is_recent[both] = self._recent.times_ms[recent[both]] >= self._base.times_ms[base[both]]
        found = is_recent | (base >= 0)
        columns = {}
        for one in self._columns:
            values = _taken(self._base.columns[one.name], base)
            if is_recent.any():
                values = _either(is_recent, _taken(self._recent.columns[one.name], recent), values)
            columns[one.name] = values
        return columns, found

    def _settle(self) -> None:
        """Sort what was added."""
        if not self._waiting:
            return
        self._recent = _merged([self._recent, *self._waiting])
        self._waiting, self._waiting_rows = [], 0
        if len(self._recent) > max(RECENT_ROWS_MIN, len(self._base) // _BASE_SHARE):
            self._base = _merged([self._base, self._recent])
            self._recent = _Run(*_nothing(), {one.name: _no_values(one) for one in self._columns})


def _merged(runs: Sequence[_Run]) -> _Run:
    """All versions of some runs; of equal ones the last."""
    numbers = np.concatenate([run.numbers for run in runs])
    times_ms = np.concatenate([run.times_ms for run in runs])
    order = np.lexsort((times_ms, numbers))  # stable: of equal ones the last is behind the others
    numbers, times_ms = numbers[order], times_ms[order]
    is_last = np.ones(len(order), dtype=np.bool_)
    is_last[:-1] = (numbers[1:] != numbers[:-1]) | (times_ms[1:] != times_ms[:-1])
    order = order[is_last]
    columns = {name: _joined([run.columns[name] for run in runs]).take(order) for name in runs[0].columns}
    return _Run(numbers[is_last], times_ms[is_last], columns)


def _joined(columns: Sequence[ColumnValues]) -> ColumnValues:
    """One column of all rows; each has the nulls spelt out."""
    values = np.concatenate([np.asarray(column.values) for column in columns])
    return ColumnValues(values, np.concatenate([_valid(column) for column in columns]))


def _taken(column: ColumnValues, at: Int64Array) -> ColumnValues:
    """Some rows; null where the index is -1."""
    values = np.asarray(column.values)
    if not len(values):
        return ColumnValues(_zeros(values, len(at)), np.zeros(len(at), dtype=np.bool_))
    valid = (at >= 0) & _valid(column)[at]
    return _with_nulls(values[at], valid)


def _either(is_first: BoolArray, first: ColumnValues, second: ColumnValues) -> ColumnValues:
    """Rows of the first column where it says so, else of the second."""
    values = np.where(is_first, np.asarray(first.values), np.asarray(second.values))
    return ColumnValues(values, np.where(is_first, _valid(first), _valid(second)))


def _with_nulls(values: np.ndarray, valid: BoolArray) -> ColumnValues:
    """A column whose null rows hold what null rows hold."""
    if valid.all():
        return ColumnValues(values)
    values = values.copy()
    values[~valid] = b"" if values.dtype == np.object_ else 0
    return ColumnValues(values, valid)


def _valid(column: ColumnValues) -> BoolArray:
    return np.ones(len(column.values), dtype=np.bool_) if column.valid is None else column.valid


def _owned(column: ColumnValues) -> ColumnValues:
    """Texts as objects of their own: spans would keep the whole read in memory."""
    if not isinstance(column.values, BlobRow):
        return column
    values = np.empty(len(column.values), dtype=np.object_)
    values[:] = column.values.values()
    return ColumnValues(values, column.valid)


def _keys_of(keys: ColumnValues) -> list[object]:
    """Texts or integers."""
    return list(keys.values.values()) if isinstance(keys.values, BlobRow) else keys.values.tolist()


def _nothing() -> tuple[Int64Array, Int64Array]:
    none: Int64Array = np.empty(0, dtype=np.int64)
    return none, none


def _no_values(column: Column) -> ColumnValues:
    """A column of no rows."""
    kinds = {ValueType.STRING: np.object_, ValueType.FLOAT64: np.float64}
    return ColumnValues(np.empty(0, dtype=kinds.get(column.type, np.int64)))


def _zeros(values: np.ndarray, count: int) -> np.ndarray:
    """What null rows hold."""
    if values.dtype != np.object_:
        return np.zeros(count, dtype=values.dtype)
    empty = np.empty(count, dtype=np.object_)
    empty[:] = b""
    return empty
