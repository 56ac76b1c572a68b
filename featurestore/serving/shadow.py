"""What another feature service would have answered to the same request: for the feature log, never for the caller.

    request ── keys of the service, and of its shadow ── one StoreRead ──> answer ──> caller
                                                             └─ bytes of both ──> the log's thread ──> shadow's answer

Both are of one state of the store where they can be: what the shadow needs is read in the same round trip if it lies in
lanes that are read anyway, and if the request stays a small one by that. The rest is read by the log's thread, later.
Whatever goes wrong with a shadow is counted, and nothing else comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from featurestore.clock import Clock, Deadline
from featurestore.core.lowering.request_time import RequestValue
from featurestore.errors import FeatureStoreError
from featurestore.online.answer.assembly import Assembly, DistinctReads, KeyColumns
from featurestore.online.answer.in_flight.columns import EventColumns
from featurestore.online.answer.on_demand import with_on_demand
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.online.read.reader import EntityBytes, EntityRead, PlainBytes, PlainRead, Reader
from featurestore.serving.request.columns import typed_columns
from featurestore.serving.request.steps import SMALL_KEYS_MAX
from featurestore.serving.sampling.answered import AnsweredRequest

SHADOW_MS_MAX = 10_000
"""Longest that one shadow's answer may take in the log's thread."""

_Read = EntityRead | PlainRead
_Found = EntityBytes | PlainBytes


@dataclass(frozen=True, slots=True)
class AskedRequest:
    """What was asked of the service; see `FeatureLookup.answer`.

    Attributes:
        plan: the service.
        columns: values of its join keys.
        row_count: N.
        request: columns of the request, as sent.
        events: payments in flight, as sent.
        as_of_ms: the read time of all rows, or of each.
        is_as_of_given: whether the caller chose it.
    """

    plan: ServicePlan
    columns: KeyColumns
    row_count: int
    request: Mapping[str, Sequence[RequestValue]]
    events: Mapping[str, EventColumns]
    as_of_ms: tuple[int, ...]
    is_as_of_given: bool


class Shadow:
    """One request to the shadow of a service.

    Args:
        plan: the shadow.
        asked: of the service.
        wanted: what the service reads.
        reader: the store.
        clock: bounds the work.

    Attributes:
        beside: what to read together with that.
    """

    def __init__(
        self, plan: ServicePlan, asked: AskedRequest, wanted: Sequence[_Read], reader: Reader, clock: Clock
    ) -> None:
        self._plan, self._asked, self._reader, self._clock = plan, asked, reader, clock
        at = {key.name: index for index, key in enumerate(asked.plan.schema.join_keys)}
        self._columns = [asked.columns[at[key.name]] for key in plan.schema.join_keys]
        self._refusal: FeatureStoreError | None = None
        self._wanted: list[_Read] = []
        try:
            self._reads = DistinctReads(plan, self._columns, asked.row_count)
            self._wanted = self._reads.wanted
        except FeatureStoreError as error:  # a key that only the shadow has, too long
            self._refusal = error
        self._found: dict[tuple[object, ...], _Found] = {}
        self._of_service = wanted
        self.beside = self._beside(wanted)

    @classmethod
    def of(cls, asked: AskedRequest, wanted: Sequence[_Read], reader: Reader, clock: Clock) -> Shadow | None:
        """The shadow of what was asked, if the service has one."""
        plan = asked.plan.shadow
        return None if plan is None else cls(plan, asked, wanted, reader, clock)

    def _beside(self, wanted: Sequence[_Read]) -> list[_Read]:
        """What of the shadow's reads costs those of the service nothing that can be noticed."""
        known = set(map(_name_of, wanted))
        more = [read for read in self._wanted if _name_of(read) not in known]
        more = self._reader.in_same_lanes(more, wanted)
        groups = self._reader.groups([*wanted, *more], with_checkpoint=True)
        return more if sum(map(len, groups)) <= SMALL_KEYS_MAX else []

    def added_to(self, answered: AnsweredRequest, found: Sequence[_Found]) -> AnsweredRequest:
        """What the service answered, with its shadow.

        Args:
            answered: what that is.
            found: what was read, of the service, and beside unless that had to be left out.
        """
        mine, wanted = set(map(_name_of, self._wanted)), [*self._of_service, *self.beside]
        for read, one in zip(wanted, found, strict=False):
            if _name_of(read) in mine:
                self._found[_name_of(read)] = one
        kept = sum(len(part) for one in self._found.values() for part in one if part is not None)
        return replace(answered, shadow=self.answer, shadow_bytes=kept)

    def answer(self) -> AnsweredRequest:
        """What the shadow answers; in the log's thread.

        Raises:
            FeatureStoreError: as `FeatureLookup.answer`.
        """
        if self._refusal is not None:
            raise self._refusal
        plan, asked = self._plan, self._asked
        missing = [read for read in self._wanted if _name_of(read) not in self._found]
        if missing:
            found = self._reader.read(missing, with_checkpoint=True)
            self._found.update(zip(map(_name_of, missing), found, strict=True))
        known = {column.name for column in plan.schema.request_columns}
        given = {name: values for name, values in asked.request.items() if name in known}
        request = typed_columns(plan, given, asked.row_count)
        events = self._events()
        in_flight = plan.stored.in_flight.take(events, self._columns, asked.row_count) if events else None
        assembly = Assembly(
            plan.stored,
            self._reads,
            [self._found[_name_of(read)] for read in self._wanted],
            asked.as_of_ms,
            Deadline.after(self._clock, SHADOW_MS_MAX),
            is_as_of_given=asked.is_as_of_given,
            in_flight=in_flight,
        )
        stored = assembly.answer(with_checkpoint=True)
        own_events = {} if in_flight is None else in_flight.columns
        return AnsweredRequest(
            plan,
            self._columns,
            stored,
            with_on_demand(plan, stored, request),
            request,
            own_events,
            shadow_of=asked.plan.schema.service,
        )

    def _events(self) -> dict[str, EventColumns]:
        """The payments in flight of the sources that the shadow reads, with the columns that these have."""
        known: dict[str, set[str]] = {}
        for reader in self._plan.stored.in_flight.readers:
            known.setdefault(reader.source.name, set()).update(reader.columns)
        return {
            source: {name: column for name, column in columns.items() if name in known[source]}
            for source, columns in self._asked.events.items()
            if source in known
        }


def _name_of(read: _Read) -> tuple[object, ...]:
    """What tells a read from others."""
    if isinstance(read, PlainRead):
        return read.project, read.view.name, read.key
    return read.generation.keys.stem, read.key
