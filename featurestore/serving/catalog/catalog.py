"""What can be served now: registry and generations, watched, and swapped as one immutable snapshot.

    registry file / SQL  --changed?--> RepoSpec --+
                                                  +--> Snapshot (plans are made on first use) --> requests
    store's generations  --changed?--> serving ---+

A request takes the snapshot once and keeps it, so it never sees half of a change. A registry that cannot be read or
compiled leaves the old snapshot in place, and a store that does not answer leaves the old generations: both are shown
by the health service and the metrics, and mended by the next poll that succeeds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from featurestore.core.compiled import load_all
from featurestore.core.spec import (
    Column,
    FeatureReference,
    OnDemandViewSpec,
    PlainViewSpec,
    RepoSpec,
    ServiceSpec,
    ViewSpec,
)
from featurestore.core.spec.access import AccessSpec
from featurestore.definitions.registry import Registry
from featurestore.errors import (
    FeatureStoreError,
    InvalidRequest,
    LimitExceeded,
    OnlineStoreDown,
    UnknownFeatureService,
)
from featurestore.errors.near_names import suggest
from featurestore.online.answer.on_demand_plan import plan_service
from featurestore.online.answer.service_plan import OnDemandFunction, ServicePlan
from featurestore.online.eviction import StoreMemory
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.read.serving_generations import ServedViews, look
from featurestore.online.read.store_status import read_checkpoints
from featurestore.online.serving_view import ServingView, pinned_views
from featurestore.online.store import OnlineStore
from featurestore.serving.request.limits import CACHED_PLANS_MAX, FEATURES_PER_REQUEST_MAX, POLL_SECONDS
from featurestore.wire.codecs.view_json import base_name

_log = logging.getLogger(__name__)

_List: TypeAlias = tuple[tuple[str, ...], bool]
"""An ad-hoc list of "view:feature" texts, and whether it is answered under full names."""


@dataclass(frozen=True, slots=True)
class CatalogSnapshot:
    """One consistent view of what can be served.

    Attributes:
        repo: the compiled registry.
        serving: what answers for each stream view that is served, and for each version that is pinned.
        lane_count: number of lanes that the store is laid out in.
        reader: reads the store.
        functions: of authors, by name of the on-demand view that they compute.
    """

    repo: RepoSpec
    serving: Mapping[str, ServingView]
    lane_count: int
    reader: Reader = field(compare=False)
    functions: Mapping[str, OnDemandFunction] = field(default_factory=dict, compare=False)
    # Apart, so that no client's lists can drive out the plans of services.
    _of_services: dict[str, ServicePlan] = field(default_factory=dict, compare=False)
    _of_lists: dict[_List, ServicePlan] = field(default_factory=dict, compare=False)

    def plan_of_service(self, name: str) -> ServicePlan:
        """The plan of a registered feature service.

        Raises:
            UnknownFeatureService: with near names.
        """
        plan = self._of_services.get(name)
        if plan is None:
            service = self.repo.service(name)
            if service is None:
                names = [each.name for each in self.repo.services]
                raise _not_registered("feature service", name, names)
            plan = self._make(service)
            shadow = self.repo.service(service.shadow) if service.shadow else None
            if shadow is not None:
                plan = replace(plan, shadow=self._make(shadow))
            self._of_services[name] = plan
        return plan

    def known_plan(self, texts: tuple[str, ...], *, full_names: bool) -> ServicePlan | None:
        """The plan of a list; None where `plan_of_references` will take tens of milliseconds to make it."""
        return self._of_lists.get((texts, full_names))

    def plan_of_references(self, texts: Sequence[str], *, full_names: bool) -> ServicePlan:
        """The plan of an ad-hoc list such as ["card_activity:count_1h"].

        Args:
            texts: "view:feature" each.
            full_names: name the answers "view__feature" instead of "feature".

        Raises:
            UnknownFeatureService: a view or feature is not registered, with near names.
            InvalidRequest: not "view:feature", or two features of one name without `full_names`.
            LimitExceeded: the list is too long.
        """
        key = (tuple(texts), full_names)
        plan = self._of_lists.get(key)
        if plan is None:
            plan = self._make(self._service_of(texts, full_names=full_names))
            if len(self._of_lists) >= CACHED_PLANS_MAX:
                # Oldest first; another thread may have been faster.
                self._of_lists.pop(list(self._of_lists)[0], None)  # noqa: RUF015  # an iterator minds other threads
            self._of_lists[key] = plan
        return plan

    def adopt_plans(self, old: CatalogSnapshot) -> None:
        """Take over the plans that come out the same: one team's change costs the clients of other views nothing."""
        if old.repo.project != self.repo.project:
            return
        views: dict[str, ViewSpec | PlainViewSpec | OnDemandViewSpec] = {view.name: view for view in old.repo.views}
        views.update((one.view.name, one.view) for one in old.repo.pinned)
        views.update((view.name, view) for view in old.repo.plain_views)
        views.update((view.name, view) for view in old.repo.on_demand_views)
        services = {service.name: service for service in old.repo.services}
        same = {view.name for view in self.repo.plain_views if views.get(view.name) == view}
        same |= {view.name for view in self.repo.on_demand_views if views.get(view.name) == view}
        for view in (*self.repo.views, *(one.view for one in self.repo.pinned)):
            if views.get(view.name) == view and old.serving.get(view.name) == self.serving.get(view.name):
                same.add(view.name)

        def is_same(plan: ServicePlan) -> bool:
            return all(view.name in same for view in plan.schema.views)

        self._of_lists.update((key, plan) for key, plan in list(old._of_lists.items()) if is_same(plan))
        for service in self.repo.services:
            plan = old._of_services.get(service.name)
            shadow = None if plan is None else plan.shadow
            is_same_shadow = shadow is None or (
                is_same(shadow) and services.get(service.shadow) == self.repo.service(service.shadow)
            )
            if plan is not None and is_same(plan) and is_same_shadow and services[service.name] == service:
                self._of_services[service.name] = plan

    def _make(self, service: ServiceSpec) -> ServicePlan:
        """Work a plan out; two threads may both do so, and get equal plans."""
        repo = self.repo.counting_as(service)
        return plan_service(service.name, service.features, service.join_keys, repo, self.serving, self.functions)

    def _service_of(self, texts: Sequence[str], *, full_names: bool) -> ServiceSpec:
        """An ad-hoc list as a nameless service."""
        if not texts:
            raise InvalidRequest("the request names no features", hint="send a feature service or view:feature names")
        if len(texts) > FEATURES_PER_REQUEST_MAX:
            raise LimitExceeded(
                f"the request names {len(texts)} features, the limit is {FEATURES_PER_REQUEST_MAX}",
                hint="split it, or register a feature service",
            )
        # What each view answers is looked up once: lists name hundreds of features of one view.
        features: dict[str, frozenset[str]] = {}
        references = [self._reference(text, features, full_names=full_names) for text in dict.fromkeys(texts)]
        seen: dict[str, str] = {}
        for reference in references:
            other = seen.setdefault(reference.output_name, reference.view)
            if other != reference.view:
                raise InvalidRequest(
                    f'feature "{reference.feature}" is asked of both "{other}" and "{reference.view}"',
                    hint="set full_feature_names to tell them apart",
                )
        keys: dict[str, Column] = {}
        for reference in references:
            view = (
                self.repo.view(reference.view)
                or self.repo.plain_view(reference.view)
                or self.repo.on_demand_view(reference.view)
            )
            assert view is not None, "the reference was just checked"
            for key in view.join_keys:
                keys.setdefault(key.name, key)
        return ServiceSpec("", tuple(references), tuple(keys.values()))

    def _reference(self, text: str, features: dict[str, frozenset[str]], *, full_names: bool) -> FeatureReference:
        """One "view:feature" text, checked; `features` remembers what views answer."""
        view_name, colon, feature = text.partition(":")
        if not colon:
            raise InvalidRequest(f'"{text}" is not a feature reference', hint='write "view:feature"')
        if view_name not in features:
            features[view_name] = frozenset(self._features_of(view_name))
        if feature not in features[view_name]:
            raise UnknownFeatureService(
                f'feature view "{view_name}" has no feature "{feature}"',
                hint=suggest(feature, self._features_of(view_name)),
            )
        return FeatureReference(view_name, feature, f"{view_name}__{feature}" if full_names else feature)

    def _features_of(self, view_name: str) -> list[str]:
        """Names of a view's features, whichever kind of view it is."""
        columns = self.repo.columns_of(view_name)
        if columns is None:
            names = [each.name for each in self.repo.views] + [each.name for each in self.repo.plain_views]
            names += [each.name for each in self.repo.on_demand_views]
            raise _not_registered("feature view", view_name, names)
        return [column.name for column in columns]


