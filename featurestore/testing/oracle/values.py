"""What the naive oracle's functions take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

NaiveValue = int | float | str
"""Value of a column: INT64, BOOL (bool; 0 and 1 where it is no key of a map) and TIMESTAMP (ms) as int, FLOAT64 as
float, STRING as str."""

NaiveAnswer = int | float | str | list[int] | list[float] | list[str] | dict[str, int] | dict[str, float]
"""Value of a feature; lists and maps hold column values, maps by text."""

NaiveRow = tuple[int, bytes, NaiveValue]
"""Event time (ms), event id (b"" for none) and value of an event inside the window whose value is not null."""

NaiveFunction = Callable[[Sequence[NaiveRow], int, Sequence[str]], NaiveAnswer | None]
"""Answer over rows in any order, at a read time (ms), with the function's arguments as text; None is null."""
