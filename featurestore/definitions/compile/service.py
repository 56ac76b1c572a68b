"""Compile feature services: the ordered feature vector, its output names and its join keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.spec import Column, FeatureReference, OnDemandViewSpec, PlainViewSpec, ServiceSpec, ViewSpec
from featurestore.definitions import limits
from featurestore.definitions.compile.window import read_in_flight
from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.errors.near_names import near_names
from featurestore.wire.feast.registry import RegisteredProjection, RegisteredService

SHADOW_TAG = "shadow"
"""Tag of a feature service: the name of another one, whose answers are logged beside its own."""

LABEL_VIEW = "labelView"
"""What Feast calls a projection of a LabelView."""


@dataclass(frozen=True, slots=True)
class Servable:
    """What services need to know of a view.

    Attributes:
        features: names, in the view's order.
        join_keys: typed join keys.
        unreadable: fields that only the Feast SDK serves.
        reason: why only the Feast SDK serves the view as a whole; "" if it is served here.
        is_broken: whether the view has mistakes of its own.
        request_columns: what it reads of the request.
    """

    features: tuple[str, ...] = ()
    join_keys: tuple[Column, ...] = ()
    unreadable: frozenset[str] = frozenset()
    reason: str = ""
    is_broken: bool = False
    request_columns: tuple[Column, ...] = ()

    @classmethod
    def of_view(cls, view: ViewSpec) -> Servable:
        """A sound stream view."""
        return cls(tuple(answer.name for answer in view.answers), view.join_keys)

    @classmethod
    def of_plain_view(cls, view: PlainViewSpec, unreadable: frozenset[str]) -> Servable:
        """A sound plain view."""
        return cls(tuple(feature.name for feature in view.features), view.join_keys, unreadable)

    @classmethod
    def of_on_demand_view(cls, view: OnDemandViewSpec) -> Servable:
        """A sound on-demand view."""
        names = tuple(feature.name for feature in view.features)
        return cls(names, view.join_keys, request_columns=view.request_columns)

    @classmethod
    def unserved(cls, reason: str) -> Servable:
        """A view that is right, but served by the Feast SDK only."""
        return cls(reason=reason)

    @classmethod
    def broken(cls) -> Servable:
        """A view whose own mistakes are reported already."""
        return cls(is_broken=True)


@dataclass(frozen=True, slots=True)
class ServiceCompiler:
    """Compiles the services of one project.

    Attributes:
        servables: every registered view, by name, and the versions that services ask for, as "card_activity@v2".
        problems: where mistakes go.
    """

    servables: Mapping[str, Servable]
    problems: ProblemList

    def compile(self, service: RegisteredService) -> ServiceSpec | str:
        """The spec, or why only the Feast SDK serves it; "" where a mistake (of its own or of a view) stands."""
        found_before = len(self.problems.found)
        place = Place("feature service", service.name)
        unserved: list[str] = []
        has_broken_view = False
        picked: list[tuple[RegisteredProjection, str]] = []
        join_keys: dict[str, Column] = {}
        for projection in service.projections:
            view = self._view_of(projection)
            servable = self.servables.get(view)
            if servable is None and projection.kind == LABEL_VIEW:
                unserved.append(f'feature view "{projection.view}" is a label view')
                continue
            if servable is None:
                near = near_names(projection.view, self.servables)
                remedy = suggest(projection.view, near or self.servables)
                if projection.features:  # of a view that the author has made, and not of a name in a text
                    known = f"{remedy} If not, " if near else ""
                    remedy = f"{known}assign it to a name in a module: Feast registers no others"
                self.problems.add(place, f'feature view "{projection.view}" is not registered', remedy)
                continue
            has_broken_view |= servable.is_broken
            reason = unserved_reason(projection, servable, is_version=self._has_version(projection))
            if reason:
                unserved.append(reason)
            elif not servable.is_broken:
                picked += [(projection, name) for name in self._features(projection, servable, place)]
                unserved += self._add_join_keys(join_keys, servable, view)
        if not service.projections or not all(one.features or self._has_version(one) for one in service.projections):
            unserved.append("it has no features, or a view without any")
        self._check_size(picked, place)
        self._check_request(service, picked, place)
        references = self._references(picked, place)
        in_flight = read_in_flight(service.tags, place, self.problems)
        if len(self.problems.found) > found_before or has_broken_view:
            return ""
        if unserved:
            return "; ".join(dict.fromkeys(unserved))
        return ServiceSpec(
            service.name, references, tuple(join_keys.values()), service.tags.get(SHADOW_TAG, ""), in_flight
        )

    def _view_of(self, projection: RegisteredProjection) -> str:
        """Name of what is asked for: the view, or the version of it."""
        return version_name(projection) if self._has_version(projection) else projection.view

    def _has_version(self, projection: RegisteredProjection) -> bool:
        """Whether a version is asked for of a view that has some."""
        return projection.version is not None and version_name(projection) in self.servables

    def _features(self, projection: RegisteredProjection, servable: Servable, place: Place) -> list[str]:
        """Names in answer order: the author's for a selection, the view's own for all of it.

        Feast gives a whole view's fields back in no particular order, so only a selection can be taken at its word.
        """
        # Feast has the join keys among the fields of the versions that it keeps.
        keys = {column.name for column in servable.join_keys} if self._has_version(projection) else set()
        asked = [name for name in projection.features if name not in keys]
        for name in asked:
            if name not in servable.features:
                known = suggest(name, servable.features)
                self.problems.add(place.of(name), f'feature view "{projection.view}" has no such feature', known)
        for name, count in Counter(asked).items():
            if count > 1:
                self.problems.add(place.of(name), f'it is listed {count} times of "{projection.view}"', "list it once")
        if not asked or set(asked) == set(servable.features):
            return list(servable.features)
        return [name for name in asked if name in servable.features]

    def _add_join_keys(self, join_keys: dict[str, Column], servable: Servable, view: str) -> list[str]:
        """Add a view's; what two entities of one join key disagree about."""
        return [
            f'join key "{column.name}" is {column.type} in feature view "{view}" and {known.type} before'
            for column in servable.join_keys
            if (known := join_keys.setdefault(column.name, column)).type is not column.type
        ]

    def _check_size(self, picked: list[tuple[RegisteredProjection, str]], place: Place) -> None:
        if len(picked) > limits.SERVICE_FEATURES_MAX:
            fact = f"it has {len(picked)} features, at most {limits.SERVICE_FEATURES_MAX} are supported"
            self.problems.add(place, fact, "split the service")

    def _check_request(
        self, service: RegisteredService, picked: list[tuple[RegisteredProjection, str]], place: Place
    ) -> None:
        """A column of the request has one type, and no name of a feature: the Feast SDK keeps both in one table."""
        columns: dict[str, Column] = {}
        for projection in service.projections:
            servable = self.servables.get(projection.view, Servable())
            for column in servable.request_columns:
                known = columns.setdefault(column.name, column)
                if known.type is not column.type:
                    fact = (
                        f'column "{column.name}" of its request is {known.type} in one view, {column.type} in another'
                    )
                    self.problems.add(place, fact, "declare one RequestSource for both")
        for projection, name in picked:
            if name in columns:
                fact = f'feature "{name}" of "{projection.view}" has the name of a column of its request'
                self.problems.add(place, fact, "rename one: the Feast SDK takes the one for the other")

    def _references(self, picked: list[tuple[RegisteredProjection, str]], place: Place) -> tuple[FeatureReference, ...]:
        """Output names: the feature's own, "view__feature" for all that share one (as Feast's full names)."""
        uses = Counter(name for _, name in picked)
        references = tuple(
            FeatureReference(
                view=self._view_of(projection),
                feature=name,
                output_name=name if uses[name] == 1 else f"{self._shown_name(projection)}__{name}",
            )
            for projection, name in picked
        )
        for output_name, count in Counter(reference.output_name for reference in references).items():
            if count > 1:
                fact = f"{count} features would have that name in the answer"
                self.problems.add(place.of(output_name), fact, "rename one, or give one view an alias by with_name()")
        return references

    def _shown_name(self, projection: RegisteredProjection) -> str:
        """What a view is called where two have a feature of one name; as Feast does."""
        name = projection.alias or projection.view
        return f"{name}@v{projection.version}" if self._has_version(projection) else name


