"""Entity keys in, matrices of feature values out: the lookup itself, whatever protocol asked for it.

    columns of join keys -> entity keys of each view -> one read of the store -> tiles -> values -> matrices

What an answer looks like is decided by the plan (see `service_plan`), how it is put together by `assembly`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.clock import Clock, Deadline
from featurestore.core.spec import ValueType
from featurestore.errors import (
    DeadlineSpent,
    InvalidRequest,
    InvariantBroken,
    LimitExceeded,
    OnlineStoreDown,
    UnknownJoinKey,
)
from featurestore.online.answer.assembly import Answer, AnswerLimits, Assembly, DistinctReads
from featurestore.online.answer.in_flight.columns import EventColumns
from featurestore.online.answer.in_flight.payments import InFlight
from featurestore.online.answer.on_demand import with_on_demand
from featurestore.online.answer.schema import ServiceSchema
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.online.read.reader import EntityBytes, EntityRead, PlainBytes, PlainRead, Reader
from featurestore.serving.answer_counts import AnswerCounts
from featurestore.serving.request.columns import RequestColumns, typed_columns
from featurestore.serving.request.limits import (
    ELEMENTS_PER_ANSWER_MAX,
    ENTITY_READS_PER_REQUEST_MAX,
    ROWS_PER_REQUEST_MAX,
    STORE_TIMEOUT_MAX_MS,
)
from featurestore.serving.request.steps import LongWork, Steps, StoreRead
from featurestore.serving.sampling.answered import AnsweredRequest
from featurestore.serving.shadow import AskedRequest, Shadow

if TYPE_CHECKING:
    # Brings OpenTelemetry, which a server that traces nothing does without.
    from featurestore.serving.request.traces import Traces

EntityColumns = Mapping[str, Sequence[str] | Sequence[int]]
"""Join key -> one value for each row."""

LIMITS = AnswerLimits(reads_max=ENTITY_READS_PER_REQUEST_MAX, elements_max=ELEMENTS_PER_ANSWER_MAX)
"""Of every answer that this server gives."""

READ_TIME_MS_MAX = 1 << 53
"""Far enough for any calendar, and small enough that no window arithmetic overflows."""


class AnswerSink(Protocol):
    """Who wants to see some of the answers: the feature log's sampler."""

    def takes(self) -> bool:
        """Whether the next answer is wanted; its lanes' checkpoints are read with it."""
        ...

    def add(self, answered: AnsweredRequest) -> None:
        """Take an answer; returns at once."""
        ...


class ReadWitness(Protocol):
    """Who wants to see what an answer is made of: what explains it."""

    def saw(
        self,
        reads: DistinctReads,
        found: Sequence[EntityBytes | PlainBytes],
        as_of_ms: tuple[int, ...],
        in_flight: InFlight | None,
    ) -> None:
        """Take what the store returned, before it is answered from; also where that will be refused."""
        ...

    def answered(self, stored: Answer) -> None:
        """Take the features that are read of the store, before others are computed from them."""
        ...