class CatalogSource:
    """Keeps the current snapshot up to date.

    Args:
        registry: where definitions come from.
        store: the online store; it may be down.
        functions_of: what computes the on-demand views that no SQL computes, by their names; by default nothing does.

    Raises:
        FeatureStoreError: the registry cannot be read at start. A store that is down at start is not an error.
    """

    def __init__(
        self,
        registry: Registry,
        store: OnlineStore,
        functions_of: Callable[[RepoSpec], Mapping[str, OnDemandFunction]] | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._functions_of = functions_of or (lambda _repo: {})
        self._not_computed: frozenset[str] = frozenset()
        self._on_poll: Callable[[CatalogSource], None] = lambda _source: None
        self._stamp: Hashable = registry.stamp()
        self._repo = registry.read()
        self._snapshot: CatalogSnapshot | None = None
        self._known = GenerationCatalog(store, self._repo.project)
        self._seen: frozenset[str] = frozenset()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.registry_error: FeatureStoreError | None = None
        self.store_error: FeatureStoreError | None = None
        self.newest_event_ms: dict[str, int] = {}
        self.memory: StoreMemory | None = None
        self.poll()

    @property
    def service_count(self) -> int:
        """Number of registered feature services."""
        return len(self._repo.services)

    @property
    def project(self) -> str:
        """Of Feast."""
        return self._repo.project

    def access(self) -> AccessSpec:
        """Who may do what, as the registry has it now."""
        return self._repo.access

    def snapshot(self) -> CatalogSnapshot:
        """What can be served now.

        Raises:
            OnlineStoreDown: the store has not answered since the server started.
        """
        if self._snapshot is None:
            raise OnlineStoreDown(
                "the online store has not answered since the server started",
                detail="" if self.store_error is None else self.store_error.public or self.store_error.message,
                hint="retry with backoff; the server looks again by itself",
            )
        return self._snapshot

    def poll(self) -> None:
        """Look once; never raises what a broken registry or store may cause."""
        self._poll_registry()
        self._poll_store()
        self._on_poll(self)

    def start(self, on_poll: Callable[[CatalogSource], None]) -> None:
        """Poll about once a second in a thread.

        Args:
            on_poll: called at once, and then after every poll in the polling thread; for health and metrics.
        """
        self._on_poll = on_poll
        on_poll(self)
        self._thread = threading.Thread(target=self._run, name="catalog-source", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        """The thread."""
        while not self._stopping.wait(POLL_SECONDS):
            try:
                self.poll()
            except Exception:  # noqa: BLE001  # the thread's edge: were it to end, no change would be noticed any more
                _log.exception("polling failed; what is served stays as it is")

    def _poll_registry(self) -> None:
        """Read the registry again if it may have changed."""
        try:
            stamp = self._registry.stamp()
            if stamp != self._stamp:
                self._repo = self._registry.read()
                self._stamp = stamp
                _log.info("registry changed: %d feature services", len(self._repo.services))
        except FeatureStoreError as error:
            if self.registry_error is None or self.registry_error.message != error.message:
                _log.error("registry is broken, the last good one stays in use: %s", error)
            self.registry_error = error
        else:
            # Also when what was broken was put back as it had been.
            self.registry_error = None

    def _poll_store(self) -> None:
        """Read which generations serve; this is also how the store is found up or down."""
        old = self._snapshot
        try:
            served = look(self._store, self._generations(), {} if old is None else old.serving)
            serving = {**served.views, **pinned_views(served.definitions, self._repo.pinned)}
            self._look_at_state(served, serving)
        except FeatureStoreError as error:
            if self.store_error is None:
                _log.error("online store cannot be used: %s", error)
            self.store_error = error
            return
        functions = old.functions if old is not None and old.repo is self._repo else self._functions_of(self._repo)
        found = CatalogSnapshot(self._repo, serving, served.lane_count, served.reader, functions)
        self._show(old, found)
        loss = self._loss(served.known)
        if loss is not None:
            if self.store_error is None:
                _log.error("%s", loss)
            self.store_error = loss
        elif self.store_error is not None:
            _log.info("online store can be used again")
            self.store_error = None

    def _generations(self) -> GenerationCatalog:
        """The generations of the project, which a registry may rename."""
        if self._known.project != self._repo.project:
            self._known = GenerationCatalog(self._store, self._repo.project)
        return self._known

    def _show(self, old: CatalogSnapshot | None, found: CatalogSnapshot) -> None:
        """Serve from now on what was found."""
        if old is None or old != found:
            if old is not None:
                found.adopt_plans(old)
            # Compiled here, by the thread that watches, and not by the first payment that asks.
            for service in found.repo.services:
                found.plan_of_service(service.name)
            self._say_what_is_not_computed(found)
            # A loop that is compiled by the first payment takes it seconds.
            load_all()
            self._snapshot = found

    def _say_what_is_not_computed(self, found: CatalogSnapshot) -> None:
        """On-demand views that this server answers NOT_READY for, once for each change of them."""
        asked: dict[str, list[str]] = {}
        for service in found.repo.services:
            for view in dict.fromkeys(reference.view for reference in service.features):
                asked.setdefault(view, []).append(service.name)
        missing = [
            view
            for view in found.repo.on_demand_views
            if view.name in asked and not view.is_sql and view.name not in found.functions
        ]
        for each in missing:
            if each.name not in self._not_computed:
                why = "it is a Python function; start the server with --python-features, or write it as SQL"
                if each.function is None:
                    why = "the Feast SDK alone computes it; write it as SQL"
                services = '", "'.join(asked[each.name])
                _log.warning(
                    'features of on-demand view "%s" are NOT_READY in feature service "%s": %s (request_features)',
                    each.name,
                    services,
                    why,
                )
        self._not_computed = frozenset(view.name for view in missing)

    def _look_at_state(self, served: ServedViews, serving: Mapping[str, ServingView]) -> None:
        """How fresh each view is, and whether the store evicts; for metrics."""
        watermarks = {
            generation: max(each.watermark_ms for each in read_checkpoints(self._store, generation, served.lane_count))
            for generation in {one.generation for one in serving.values()}
        }
        # What is stored under a version's hash is told under the version's number.
        names = [name for name in serving if name == base_name(name) or self._repo.view(name) is not None]
        self.newest_event_ms = {name: watermarks[serving[name].generation] for name in names}
        memory = self._store.memory()
        if memory is not None and memory.evicts and (self.memory is None or not self.memory.evicts):
            _log.error("the online store evicts keys: maxmemory-policy is %s; values may be wrong", memory.policy)
        self.memory = memory

    def _loss(self, known: frozenset[str]) -> OnlineStoreDown | None:
        """What tells a store that has lost its generations from one that nobody has written to yet."""
        lost = sorted({view.name for view in self._repo.views} & (self._seen - known))
        self._seen |= known
        if not lost:
            return None
        return OnlineStoreDown(
            f"the online store has lost the generations of feature view {', '.join(lost)}",
            hint="restore the store, or let the stream fill it again; until then these views are not answered",
        )


def _not_registered(what: str, name: str, names: Sequence[str]) -> UnknownFeatureService:
    """The error for an unknown name, with near ones."""
    hint = suggest(name, names) if names else "nothing is registered; run featurestore apply"
    return UnknownFeatureService(f'{what} "{name}" is not registered', hint=hint)
