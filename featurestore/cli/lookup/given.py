"""What is typed for a lookup, keys, columns of the request and the payment in flight, as columns of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.core.spec import ValueType
    from featurestore.online.answer.schema import ServiceSchema


class MomentType(click.ParamType[int]):
    """ISO 8601 (without a zone: UTC) or milliseconds since 1970, as integer milliseconds; parts of one are cut off."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse one moment."""
        from featurestore.wire.formats.iso8601 import parse_text
        from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, SECONDS_BELOW

        text = str(value)
        is_number = text.removeprefix("-").isdecimal()
        moment_ms = int(text) if is_number else parse_text(text)
        if moment_ms is None:
            self.fail(f'"{text}" is neither ISO 8601 nor milliseconds since 1970', param, ctx)
        if is_number and abs(moment_ms) < SECONDS_BELOW:
            self.fail(f"{text} looks like seconds: give milliseconds since 1970, or ISO 8601", param, ctx)
        if not EVENT_TIME_MS_MIN <= moment_ms <= EVENT_TIME_MS_MAX:
            self.fail(f"{text} is not a moment of the years 1 to 9999 in milliseconds since 1970", param, ctx)
        return moment_ms


def entity_columns(schema: ServiceSchema, given: Sequence[str]) -> dict[str, list[Any]]:
    """Join key or column of the request -> a value for each row; what is given once is so in every row.

    Raises:
        InvalidRequest: a name is neither; where there are no columns the server says so of join keys.
    """
    from featurestore.definitions.problems import suggest

    texts, known = texts_of(given), [column.name for column in (*schema.join_keys, *schema.request_columns)]
    for name in texts:
        if schema.request_columns and name not in known:
            fact = f'"{name}" is no join key of feature service "{schema.service}", and no column of its requests'
            raise InvalidRequest(fact, hint=suggest(name, known))
    columns = {name: [_typed(schema, name, text) for text in found] for name, found in texts.items()}
    return rows_of(columns, {column.name for column in schema.request_columns})


def texts_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Join key or column of the request -> its values, as typed."""
    columns: dict[str, list[str]] = {}
    for name, value in map(_split, given):
        columns.setdefault(name, []).append(value)
    return columns


def rows_of(columns: Mapping[str, list[Any]], of_request: Collection[str] = ()) -> dict[str, list[Any]]:
    """The same with a value for each row; what is given once is so in every row."""
    row_count = max(map(len, columns.values()), default=1)
    for name, values in columns.items():
        if len(values) not in (1, row_count):
            is_column = name in of_request
            counts = f"has {len(values)} values where another has {row_count}"
            raise click.UsageError(
                f'{"column" if is_column else "join key"} "{name}" {counts}: give it one, or one a row'
            )
    return {name: values if len(values) == row_count else values * row_count for name, values in columns.items()}


def event_columns(schema: ServiceSchema, texts: Sequence[str], row_count: int) -> dict[str, dict[str, list[Any]]]:
    """Source -> column -> a value for each row; what is given once is so in every row."""
    from featurestore.definitions.problems import suggest

    events: dict[str, dict[str, list[Any]]] = {}
    sources = {source.name: source for source in schema.event_sources}
    for text in texts:
        name, value = _split(text, "amount=1250")
        source, _, column = name.rpartition(":")
        if not source and len(sources) != 1:
            raise click.UsageError(f'"{text}" does not say of which source: {", ".join(sources) or "there is none"}')
        source = source or next(iter(sources))
        if source not in sources:
            raise InvalidRequest(
                f'feature service "{schema.service}" has no features of source "{source}"',
                hint=suggest(source, list(sources)),
            )
        types = {each.name: each.type for each in (*sources[source].columns, *schema.join_keys)}
        if column not in types:
            raise InvalidRequest(
                f'feature service "{schema.service}" reads no column "{column}" of source "{source}"',
                hint=suggest(column, list(types)),
            )
        events.setdefault(source, {}).setdefault(column, []).append(_event_value(column, types[column], value))
    for columns in events.values():
        for column, values in columns.items():
            if len(values) not in (1, row_count):
                raise click.UsageError(
                    f'"{column}" has {len(values)} values for {row_count} rows: give one, or one a row'
                )
            columns[column] = values if len(values) == row_count else values * row_count
    return events


def _event_value(column: str, value_type: ValueType, text: str) -> str | int | float | None:
    """A value of an event as its column's type."""
    from featurestore.core.spec import ValueType

    if not text:
        return None
    try:
        if value_type is ValueType.BOOL:
            return {"true": 1, "false": 0}[text.lower()]
        if value_type is ValueType.TIMESTAMP:
            return MomentType().convert(text, None, None)
        if value_type is ValueType.INT64:
            return int(text)
        return float(text) if value_type is ValueType.FLOAT64 else text
    except (ValueError, KeyError):
        raise click.UsageError(f'column "{column}" is {value_type.value}, "{text}" is not') from None


def _split(text: str, example: str = "card_id=c-1") -> tuple[str, str]:
    """KEY=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f'"{text}" is not KEY=VALUE, such as {example}')
    return name, value


def _typed(schema: ServiceSchema, name: str, text: str) -> str | int | float | None:
    """A value as the join key's or column's type; the server explains unknown keys."""
    from featurestore.core.spec import ValueType

    keys = {key.name for key in schema.join_keys}
    types = {column.name: column.type for column in schema.request_columns if column.name not in keys}
    if name in types:
        return _value(name, text, types[name])
    is_integer = any(key.name == name and key.type is ValueType.INT64 for key in schema.join_keys)
    if not is_integer:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f'join key "{name}" is an integer, "{text}" is not') from None


def _value(name: str, text: str, value_type: ValueType) -> str | int | float | None:
    """A value of a column of the request; nothing is null."""
    from featurestore.core.spec import ValueType

    if not text:
        return None
    try:
        if value_type is ValueType.INT64:
            return int(text)
        if value_type is ValueType.FLOAT64:
            return float(text)
        if value_type is ValueType.BOOL:
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        raise click.UsageError(f'column "{name}" is of type {value_type.value}, "{text}" is not') from None
    if value_type is ValueType.TIMESTAMP:
        return MomentType().convert(text, None, None)
    return text