def check_shadows(
    services: Sequence[ServiceSpec],
    registered: Mapping[str, str],
    on_demand_views: Sequence[OnDemandViewSpec],
    problems: ProblemList,
) -> None:
    """A shadow answers what its service is asked: it is another service, and wants no more of a request.

    Args:
        services: those that are served.
        registered: names of all, and why the Feast SDK alone serves them, if it does.
        on_demand_views: what reads columns of requests.
        problems: where mistakes go.
    """
    known = {service.name: service for service in services}
    read = {view.name: view.request_columns for view in on_demand_views}

    def asks_for(service: ServiceSpec) -> dict[str, Column]:
        columns = [column for one in service.features for column in read.get(one.view, ())]
        return {f'column "{column.name}"': column for column in columns} | {
            f'join key "{key.name}"': key for key in service.join_keys
        }

    for service in services:
        if not service.shadow:
            continue
        place, shadow = Place("feature service", service.name), known.get(service.shadow)
        if shadow is None:
            if reason := registered.get(service.shadow):
                fact = f'its shadow "{service.shadow}" is served by the Feast SDK only: {reason}'
                problems.add(place, fact, "name a service that is served here")
            elif service.shadow not in registered:  # else its own mistakes are reported
                fact = f'its shadow "{service.shadow}" is not registered'
                problems.add(place, fact, suggest(service.shadow, sorted(known.keys() - {service.name})))
            continue
        if shadow is service:
            problems.add(place, "it is its own shadow", "name another service, or leave the tag out")
        mine = asks_for(service)
        for what, column in asks_for(shadow).items():
            if mine.get(what) != column:
                problems.add(
                    place,
                    f'its shadow "{shadow.name}" wants {what} ({column.type}), which requests to it do not have',
                    f'ask "{service.name}" for something that reads it, or take that out of the shadow',
                )


def version_name(projection: RegisteredProjection) -> str:
    """Such as "card_activity@v2"."""
    return f"{projection.view}@v{projection.version}"


def unserved_reason(projection: RegisteredProjection, servable: Servable, *, is_version: bool = False) -> str:
    """Why only the Feast SDK serves what is taken of a view; "" if it is served here.

    Args:
        projection: what is taken.
        servable: the view, or the version of it.
        is_version: whether it is a version.
    """
    view = f'feature view "{projection.view}"'
    if servable.reason:
        return f"{view} {servable.reason}"
    if projection.join_key_map:
        return f"{view} is joined under other keys (with_join_key_map)"
    if projection.version is not None and not is_version:
        return f"{view} is pinned to version {projection.version}"
    unreadable = sorted(servable.unreadable.intersection(projection.features))
    if unreadable:
        return f'{view} has "{unreadable[0]}" of a type that is not served'
    return ""
