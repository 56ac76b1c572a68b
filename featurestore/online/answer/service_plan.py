"""A feature service ready to answer: everything that does not depend on the request, worked out once.

    references   card.count_1h  merchant.risk  card.mean_1d          (answer order)
    schema       integers[0]    strings[0]     doubles[0]            (FeatureSlot: matrix and row)
    places       lowered features of all stream views, one after another: [3] -> integers[0]; [7] -> doubles[0]
    parts        card: stream views that are stored together; merchant: a plain one, its field 2 -> strings[0]

A plan belongs to one snapshot of registry and generations and is never changed; another snapshot gets another plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from featurestore.core.events import ColumnValues, Int64Array
from featurestore.core.expressions import Expression
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.lowering.view_input import LoweredView
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureReference,
    FeatureSpec,
    PlainViewSpec,
    RepoSpec,
    ValueType,
    ViewSpec,
)
from featurestore.core.view import CompiledView
from featurestore.online.answer.entity_loop.loop import EntityLoop
from featurestore.online.answer.in_flight.payments import InFlightPlan
from featurestore.online.answer.in_flight.reader import ReadByKeys, event_readers
from featurestore.online.answer.scatter import DOUBLE, INTEGER, OTHER, PLACE_COLUMNS
from featurestore.online.answer.schema import (
    COLLECTION_MATRICES,
    MATRIX_OF,
    FeatureSlot,
    Matrix,
    ServedView,
    ServiceSchema,
    make_schema,
)
from featurestore.online.answer.selection import Asked, Selection
from featurestore.online.generation import Generation
from featurestore.online.serving_view import ServingView
from featurestore.wire.codecs.plain_row import PlainField, plain_fields

BEFORE_EVERYTHING_MS = 0
"""Read time at which a view is asked for its answer over no events; any would do."""


@dataclass(frozen=True, slots=True)
class StreamPart:
    """The share of stream views that are stored together: one read of an entity answers them all.

    Attributes:
        views: for each of them its index into the schema's views, and where the lowering has the time of its newest
            event, null for none; None where any event that is stored is one of the view.
        generation: the one that answers.
        selection: what is read of it.
        key_columns: indices into the schema's join keys, in the order that forms the entity key.
    """

    views: tuple[tuple[int, int | None], ...]
    generation: Generation
    selection: Selection
    key_columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlainPart:
    """A plain view's share of the answer.

    Attributes:
        view: index into the schema's views.
        project: the registry's project, part of the stored key.
        spec: the view as registered.
        key_columns: indices into the schema's join keys, in the order that forms the entity key.
        fields: what is read of it.
        targets: for each field (matrix, row of that, index in the schema's features).
    """

    view: int
    project: str
    spec: PlainViewSpec
    key_columns: tuple[int, ...]
    fields: tuple[PlainField, ...]
    targets: tuple[tuple[Matrix, int, int], ...]


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A feature service ready to answer.

    Attributes:
        schema: layout of the answer.
        references: where each feature comes from, in answer order.
        stream_parts, plain_parts: the views that are read.
        lowering: answers the features that the stream parts have, in the order of the parts, each followed by the
            newest events of its views.
        loops: for each stream part, what gathers it in one call; None where Python has to merge some of it.
        places: (K, PLACE_COLUMNS) where features of the lowering go; see `scatter.place_numbers`.
        strings: (feature of the lowering, row of the strings matrix) pairs.
        collections: (feature of the lowering, matrix, row of that matrix) of each list and map.
        view_of_feature: (F,) index into the schema's views.
        not_ready: (P,) indices of features that the serving generations do not have.
        double_features: (D,) index in the schema's features of each row of the doubles matrix.
        integer_count, string_count: rows of these matrices; those of lists and maps are in the schema.
        in_flight: takes payments in flight.
        shadow: answers the same requests for the feature log; None where the service has none.
        on_demand: what is computed from what is read of the store; then all but the schema, the references and
            `view_of_feature` is that of `on_demand.stored`.
    """

    schema: ServiceSchema
    references: tuple[FeatureReference, ...]
    stream_parts: tuple[StreamPart, ...]
    plain_parts: tuple[PlainPart, ...]
    lowering: Lowering
    loops: tuple[EntityLoop | None, ...]
    places: Int64Array
    strings: tuple[tuple[int, int], ...]
    collections: tuple[tuple[int, Matrix, int], ...]
    view_of_feature: Int64Array
    not_ready: Int64Array
    double_features: Int64Array
    integer_count: int
    string_count: int
    in_flight: InFlightPlan
    on_demand: OnDemandPlan | None = None
    shadow: ServicePlan | None = None

    @property
    def stored(self) -> ServicePlan:
        """The plan of what is read of the store."""
        return self if self.on_demand is None else self.on_demand.stored


class OnDemandFunction(Protocol):
    """An author's function: computes features of N rows."""

    def compute(self, inputs: Mapping[str, list[Any]], row_count: int) -> Mapping[str, ColumnValues] | None:
        """Features by name; None where it failed. Never raises for what the author wrote."""
        ...


@dataclass(frozen=True, slots=True)
class ComputedSlot:
    """A feature of the answer that is computed behind the others.

    Attributes:
        slot: its place in the answer.
        at: index in the schema's features.
        view: name of its view.
        feature: its name within the view.
        reads: index, among the features of the stored plan, of what it reads, by the name that it has there.
        request: names of the columns of the request that it reads.
        expression: SQL; None where a function computes it, or nothing does.
    """

    slot: FeatureSlot
    at: int
    view: str
    feature: str
    reads: Mapping[str, int]
    request: tuple[str, ...]
    expression: Expression | None


@dataclass(frozen=True, slots=True)
class OnDemandPlan:
    """What is computed for an answer from features that are read and columns of the request.

    Attributes:
        stored: answers the other features, and those that are only read here.
        copied: (index in the stored schema, index in this one) of each feature of the answer that is stored.
        computed: the others.
        functions: of authors, by name of their view.
        required: names of the columns without which a request cannot be answered.
        views_read: for each on-demand view, in the schema's order, the indices of the views that it reads.
    """

    stored: ServicePlan
    copied: tuple[tuple[int, int], ...]
    computed: tuple[ComputedSlot, ...]
    functions: Mapping[str, OnDemandFunction]
    required: frozenset[str]
    views_read: tuple[tuple[int, ...], ...]


def make_service_plan(
    service: str,
    references: Sequence[FeatureReference],
    join_keys: tuple[Column, ...],
    repo: RepoSpec,
    serving: Mapping[str, ServingView],
) -> ServicePlan:
    """Work out a plan.

    Args:
        service: name of the feature service, for messages and the schema.
        references: what to answer, in order; each view and feature is in `repo`.
        join_keys: what requests must give; holds every join key of the views.
        repo: the registry.
        serving: what answers for each stream view, by its name.
    """
    names = tuple(dict.fromkeys(reference.view for reference in references))
    views = [_view_of(name, repo, serving) for name in names]
    slots = slots_of(_described(reference, names, views) for reference in references)
    key_index = {key.name: index for index, key in enumerate(join_keys)}
    plain_parts: list[PlainPart] = []
    awaited: list[ReadByKeys] = []
    together: dict[tuple[str, tuple[int, ...]], list[_Share]] = {}
    for index, view in enumerate(views):
        keys = tuple(key_index[key.name] for key in view.join_keys)
        mine = [(view.positions.get(references[at].feature), at) for at, slot in enumerate(slots) if slot.view == index]
        ready = [(position, at) for position, at in mine if position is not None]
        if view.plain is not None:
            fields = plain_fields(view.plain.features[position] for position, _ in ready)
            targets = tuple((slots[at].matrix, slots[at].slot, at) for _, at in ready)
            plain_parts.append(PlainPart(index, repo.project, view.plain, keys, fields, targets))
        elif view.serving is not None and ready:
            asked = Asked(view.serving.view, [position for position, _ in ready])
            share = _Share(index, view.serving.generation, asked, [at for _, at in ready])
            together.setdefault((share.generation.keys.stem, keys), []).append(share)
        if view.registered is not None and len(ready) < len(mine):
            awaited.append((_awaited(view.registered, (references[at].feature for p, at in mine if p is None)), keys))
    stream_parts, lowered, streamed = _stream_parts(together)
    schema = make_schema(
        service, join_keys, slots, tuple(ServedView(name, view.hash) for name, view in zip(names, views, strict=True))
    )
    lowering = Lowering(lowered)
    answered = {*(at for _, at in streamed), *(at for part in plain_parts for _, _, at in part.targets)}
    placed = [(of, slots[at]) for of, at in streamed]
    read = [(part.selection, part.key_columns) for part in stream_parts]
    in_flight = InFlightPlan(service, event_readers(read, awaited, join_keys), len(stream_parts))
    liftings = {at: lifting for reader in in_flight.readers for at, lifting in reader.liftings.items()}
    loops = [
        EntityLoop.of(part.selection, merges, with_event, liftings[at])
        for at, (part, merges, with_event) in enumerate(
            zip(stream_parts, lowering.merges, lowering.merges_in_flight, strict=True)
        )
    ]
    return ServicePlan(
        schema=replace(schema, event_sources=in_flight.sources()),
        references=tuple(references),
        stream_parts=tuple(stream_parts),
        plain_parts=tuple(plain_parts),
        lowering=lowering,
        loops=tuple(loops),
        places=_places(streamed, slots),
        strings=tuple((of, slot.slot) for of, slot in placed if slot.matrix is Matrix.STRINGS),
        collections=tuple((of, slot.matrix, slot.slot) for of, slot in placed if slot.matrix in COLLECTION_MATRICES),
        view_of_feature=indices(slot.view for slot in slots),
        not_ready=indices(at for at in range(len(slots)) if at not in answered),
        double_features=schema.features_of[Matrix.DOUBLES],
        integer_count=len(schema.features_of[Matrix.INTEGERS]),
        string_count=len(schema.features_of[Matrix.STRINGS]),
        in_flight=in_flight,
    )


@dataclass(frozen=True, slots=True)
class _Share:
    """A stream view's share of an answer.

    Attributes:
        view: index into the schema's views.
        generation: the one that answers.
        asked: what is read of it.
        features: index, among the plan's references, of each feature that is asked.
    """

    view: int
    generation: Generation
    asked: Asked
    features: list[int]


def _stream_parts(
    together: Mapping[tuple[str, tuple[int, ...]], Sequence[_Share]],
) -> tuple[list[StreamPart], list[LoweredView], list[tuple[int, int]]]:
    """Parts, what they lower, and the pairs (feature of the lowering, index among the references)."""
    parts: list[StreamPart] = []
    lowered: list[LoweredView] = []
    streamed: list[tuple[int, int]] = []
    first = 0
    for (_, keys), shares in together.items():
        generation = shares[0].generation
        selection = Selection(generation.compiled, [share.asked for share in shares])
        selection.prepare()
        presences = [None if at is None else first + at for at in selection.presences]
        views = tuple((share.view, at) for share, at in zip(shares, presences, strict=True))
        parts.append(StreamPart(views, generation, selection, keys))
        lowered.append(selection.lowered)
        streamed += enumerate((at for share in shares for at in share.features), start=first)
        first += len(selection.lowered.outputs)
    return parts, lowered, streamed


@dataclass(frozen=True, slots=True)
class _View:
    """What a plan needs to know of a view, stream or plain.

    Attributes:
        join_keys: in entity key order.
        types: type of each registered feature.
        positions: index, within the answering definition, of each feature that it can answer.
        zeros: features whose answer over no events is 0 or a list, not null.
        serving: what answers; None for plain views and where nothing can.
        plain: the plain view, if it is one.
        registered: the stream view, if it is one.
    """

    join_keys: tuple[Column, ...]
    types: Mapping[str, ValueType]
    positions: Mapping[str, int]
    zeros: frozenset[str] = frozenset()
    serving: ServingView | None = None
    plain: PlainViewSpec | None = None
    registered: ViewSpec | None = None

    @property
    def hash(self) -> str:
        """Hash of the definition that answers, or nothing."""
        return "" if self.serving is None else self.serving.definition_hash


def _view_of(name: str, repo: RepoSpec, serving: Mapping[str, ServingView]) -> _View:
    """Look a view up; a definition with other join keys, or a feature of another type, cannot answer."""
    plain = repo.plain_view(name)
    if plain is not None:
        types = {column.name: column.type for column in plain.features}
        return _View(plain.join_keys, types, {column: index for index, column in enumerate(types)}, plain=plain)
    spec = repo.view(name)
    assert spec is not None, f'definitions/ let a reference to unknown view "{name}" through'
    types = {answer.name: answer.type for answer in spec.answers}
    served = serving.get(name)
    if served is None or served.view.join_keys != spec.join_keys:
        return _View(spec.join_keys, types, {}, registered=spec)
    old = served.view
    positions = {feature.name: at for at, feature in enumerate(old.answers) if types.get(feature.name) is feature.type}
    positions |= _renamed(spec, old)
    alone = CompiledView(old)
    nothing = alone.answer(alone.layout.empty(), BEFORE_EVERYTHING_MS)
    zeros = frozenset(feature for feature, at in positions.items() if not nothing.null[at])
    counting = replace(served, view=_counting_as(spec, old, positions))
    return _View(spec.join_keys, types, positions, zeros, counting, registered=spec)


def _awaited(view: ViewSpec, features: Iterable[str]) -> Selection:
    """What features that no generation answers yet will read of a payment in flight."""
    at = {answer.name: index for index, answer in enumerate(view.answers)}
    selection = Selection(CompiledView(view), [Asked(view, [at[feature] for feature in features])])
    selection.event_inputs.prepare()
    return selection


def _counting_as(spec: ViewSpec, old: ViewSpec, positions: Mapping[str, int]) -> ViewSpec:
    """An older definition whose features count payments in flight as the registered ones do; nothing stored says it."""
    features = list(old.features)
    for feature in spec.features:
        at = positions.get(feature.name)
        if at is not None and at < len(features):
            features[at] = replace(features[at], in_flight=feature.in_flight)
    return replace(old, features=tuple(features))


def _renamed(spec: ViewSpec, old: ViewSpec) -> dict[str, int]:
    """Index, within an older definition, of features that it has under another name."""
    at = {feature: index for index, feature in enumerate(_nameless(old))}
    known = {answer.name for answer in old.answers}
    asked = zip(spec.answers, _nameless(spec), strict=True)
    return {answer.name: at[feature] for answer, feature in asked if answer.name not in known and feature in at}


def _nameless(view: ViewSpec) -> list[FeatureSpec | ComputedColumn]:
    """All that the features of a view are but for their names, in the order of its answers."""
    windowed = [replace(feature, name="", in_flight=False, fixes_in_flight=False) for feature in view.features]
    return [*windowed, *(replace(feature, name="") for feature in view.derived)]


def _described(
    reference: FeatureReference, names: Sequence[str], views: Sequence[_View]
) -> tuple[str, ValueType, int, bool]:
    """Name, type and view of a feature, and whether it is zero when not found."""
    index = names.index(reference.view)
    view = views[index]
    return reference.output_name, view.types[reference.feature], index, reference.feature in view.zeros


def slots_of(features: Iterable[tuple[str, ValueType, int, bool]]) -> tuple[FeatureSlot, ...]:
    """A slot for each (name, type, view, whether it is zero when not found), rows of each matrix in answer order."""
    used = dict.fromkeys(Matrix, 0)
    slots = []
    for name, value_type, view, is_zero in features:
        matrix = MATRIX_OF[value_type]
        slots.append(FeatureSlot(name, value_type, used[matrix], view, is_zero))
        used[matrix] += 1
    return tuple(slots)


def _places(streamed: Sequence[tuple[int, int]], slots: Sequence[FeatureSlot]) -> Int64Array:
    """Where the numbers of each lowered feature go."""
    kinds = {Matrix.INTEGERS: INTEGER, Matrix.DOUBLES: DOUBLE}
    places = [(of, at, kinds.get(slots[at].matrix, OTHER), slots[at].slot) for of, at in streamed]
    return np.array(places, dtype=np.int64).reshape(-1, PLACE_COLUMNS)


def indices(values: Iterable[int]) -> Int64Array:
    """An index array."""
    return np.fromiter(values, dtype=np.int64)
