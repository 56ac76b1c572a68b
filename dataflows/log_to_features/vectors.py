"""Feature vectors of entities, as the lookup server would answer them, once the store has what is asked for.

key, needed offsets ──> lookup with checkpoints ──> behind? look again ──> Vector
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import xxhash

from dataflows.log_to_features.changes import Place
from featurestore.clock import Clock, Deadline
from featurestore.core.aggregations.catalog import resolve
from featurestore.core.expressions import Expression, compile_expression
from featurestore.core.lowering.derived import derived_feature
from featurestore.core.spec import FeatureReference, RepoSpec, ValueType, ViewSpec
from featurestore.errors import AsOfTooOld, CorruptData, InvalidRequest, LimitExceeded
from featurestore.online.answer.assembly import Answer, DistinctReads
from featurestore.online.answer.in_flight.payments import InFlight
from featurestore.online.answer.on_demand import column_of
from featurestore.online.answer.service_plan import ServicePlan
from featurestore.online.read.reader import EntityBytes, PlainBytes
from featurestore.online.store import OnlineStore
from featurestore.serving.catalog.catalog import CatalogSnapshot
from featurestore.serving.http.lookups import named_features
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.limits import ENTITY_READS_PER_REQUEST_MAX
from featurestore.serving.request.steps import run_blocking
from featurestore.wire.entity_key import EntityValue, decode_key
from featurestore.wire.store_layout import decode_checkpoint

ROWS_TOGETHER_MAX = 256
"""Entities of one read of the store; of a service with many views, fewer."""

STORE_PATIENCE_MS = 10_000
"""For one read; an outage is waited for by whoever asks."""

_PLAIN_STATUSES = frozenset({"PRESENT", "NULL_VALUE"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entity to look up.

    Attributes:
        key: of the service.
        needs: next offsets that the store must have reached, by partition.
        not_before_ms: its earliest read time: behind its newest event, which may be of this moment or of a clock that
            is ahead, and not before what was read of it already.
    """

    key: bytes
    needs: Mapping[Place, int]
    not_before_ms: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """What a service answers of an entity.

    Attributes:
        key: of the service.
        entity: join keys by name.
        features: values by name; None where null.
        statuses: of features that are neither there nor null, by name: "NOT_FOUND".
        as_of_ms: the read time.
        event_time_ms: newest event behind the values, None for none.
        definitions: hash of the definition of each view, by name.
        positions: next offset that is in the values, by partition.
        digest: of all that does not change with the read time alone.
        next_change_ms: a read time before which nothing else changes by itself; None if never.
        is_wanted: whether the condition holds.
    """

    key: bytes
    entity: Mapping[str, EntityValue]
    features: Mapping[str, Any]
    statuses: Mapping[str, str]
    as_of_ms: int
    event_time_ms: int | None
    definitions: Mapping[str, str]
    positions: Mapping[Place, int]
    digest: int
    next_change_ms: int | None
    is_wanted: bool


@dataclass(frozen=True, slots=True)
class Vectors:
    """What came of some entities.

    Attributes:
        found: those that the store has.
        behind: those of which it does not have yet what is needed.
        refused: why, of those whose bytes are damaged.
    """

    found: Sequence[Vector]
    behind: Sequence[Wanted]
    refused: Sequence[tuple[Wanted, CorruptData | AsOfTooOld]]


