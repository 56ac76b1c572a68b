"""What of an envelope counts: a row that is done, a row that is undone, and where in the database's log that stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from featurestore.core.spec import ValueType

BEFORE, AFTER = "before", "after"
"""The fields of an envelope that hold rows."""

UNDOING = ("u", "d")
DOING = ("c", "r", "u")

FULL = "give the table REPLICA IDENTITY FULL (Postgres), or its log full row images"
"""How a database is made to write what rows were before."""

POSITION_FIELDS: Mapping[str, ValueType] = {
    "lsn": ValueType.INT64,
    "file": ValueType.STRING,
    "pos": ValueType.INT64,
    "row": ValueType.INT64,
    "change_lsn": ValueType.STRING,
    "event_serial_no": ValueType.INT64,
    "scn": ValueType.STRING,
    "rs_id": ValueType.STRING,
    "ssn": ValueType.INT64,
}
"""Fields of an envelope's source that say where a change stands, of all databases."""

_POSITIONS = (("lsn",), ("file", "pos", "row"), ("change_lsn", "event_serial_no"), ("scn", "rs_id", "ssn"))
"""Which of them make a position: of Postgres, of MySQL and MariaDB, of SQL Server and Db2, of Oracle."""

_OF_SNAPSHOT = b"snapshot"
"""Stands for the position of what a snapshot reads: one that is begun again has another place in the log."""


@dataclass(frozen=True, slots=True)
class Envelopes:
    """N payloads, as far as they are changes.

    Attributes:
        mistakes: what is wrong with payloads that are none, or none that can be used, by payload.
        undone, done: payloads that undo or do a row, ascending.
        positions: N positions in the database's log, the same whenever a change is sent again.
        before, after: N rows as payloads of whoever reads rows, b"" where there is none.
    """

    mistakes: Mapping[int, Mistake]
    undone: Sequence[int]
    done: Sequence[int]
    positions: Sequence[bytes]
    before: Sequence[bytes]
    after: Sequence[bytes]

    def rows(self, side: str, numbers: Sequence[int]) -> list[bytes]:
        """The rows of one side of some payloads."""
        rows = self.before if side == BEFORE else self.after
        return [rows[number] for number in numbers]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a payload.

    Attributes:
        detail: of it.
        is_change: it is an envelope, of a change that cannot be used.
    """

    detail: str
    is_change: bool = True


class EnvelopeReader(Protocol):
    """Reads the envelopes of one format."""

    def read(self, payloads: Sequence[bytes]) -> Envelopes:
        """What is in them. Never fails for what a payload holds."""
        ...


def mistake_of(op: str | None, has_before: bool, has_after: bool, position: bytes) -> Mistake | None:
    """Why a change cannot be used; None if it can.

    >>> mistake_of("c", False, True, b"26386904"), mistake_of("u", False, True, b"1").detail[:37]
    (None, 'op is "u", but before is null: give t')
    """
    if op is None:
        return Mistake(
            'has no "op": it is no envelope; take the transformation ExtractNewRecordState away from the connector',
            is_change=False,
        )
    if op == "t":
        return Mistake('op is "t": the table was truncated, and which rows it had is not said; fill the views anew')
    if op == "m":
        return Mistake('op is "m": a message, which is about no row')
    if op not in (*DOING, *UNDOING):
        return Mistake(f'op is "{op:.20}", which is not known')
    if op in UNDOING and not has_before:
        return Mistake(f'op is "{op}", but before is null: {FULL}')
    if op in DOING and not has_after:
        return Mistake(f'op is "{op}", but after is null')
    if not position:
        return Mistake("its source has no position that is known: " + ", or ".join(map("+".join, _POSITIONS)))
    return None


def position_of(op: str | None, found: Callable[[str], object]) -> bytes:
    """Where a change stands in the database's log; b"" where that is not said.

    Args:
        op: of the change.
        found: value of a field of the source, None where it has none.

    >>> position_of("u", {"lsn": 26386904}.get), position_of("d", {"file": "bin.01", "pos": 4, "row": 0}.get)
    (b'26386904', b'bin.01:4:0')
    """
    if op == "r":
        return _OF_SNAPSHOT
    for fields in _POSITIONS:
        if found(fields[0]) is not None:
            return ":".join(str(found(name)) for name in fields if found(name) is not None).encode()
    return b""


class Collected:
    """Takes down what of N payloads counts.

    Args:
        count: N.
    """

    def __init__(self, count: int) -> None:
        self._mistakes: dict[int, Mistake] = {}
        self._undone: list[int] = []
        self._done: list[int] = []
        self._positions = [b""] * count

    def refuse(self, number: int, detail: str) -> None:
        """A payload that is no envelope."""
        self._mistakes[number] = Mistake(detail, is_change=False)

    def take(
        self, number: int, op: str | None, found: Callable[[str], object], *, has_before: bool, has_after: bool
    ) -> None:
        """A payload that is one; arguments as of `mistake_of` and `position_of`."""
        self._positions[number] = position_of(op, found)
        mistake = mistake_of(op, has_before, has_after, self._positions[number])
        if mistake is not None:
            self._mistakes[number] = mistake
            return
        if op in UNDOING:
            self._undone.append(number)
        if op in DOING:
            self._done.append(number)

    def envelopes(self, before: Sequence[bytes], after: Sequence[bytes]) -> Envelopes:
        """All of it, with the rows."""
        return Envelopes(self._mistakes, self._undone, self._done, self._positions, before, after)