class FeatureLookup:
    """Answers lookups from the online store.

    Args:
        clock: default read time.
        counts: counts what is answered; for metrics.
        sink: sees a sample of the answers.
        traces: makes spans.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        counts: AnswerCounts | None = None,
        sink: AnswerSink | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._clock = clock
        self._counts = AnswerCounts() if counts is None else counts
        self._sink = sink
        self._traces = traces

    def answer(
        self,
        reader: Reader,
        plan: ServicePlan,
        entities: EntityColumns,
        *,
        deadline: Deadline,
        as_of_ms: Sequence[int] = (),
        with_checkpoint: bool = False,
        request_columns: RequestColumns | None = None,
        events: Mapping[str, EventColumns] | None = None,
        witness: ReadWitness | None = None,
    ) -> Steps[Answer]:
        """Look N entity rows up, in steps.

        Args:
            reader: the store.
            plan: the feature service.
            entities: every join key of the plan, N values each.
            deadline: when to give up.
            as_of_ms: nothing for the clock's time, one read time for all rows, or N.
            with_checkpoint: also answer the checkpoints of the rows' lanes.
            request_columns: what features that are computed on demand read beside the store, N values each.
            events: payments in flight, one a row, by name of their source; their time is the read time.
            witness: sees what was read; no model asks then, so that the answer is neither counted nor logged.

        Raises:
            UnknownJoinKey: a join key is missing or not one of the plan's.
            UnknownRequestColumn: a column of the request is missing or not one of the plan's.
            InvalidRequest: wrong types or lengths; a read time that is not the payment's; see `InFlightPlan.take`.
            LimitExceeded: too many rows or reads.
            AsOfTooOld: an entity's tiles cannot answer that read time.
            DeadlineSpent: no time is left.
            OnlineStoreDown: the store does not answer.
            CorruptData: stored bytes are wrong; the message names the entity key.
        """
        started_ns, given = self._clock.monotonic_ns(), request_columns or {}
        columns = _key_columns(plan.schema, entities)
        row_count = _row_count(plan.schema, columns, given)
        request = typed_columns(plan, given, row_count)
        in_flight = plan.stored.in_flight.take(events, columns, row_count) if events else None
        read_times = _read_times(as_of_ms, row_count, self._clock, in_flight)
        reads = DistinctReads(plan, columns, row_count, LIMITS)
        is_wanted = witness is None and self._sink is not None and self._sink.takes()
        with_checkpoint = with_checkpoint or is_wanted
        is_given = len(as_of_ms) > 0 or in_flight is not None
        asked = AskedRequest(plan, columns, row_count, given, events or {}, read_times, is_given)
        shadow = Shadow.of(asked, reads.wanted, reader, self._clock) if is_wanted else None
        spans = None if self._traces is None else self._traces.lookup(plan.stored, row_count)
        beside = () if shadow is None else shadow.beside
        reading = _read(reader, reads.wanted, beside, deadline, with_checkpoint=with_checkpoint)
        found = yield from (reading if spans is None else spans.read(reading, len(reads.wanted)))
        if witness is not None:
            witness.saw(reads, found, read_times, in_flight)
        assembly = Assembly(
            plan.stored, reads, found, read_times, deadline, is_as_of_given=is_given, in_flight=in_flight
        )
        if plan.on_demand is not None and plan.on_demand.functions:
            yield LongWork()  # nobody knows what authors' functions take
        assembled = assembly.answer if spans is None else partial(spans.assembled, assembly)
        stored = assembled(with_checkpoint=with_checkpoint)
        if witness is not None:
            witness.answered(stored)
        answer = with_on_demand(plan, stored, request)
        if witness is None:
            self._counts.add(plan, answer, self._clock.monotonic_ns() - started_ns)
        if is_wanted and self._sink is not None:
            answered = AnsweredRequest(plan, columns, stored, answer, request, in_flight.columns if in_flight else {})
            self._sink.add(answered if shadow is None else shadow.added_to(answered, found))
        return answer


def _read(
    reader: Reader,
    wanted: Sequence[EntityRead | PlainRead],
    beside: Sequence[EntityRead | PlainRead],
    deadline: Deadline,
    *,
    with_checkpoint: bool,
) -> Steps[list[EntityBytes | PlainBytes]]:
    """The one round trip to the store; what is beside is not worth a second try."""
    both = [*wanted, *beside]
    for may_repeat in (True, False):
        timeout_ms = min(deadline.remaining_ms("reading the online store"), STORE_TIMEOUT_MAX_MS)
        try:
            values = yield StoreRead(reader.groups(both, with_checkpoint=with_checkpoint), timeout_ms)
            return reader.found(both, values, with_checkpoint=with_checkpoint)
        except OnlineStoreDown:
            # A connection that was idle while the store restarted is found dead only now. A second try opens a new
            # one, so that a store that is back does not cost one error a connection.
            if not may_repeat:
                raise
            both = list(wanted)
        except DeadlineSpent as error:
            # The caller may have more patience than we have: then it is the store that is too slow.
            deadline.remaining_ms("the online store answered")
            raise OnlineStoreDown(
                f"the online store did not answer within {STORE_TIMEOUT_MAX_MS:.0f} ms", hint="retry with backoff"
            ) from error
    raise InvariantBroken("the loop above returns or raises")


def _key_columns(schema: ServiceSchema, entities: EntityColumns) -> list[Sequence[str] | Sequence[int]]:
    """The request's columns in the schema's order, checked; at least one row."""
    columns: list[Sequence[str] | Sequence[int]] = []
    for key in schema.join_keys:
        column = entities.get(key.name)
        if column is None:
            raise UnknownJoinKey(
                f'join key "{key.name}" of feature service "{schema.service}" is missing',
                hint=f"send the join keys {_names(schema)}",
            )
        expected: type = str if key.type is ValueType.STRING else int
        if column and not isinstance(column[0], expected):
            raise InvalidRequest(
                f'join key "{key.name}" must be {key.type.value}',
                hint=f'send its values as a list of "{key.type.value}"',
            )
        columns.append(column)
    if len(entities) > len(columns):
        known = {key.name for key in schema.join_keys}
        unknown = ", ".join(f'"{name}"' for name in sorted(set(entities) - known))
        raise UnknownJoinKey(
            f'{unknown} is not a join key of feature service "{schema.service}"',
            hint=f"send the join keys {_names(schema)}",
        )
    _check_lengths(schema, columns)
    return columns


def _check_lengths(schema: ServiceSchema, columns: Sequence[Sequence[str] | Sequence[int]]) -> None:
    """All columns of one length."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) <= 1:
        return
    for key, column in zip(schema.join_keys, columns, strict=True):
        if len(column) != (row_count := lengths[0]):
            raise InvalidRequest(
                f'join key "{key.name}" has {len(column)} values, "{schema.join_keys[0].name}" has {row_count}',
                hint="send one value of every join key for each row",
            )


