"""The stream: events to feature vectors that others read.

    read ──> changed ──> publish      payloads, entities that have something new, their vectors as the store has them

    control    heartbeats: what is due because a window slid; other definitions

Run it as `featurestore publish` or as `python -m dataflows.log_to_features`; settings as in settings.py:

    python -m dataflows.log_to_features --project payments --registry data/registry.db
        --store-url redis://127.0.0.1:6379 --service fraud_detection --to fraud-vectors

Where to go on is where the topic is, in Kafka or in the embedded log: positions are committed in the transaction that
has the vectors. One process publishes a service to a topic; another one takes over. It keeps nothing of its own, and
writes nothing to the store.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream

from dataflows import supervisor
from dataflows.log_to_features.changes import PUBLISHER, ChangeStep, Place
from dataflows.log_to_features.encoding import make_encoding
from dataflows.log_to_features.file_output import FileOutput
from dataflows.log_to_features.kafka_output import KafkaOutput
from dataflows.log_to_features.publisher import Output, Publisher
from dataflows.log_to_features.settings import PublishSettings, publish_settings
from dataflows.log_to_features.sink import CatalogReads, PublishItem, PublishSink
from dataflows.logs.kafka_log import KafkaLog
from dataflows.logs.partitions import PartitionWatch
from dataflows.logs.schemas import SchemaRegistries
from dataflows.logs.sources import ControlSource, EventSource, PartitionStart, Shared, SourceLog, Watch
from dataflows.plan.definitions import Definitions, RegistryWatch
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.core.inputs import refuse_enriched
from featurestore.core.spec import REPLACE, RepoSpec, ServiceSpec, SourceSpec, ViewSpec
from featurestore.definitions.problems import suggest
from featurestore.definitions.registry import open_registry
from featurestore.errors import EventsLost, InvalidRequest
from featurestore.online.redis.store import connect as connect_store
from featurestore.online.store import OnlineStore
from featurestore.serving.catalog.catalog import CatalogSource

FLOW_NAME = "publish"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What is published of a project.

    Attributes:
        service: the service.
        views: its stream views, by source; each has all of the join keys.
    """

    service: ServiceSpec
    views: Mapping[SourceSpec, tuple[ViewSpec, ...]]

    @property
    def sources(self) -> list[SourceSpec]:
        """Each of one topic."""
        return [one for source in self.views for one in source.per_topic]


@dataclass(frozen=True, slots=True)
class PublishParts:
    """What a flow is built from.

    Attributes:
        definitions: the registered ones.
        published: what of them.
        store: the online store.
        log: where events come from.
        catalog: what can be looked up.
        shared: what all steps of this process share.
    """

    definitions: Definitions
    published: Published
    store: OnlineStore
    log: SourceLog
    catalog: CatalogSource
    shared: Shared


def build(
    settings: PublishSettings, parts: PublishParts, starts: Sequence[PartitionStart], publisher: Publisher
) -> Dataflow:
    """The dataflow of one plan."""
    flow = Dataflow(FLOW_NAME)
    shared, published = parts.shared, parts.published
    wanted = partial(published_of, settings)
    watches: list[Watch] = [
        RegistryWatch(parts.definitions, wanted, published, shared.conductor, shared.clock),
        PartitionWatch(((start.source, start.partition) for start in starts), parts.log, shared),
    ]
    control = op.input("control", flow, ControlSource([PUBLISHER], shared, watches))
    changed: list[KeyedStream[PublishItem]] = []
    for number, (source, views) in enumerate(published.views.items()):
        own = [start for start in starts if start.source in source.per_topic]
        events = EventSource(FLOW_NAME, parts.log, own, shared, records_max=settings.batch_records, on_lost=_refuse_gap)
        read = op.input(f"read_{number}", flow, events)
        schemas = {one.topic: parts.log.schemas(one) for one in source.per_topic}
        step = ChangeStep(source, views, published.service.join_keys, schemas, shared)
        changed.append(op.flat_map(f"changed_{number}", read, step))
    op.output("publish", op.merge("with_control", control, *changed), PublishSink(publisher, shared))
    return flow


def run(settings: PublishSettings) -> None:
    """The stream, until a run ends for good; raises as `supervisor.keep_running`."""
    definitions = Definitions(settings.registry, settings.project)

    def run_once(shared: Shared, peers_patience_s: float | None) -> bool:
        conductor = shared.conductor
        parts = supervisor.unless_stopped(conductor, partial(connect, settings, definitions, shared))
        if parts is None:
            return False
        output: Output | None = None
        try:
            output = supervisor.unless_stopped(conductor, partial(patiently, shared, partial(_open, settings, parts)))
            if output is None or conductor.is_ending:
                return False
            # A broker that has just made the group, or moves it, does not know its positions for a moment.
            starts = patiently(shared, partial(plan, settings, parts, patiently(shared, output.positions)))
            reads = CatalogReads(settings, parts.catalog, parts.store, shared)
            publisher = patiently(shared, partial(Publisher, reads, output, settings.policy, shared.clock))
            _logger.info("publishing %s to %s from %d partitions", settings.service, settings.to, len(starts))
            if settings.until_end:
                conductor.await_ends(PartitionEnd(FLOW_NAME, one.source.topic, one.partition) for one in starts)
            supervisor.run_planned(build(settings, parts, starts, publisher), settings, shared, peers_patience_s)
            _logger.info("%s vectors published to %s", f"{publisher.messages:,}", settings.to)
        finally:
            if output is not None:
                output.close()
            parts.store.close()
        return True

    supervisor.keep_running(settings, run_once)


