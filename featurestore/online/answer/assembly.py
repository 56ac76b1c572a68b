"""From what the store returned to the matrices of an answer.

    rows     c-1,m-7   c-1,m-9   c-2,m-7            N = 3
    reads    card c-1, card c-2, merchant 7, 9      each (view, entity key) once
    values   windows merged for each (read, read time), lowered all at once, scattered into (feature, row) matrices

Nothing here loops over the features of a stream view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurestore.clock import Deadline
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.lowering.lowering import LoweredFeatures
from featurestore.core.tiles.ranges import Gathered
from featurestore.errors import AsOfTooOld, CorruptData, CorruptTile, InvariantBroken, LimitExceeded
from featurestore.online.answer.entity_loop.loop import NOTHING, UNKNOWN
from featurestore.online.answer.in_flight.payments import InFlight
from featurestore.online.answer.part_times import PartTimes
from featurestore.online.answer.scatter import give_statuses, place_numbers
from featurestore.online.answer.schema import Cell, FeatureStatus, Matrix
from featurestore.online.answer.selection import EventsInFlight
from featurestore.online.answer.service_plan import PlainPart, ServicePlan, StreamPart
from featurestore.online.read.reader import EntityBytes, EntityRead, PlainBytes, PlainRead
from featurestore.wire.codecs.plain_row import decode_plain
from featurestore.wire.entity_key import EntityValue, fingerprint

KeyColumns = Sequence[Sequence[EntityValue]]
"""For each join key of the schema, one value for each row."""

_Named = TypeVar("_Named", AsOfTooOld, CorruptData, AsOfTooOld | CorruptData)

_PRESENT, _NOT_FOUND = int(FeatureStatus.PRESENT), int(FeatureStatus.NOT_FOUND)

ROWS_LOWERED_TOGETHER_MAX = 64
"""Rows whose lists and maps are made before they are counted; states are compact, and what they expand to is not."""

ANSWERS_PER_DEADLINE_CHECK = 32
"""Entities computed between two looks at the clock: about a millisecond of work."""


@dataclass(frozen=True, slots=True)
class Answer:
    """N rows of a feature service, laid out as the plan's schema says.

    Attributes:
        row_count: N.
        doubles: (D, N), NaN where null.
        integers: (I, N), 0 where null.
        strings: S x N texts, feature-major, empty where null.
        objects: for each matrix of objects that the schema uses, S x N values likewise, None where null.
        statuses: (F, N) of FeatureStatus.
        null: (F, N) True where there is no value; a count beside NOT_FOUND is 0 and not null.
        as_of_ms: the read time of all rows, or of each.
        event_time_ms: (V, N) newest event time behind each view's values, 0 where there is none.
        checkpoints: (V) lists of N raw lane checkpoints; empty for plain views and unless asked for.
    """

    row_count: int
    doubles: Float64Array
    integers: Int64Array
    strings: list[str]
    objects: dict[Matrix, list[Cell]]
    statuses: NDArray[np.uint8]
    null: BoolArray
    as_of_ms: tuple[int, ...]
    event_time_ms: Int64Array
    checkpoints: list[list[bytes | None]]


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How large one answer may be; None is no limit.

    Attributes:
        reads_max: distinct (view, entity key) reads.
        elements_max: elements of all lists and maps.
    """

    reads_max: int | None = None
    elements_max: int | None = None


NO_LIMITS = AnswerLimits()
"""For a caller in the same process, who pays for what is asked."""


class DistinctReads:
    """The distinct reads that N rows of a plan need.

    Args:
        plan: the feature service.
        columns: values of its join keys.
        row_count: N.
        limits: how large the answer may be.

    Attributes:
        wanted: what to read, each (view, entity key) once.
        row_count: N.
        rows: for each part of the plan (stream parts first), the index into `wanted` of each row.

    Raises:
        LimitExceeded: too many reads, or a key is too long.
    """

    def __init__(
        self, plan: ServicePlan, columns: KeyColumns, row_count: int, limits: AnswerLimits = NO_LIMITS
    ) -> None:
        self.limits = limits
        self.wanted: list[EntityRead | PlainRead] = []
        self.rows: list[list[int]] = []
        self.row_count = row_count
        keys_of = plan.schema.entity_keys
        for part in plan.stream_parts:
            self._add([EntityRead(part.generation, key) for key in keys_of(part.key_columns, columns, row_count)])
        for plain in plan.plain_parts:
            keys = keys_of(plain.key_columns, columns, row_count)
            self._add([PlainRead(plain.project, plain.spec, key) for key in keys])
        if limits.reads_max is not None and len(self.wanted) > limits.reads_max:
            raise LimitExceeded(
                f"the request needs {len(self.wanted)} reads of the store, the limit is {limits.reads_max}",
                hint="split it into several requests",
            )

    def _add(self, reads: Sequence[EntityRead] | Sequence[PlainRead]) -> None:
        """Append one part's reads, repeated keys once."""
        if self.row_count == 1:
            self.rows.append([len(self.wanted)])
            self.wanted += reads
            return
        at: dict[bytes, int] = {}
        rows = []
        for read in reads:
            if read.key not in at:
                at[read.key] = len(self.wanted)
                self.wanted.append(read)
            rows.append(at[read.key])
        self.rows.append(rows)