def _row_count(schema: ServiceSchema, columns: Sequence[Sequence[Any]], given: RequestColumns) -> int:
    """How many rows a request has, between one and the limit.

    Without keys it is one, which is everybody's, unless the request has more to say.
    """
    row_count = len(columns[0]) if columns else len(next(iter(given.values()), (None,)))
    if row_count == 0:
        raise InvalidRequest("the request has no rows", hint=f"send at least one value of {_names(schema)}")
    if row_count > ROWS_PER_REQUEST_MAX:
        raise LimitExceeded(
            f"the request has {row_count} rows, the limit is {ROWS_PER_REQUEST_MAX}",
            hint="split it into several requests",
        )
    return row_count


def _names(schema: ServiceSchema) -> str:
    """The join keys of a service, for hints."""
    return ", ".join(f"{key.name} ({key.type.value})" for key in schema.join_keys)


def _read_times(as_of_ms: Sequence[int], row_count: int, clock: Clock, in_flight: InFlight | None) -> tuple[int, ...]:
    """The read time of all rows, or of each."""
    if not as_of_ms:
        return (clock.now_ms(),) if in_flight is None else _times_in_flight(in_flight, ())
    if len(as_of_ms) not in (1, row_count):
        raise InvalidRequest(
            f"as_of_ms has {len(as_of_ms)} values for {row_count} rows", hint="send none, one, or one for each row"
        )
    if not all(-READ_TIME_MS_MAX < moment < READ_TIME_MS_MAX for moment in as_of_ms):
        raise InvalidRequest("as_of_ms is out of range", hint="send milliseconds since 1970, UTC")
    return tuple(as_of_ms) if in_flight is None else _times_in_flight(in_flight, as_of_ms)


def _times_in_flight(in_flight: InFlight, as_of_ms: Sequence[int]) -> tuple[int, ...]:
    """The times of the payments, which are those of the request if it has any."""
    times_ms = in_flight.event_time_ms
    for row, time_ms in enumerate(times_ms):
        asked_ms = as_of_ms[row if len(as_of_ms) > 1 else 0] if as_of_ms else time_ms
        if asked_ms != time_ms:
            raise InvalidRequest(
                f"as_of_ms is {asked_ms} in row {row}, whose event in flight is of {time_ms}",
                hint="leave as_of_ms out: a row with an event in flight is read at the time of the event",
            )
    return times_ms
