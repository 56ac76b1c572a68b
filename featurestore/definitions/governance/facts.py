"""What policies may ask of definitions: facts of each source, view, feature and service; unknown ones are null."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.aggregations.parameters import parse_by, parse_call
from featurestore.core.expressions import compile_expression
from featurestore.core.spec import PlainViewSpec, RepoSpec, SourceSpec, ValueType, ViewSpec
from featurestore.core.windows.durations import parse_duration_ms
from featurestore.definitions.compile.expectations import FRESHNESS_TAG
from featurestore.definitions.governance.about import PII_CLASSES, About, about_feature, about_of, pii_columns_of
from featurestore.definitions.problems import Place
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.authors import Authored, authored_in

Fact = str | int | float | bool | None

_TEXT, _WHOLE, _NUMBER, _TRUTH = ValueType.STRING, ValueType.INT64, ValueType.FLOAT64, ValueType.BOOL

ENTITY_BYTES = "entity_bytes"
"""Fact of a view that history alone tells: whoever holds rules against it gives it, where a rule asks."""

_OF_ALL: Mapping[str, ValueType] = {
    "name": _TEXT,
    "owner": _TEXT,
    "on_call": _TEXT,
    "tier": _WHOLE,
    "description": _TEXT,
    "pii": _TEXT,
    "use_case": _TEXT,
    "docs": _TEXT,
}

FACTS: Mapping[str, Mapping[str, ValueType]] = {
    "source": {**_OF_ALL, "topic": _TEXT, "format": _TEXT, "freshness_minutes": _NUMBER, "expectations": _WHOLE},
    "view": {
        **_OF_ALL,
        "source": _TEXT,
        "features": _WHOLE,
        "retention_days": _NUMBER,
        "freshness_minutes": _NUMBER,
        "expected_entities": _WHOLE,
        "stored_fields": _WHOLE,
        ENTITY_BYTES: _NUMBER,
        "is_streamed": _TRUTH,
    },
    "feature": {
        **_OF_ALL,
        "view": _TEXT,
        "type": _TEXT,
        "function": _TEXT,
        "column": _TEXT,
        "window_days": _NUMBER,
        "shown_pii": _TEXT,
    },
    "service": {**_OF_ALL, "features": _WHOLE},
}
"""Kind -> fact -> type. `shown_pii` is the worst class of the columns whose very values a feature shows;
`retention_days` and `window_days` are null for ever; `stored_fields` is how many values a tile of an entity has."""

SHOWING = frozenset(
    {
        *("min", "max", "first", "last", "first_n", "last_n", "first_distinct_n", "last_distinct_n", "mode"),
        *("top_k", "bottom_k", "top_k_by", "bottom_k_by", "approx_heavy_hitters", "histogram"),
    }
)
"""Functions whose answers are values of their column, or have some within."""

_MS_PER_DAY, _MS_PER_MINUTE = 86_400_000, 60_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule is held against.

    Attributes:
        kind: "source", "view", "feature" or "service".
        name: its name; "view:feature" of a feature.
        place: it, for messages.
        facts: by name; a missing one is null.
    """

    kind: str
    name: str
    place: Place
    facts: Mapping[str, Fact]


def subjects_of(spec: RepoSpec, registry: bytes) -> list[Subject]:
    """Everything of a repo that rules are about.

    Args:
        spec: it, compiled.
        registry: the serialized feast.core.Registry that it was compiled from.
    """
    authored = {(one.kind, one.name): one for one in authored_in(registry, spec.project)}
    views = list(_views(spec, authored))
    shown = {one.name: str(one.facts["shown_pii"]) for one in views if one.kind == "feature"}
    return [*_sources(spec, authored), *views, *_on_demand(spec, authored, shown), *_services(spec, authored)]


def _sources(spec: RepoSpec, authored: Mapping[tuple[str, str], Authored]) -> Iterator[Subject]:
    for source in {view.source.name: view.source for view in spec.views}.values():
        said = authored["source", source.name]
        facts = _facts(source.name, about_of(said)) | {"topic": source.topic, "format": source.format}
        facts["freshness_minutes"] = _freshness(said)
        facts["expectations"] = sum(one.source == source.name for one in spec.expectations)
        yield Subject("source", source.name, Place("source", source.name), facts)


def _views(spec: RepoSpec, authored: Mapping[tuple[str, str], Authored]) -> Iterator[Subject]:
    """Stream views and plain ones, and their features."""
    views: Sequence[ViewSpec | PlainViewSpec] = (*spec.views, *spec.plain_views)
    for view in views:
        said = authored["feature view", view.name]
        facts = _facts(view.name, about_of(said)) | {"is_streamed": isinstance(view, ViewSpec)}
        if isinstance(view, ViewSpec):
            retention = view.retention_ms
            facts |= {"source": view.source.name, "features": len(view.answers)}
            facts["expected_entities"] = view.expected_entities or None
            promised = _freshness(said)
            facts["freshness_minutes"] = promised or _freshness(authored["source", view.source.name])
            parts = {(one.function, one.column, one.where) for one in view.features}
            facts["stored_fields"] = len(parts)
        else:
            retention = view.ttl_ms
            facts |= {"source": view.table.source if view.table else None, "features": len(view.features)}
        facts["retention_days"] = None if retention is None else retention / _MS_PER_DAY
        yield Subject("view", view.name, Place("feature view", view.name), facts)
        if isinstance(view, ViewSpec):
            yield from _features(view, said, _column_classes(view.source, authored["source", view.source.name]))
        else:
            for column in view.features:
                pii = about_feature(said, column.name).pii or "none"
                yield _feature(said, column.name, {"view": view.name, "type": str(column.type), "shown_pii": pii})


