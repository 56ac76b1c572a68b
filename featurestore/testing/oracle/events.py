"""What the naive oracle takes and gives: events, values, answers, and the rows that its functions see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

NaiveValue = int | float | str
"""Value of a column: INT64, BOOL (bool; 0 and 1 where it is no key of a map) and TIMESTAMP (ms) as int, FLOAT64 as
float, STRING as str."""

NaiveAnswer = int | float | str | list[int] | list[float] | list[str] | dict[str, int] | dict[str, float]
"""Value of a feature; lists and maps hold column values, maps by text."""

NaiveColumns = Mapping[str, NaiveValue | None]
"""Value of each column of an event; None or absent is null, and so is NaN."""

Conditions = Mapping[str, Callable[[NaiveColumns], bool]]
"""What conditions mean, by their SQL text. SQL itself is held against DuckDB, not against the oracle."""


@dataclass(frozen=True, slots=True)
class NaiveEvent:
    """One event as its producer meant it.

    Attributes:
        key: canonical bytes of the entity key.
        event_time_ms: when it happened.
        event_id: canonical bytes of the event id; None where the source declares none, then nothing is a duplicate.
        columns: value of each column.
    """

    key: bytes
    event_time_ms: int
    event_id: bytes | None = None
    columns: dict[str, NaiveValue | None] = field(default_factory=dict)


class Row(NamedTuple):
    """What a function sees of an event that counts.

    Attributes:
        event_time_ms: when it happened.
        event_id: its id, b"" for none.
        value: of the feature's column; 1 where the feature has none.
        since_ms: from the event to the read time.
        columns: all of the event's; a few functions read a further one.
        sign: -1 for an event that takes back; only count, sum and mean can do that.
    """

    event_time_ms: int
    event_id: bytes
    value: NaiveValue
    since_ms: int
    columns: NaiveColumns
    sign: int = 1


Rows = Sequence[Row]
"""In any order: no function depends on it."""
