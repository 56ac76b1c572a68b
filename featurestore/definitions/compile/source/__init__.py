"""Compile the stream source that a view embeds, and the tables that its events are enriched from."""

from featurestore.definitions.compile.source.enrichment import ENRICH_TAG_PREFIX as ENRICH_TAG_PREFIX
from featurestore.definitions.compile.source.enrichment import WrittenTable as WrittenTable
from featurestore.definitions.compile.source.enrichment import enriched_columns as enriched_columns
from featurestore.definitions.compile.source.stream import AVRO as AVRO
from featurestore.definitions.compile.source.stream import CHANGE_COLUMNS as CHANGE_COLUMNS
from featurestore.definitions.compile.source.stream import CHANGES_TAG as CHANGES_TAG
from featurestore.definitions.compile.source.stream import COLUMNS_TAG as COLUMNS_TAG
from featurestore.definitions.compile.source.stream import DEDUP_HORIZON_TAG as DEDUP_HORIZON_TAG
from featurestore.definitions.compile.source.stream import EVENT_ID_TAG as EVENT_ID_TAG
from featurestore.definitions.compile.source.stream import EVENT_LOG_COLUMNS as EVENT_LOG_COLUMNS
from featurestore.definitions.compile.source.stream import EVENT_TIME_UNIT_TAG as EVENT_TIME_UNIT_TAG
from featurestore.definitions.compile.source.stream import FORMAT_TAG as FORMAT_TAG
from featurestore.definitions.compile.source.stream import JSON_SCHEMA as JSON_SCHEMA
from featurestore.definitions.compile.source.stream import KAFKA as KAFKA
from featurestore.definitions.compile.source.stream import MAX_FUTURE_TAG as MAX_FUTURE_TAG
from featurestore.definitions.compile.source.stream import PROTOBUF as PROTOBUF
from featurestore.definitions.compile.source.stream import RECORDS_TAG as RECORDS_TAG
from featurestore.definitions.compile.source.stream import SCHEMA_REGISTRY_TAG as SCHEMA_REGISTRY_TAG
from featurestore.definitions.compile.source.stream import SUBJECT_NAME_TAG as SUBJECT_NAME_TAG
from featurestore.definitions.compile.source.stream import TOPIC_COLUMN_TAG as TOPIC_COLUMN_TAG
from featurestore.definitions.compile.source.stream import TOPIC_TAG_PREFIX as TOPIC_TAG_PREFIX
from featurestore.definitions.compile.source.stream import UNIT_TAG_PREFIX as UNIT_TAG_PREFIX
from featurestore.definitions.compile.source.stream import CompiledSource as CompiledSource
from featurestore.definitions.compile.source.stream import compile_source as compile_source
from featurestore.definitions.compile.source.stream import duration_tag as duration_tag
from featurestore.definitions.compile.source.stream import topic_text as topic_text
