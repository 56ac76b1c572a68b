"""Plans of services with on-demand views: what to read of the store, and what to compute from it and the request.

service     card.mean_30d   checks.amount_ratio = amount / card.mean_30d       (answer order)
stored      card.mean_30d                       a plan as of any service; with what is read and not answered
computed    checks.amount_ratio                 of stored feature 0 and column "amount" of the request
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from featurestore.core.expressions import Expression
from featurestore.core.lowering.request_time import compiled_feature
from featurestore.core.spec import Column, FeatureReference, OnDemandViewSpec, RepoSpec, ValueType
from featurestore.online.answer.schema import ServedView, make_schema
from featurestore.online.answer.service_plan import (
    ComputedSlot,
    OnDemandFunction,
    OnDemandPlan,
    ServicePlan,
    indices,
    make_service_plan,
    slots_of,
)
from featurestore.online.serving_view import ServingView
from featurestore.wire.codecs.view_json import on_demand_hash


def plan_service(
    service: str,
    references: Sequence[FeatureReference],
    join_keys: tuple[Column, ...],
    repo: RepoSpec,
    serving: Mapping[str, ServingView],
    functions: Mapping[str, OnDemandFunction] | None = None,
) -> ServicePlan:
    """Work out a plan; see `make_service_plan`, which knows no on-demand views.

    Args:
        service: name of the feature service, for messages and the schema.
        references: what to answer, in order; each view and feature is in `repo`.
        join_keys: what requests must give; holds every join key of the views.
        repo: the registry.
        serving: what answers for each stream view, by its name.
        functions: by name of the on-demand view; features of a view that needs one and has none are NOT_READY.
    """
    known = {view.name: view for view in repo.on_demand_views}
    asked = [known.get(reference.view) for reference in references]
    on_demand = tuple(dict.fromkeys(view for view in asked if view is not None))
    if not on_demand:
        return make_service_plan(service, references, join_keys, repo, serving)
    computing = {view.name: (functions or {})[view.name] for view in on_demand if view.name in (functions or {})}
    read = _StoredFeatures()
    # What is answered comes first, and what is only read behind it.
    places = [
        read.index(reference.view, reference.feature) if view is None else None
        for reference, view in zip(references, asked, strict=True)
    ]
    needs = {
        at: _needs(view, reference.feature, read, has_function=view.name in computing)
        for at, (reference, view) in enumerate(zip(references, asked, strict=True))
        if view is not None
    }
    stored = make_service_plan(service, read.references, join_keys, repo, serving)
    view_of = {view.name: at for at, view in enumerate(on_demand, start=len(stored.schema.views))}
    slots = slots_of(
        (reference.output_name, _type_of(view, reference.feature), view_of[view.name], False)
        if view is not None
        else _as_stored(reference, stored, place)
        for reference, view, place in zip(references, asked, places, strict=True)
    )
    schema = make_schema(
        service,
        join_keys,
        slots,
        (*stored.schema.views, *(ServedView(view.name, on_demand_hash(view)) for view in on_demand)),
        _request_columns(on_demand),
    )
    schema = replace(schema, event_sources=stored.schema.event_sources)
    computed = [
        ComputedSlot(slots[at], at, need.view, references[at].feature, need.reads, need.request, need.expression)
        for at, need in needs.items()
    ]
    copied = [(place, at) for at, place in enumerate(places) if place is not None]
    return replace(
        stored,
        schema=schema,
        references=tuple(references),
        view_of_feature=indices(slot.view for slot in slots),
        on_demand=_on_demand_plan(stored, copied, computed, computing, on_demand),
    )


def _request_columns(views: Sequence[OnDemandViewSpec]) -> tuple[Column, ...]:
    """What the views read of the request, by name."""
    columns = {column.name: column for view in views for column in view.request_columns}
    return tuple(columns[name] for name in sorted(columns))


def _on_demand_plan(
    stored: ServicePlan,
    copied: Sequence[tuple[int, int]],
    computed: Sequence[ComputedSlot],
    functions: Mapping[str, OnDemandFunction],
    views: Sequence[OnDemandViewSpec],
) -> OnDemandPlan:
    """What is done with what is read; see there."""
    index = {view.name: at for at, view in enumerate(stored.schema.views)}
    return OnDemandPlan(
        stored=stored,
        copied=tuple(copied),
        computed=tuple(computed),
        functions=functions,
        required=frozenset(name for one in computed for name in one.request),
        views_read=tuple(
            tuple(sorted({index[read.view] for read in view.inputs if read.view in index})) for view in views
        ),
    )


class _StoredFeatures:
    """Features that are read of the store, each once, in the order in which they are first wanted."""

    def __init__(self) -> None:
        self._index: dict[tuple[str, str], int] = {}

    def index(self, view: str, feature: str) -> int:
        """Where a feature is among the others."""
        return self._index.setdefault((view, feature), len(self._index))

    @property
    def references(self) -> tuple[FeatureReference, ...]:
        """All of them, under names that no two share."""
        return tuple(FeatureReference(view, feature, f"{view}__{feature}") for view, feature in self._index)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a computed feature needs; see `ComputedSlot`."""

    view: str
    reads: Mapping[str, int]
    request: tuple[str, ...]
    expression: Expression | None


def _needs(view: OnDemandViewSpec, name: str, read: _StoredFeatures, *, has_function: bool) -> _Needs:
    """What to read for a feature; nothing where nothing computes it."""
    feature = next(feature for feature in view.features if feature.name == name)
    inputs = {each.name: each for each in view.inputs}
    if feature.expression:
        compiled = compiled_feature(view, feature)
        names, request, expression = compiled.inputs, compiled.request, compiled.expression
    elif has_function:
        names, request, expression = tuple(inputs), tuple(column.name for column in view.request_columns), None
    else:
        return _Needs(view.name, {}, (), None)
    reads = {each: read.index(inputs[each].view, inputs[each].feature) for each in names}
    return _Needs(view.name, reads, request, expression)


def _type_of(view: OnDemandViewSpec, name: str) -> ValueType:
    """Type of a feature."""
    return next(feature.type for feature in view.features if feature.name == name)


def _as_stored(reference: FeatureReference, stored: ServicePlan, place: int | None) -> tuple[str, ValueType, int, bool]:
    """A feature that is answered as it was read, under its own name."""
    assert place is not None, "it is of a view that is stored"
    slot = stored.schema.features[place]
    return reference.output_name, slot.type, slot.view, slot.zero_when_not_found
