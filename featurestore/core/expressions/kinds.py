"""What an expression's pieces are: column types, and two more that exist only inside an expression."""

from __future__ import annotations

import enum

from featurestore.core.spec import ValueType


class Kind(enum.Enum):
    """Type of a piece; the value is its name in SQL and in messages."""

    INT = "BIGINT"
    FLOAT = "DOUBLE"
    TEXT = "VARCHAR"
    BOOL = "BOOLEAN"
    INSTANT = "TIMESTAMPTZ"
    """A moment, ms UTC: what TIMESTAMP columns hold."""
    LOCAL = "local TIMESTAMP"
    """What a clock on a wall shows, as ms since 1970-01-01T00:00 of that wall: the answer of AT TIME ZONE."""
    NULL = "NULL"
    """The literal NULL, which takes the kind that its place asks for."""


KIND_OF_TYPE = {
    ValueType.INT64: Kind.INT,
    ValueType.FLOAT64: Kind.FLOAT,
    ValueType.STRING: Kind.TEXT,
    ValueType.BOOL: Kind.BOOL,
    ValueType.TIMESTAMP: Kind.INSTANT,
}

TYPE_OF_KIND = {kind: value_type for value_type, kind in KIND_OF_TYPE.items()}
"""Kinds that an expression may end in."""

VALUE_KINDS = (Kind.INT, Kind.FLOAT, Kind.TEXT, Kind.BOOL, Kind.INSTANT, Kind.LOCAL)
"""Kinds that rows can have."""