def connect(settings: PublishSettings, definitions: Definitions, shared: Shared) -> PublishParts:
    """Open everything a flow needs.

    Raises:
        FeatureStoreError: something cannot be used; what does not answer is retried for the patience first.
    """
    store = patiently(shared, lambda: connect_store(settings.store_url, cluster=settings.store_cluster))
    published = published_of(settings, patiently(shared, definitions.read))
    log, _ = supervisor.open_log(settings, published.sources, shared.clock)
    if settings.to in {source.topic for source in published.sources}:
        raise InvalidRequest(
            f'topic "{settings.to}" is what feature service "{settings.service}" is made of',
            hint="publish to another topic",
        )
    clusters = {log.servers(source) for source in published.sources} if isinstance(log, KafkaLog) else ()
    if len(clusters) > 1:
        raise InvalidRequest(
            f'feature service "{settings.service}" has sources in several Kafka clusters',
            hint="publish a service of one cluster: a transaction cannot span two",
        )
    catalog = CatalogSource(open_registry(settings.registry, settings.project), store)
    return PublishParts(definitions, published, store, log, catalog, shared)


def published_of(settings: PublishSettings, repo: RepoSpec) -> Published:
    """What of a project is published.

    Raises:
        InvalidRequest: there is no such service, or its entities are not named by every source.
    """
    service = repo.service(settings.service)
    if service is None:
        known = [one.name for one in repo.services]
        raise InvalidRequest(f'there is no feature service "{settings.service}"', hint=suggest(settings.service, known))
    found: dict[SourceSpec, list[ViewSpec]] = {}
    for name in dict.fromkeys(_views_behind(service, repo)):
        view = repo.view(name) or next((one.view for one in repo.pinned if one.view.name == name), None)
        if view is not None:
            found.setdefault(view.source, []).append(view)
    for source, views in found.items():
        refuse_enriched(views, "A publication", "publish a service without it")
        if source.changes == REPLACE:
            raise InvalidRequest(
                f'events of source "{source.name}" replace one another, and service "{service.name}" reads them',
                detail="Whose event it was before is not in the record, and a publication keeps nothing to know it by.",
                hint="publish a service without them; lookups and training sets have them",
            )
        _check_keys(service, source, views)
    if not found:
        raise InvalidRequest(
            f'feature service "{service.name}" has no features of a stream', hint="publish one that has"
        )
    return Published(service, {source: tuple(views) for source, views in found.items()})


def plan(settings: PublishSettings, parts: PublishParts, positions: Mapping[Place, int]) -> list[PartitionStart]:
    """Every partition, and where to go on.

    Raises:
        Unavailable: the source does not answer.
    """
    starts: list[PartitionStart] = []
    for source in parts.published.sources:
        numbers = parts.log.partitions(source)
        is_new = not any((source.topic, number) in positions for number in numbers)
        ends = parts.log.ends(source, numbers) if settings.from_now and is_new else {}
        starts += [
            PartitionStart(source, number, positions.get((source.topic, number), ends.get(number)))
            for number in numbers
        ]
    return starts


def main(arguments: list[str] | None = None, *, program: str = "python -m dataflows.log_to_features") -> int:
    """Publish until stopped; returns the process's exit code (see supervisor.py)."""
    given = sys.argv[1:] if arguments is None else arguments
    return supervisor.main(lambda: publish_settings(given, os.environ, program=program), run)


def _open(settings: PublishSettings, parts: PublishParts) -> Output:
    """Take the publication over; the schema of its messages is registered."""
    register = None
    if settings.schema_registry:
        registries = SchemaRegistries(settings.schema_registry_options)
        register = partial(registries.register, settings.schema_registry, f"{settings.to}-value")
    plan_of_service = parts.catalog.snapshot().plan_of_service(settings.service)
    encoding = make_encoding(settings.format, plan_of_service.schema, register)
    if settings.log_dir is not None:
        return FileOutput(settings.log_dir / settings.to, settings.publication, encoding)
    assert isinstance(parts.log, KafkaLog), "without a log directory Kafka is read"
    sources = parts.published.sources
    places = [(source.topic, number) for source in sources for number in parts.log.partitions(source)]
    servers = parts.log.servers(sources[0])
    return KafkaOutput(servers, settings.to, settings.publication, settings.kafka_options, encoding, places)


def _views_behind(service: ServiceSpec, repo: RepoSpec) -> list[str]:
    """Names of the views that a service reads, also behind features that are computed on demand."""
    names: list[str] = []
    for reference in service.features:
        on_demand = repo.on_demand_view(reference.view)
        names += [reference.view] if on_demand is None else [one.view for one in on_demand.inputs]
    return names


def _check_keys(service: ServiceSpec, source: SourceSpec, views: Sequence[ViewSpec]) -> None:
    """An event of a source names an entity of the service."""
    known = {column.name for column in source.columns} | {key.name for view in views for key in view.join_keys}
    for key in service.join_keys:
        if key.name not in known:
            raise InvalidRequest(
                f'events of source "{source.name}" do not say which "{key.name}" they are of',
                detail=f'Feature service "{service.name}" is asked by it, and reads "{views[0].name}" of that source.',
                hint="publish a service whose sources all have its join keys",
            )


def _refuse_gap(start: PartitionStart, error: EventsLost) -> None:
    """Say what to do about changes that were missed."""
    raise EventsLost(
        f'changes of topic "{start.source.topic}" were lost before they were published: {error.message}',
        detail=error.detail,
        hint="publish to a new topic, from what there is; keep Kafka's retention longer than any stop of "
        "`featurestore publish`",
    ) from error