class VectorReader:
    """Looks entities of one service up.

    Args:
        snapshot: what can be served.
        service: its name.
        store: the online store.
        clock: the read time.
        where: SQL over the features, "" for all entities.
        follows_windows: tell when values change by themselves.

    Raises:
        InvalidRequest: the service reads columns of a request, or the condition is not sound.
    """

    def __init__(
        self,
        snapshot: CatalogSnapshot,
        service: str,
        store: OnlineStore,
        clock: Clock,
        *,
        where: str,
        follows_windows: bool,
    ) -> None:
        plan = snapshot.plan_of_service(service)
        if plan.on_demand is not None and plan.on_demand.required:
            column = min(plan.on_demand.required)
            raise InvalidRequest(
                f'feature service "{service}" reads the column "{column}" of a request, and here is none',
                hint="publish a service without request-time features",
            )
        self._plan, self._snapshot, self._store, self._clock = plan, snapshot, store, clock
        self._condition = condition_of(plan, where)
        self._follows_windows = follows_windows
        self._lookup = FeatureLookup(clock)
        parts = len(plan.stored.stream_parts) + len(plan.stored.plain_parts)
        self._rows_together = max(1, min(ROWS_TOGETHER_MAX, ENTITY_READS_PER_REQUEST_MAX // max(1, parts)))
        ages = ageing_features(plan, snapshot.repo)
        self._lasting = [slot.name for slot in plan.schema.features if slot.name not in ages]
        self._definitions = {view.name: view.definition_hash for view in plan.schema.views if view.definition_hash}
        self._streamed = [
            (index, frozenset(spec.source.topics))
            for index, view in enumerate(plan.schema.views)
            if (spec := snapshot.repo.view(view.name) or _pinned(snapshot.repo, view.name)) is not None
        ]

    @property
    def not_ready(self) -> list[str]:
        """Views that nothing serves yet."""
        views = self._plan.schema.views
        return [views[index].name for index, _ in self._streamed if not views[index].definition_hash]

    def read(self, wanted: Sequence[Wanted]) -> Vectors:
        """Look entities up, each as of now.

        Raises:
            OnlineStoreDown: the store does not answer.
        """
        found: list[Vector] = []
        behind: list[Wanted] = []
        refused: list[tuple[Wanted, CorruptData | AsOfTooOld]] = []
        for begin in range(0, len(wanted), self._rows_together):
            rows = wanted[begin : begin + self._rows_together]
            try:
                answers = self._read(rows)
            except (CorruptData, AsOfTooOld, LimitExceeded):
                # One that is damaged, or has very long lists, keeps the others from nothing.
                answers = []
                for row in rows:
                    try:
                        answers += self._read([row])
                    except (CorruptData, AsOfTooOld) as error:
                        refused.append((row, error))
            found += [one for one in answers if isinstance(one, Vector)]
            behind += [one for one in answers if isinstance(one, Wanted)]
        return Vectors(found, behind, refused)

    def _read(self, rows: Sequence[Wanted]) -> list[Vector | Wanted]:
        """One read of the store: a vector of each row, or the row itself where the store is behind."""
        plan, keys = self._plan, self._plan.schema.join_keys
        entities = [decode_key(row.key, keys) for row in rows]
        columns: dict[str, Any] = {key.name: [one[at] for one in entities] for at, key in enumerate(keys)}
        now_ms = self._clock.now_ms()
        as_of_ms = [max(now_ms, row.not_before_ms) for row in rows]
        witness = _Windows(plan) if self._follows_windows else None
        steps = self._lookup.answer(
            self._snapshot.reader,
            plan,
            columns,
            deadline=Deadline.after(self._clock, STORE_PATIENCE_MS),
            as_of_ms=as_of_ms,
            with_checkpoint=True,
            witness=witness,
        )
        answer = run_blocking(steps, self._store)
        features = named_features(plan.schema, answer)
        is_wanted = self._wanted(answer)
        answers: list[Vector | Wanted] = []
        for index, row in enumerate(rows):
            positions = self._positions(answer, index)
            if any(positions.get(place, 0) < offset for place, offset in row.needs.items()):
                answers.append(row)
                continue
            values = {name: column.values[index] for name, column in features.items()}
            statuses = {name: column.statuses[index] for name, column in features.items()}
            newest_ms = int(answer.event_time_ms[:, index].max(initial=0))
            lasting = [(values[name], statuses[name]) for name in self._lasting]
            answers.append(
                Vector(
                    key=row.key,
                    entity=dict(zip((key.name for key in keys), entities[index], strict=True)),
                    features=values,
                    statuses={name: one for name, one in statuses.items() if one not in _PLAIN_STATUSES},
                    as_of_ms=as_of_ms[index],
                    event_time_ms=newest_ms or None,
                    definitions=self._definitions,
                    positions=positions,
                    digest=xxhash.xxh3_64_intdigest(msgspec.msgpack.encode(lasting)),
                    next_change_ms=None if witness is None else witness.next_change_ms(index, as_of_ms[index]),
                    is_wanted=is_wanted[index],
                )
            )
        return answers

    def _wanted(self, answer: Answer) -> list[bool]:
        """Whether the condition holds, of each row."""
        if self._condition is None:
            return [True] * answer.row_count
        columns = {
            slot.name: column_of(slot, at, answer)
            for at, slot in enumerate(self._plan.schema.features)
            if slot.name in self._condition.columns
        }
        verdicts = self._condition.evaluate(columns, answer.row_count)
        return [bool(one) for one in np.asarray(verdicts.values).tolist()]

    def _positions(self, answer: Answer, row: int) -> dict[Place, int]:
        """How far each partition had been read when a row was: by the view that is furthest behind."""
        positions: dict[Place, int] = {}
        for index, topics in self._streamed:
            checkpoints = answer.checkpoints[index]
            known = _positions_of(checkpoints[row]) if checkpoints else {}
            for place, offset in known.items():
                if place[0] in topics:
                    positions[place] = min(offset, positions.get(place, offset))
        return positions


class _Windows:
    """Sees what the store returned, and tells when its windows change."""

    def __init__(self, plan: ServicePlan) -> None:
        self._parts = plan.stored.stream_parts
        self._reads: DistinctReads | None = None
        self._found: Sequence[EntityBytes | PlainBytes] = ()

    def saw(
        self,
        reads: DistinctReads,
        found: Sequence[EntityBytes | PlainBytes],
        as_of_ms: tuple[int, ...],
        in_flight: InFlight | None,
    ) -> None:
        """See ReadWitness."""
        self._reads, self._found = reads, found

    def answered(self, stored: Answer) -> None:
        """See ReadWitness."""

    def next_change_ms(self, row: int, as_of_ms: int) -> int | None:
        """The earliest of all parts."""
        moments: list[int] = []
        assert self._reads is not None, "the lookup has shown what it read"
        for part, rows in zip(self._parts, self._reads.rows, strict=False):  # stream parts come first
            entity = self._found[rows[row]]
            assert isinstance(entity, EntityBytes), "of a stream view"
            table = part.selection.decode(entity.body, entity.head)
            moment = part.selection.compiled.next_change_ms(table, as_of_ms)
            if moment is not None:
                moments.append(moment)
        return min(moments, default=None)


def condition_of(plan: ServicePlan, where: str) -> Expression | None:
    """A condition over a service's features.

    Raises:
        InvalidRequest: it is no condition, or reads what the service does not have.
    """
    if not where:
        return None
    types = {slot.name: slot.type for slot in plan.schema.features if slot.type in _READABLE}
    condition = compile_expression(where, types)
    if not condition.is_condition:
        raise InvalidRequest(f'"{where}" is not true or false', hint='write a condition, such as "card_count_5m > 5"')
    return condition


def ageing_features(plan: ServicePlan, repo: RepoSpec) -> frozenset[str]:
    """Names of features that change with the read time alone; none of them is a change by itself."""
    stored = [_ages(reference, repo) for reference in plan.stored.references]
    if plan.on_demand is None:
        names = zip(stored, plan.schema.features, strict=True)
        return frozenset(slot.name for ages, slot in names if ages)
    features = plan.schema.features
    found = {features[to].name for of, to in plan.on_demand.copied if stored[of]}
    found |= {one.slot.name for one in plan.on_demand.computed if any(stored[at] for at in one.reads.values())}
    return frozenset(found)


def _ages(reference: FeatureReference, repo: RepoSpec) -> bool:
    """Whether a stream view's feature, or one that it is derived from, does."""
    view = repo.view(reference.view) or _pinned(repo, reference.view)
    if view is None:
        return False
    for feature in view.features:
        if feature.name == reference.feature:
            return resolve(feature.function).ages
    derived = next((one for one in view.derived if one.name == reference.feature), None)
    if derived is None:
        return False
    reads = derived_feature(derived, view.features).reads.values()
    return any(resolve(view.features[at].function).ages for at, _ in reads)


def _pinned(repo: RepoSpec, name: str) -> ViewSpec | None:
    """A version that a service pins."""
    return next((one.view for one in repo.pinned if one.view.name == name), None)


_READABLE = frozenset({ValueType.INT64, ValueType.FLOAT64, ValueType.STRING, ValueType.BOOL, ValueType.TIMESTAMP})


@lru_cache(maxsize=1_024)
def _positions_of(checkpoint: bytes | None) -> Mapping[Place, int]:
    """Next offsets of a lane; those of a lane are asked for many times."""
    return decode_checkpoint(checkpoint).next_offsets()
