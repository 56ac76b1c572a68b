"""Feast's offline store interface on our history: what `offline_store.type` of a feature_store.yaml names.

    store.get_historical_features(entity_df, features)
      Feast: request -> projected views, references
      here:  windowed views -> events and label times -> values     (the calculator of the lookup, see `training_set`)
             plain views    -> newest row at or before the label time             (Feast's rule, see `plain_join`)
      Feast: on-demand views -> answer

What is about tables alone (materialize, pushes, saved datasets) is done here for Parquet, and by the Feast store that
`tables` names for everything else. Logged features and monitoring are always Feast's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest

with skip_typeguard():
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.feature_logging import LoggingConfig, LoggingSource
    from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import FeastConfigBaseModel, RepoConfig, get_offline_config_from_type
    from feast.utils import compute_non_entity_date_range
    from pydantic import Field, field_validator

    from featurestore.offline.feast.answers import HistoryRequest, stream_histories
    from featurestore.offline.feast.entity_sql import run_entity_sql
    from featurestore.offline.feast.histories import BATCH_SOURCE, EVENT_LOG, HistoryPlaces
    from featurestore.offline.feast.known_entities import known_entities
    from featurestore.offline.feast.pull import TableJob, pull_all, pull_latest
    from featurestore.offline.feast.request import (
        answer_names,
        asked_views,
        counted_as_said,
        entity_rows,
        milliseconds,
        rows_at,
    )
    from featurestore.offline.feast.retrieval import HistoryRetrievalJob
    from featurestore.offline.feast.saved import saved_training_set
    from featurestore.offline.feast.tables import FILE_STORES, Span, Tables, WantedColumns, is_parquet_source

from featurestore.offline.training_set.build import MEMORY_BYTES_DEFAULT

TYPE: Literal["featurestore.feast.PointInTimeOfflineStore"] = "featurestore.feast.PointInTimeOfflineStore"

_PULL_ARGUMENTS = (
    "data_source",
    "join_key_columns",
    "feature_name_columns",
    "timestamp_field",
    "created_timestamp_column",
    "start_date",
    "end_date",
)
"""What Feast passes to both pulls after the config, in its order."""


class PointInTimeOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` section of feature_store.yaml.

    Attributes:
        type: names this store.
        event_log: root of the event logs, a path from the repo or a URI.
        history: where stream views' events are: "event_log", or "batch_source", that of the stream source.
        histories: the same, or a path or URI of Parquet, for single sources by their name.
        ingested_before: event logs as they were known at that moment.
        tables: `offline_store` section of the Feast store that keeps the tables of plain views and saved datasets.
        memory_bytes: memory that events may take while a training set is made.
        staging_location: where `to_remote_storage` writes, a path from the repo or a URI.
    """

    type: Literal["featurestore.feast.PointInTimeOfflineStore"] = TYPE
    event_log: str = "data/event_log"
    history: Literal["event_log", "batch_source"] = "event_log"
    histories: dict[str, str] = Field(default_factory=dict)
    ingested_before: datetime | None = None
    tables: dict[str, Any] = Field(default_factory=lambda: {"type": "file"})
    memory_bytes: int = Field(MEMORY_BYTES_DEFAULT, gt=0)
    staging_location: str | None = None

    @field_validator("tables")
    @classmethod
    def _is_another_store(cls, tables: dict[str, Any]) -> dict[str, Any]:
        """Handing tables on to itself would never end."""
        store_type = tables.get("type")
        if store_type in (None, TYPE):
            raise ValueError("`tables` needs the type of another store, such as `type: file`")
        if store_type not in FILE_STORES:
            get_offline_config_from_type(store_type)(**tables)
        return tables