class Assembly:
    """Builds one answer; used once.

    Args:
        plan: the feature service.
        reads: what was wanted.
        found: what the store returned, in the order of `reads.wanted`.
        as_of_ms: the read time of all rows, or of each.
        deadline: when to give up.
        is_as_of_given: whether the caller chose the read time. Plain values that are newer are then not found; at the
            server's own time they are, whatever the clock of the machine that wrote them.
        in_flight: the payments of the rows, at their read times; None without.
    """

    def __init__(
        self,
        plan: ServicePlan,
        reads: DistinctReads,
        found: Sequence[EntityBytes | PlainBytes],
        as_of_ms: tuple[int, ...],
        deadline: Deadline,
        *,
        is_as_of_given: bool,
        in_flight: InFlight | None = None,
    ) -> None:
        self._plan = plan
        self._reads = reads
        self._limits = reads.limits
        self._found = found
        self._as_of_ms = as_of_ms
        self._deadline = deadline
        self._is_as_of_given = is_as_of_given
        self._in_flight = in_flight
        count = self._row_count = reads.row_count
        schema = plan.schema
        self._doubles = np.zeros((len(plan.double_features), count))
        self._integers = np.zeros((plan.integer_count, count), dtype=np.int64)
        self._strings = [""] * (plan.string_count * count)
        self._objects: dict[Matrix, list[Cell]] = {
            matrix: [None] * (slots * count) for matrix, slots in schema.object_counts.items()
        }
        self._elements = 0
        self._null = np.empty((len(schema.features), count), dtype=np.bool_)
        self._null.fill(True)
        self._event_time_ms = np.zeros((len(schema.views), count), dtype=np.int64)
        self._view_status = np.empty((len(schema.views), count), dtype=np.uint8)
        self._view_status.fill(_NOT_FOUND)
        self._computed = 0
        self._times: PartTimes | None = None

    def answer(self, *, with_checkpoint: bool, times: PartTimes | None = None) -> Answer:
        """All matrices.

        Args:
            with_checkpoint: with the checkpoints of the rows' lanes.
            times: is told when each part is worked at.

        Raises:
            AsOfTooOld: an entity's tiles cannot answer its read time.
            DeadlineSpent: no time is left.
            LimitExceeded: lists and maps have too many elements.
            CorruptData: bytes of the store are wrong; names the entity key.
        """
        self._times = times
        parts = len(self._plan.stream_parts)
        if parts:
            self._fill_streams()
        for index, (plain, rows) in enumerate(zip(self._plan.plain_parts, self._reads.rows[parts:], strict=True)):
            if times is None:
                self._fill_plain(plain, rows)
                continue
            with times.of(parts + index):
                self._fill_plain(plain, rows)
        plan, statuses = self._plan, np.empty(self._null.shape, dtype=np.uint8)
        give_statuses(
            plan.view_of_feature,
            plan.double_features,
            plan.not_ready,
            self._view_status,
            self._null,
            self._doubles,
            statuses,
        )
        return Answer(
            row_count=self._row_count,
            doubles=self._doubles,
            integers=self._integers,
            strings=self._strings,
            objects=self._objects,
            statuses=statuses,
            null=self._null,
            as_of_ms=self._as_of_ms,
            event_time_ms=self._event_time_ms,
            checkpoints=self._checkpoints() if with_checkpoint else [],
        )

    def _fill_streams(self) -> None:
        """Fill all rows at once; where there are lists and maps, some at a time."""
        count = self._row_count
        step = ROWS_LOWERED_TOGETHER_MAX if self._plan.collections else count
        as_of_ms = np.empty(count, dtype=np.int64)
        as_of_ms[:] = self._as_of_ms
        for begin in range(0, count, step):
            self._fill_rows(slice(begin, min(begin + step, count)), as_of_ms)

    def _fill_rows(self, span: slice, as_of_ms: Int64Array) -> None:
        """Merge the windows of every view for some rows, then lower all of them at once."""
        plan, lowering = self._plan, self._plan.lowering
        merged = lowering.gathered(span.stop - span.start)
        for index, (part, rows) in enumerate(zip(plan.stream_parts, self._reads.rows, strict=False)):
            if self._times is None:
                self._gather(index, part, rows, span, merged)
                continue
            with self._times.of(index):
                self._gather(index, part, rows, span, merged)
        try:
            lowered = lowering.lower(merged, as_of_ms[span])
        except UnicodeDecodeError as error:
            raise self._unreadable_text(span) from error
        self._tell_views_apart(span, lowered)
        if self._in_flight is not None:
            self._find_views_in_flight(span, self._in_flight.of_parts)
        place_numbers(
            plan.places,
            span.start,
            lowered.ints,
            lowered.floats,
            lowered.null,
            self._integers,
            self._doubles,
            self._null,
        )
        for of, to in plan.strings:
            for row, value in enumerate(lowered.objects[of], start=span.start):
                if value is not None:
                    self._strings[to * self._row_count + row] = str(value)
        for of, matrix, to in plan.collections:
            first = to * self._row_count
            for row, value in enumerate(lowered.objects[of], start=span.start):
                self._put_collection(matrix, first + row, value)

    def _put_collection(self, matrix: Matrix, cell: int, value: Any) -> None:
        """Place one list or map; None is null."""
        if value is None:
            return
        self._objects[matrix][cell] = value
        self._elements += len(value)
        elements_max = self._limits.elements_max
        if elements_max is not None and self._elements > elements_max:
            raise LimitExceeded(
                f"the lists and maps of the answer have more than {elements_max} elements",
                hint="ask for fewer rows at once, or for shorter lists",
            )

    def _gather(self, at: int, part: StreamPart, rows: Sequence[int], span: slice, merged: Gathered) -> None:
        """Merge one part's windows for some rows; rows that share entity key and read time share the work.

        A row with a payment in flight shares it with none: it sees its own and no other.
        """
        lowering, loop, first = self._plan.lowering, self._plan.loops[at], span.start
        events = None if self._in_flight is None else self._in_flight.of_parts[at]
        known: dict[tuple[int, int], int] = {}
        for row, read in enumerate(rows[span], start=first):
            as_of_ms = self._as_of_ms[row] if len(self._as_of_ms) > 1 else self._as_of_ms[0]
            event = b""
            if events is not None and (events.is_event is None or events.is_event[row]):
                event = events.rows[row]
            as_row = row if event else known.setdefault((read, as_of_ms), row)
            if as_row != row:
                lowering.gather_same(at, merged, row - first, as_row - first)
                for view, _ in part.views:
                    self._view_status[view, row] = self._view_status[view, as_row]
                    self._event_time_ms[view, row] = self._event_time_ms[view, as_row]
                continue
            self._give_up_when_late()
            found = self._found[read]
            assert isinstance(found, EntityBytes)
            newest_ms = UNKNOWN
            if loop is not None:
                newest_ms = loop.gather(found.body, found.head, as_of_ms, merged, row - first, event)
            if newest_ms == UNKNOWN:
                own = events if event else None
                newest_ms = self._gather_step_by_step(at, read, row, merged, row - first, events=own)
            if newest_ms == NOTHING:
                if not event:
                    lowering.gather_nothing(at, merged, row - first)
                continue
            for view, _ in part.views:
                self._view_status[view, row] = _PRESENT
                self._event_time_ms[view, row] = newest_ms

    def _gather_step_by_step(
        self, at: int, read: int, row: int, merged: Gathered, to_row: int, *, events: EventsInFlight | None
    ) -> int:
        """As `EntityLoop.gather`, whatever the part and the bytes are.

        Raises:
            AsOfTooOld: see `Selection.reach`; names the entity key.
            CorruptData: see `Selection.decode`, likewise.
        """
        found, selection, lowering = self._found[read], self._plan.stream_parts[at].selection, self._plan.lowering
        assert isinstance(found, EntityBytes)
        try:
            if events is not None:
                table, in_flight = selection.decode_in_flight(found.body, found.head, events, row)
                lowering.gather_in_flight(at, table, in_flight.bounds, merged, to_row)
                return NOTHING if in_flight.newest_event_time_ms is None else in_flight.newest_event_time_ms
            table = selection.decode(found.body, found.head)
            reach = selection.reach(table, self._as_of_ms[row] if len(self._as_of_ms) > 1 else self._as_of_ms[0])
        except (AsOfTooOld, CorruptData) as error:
            raise self._named(error, read) from error
        if reach is None:
            return NOTHING
        lowering.gather(at, table, reach.bounds, merged, to_row)
        return reach.newest_event_time_ms

    def _tell_views_apart(self, span: slice, lowered: LoweredFeatures) -> None:
        """Of views that are stored together, an entity's events may be those of some only."""
        for part in self._plan.stream_parts:
            for view, newest in part.views:
                if newest is not None:
                    is_absent = lowered.null[newest]
                    self._view_status[view, span] = np.where(
                        is_absent, FeatureStatus.NOT_FOUND, FeatureStatus.PRESENT
                    ).astype(np.uint8)
                    self._event_time_ms[view, span] = lowered.ints[newest]

    def _find_views_in_flight(self, span: slice, of_parts: Sequence[EventsInFlight | None]) -> None:
        """A payment in flight is an event of the entity, if it is one of the view."""
        for part, events in zip(self._plan.stream_parts, of_parts, strict=True):
            if events is not None:
                for (view, _), is_event in zip(part.views, events.is_of_view, strict=True):
                    are_mine = slice(None) if is_event is None else is_event[span]
                    self._view_status[view, span][are_mine] = FeatureStatus.PRESENT

    def _fill_plain(self, part: PlainPart, rows: Sequence[int]) -> None:
        """Copy one plain view's values; they are few, so one by one."""
        for row, read in enumerate(rows):
            found = self._found[read]
            assert isinstance(found, PlainBytes)
            if found.value is None:
                continue
            self._give_up_when_late()
            try:
                values, event_time_ms = decode_plain(part.fields, found.value)
            except CorruptData as error:
                raise self._named(error, read) from error
            as_of_ms = self._as_of_ms[row] if len(self._as_of_ms) > 1 else self._as_of_ms[0]
            if self._is_as_of_given and event_time_ms > as_of_ms:
                continue
            self._event_time_ms[part.view, row] = event_time_ms
            if part.spec.ttl_ms is not None and as_of_ms - event_time_ms > part.spec.ttl_ms:
                self._view_status[part.view, row] = FeatureStatus.OUTSIDE_MAX_AGE
                continue
            self._view_status[part.view, row] = _PRESENT
            value: Any
            for value, (matrix, slot, at) in zip(values, part.targets, strict=True):
                if value is None:
                    continue
                self._null[at, row] = False
                if matrix is Matrix.STRINGS:
                    self._strings[slot * self._row_count + row] = str(value)
                elif matrix is Matrix.DOUBLES:
                    self._doubles[slot, row] = value
                elif matrix is Matrix.INTEGERS:
                    self._integers[slot, row] = value
                elif matrix is Matrix.AS_STORED:
                    self._objects[matrix][slot * self._row_count + row] = value
                else:
                    self._put_collection(matrix, slot * self._row_count + row, value)

    def _checkpoints(self) -> list[list[bytes | None]]:
        """For each view of the schema, the raw checkpoint of each row's lane."""
        checkpoints: list[list[bytes | None]] = [[] for _ in self._plan.schema.views]
        for part, rows in zip(self._plan.stream_parts, self._reads.rows, strict=False):
            found = [self._found[read] for read in rows]
            of_rows = [each.checkpoint for each in found if isinstance(each, EntityBytes)]
            for view, _ in part.views:
                checkpoints[view] = of_rows
        return checkpoints

    def _give_up_when_late(self) -> None:
        """Look at the clock now and then."""
        if self._computed % ANSWERS_PER_DEADLINE_CHECK == 0:
            self._deadline.remaining_ms("computing the answer")
        self._computed += 1

    def _unreadable_text(self, span: slice) -> CorruptData:
        """The error for text that is not UTF-8, naming the first entity that has some."""
        for part, rows in zip(self._plan.stream_parts, self._reads.rows, strict=False):
            for row, read in enumerate(rows[span], start=span.start):
                found = self._found[read]
                assert isinstance(found, EntityBytes)
                as_of_ms = self._as_of_ms[row] if len(self._as_of_ms) > 1 else self._as_of_ms[0]
                try:
                    # A payment in flight was text when it came.
                    part.selection.answer(part.selection.decode(found.body, found.head), as_of_ms)
                except UnicodeDecodeError as error:
                    return self._named(CorruptTile("stored text is not UTF-8", detail=str(error)), read)
        raise InvariantBroken("text could be read one by one, but not together")

    def _named(self, error: _Named, read: int) -> _Named:
        """The same error, naming view and entity; it may go to a log, so not by its key."""
        wanted = self._reads.wanted[read]
        title = wanted.generation.view.title if isinstance(wanted, EntityRead) else f'feature view "{wanted.view.name}"'
        named = f"{error.message} ({title}, entity {fingerprint(wanted.key)})"
        return type(error)(named, detail=error.detail, hint=error.hint)
