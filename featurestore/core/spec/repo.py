"""A whole repo: its views of all kinds, and the services that ask for their features."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from featurestore.core.spec.access import AccessSpec
from featurestore.core.spec.contracts import Expectation, FreshnessPromise, UsualHours
from featurestore.core.spec.labels import LabelSourceSpec
from featurestore.core.spec.views import Column, ComputedColumn, PlainViewSpec, ValueType, ViewSpec


@dataclass(frozen=True, slots=True)
class OnDemandInput:
    """A feature that an on-demand view reads.

    Attributes:
        name: what its expressions call the feature: its own name, or "view__feature".
        view, feature: where it comes from.
        type: of its values.
    """

    name: str
    view: str
    feature: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """A function of an author's, as the registry has it.

    Attributes:
        name: of the function.
        text: its source.
        mode: "python" (lists in, lists out) or "pandas" (a frame in, a frame out).
        is_by_row: it takes one row at a time, values instead of lists.
    """

    name: str
    text: str
    mode: str
    is_by_row: bool = False


@dataclass(frozen=True, slots=True)
class OnDemandViewSpec:
    """A view that is computed while it is asked for, from features of other views and columns of the request.

    Attributes:
        name: the Feast view's name.
        join_keys: of the views that it reads, in order of first use.
        inputs: what it reads of them; a function's are all that its sources name.
        request_columns: what it reads of the request, by name.
        features: canonical SQL each; the expression is empty where no SQL computes it.
        function: computes the features that no SQL does; None where nothing here can.
    """

    name: str
    join_keys: tuple[Column, ...]
    inputs: tuple[OnDemandInput, ...]
    request_columns: tuple[Column, ...]
    features: tuple[ComputedColumn, ...]
    function: PythonFunction | None = None

    @property
    def is_sql(self) -> bool:
        """Whether SQL computes it."""
        return all(feature.expression for feature in self.features)


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """A feature of a view as a service asks for it.

    Attributes:
        view: name of the view.
        feature: name of the feature within the view.
        output_name: name in the answer; "view__feature" where the plain name would clash.
    """

    view: str
    feature: str
    output_name: str


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A feature service: the ordered feature vector of one model.

    Attributes:
        name: the Feast service's name.
        features: in answer order.
        join_keys: union of its views' join keys, in order of first use.
        shadow: name of the service whose answers to the same requests are logged beside its own; "" for none.
        in_flight: whether features count the payment in flight whose authors do not say; None: as their functions do.
    """

    name: str
    features: tuple[FeatureReference, ...]
    join_keys: tuple[Column, ...]
    shadow: str = ""
    in_flight: bool | None = None


@dataclass(frozen=True, slots=True)
class PinnedView:
    """A version of a stream view that feature services ask for by its number, whatever the view is by now.

    Attributes:
        view: the definition, under the name that services know it by: "card_activity@v2".
        services: names of those that ask for it.
    """

    view: ViewSpec
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepoSpec:
    """A whole compiled registry.

    Attributes:
        project: Feast project name.
        views: windowed stream views, by name.
        plain_views: views that are materialized by Feast, by name.
        services: feature services, by name.
        on_demand_views: views that are computed while they are asked for, by name.
        pinned: versions that services ask for by number, by name.
        expectations: what is expected of the records of the stream views' sources, by source and name.
        usual_hours: what is expected of their hours, by source and measure.
        access: who may do what with all that.
        promises: how fresh stream views are promised to be, by view.
        label_sources: tables of labels, by name.
    """

    project: str
    views: tuple[ViewSpec, ...]
    plain_views: tuple[PlainViewSpec, ...]
    services: tuple[ServiceSpec, ...]
    on_demand_views: tuple[OnDemandViewSpec, ...] = ()
    pinned: tuple[PinnedView, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    usual_hours: tuple[UsualHours, ...] = ()
    access: AccessSpec = field(default_factory=AccessSpec)
    promises: tuple[FreshnessPromise, ...] = ()
    label_sources: tuple[LabelSourceSpec, ...] = ()

    def view(self, name: str) -> ViewSpec | None:
        """The stream view of that name, or the version of one ("card_activity@v2") that is pinned; else None."""
        views = (*self.views, *(one.view for one in self.pinned))
        return next((view for view in views if view.name == name), None)

    def plain_view(self, name: str) -> PlainViewSpec | None:
        """The plain view of that name, or None."""
        return next((view for view in self.plain_views if view.name == name), None)

    def on_demand_view(self, name: str) -> OnDemandViewSpec | None:
        """The on-demand view of that name, or None."""
        return next((view for view in self.on_demand_views if view.name == name), None)

    def columns_of(self, name: str) -> tuple[Column, ...] | None:
        """Name and type of everything that a view of any kind answers; None where there is no such view."""
        view = self.view(name)
        if view is not None:
            return view.answers
        plain = self.plain_view(name)
        if plain is not None:
            return plain.features
        on_demand = self.on_demand_view(name)
        if on_demand is not None:
            return tuple(Column(feature.name, feature.type) for feature in on_demand.features)
        return None

    def counting_as(self, service: ServiceSpec | None) -> RepoSpec:
        """The same with views whose features count the payment in flight as a service has it; None has nothing."""
        if service is None or service.in_flight is None:
            return self
        counts = service.in_flight
        pinned = tuple(replace(one, view=counting(one.view, counts)) for one in self.pinned)
        return replace(self, views=tuple(counting(view, counts) for view in self.views), pinned=pinned)

    def service(self, name: str) -> ServiceSpec | None:
        """The feature service of that name, or None."""
        return next((service for service in self.services if service.name == name), None)


def counting(view: ViewSpec, counts: bool) -> ViewSpec:
    """A view whose features count the payment in flight, or do not, where nobody said so of them."""
    return replace(
        view,
        features=tuple(one if one.fixes_in_flight else replace(one, in_flight=counts) for one in view.features),
    )
