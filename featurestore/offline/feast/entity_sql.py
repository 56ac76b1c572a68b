"""Label rows from SQL: what a text as `entity_df` means.

    SELECT card_id, event_time AS event_timestamp, amount FROM transactions WHERE is_refund

The SQL is DuckDB's, run in this process. It can name the repo's data sources: a stream's events (wherever training sets
find them) by the name of its source, files by the name of theirs; and read_parquet('...') of any path, relative to the
repo.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.dataset as pads
from feast.data_source import DataSource, KafkaSource
from feast.infra.registry.base_registry import BaseRegistry

from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.feast.histories import BATCH_SOURCE, EVENT_LOG, HistoryPlaces
from featurestore.offline.feast.tables import Tables, is_parquet_source
from featurestore.offline.foreign_tables.table import ForeignTable
from featurestore.offline.training_set.histories import open_dataset


def run_entity_sql(sql: str, project: str, registry: BaseRegistry, places: HistoryPlaces, tables: Tables) -> pa.Table:
    """The rows of a query.

    Args:
        sql: one SELECT.
        project: Feast project, whose data sources can be named.
        registry: knows them.
        places: where streams' events are.
        tables: reads files.

    Raises:
        InvalidRequest: DuckDB is missing, or the query is wrong.
        Unavailable: a source cannot be read now.
    """
    try:
        import duckdb
    except ImportError:
        raise InvalidRequest(
            "an entity_df of SQL needs DuckDB", hint="pip install duckdb, or give a DataFrame"
        ) from None
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = true")
        connection.execute(f"SET file_search_path = {_quoted(str(tables.config.repo_path or '.'))}")
        for source in registry.list_data_sources(project, allow_cache=True):
            if re.search(rf"\b{re.escape(source.name)}\b", sql, re.IGNORECASE):
                rows = _rows_of(source, places, tables)
                if rows is not None:
                    connection.register(source.name, rows)
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        known = ", ".join(source.name for source in registry.list_data_sources(project, allow_cache=True))
        raise InvalidRequest(
            "the SQL of entity_df cannot be run",
            detail=str(error),
            hint=f"it is DuckDB's SQL, and can name {known}, and read_parquet('...')",
        ) from error
    finally:
        connection.close()


def _rows_of(source: DataSource, places: HistoryPlaces, tables: Tables) -> pads.Dataset | pa.Table | None:
    """A data source for DuckDB; None where it has no rows that it could read."""
    if is_parquet_source(source):
        return tables.dataset(source)
    if not isinstance(source, KafkaSource):
        return None
    place = places.place_of(source.name)
    if place == EVENT_LOG:
        return EventLog(below(places.event_log, source.name)).dataset()
    if place == BATCH_SOURCE:
        batch_source = source.batch_source
        return tables.dataset(batch_source) if batch_source is not None and is_parquet_source(batch_source) else None
    found = open_dataset(place)
    return found.for_engine() if isinstance(found, ForeignTable) else found


def _quoted(text: str) -> str:
    """A text of SQL."""
    return "'" + text.replace("'", "''") + "'"