class PointInTimeOfflineStore(OfflineStore):
    """Feast's offline store on event logs and tables; all its methods are static, as Feast's are."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: object,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **span: Any,
    ) -> RetrievalJob:
        """Features of label rows, as they were at each row's time.

        Args:
            config: of the repo.
            feature_views: projected views.
            feature_refs: "view:feature".
            entity_df: R rows with join keys and label times: a data frame, an Arrow table, or SQL (`feast_entity_sql`);
                None for all entities of a span of time (`feast_known_entities`).
            registry: knows entities and on-demand views.
            project: Feast project.
            full_feature_names: call features "view__feature".
            span: `start_date` and `end_date`, without an entity_df.

        Raises:
            InvalidRequest: the request or a definition is wrong; it says how.
            Unavailable: a source cannot be read now.
        """
        tables = _tables(config)
        places = _places(config, tables)
        _check_sources(config, project, registry)
        views = asked_views(project, feature_views, feature_refs, registry, full_feature_names=full_feature_names)
        if entity_df is None:
            begin, end = compute_non_entity_date_range(
                feature_views, start_date=span.get("start_date"), end_date=span.get("end_date")
            )
            history = stream_histories(views, places, tables, (begin, end))
            rows = rows_at(known_entities(views, history, tables, begin, end), milliseconds(end))
        else:
            given = entity_df
            if isinstance(entity_df, str):
                given = run_entity_sql(entity_df, project, registry, places, tables)
            rows = entity_rows(given, views)
            views = counted_as_said(views, rows, registry, project)
            history = stream_histories(views, places, tables, rows.span())
        first, last = rows.span() or (None, None)
        settings = config.offline_store
        return HistoryRetrievalJob(
            HistoryRequest(views, answer_names(views, feature_refs), rows, history, tables, settings.memory_bytes),
            RetrievalMetadata(
                features=list(feature_refs),
                keys=[name for name in rows.table.column_names if name != rows.timestamp_column],
                min_event_timestamp=first,
                max_event_timestamp=last,
            ),
            OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names=full_feature_names,
            staging_location=settings.staging_location,
        )

    @staticmethod
    def pull_latest_from_table_or_query(config: RepoConfig, *arguments: Any, **options: Any) -> RetrievalJob:
        """The newest row of each entity within a span: what materialize reads."""
        tables, pull = _tables(config), _Pull.of(*arguments, **options)
        if is_parquet_source(pull.source) and tables.is_of_files:
            return TableJob(partial(pull_latest, tables.dataset(pull.source), pull.wanted, pull.span))
        return tables.store.pull_latest_from_table_or_query(tables.config, *arguments, **options)

    @staticmethod
    def pull_all_from_table_or_query(config: RepoConfig, *arguments: Any, **options: Any) -> RetrievalJob:
        """All rows of a table within a span: what logged features are read by; a saved training set as a whole."""
        tables, pull = _tables(config), _Pull.of(*arguments, **options)
        saved = saved_training_set(pull.source, tables)
        if saved is not None:
            return saved
        if is_parquet_source(pull.source) and tables.is_of_files:
            return TableJob(partial(pull_all, tables.dataset(pull.source), pull.wanted, pull.span))
        return tables.store.pull_all_from_table_or_query(tables.config, *arguments, **options)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Append a service's logged answers to its destination."""
        tables = _tables(config)
        tables.store.write_logged_features(tables.config, data, source, logging_config, registry)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to the table behind a view; a stream's event log is written by its own flow alone.

        Raises:
            InvalidRequest: the view has no table, or the columns are others.
            Unavailable: the table cannot be written.
        """
        tables, source = _tables(config), feature_view.batch_source
        if source is None:
            raise InvalidRequest(f'feature view "{feature_view.name}" has no batch source', hint="declare one")
        if is_parquet_source(source) and tables.is_of_files:
            # Feast has given the columns the names that they have in the view.
            stored = {name: column for column, name in source.field_mapping.items()}
            tables.append(source, table.rename_columns([stored.get(name, name) for name in table.column_names]))
            if progress is not None:
                progress(table.num_rows)
        else:
            tables.store.offline_write_batch(tables.config, feature_view, table, progress)

    @staticmethod
    def compute_monitoring_metrics(config: RepoConfig, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        """Statistics of a table's columns."""
        tables = _tables(config)
        return tables.store.compute_monitoring_metrics(tables.config, *arguments, **options)

    @staticmethod
    def get_monitoring_max_timestamp(config: RepoConfig, *arguments: Any, **options: Any) -> datetime | None:
        """Newest time in a table."""
        tables = _tables(config)
        return tables.store.get_monitoring_max_timestamp(tables.config, *arguments, **options)

    @staticmethod
    def ensure_monitoring_tables(config: RepoConfig) -> None:
        """Make room for statistics."""
        tables = _tables(config)
        tables.store.ensure_monitoring_tables(tables.config)

    @staticmethod
    def save_monitoring_metrics(config: RepoConfig, *arguments: Any, **options: Any) -> None:
        """Keep statistics."""
        tables = _tables(config)
        tables.store.save_monitoring_metrics(tables.config, *arguments, **options)

    @staticmethod
    def query_monitoring_metrics(config: RepoConfig, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        """Kept statistics."""
        tables = _tables(config)
        return tables.store.query_monitoring_metrics(tables.config, *arguments, **options)

    @staticmethod
    def clear_monitoring_baseline(config: RepoConfig, *arguments: Any, **options: Any) -> None:
        """Forget which statistics others are compared with."""
        tables = _tables(config)
        tables.store.clear_monitoring_baseline(tables.config, *arguments, **options)


@dataclass(frozen=True, slots=True)
class _Pull:
    """What Feast passes to the two pulls, by position or by name."""

    source: DataSource
    wanted: WantedColumns
    span: Span

    @classmethod
    def of(cls, *arguments: Any, **options: Any) -> _Pull:
        """Feast's arguments after the config."""
        given = {**dict(zip(_PULL_ARGUMENTS, arguments, strict=False)), **options}
        wanted = WantedColumns(
            given["join_key_columns"],
            given["feature_name_columns"],
            given["timestamp_field"],
            given.get("created_timestamp_column") or None,
        )
        return cls(given["data_source"], wanted, Span(given.get("start_date"), given.get("end_date")))


def _tables(config: RepoConfig) -> Tables:
    """What reads and writes tables."""
    return Tables(config, config.offline_store.tables)


def _places(config: RepoConfig, tables: Tables) -> HistoryPlaces:
    """Where events are; paths start from the repo."""
    settings = config.offline_store
    before = settings.ingested_before
    return HistoryPlaces(
        tables.address_of(settings.event_log),
        settings.history,
        {
            name: place if place in (EVENT_LOG, BATCH_SOURCE) else tables.address_of(place)
            for name, place in settings.histories.items()
        },
        None if before is None else milliseconds(before),
    )


def _check_sources(config: RepoConfig, project: str, registry: BaseRegistry) -> None:
    """A misspelt source would be looked for elsewhere, in silence."""
    given = config.offline_store.histories
    if not given:
        return
    known = [source.name for source in registry.list_data_sources(project, allow_cache=True)]
    for name in given:
        if name not in known:
            raise InvalidRequest(
                f'`histories` of feature_store.yaml names "{name}", which is no data source', hint=suggest(name, known)
            )
