"""Feast's online store interface on our store: what `online_store.type` of a feature_store.yaml names.

    store.get_online_features(...)
      Feast: request -> views, join keys      (on-demand views, aliases, full names: all Feast's own)
      here:  keys of all views -> one read of the store -> tiles merged / plain values decoded -> feature vectors
      Feast: on-demand views -> answer

Windowed stream views are read from their tiles at the clock's time, with values, statuses and event times as the gRPC
server gives them. Plain views (materialize, push, write_to_online_store) are written and read here in the layout that
the gRPC server reads too; unlike Feast's Redis store their ttl holds online, a missing key is NOT_FOUND, and a rewrite
at an equal event time takes effect.

The hook is `_read_features_per_fv`, the one method of Feast's read path that touches a store; Feast's Redis store
overrides it too. It is private to Feast, hence the exact pin of Feast's version.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from featurestore.clock import Clock, Deadline, SystemClock
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.errors import InvalidRequest
from featurestore.online.answer.assembly import Answer, Assembly, DistinctReads, KeyColumns
from featurestore.online.embedded import EmbeddedStore
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, PlainBytes, PlainRead
from featurestore.online.read.serving_generations import ServedViews, ServingGenerations
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.serving_view import ServingView
from featurestore.online.write.plain_writer import PlainWriter, delete_plain_view, delete_project
from featurestore.wire.store_layout import DEFAULT_LANE_COUNT

with skip_typeguard():
    from feast import Entity, FeatureStore, FeatureView
    from feast.infra.online_stores.online_store import OnlineStore
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
    from feast.protos.feast.types.Value_pb2 import Value as ValueProto
    from feast.repo_config import FeastConfigBaseModel, RepoConfig

    from featurestore.online.feast.exact_rows import make_exact
    from featurestore.online.feast.incoming_rows import WriteRow, plain_values
    from featurestore.online.feast.versions import VersionedDefinitions, check_has_no_versions
    from featurestore.online.feast.views import (
        AnsweringView,
        ReadRow,
        add_vectors,
        add_version,
        is_windowed,
        key_columns,
        key_rows,
        prepare,
        read_rows,
        still_typed,
        ttl_ms,
    )

STORE_URL_VARIABLE = "FEATURESTORE_STORE_URL"
"""Names the store where feature_store.yaml does not, as for the `featurestore` commands."""

ANSWERING_VIEWS_MAX = 256
"""Prepared views kept; other features, types, ttls and generations are other views, and the old ones must go."""


class RealTimeOnlineStoreConfig(FeastConfigBaseModel):
    """The `online_store` section of feature_store.yaml.

    Attributes:
        type: names this store.
        connection_string: redis://, rediss:// or unix:// address; None is FEATURESTORE_STORE_URL, or the embedded store
            of the repo.
        cluster: whether the address is a node of a Redis or Valkey Cluster.
        lanes: number of lanes of a store that is still empty; one that is not keeps its own.
    """

    type: Literal["featurestore.feast.RealTimeOnlineStore"] = "featurestore.feast.RealTimeOnlineStore"
    connection_string: str | None = None
    cluster: bool = False
    lanes: int = DEFAULT_LANE_COUNT


class RealTimeOnlineStore(OnlineStore):
    """Feast's online store on tiles and plain values.

    Attributes:
        clock: read time of lookups, and expiry.
    """

    def __init__(self) -> None:
        make_exact()
        self.clock: Clock = SystemClock()
        self._connected: tuple[int, RedisStore] | None = None
        self._served: dict[str, ServingGenerations] = {}
        self._versions = VersionedDefinitions()
        self._answering: dict[Hashable, tuple[ServingView | None, AnsweringView]] = {}

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WriteRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of a plain view; a newer row is never replaced, one of equal event time is.

        Raises:
            InvalidRequest: the view is windowed, so only its stream may write it; or a row lies in the future, and the
                others are written.
            LimitExceeded: an entity key is too long, and the rows of the others are written.
            OnlineStoreDown: the store does not answer; repeating the call is safe.
        """
        if is_windowed(table):
            raise InvalidRequest(
                f'feature view "{table.name}" is written by its stream',
                detail="Rows from materialize, push or write_to_online_store would not be in its tiles.",
                hint="run `featurestore stream`; to materialize, name the plain views, or use `PlainViewEngine`",
            )
        check_has_no_versions(table)
        store = self._store(config)
        lane_count = GenerationCatalog(store, config.project).lane_count(config.online_store.lanes)
        order = _join_key_order(config, table)
        rows = plain_values(table, data, order)
        writer = PlainWriter(store, config.project, lane_count, self.clock)
        writer.write(table.name, rows, ttl_ms=ttl_ms(table), progress=progress or (lambda _count: None))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WriteRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """As `online_write_batch`, in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """Rows of one view, stream or plain, for N entity keys; values that are too old count as not found."""
        served = self._serving(config).current()
        requested = requested_features or [field.name for field in table.features]
        names = _join_key_order(config, table)
        view = self._answering_view(config, table, requested, names, served)
        read = _ViewRead.of(table, view, key_rows(entity_keys, _key_names(view, names)), len(entity_keys))
        response = GetOnlineFeaturesResponse()
        self._answer(served, [read], response, full_names=False)
        return read_rows(response, requested, len(entity_keys))

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """As `online_read`, in a thread."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: Mapping[str, Sequence[ValueProto]],
        entity_name_to_join_key_map: Mapping[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Add the vectors of all views to a response, with one read of the store (one for each node of a cluster).

        Raises:
            UnknownJoinKey: a view's join key is missing in the request.
            OnlineStoreDown, CorruptData, AsOfTooOld: as for any lookup.
        """
        served = self._serving(config).current()
        reads: list[_ViewRead] = []
        for table, requested in grouped_refs:
            names = [entity_name_to_join_key_map[name] for name in table.entities]
            view = self._answering_view(config, table, requested, names, served)
            columns = key_columns(table, _key_names(view, names), join_key_values)
            reads.append(_ViewRead.of(table, view, columns, max(map(len, columns), default=0)))
        self._answer(served, reads, online_features_response, full_names=full_feature_names)
        if include_feature_view_version_metadata:
            for table, _ in grouped_refs:
                add_version(online_features_response, table)

    def _is_versioned_read_supported(self) -> bool:
        """Feast asks before it passes a version on; see `versions`."""
        return True

    def _answer(
        self, served: ServedViews, reads: Sequence[_ViewRead], response: GetOnlineFeaturesResponse, *, full_names: bool
    ) -> None:
        """Add the vectors of some views to a response, with one read of the store for all."""
        now_ms = self.clock.now_ms()
        wanted = [one for read in reads for one in read.wanted]
        found = served.reader.read(wanted)
        first = 0
        for read in reads:
            last = first + len(read.wanted)
            answer = read.answer(found[first:last], now_ms, Deadline(self.clock))
            add_vectors(response, read.table, read.view, answer, read.row_count, full_names=full_names)
            first = last

    async def _read_features_per_fv_async(self, *arguments: Any) -> None:
        """As `_read_features_per_fv`, in a thread."""
        await asyncio.to_thread(self._read_features_per_fv, *arguments)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """After an apply: delete what removed plain views keep. Generations of stream views belong to the stream.

        A store that nothing has to be deleted from is not even connected to.
        """
        for table in tables_to_delete:
            if not is_windowed(table):
                delete_plain_view(self._store(config), config.project, table.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete everything of the project, tiles included; a stream that still runs stops with a clear error."""
        delete_project(self._store(config), config.project)
        self._served.clear()

    def _store(self, config: RepoConfig) -> RedisStore:
        """The store; connected at first use, and again in a process that was forked since."""
        process = os.getpid()
        if self._connected is None or self._connected[0] != process:
            settings = config.online_store
            url = settings.connection_string or os.environ.get(STORE_URL_VARIABLE)
            if url is None:
                url = EmbeddedStore.for_repo(config.repo_path and Path(config.repo_path)).ensure()
            if "://" not in url:
                raise InvalidRequest(f'"{url}" is not a store address', hint=f'write "redis://{url}"')
            self._connected = process, connect(url, cluster=settings.cluster)
            self._served.clear()
        return self._connected[1]

    def _serving(self, config: RepoConfig) -> ServingGenerations:
        """Generations of the config's project."""
        store = self._store(config)
        served = self._served.get(config.project)
        if served is None:
            served = self._served[config.project] = ServingGenerations(store, config.project, self.clock)
        return served

    def _answering_view(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested: Sequence[str],
        join_keys: Sequence[str],
        served: ServedViews,
    ) -> AnsweringView:
        """How to answer some features of a view; kept by all that decides it, as Feast copies its views a request."""
        check_has_no_versions(table)
        serving = self._versions.answering(config, table, served) if is_windowed(table) else None
        typed = () if serving is None else still_typed(table, requested, serving.view)
        project = config.project
        key = (project, table.name, tuple(requested), tuple(join_keys), typed, ttl_ms(table))
        known = self._answering.get(key)
        if known is None or known[0] is not serving:
            if len(self._answering) >= ANSWERING_VIEWS_MAX:
                self._answering.clear()
            known = serving, prepare(project, table, requested, join_keys, serving)
            self._answering[key] = known
        return known[1]


@dataclass(frozen=True, slots=True)
class _ViewRead:
    """One view of a request: its N rows, and what they need of the store."""

    table: FeatureView
    view: AnsweringView
    row_count: int
    reads: DistinctReads | None

    @classmethod
    def of(cls, table: FeatureView, view: AnsweringView, columns: KeyColumns, row_count: int) -> _ViewRead:
        """What rows with these entity keys need."""
        reads = None if view.plan is None or not row_count else DistinctReads(view.plan, columns, row_count)
        return cls(table, view, row_count, reads)

    @property
    def wanted(self) -> Sequence[EntityRead | PlainRead]:
        """What to read."""
        return () if self.reads is None else self.reads.wanted

    def answer(self, found: Sequence[EntityBytes | PlainBytes], now_ms: int, deadline: Deadline) -> Answer | None:
        """The rows, from what was found."""
        if self.view.plan is None or self.reads is None:
            return None
        assembly = Assembly(self.view.plan, self.reads, found, (now_ms,), deadline, is_as_of_given=False)
        return assembly.answer(with_checkpoint=False)


def _key_names(view: AnsweringView, names: Sequence[str]) -> list[str]:
    """Join keys in entity key order: the answering definition's, else that of the view's entities."""
    return list(names) if view.plan is None else [key.name for key in view.plan.schema.join_keys]


def _join_key_order(config: RepoConfig, table: FeatureView) -> Sequence[str]:
    """Join keys in the order of the view's entities, which is what forms an entity key everywhere."""
    if len(table.join_keys) < 2:
        return list(table.join_keys)
    # A view knows the names of its entities and the names of its join keys, but not which belongs to which.
    registry = FeatureStore(repo_path=str(config.repo_path or Path()), config=config).registry
    join_keys = {entity.name: entity.join_key for entity in registry.list_entities(config.project, allow_cache=True)}
    return [join_keys[name] for name in table.entities]
