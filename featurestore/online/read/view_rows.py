"""From what the store holds of one entity to one row of a view's features: values, statuses, event time.

stream view    body, head --tiles--> windows at the read time --+
plain view     stored values --ttl---------------------------- +--> ViewRow, features in the order asked for
nothing yet    ------------------------------------------------+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from featurestore.core.spec import SCALAR_TYPES, PlainViewSpec, ValueType, ViewSpec
from featurestore.core.view import ViewAnswer
from featurestore.errors import AsOfTooOld, CorruptData
from featurestore.online.generations import Generation
from featurestore.online.read.reader import EntityBytes, EntityRead, PlainBytes, PlainRead
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.codecs.plain_row import StoredValue, decode_values

_MS_PER_SECOND = 1_000
_NEVER_MS = 0


class FieldStatus(IntEnum):
    """What a value is, numbered as feast.serving.FieldStatus."""

    PRESENT = 1
    NULL_VALUE = 2
    NOT_FOUND = 3
    OUTSIDE_MAX_AGE = 4


class UnixSeconds(int):
    """A TIMESTAMP feature as Feast has it: whole seconds."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A list or map feature; what it may hold follows from its type, which an empty one does not show.

    Attributes:
        type: INT64_LIST, FLOAT64_LIST, STRING_LIST, INT64_MAP or FLOAT64_MAP.
        elements: a list of numbers or texts, or a dict from text to number.
    """

    type: ValueType
    elements: Any


RowValue = StoredValue | UnixSeconds | Collection | None


@dataclass(frozen=True, slots=True)
class ViewRow:
    """F features of one entity, in the order asked for.

    Attributes:
        values: None where there is none; a count beside NOT_FOUND is 0.
        statuses: of each value.
        event_time_ms: newest event time behind the values, 0 where there is none.
    """

    values: Sequence[RowValue]
    statuses: Sequence[FieldStatus]
    event_time_ms: int


class ViewRows(Protocol):
    """Reads rows of one view."""

    def read(self, key: bytes) -> EntityRead | PlainRead:
        """What to read for an entity key."""
        ...

    def row(self, key: bytes, found: EntityBytes | PlainBytes, now_ms: int) -> ViewRow:
        """The row, from what was found.

        Raises:
            AsOfTooOld, CorruptData: the message names view and entity key.
        """
        ...


class StreamRows:
    """Rows of a windowed stream view.

    Args:
        generation: the one that answers.
        wanted: name and registered type of each feature; one that the generation does not have is NOT_FOUND.
    """

    def __init__(self, generation: Generation, wanted: Mapping[str, ValueType | None]) -> None:
        self._generation = generation
        positions = {answer.name: at for at, answer in enumerate(generation.view.answers)}
        types = {answer.name: answer.type for answer in generation.view.answers}
        self._sources = [
            (positions[name], types[name]) if name in positions and types[name] is value_type else None
            for name, value_type in wanted.items()
        ]

    def read(self, key: bytes) -> EntityRead:
        """See ViewRows."""
        return EntityRead(self._generation, key)

    def row(self, key: bytes, found: EntityBytes | PlainBytes, now_ms: int) -> ViewRow:
        """See ViewRows."""
        assert isinstance(found, EntityBytes), "a stream view is read as body and head"
        compiled = self._generation.compiled
        try:
            answer = compiled.answer(decode_entity(compiled, found.body, found.head), now_ms)
        except (AsOfTooOld, CorruptData) as error:
            raise _named(error, self._generation.view.name, key) from error
        return self._row(answer)

    def _row(self, answer: ViewAnswer) -> ViewRow:
        """Pick the wanted features."""
        columns: dict[ValueType, list[int] | list[float]] = {
            ValueType.INT64: (ints := answer.ints.tolist()),
            ValueType.BOOL: ints,
            ValueType.TIMESTAMP: ints,
            ValueType.FLOAT64: answer.floats.tolist(),
        }
        null = answer.null.tolist()
        null_status = FieldStatus.NULL_VALUE if answer.found else FieldStatus.NOT_FOUND
        value_status = FieldStatus.PRESENT if answer.found else FieldStatus.NOT_FOUND
        values: list[RowValue] = []
        statuses: list[FieldStatus] = []
        for source in self._sources:
            if source is None or null[source[0]]:
                values.append(None)
                statuses.append(FieldStatus.NOT_FOUND if source is None else null_status)
                continue
            at, value_type = source
            raw: Any = columns[value_type][at] if value_type in columns else answer.objects[at]
            if value_type in SCALAR_TYPES:
                convert = _CONVERSIONS.get(value_type)
                values.append(raw if convert is None else convert(int(raw)))
            else:
                values.append(Collection(value_type, raw))
            statuses.append(value_status)
        return ViewRow(values, statuses, answer.newest_event_time_ms)


class PlainRows:
    """Rows of a plain view.

    Args:
        project: Feast project.
        view: name of the view.
        wanted: names of its features.
        ttl_ms: age after which values are too old to serve; None never.
    """

    def __init__(self, project: str, view: str, wanted: Sequence[str], ttl_ms: int | None) -> None:
        self._project = project
        self._view = PlainViewSpec(view, (), (), ttl_ms)
        self._wanted = tuple(wanted)

    def read(self, key: bytes) -> PlainRead:
        """See ViewRows."""
        return PlainRead(self._project, self._view, key)

    def row(self, key: bytes, found: EntityBytes | PlainBytes, now_ms: int) -> ViewRow:
        """See ViewRows."""
        assert isinstance(found, PlainBytes), "a plain view is read as one value"
        if found.value is None:
            return missing_row(len(self._wanted))
        try:
            stored = decode_values(found.value)
        except CorruptData as error:
            raise _named(error, self._view.name, key) from error
        ttl_ms = self._view.ttl_ms
        if ttl_ms is not None and now_ms - stored.event_time_ms > ttl_ms:
            count = len(self._wanted)
            return ViewRow([None] * count, [FieldStatus.OUTSIDE_MAX_AGE] * count, stored.event_time_ms)
        values = [stored.values.get(name) for name in self._wanted]
        statuses = [FieldStatus.NULL_VALUE if value is None else FieldStatus.PRESENT for value in values]
        return ViewRow(values, statuses, stored.event_time_ms)


def missing_row(count: int) -> ViewRow:
    """The row of an entity of which nothing is stored."""
    return ViewRow([None] * count, [FieldStatus.NOT_FOUND] * count, _NEVER_MS)


def unstreamed_row(view: ViewSpec, wanted: Sequence[str]) -> ViewRow:
    """The row of a stream view that was never streamed: counts and sums are 0, as over no events."""
    generation = Generation("", view, 0, "")
    types = {answer.name: answer.type for answer in view.answers}
    rows = StreamRows(generation, {name: types.get(name) for name in wanted})
    return rows.row(b"", EntityBytes(None, None, None), _NEVER_MS)


def _named(error: AsOfTooOld | CorruptData, view: str, key: bytes) -> AsOfTooOld | CorruptData:
    """The same error, naming view and entity key."""
    text = key.decode(errors="backslashreplace")
    return type(error)(
        f'{error.message} (feature view "{view}", entity key "{text}")', detail=error.detail, hint=error.hint
    )


_CONVERSIONS: Mapping[ValueType, Callable[[int], RowValue]] = {
    ValueType.BOOL: bool,
    ValueType.TIMESTAMP: lambda moment_ms: UnixSeconds(moment_ms // _MS_PER_SECOND),
}
"""What a stream view's number is as a row's value, where it is not the number itself."""