def _features(view: ViewSpec, said: Authored, classes: Mapping[str, str]) -> Iterator[Subject]:
    """Windowed features, then those derived from them: what those read, they may show."""
    shown = dict[str, str]()
    for one in view.features:
        columns = _shown_columns(one.function, one.column)
        shown[one.name] = _worst([classes.get(column, "none") for column in columns])
        length_ms = one.window.length_ms
        yield _feature(
            said,
            one.name,
            {
                "view": view.name,
                "type": str(one.type),
                "function": one.function,
                "column": one.column,
                "window_days": None if length_ms is None else length_ms / _MS_PER_DAY,
                "shown_pii": shown[one.name],
            },
        )
    types = {one.name: one.type for one in view.answers}
    for derived in view.derived:
        read = compile_expression(derived.expression, types).columns
        shown[derived.name] = _worst([shown.get(name, "none") for name in read])
        facts: dict[str, Fact] = {"view": view.name, "type": str(derived.type), "shown_pii": shown[derived.name]}
        yield _feature(said, derived.name, facts)


def _on_demand(
    spec: RepoSpec, authored: Mapping[tuple[str, str], Authored], shown: Mapping[str, str]
) -> Iterator[Subject]:
    """Views that are computed while they are asked for, and their features: each may show what its view reads."""
    for view in spec.on_demand_views:
        said = authored["on-demand feature view", view.name]
        facts = _facts(view.name, about_of(said)) | {"features": len(view.features), "is_streamed": False}
        yield Subject("view", view.name, Place("on-demand feature view", view.name), facts)
        for one in view.features:
            names = {read.name: f"{read.view}:{read.feature}" for read in view.inputs}
            if one.expression:
                types = {read.name: read.type for read in view.inputs}
                types |= {column.name: column.type for column in view.request_columns}
                columns = compile_expression(one.expression, types).columns
                names = {name: feature for name, feature in names.items() if name in columns}
            worst = _worst([shown.get(feature, "none") for feature in names.values()])
            known: dict[str, Fact] = {"view": view.name, "type": str(one.type), "shown_pii": worst}
            yield _feature(said, one.name, known)


def _services(spec: RepoSpec, authored: Mapping[tuple[str, str], Authored]) -> Iterator[Subject]:
    for service in spec.services:
        facts = _facts(service.name, about_of(authored["feature service", service.name]))
        place = Place("feature service", service.name)
        yield Subject("service", service.name, place, facts | {"features": len(service.features)})


def _feature(said: Authored, name: str, facts: Mapping[str, Fact]) -> Subject:
    known = {**_facts(name, about_feature(said, name)), **facts}
    return Subject("feature", f"{said.name}:{name}", Place("feature view", said.name, name), known)


def _facts(name: str, about: About) -> dict[str, Fact]:
    """What everything has; null where nobody says."""
    texts = {fact: getattr(about, fact) or None for fact in _OF_ALL if fact not in ("name", "tier")}
    return {"name": name, "tier": int(about.tier) if about.tier.isdecimal() else None, **texts}


def _freshness(said: Authored) -> float | None:
    """Minutes that the newest event of a source or view is promised to be old at most."""
    try:
        return parse_duration_ms(said.tags[FRESHNESS_TAG]) / _MS_PER_MINUTE
    except (KeyError, InvalidRequest):
        return None


def _column_classes(source: SourceSpec, said: Authored) -> dict[str, str]:
    """Column -> class; a computed one has the worst of what it reads, unless its author says otherwise."""
    told = pii_columns_of(said.tags)
    classes = dict(told)
    types = {column.name: column.type for column in source.columns}
    types |= {column.name: column.type for column in source.computed}
    for computed in source.computed:  # each behind what it reads
        read = compile_expression(computed.expression, types).columns
        classes.setdefault(computed.name, _worst([classes.get(name, "none") for name in read]))
    return classes


def _shown_columns(function: str, column: str | None) -> list[str]:
    """Columns whose values are in a function's answers."""
    inner, by, _ = parse_by(function)
    name, _ = parse_call(inner)
    return [one for one in (by, column if name in SHOWING else None) if one]


def _worst(classes: Sequence[str]) -> str:
    """The class of what shows values of all these."""
    return max(classes, key=lambda one: PII_CLASSES.index(one) if one in PII_CLASSES else 0, default="none")
