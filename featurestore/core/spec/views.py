"""Sources, views and features: what is kept of each entity, and what is answered from it."""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

HOP_LADDER_MS: tuple[int, ...] = (
    1_000,
    5_000,
    15_000,
    60_000,
    300_000,
    900_000,
    3_600_000,
    21_600_000,
    86_400_000,
)
"""Default hops, finest first: 1 s, 5 s, 15 s, 1 min, 5 min, 15 min, 1 h, 6 h, 1 d."""

HOPS_PER_WINDOW_MIN = 60
"""A default hop is at most 1/60 of its window: the worst tail error where the author set none."""

DEFAULT_LOOKBACK_MS = 60_000
"""Reads up to this far before an entity's newest event stay exact unless a view says otherwise."""

DEFAULT_MAX_FUTURE_MS = 300_000
"""An event dated further ahead of the clock than this is dead-lettered, not folded."""

DEFAULT_SESSION_GAPS = 100
"""Gaps that a session may last unless its author says how long ..."""

SESSION_MS_DEFAULT_MAX = 86_400_000
"""... but then no longer than this: a day."""


CHANGE_ID = "change_id"
"""Column of a source of changes: which change it is, and whether it does or undoes; the same when it is sent again."""

REPLACE = "replace"
IS_UNDO = "is_undo"
"""Column of a source of changes: whether the event takes a row back, as it was before."""


class ValueType(enum.StrEnum):
    """Types of source columns, entity keys and features."""

    INT64 = "int64"
    FLOAT64 = "float64"
    STRING = "string"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    """Milliseconds UTC as an integer; on the wire of a source an ISO 8601 string or an integer."""
    INT64_LIST = "list<int64>"
    FLOAT64_LIST = "list<float64>"
    STRING_LIST = "list<string>"
    INT64_MAP = "map<string, int64>"
    """Python dict from text to integer; only features have lists and maps, source columns do not."""
    FLOAT64_MAP = "map<string, float64>"
    AS_STORED = "as stored"
    """Whatever Feast wrote of a plain view: only its own SDK asks for that, to give back what was written."""


SCALAR_TYPES = (ValueType.INT64, ValueType.FLOAT64, ValueType.STRING, ValueType.BOOL, ValueType.TIMESTAMP)
"""Types of source columns and entity keys; features have them all."""


@dataclass(frozen=True, slots=True)
class Column:
    """A named, typed column of a source, an entity or a feature vector."""

    name: str
    type: ValueType


class CalendarUnit(enum.StrEnum):
    """What a calendar window covers so far, by the words that authors write."""

    DAY = "today"
    WEEK = "this_week"
    """From Monday, as in ISO 8601."""
    MONTH = "this_month"
    YEAR = "this_year"


@dataclass(frozen=True, slots=True)
class Window:
    """The span of event times that a feature covers at a read time t; `core.windows` works out its edges.

        sliding     [floor(t - length, hop), t)                               the tail on hops, the head exact
        offset      [floor(t - offset - length, hop), floor(t - offset, hop)) both edges on hops
        lifetime    (-inf, t)
        series      a list of windows, oldest first: the window itself last, before it the same one length
                    earlier, and so on
        calendar    [begin of the local day, week, month or year of t, t)
        session     the newest events before t with no gap longer than gap_ms between two of them, nor between the
                    newest and t; no older than floor(t - length, hop)

    Attributes:
        length_ms: window length, in a series of each; the longest that a calendar unit lasts, the longest session
            that is told apart; None is lifetime, which has neither hop nor offset.
        hop_ms: grid of the tail, >= 1; 1 makes a sliding window exact. 0 for lifetime.
        offset_ms: how far back the window ends, >= 0.
        series: number of windows in a series; 0 for a single window.
        calendar: unit of a calendar window.
        timezone: IANA name of the clock that it follows.
        gap_ms: longest gap within a session; 0 for other windows.
    """

    length_ms: int | None
    hop_ms: int = 0
    offset_ms: int = 0
    series: int = 0
    calendar: CalendarUnit | None = None
    timezone: str = ""
    gap_ms: int = 0

    @property
    def span_ms(self) -> int:
        """How far before the read time the oldest tail lies before it is floored; 0 for lifetime."""
        if self.length_ms is None:
            return 0
        return self.length_ms * max(self.series, 1) + self.offset_ms

    @property
    def reach_ms(self) -> int:
        """How far before the read time the window's oldest event can lie; 0 for lifetime."""
        return 0 if self.length_ms is None else self.span_ms + self.hop_ms


def default_hop_ms(length_ms: int) -> int:
    """The largest rung of the ladder that is at most 1/60 of the window and divides it; 1 ms when none does.

    >>> default_hop_ms(60_000), default_hop_ms(86_400_000), default_hop_ms(1_000)
    (1000, 900000, 1)
    """
    for rung in reversed(HOP_LADDER_MS):
        if rung * HOPS_PER_WINDOW_MIN <= length_ms and length_ms % rung == 0:
            return rung
    return 1


def presence_hop_ms(retention_ms: int) -> int:
    """Grid on which an entity is forgotten: the largest rung that is at most 1/60 of the retention, or 1 ms.

    It need not divide the retention: no window ends there, and a fine grid would keep old tiles from rolling up.
    """
    rungs = [rung for rung in HOP_LADDER_MS if rung * HOPS_PER_WINDOW_MIN <= retention_ms]
    return max(rungs, default=1)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One windowed feature.

    Attributes:
        name: the Feast field's name.
        function: canonical text of the aggregation, such as "sum" (see core.aggregations.catalog).
        column: source column it reads; None counts rows.
        window: the span it covers.
        type: type of the answer.
        where: canonical SQL condition; events for which it is not true do not count. Empty: all do.
        in_flight: whether a payment in flight counts, if a read brings one along; nothing that is stored depends on it.
        fixes_in_flight: whether its author said so; else a feature service may have it otherwise.
    """

    name: str
    function: str
    column: str | None
    window: Window
    type: ValueType
    where: str = ""
    in_flight: bool = True
    fixes_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class ComputedColumn:
    """A value made of other values by an SQL expression.

    As a column of a source it is computed for each event, once, when it arrives; as a feature of a view, from the
    view's other features, whenever they are read.

    Attributes:
        name: what it is called.
        type: type of its values.
        expression: canonical SQL (see `core.expressions`).
    """

    name: str
    type: ValueType
    expression: str


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A further topic of a source.

    Attributes:
        name: Kafka topic.
        renamed: (column, field of the payload) pairs where the names differ.
    """

    name: str
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EnrichmentSpec:
    """Columns that events get from the row of a table that was in force at their event time.

    Attributes:
        name: its author's; the columns' names begin with it.
        on: payload column that names the row.
        key: column of the table that it is compared with.
        columns: (column of the events, name of the table's) pairs, by the former.
        files: the table, where it is files; else None.
        stream: the table, where its rows are records of a topic; else None.
    """

    name: str
    on: str
    key: Column
    columns: tuple[tuple[Column, str], ...]
    files: TableSpec | None = None
    stream: SourceSpec | None = None

    @property
    def table(self) -> str:
        """The Feast data source's name."""
        return self.stream.name if self.stream is not None else self.files.source if self.files is not None else ""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A stream of events and how to read one.

    Attributes:
        name: the Feast data source's name.
        topic: Kafka topic; also the name under which offsets are checkpointed.
        columns: the payload's columns, in the order of the source's schema.
        event_time_column: INT64 (epoch ms) or TIMESTAMP column with the event time.
        event_id_column: column whose value is unique per event; None turns de-duplication off.
        dedup_horizon_ms: how long (progress of its partition's event time) an id is remembered; 0 is off.
        max_future_ms: how far ahead of the clock an event may be dated.
        bootstrap_servers: Kafka's addresses; not part of the definition hash.
        computed: columns that are computed from the payload's, and from computed ones before them.
        renamed: (column, field of the payload) pairs where the names differ.
        more_topics: further topics that it reads, and how their payloads' fields become the same columns.
        topic_column: STRING column that holds the name of the topic instead of a field; "" for none.
        event_time_unit: "s", "ms", "us" or "ns": of the event-time column's integers.
        format: "json", "json_schema", "avro" or "protobuf": what the payloads are; not part of the definition hash.
        schema_registry: where the schemas of payloads are that begin with the id of one; nor is this.
        subject_name: "topic", "record" or "topic_record": what the registry's subjects are called after; nor is this.
        records: full names of the topic's records, where subjects are called after them; nor are they.
        units: (column, unit of its values) pairs, where the author says what a schema should; nor are they.
        changes: "debezium" where payloads are changes of a table's rows, REPLACE where an event replaces what has its
            id, else "": both become events that do and undo. Then CHANGE_ID is the event id; nor is this.
        row_id_column: of changes, the column that tells the rows that one position of the database's log may have
            changed, as a rule the primary key; of REPLACE the id; nor is this.
        enrichments: by name; their columns are among `columns`.
    """

    name: str
    topic: str
    columns: tuple[Column, ...]
    event_time_column: str
    event_id_column: str | None = None
    dedup_horizon_ms: int = 0
    max_future_ms: int = DEFAULT_MAX_FUTURE_MS
    bootstrap_servers: str = ""
    computed: tuple[ComputedColumn, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    more_topics: tuple[TopicSpec, ...] = ()
    topic_column: str = ""
    event_time_unit: str = "ms"
    format: str = "json"
    schema_registry: str = ""
    subject_name: str = "topic"
    records: tuple[str, ...] = ()
    units: tuple[tuple[str, str], ...] = ()
    changes: str = ""
    row_id_column: str | None = None
    enrichments: tuple[EnrichmentSpec, ...] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of all its topics, the first one first."""
        return (self.topic, *(topic.name for topic in self.more_topics))

    @property
    def per_topic(self) -> tuple[SourceSpec, ...]:
        """The same source for each of its topics alone."""
        more = (replace(self, topic=each.name, renamed=each.renamed, more_topics=()) for each in self.more_topics)
        return (replace(self, more_topics=()), *more) if self.more_topics else (self,)

    @property
    def generated(self) -> frozenset[str]:
        """Columns that no field of a payload fills."""
        made = (CHANGE_ID, IS_UNDO) if self.changes else ()
        return self.enriched | {name for name in (self.topic_column, *made) if name}

    @property
    def enriched(self) -> frozenset[str]:
        """Columns that events get from tables."""
        return frozenset(column.name for one in self.enrichments for column, _ in one.columns)

    def enriched_by(self, names: Container[str]) -> tuple[EnrichmentSpec, ...]:
        """The enrichments behind some columns, each with those alone."""
        mine = ((one, tuple(pair for pair in one.columns if pair[0].name in names)) for one in self.enrichments)
        return tuple(replace(one, columns=pairs) for one, pairs in mine if pairs)

    def stored(self, names: Iterable[str]) -> tuple[str, ...]:
        """Columns that the records themselves have, behind some of any kind but computed ones."""
        wanted = tuple(dict.fromkeys(names))
        found = [name for name in wanted if name not in self.enriched]
        return tuple(dict.fromkeys([*found, *(one.on for one in self.enriched_by(wanted))]))

    def rows_at(self, field: str, format: str) -> SourceSpec:
        """Of changes, a source of rows as events of their own.

        Args:
            field: of the payload, which holds the row; "" for the payload itself.
            format: of that.
        """
        field_of = dict(self.renamed)
        columns = tuple(column for column in self.columns if column.name not in (CHANGE_ID, IS_UNDO))
        paths = {one.name: field_of.get(one.name, one.name) for one in columns if one.name != self.topic_column}
        if field:
            paths = {name: f"{field}.{path}" for name, path in paths.items()}
        return replace(
            self,
            columns=columns,
            event_id_column=self.row_id_column,
            renamed=tuple(sorted((name, path) for name, path in paths.items() if name != path)),
            format=format,
            changes="",
            row_id_column=None,
        )

    @property
    def id_column(self) -> Column | None:
        """The column with the event id, if it has one."""
        return None if self.event_id_column is None else self.column(self.event_id_column)

    def column(self, name: str) -> Column | None:
        """The column of that name, of the payload or computed, or None."""
        computed = [Column(column.name, column.type) for column in self.computed]
        return next((column for column in [*self.columns, *computed] if column.name == name), None)


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """A view that a storage group answers for: all of it that it does not share with the others.

    Attributes:
        name, features, retention_ms, lookback_ms, where, derived: as in `ViewSpec`.
        definition_hash: see `wire.codecs.view_json.definition_hash`.
    """

    name: str
    definition_hash: str
    features: tuple[FeatureSpec, ...]
    retention_ms: int | None
    lookback_ms: int
    where: str = ""
    derived: tuple[ComputedColumn, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """One stream feature view: what is kept per entity key. Or several that are kept together: a storage group.

    Attributes:
        name: the Feast view's name.
        join_keys: typed join keys, in the order that forms the entity key.
        source: where its events come from.
        features: in the order of the view's aggregations, names unique.
        retention_ms: how long events matter; None keeps them for ever (a lifetime feature exists).
        lookback_ms: reads at any time >= newest event - lookback are exact.
        where: canonical SQL condition; events for which it is not true are none of the view's. Empty: all are.
        undo: canonical SQL condition; events for which it is true take back what an equal event added. Empty: none do.
        derived: features computed from the others when they are read, names unique among all.
        members: of a storage group, the views that it answers for; see `definitions.compile.storage_groups`.
        is_apart: its author wants it in no storage group; not part of what the view means.
        required: canonical SQL condition of its source's contract; events for which it is not true are dead letters,
            and none of any view's. Empty: there is none.
        expected_entities: how many its author expects, or of the members the largest such number; 0 where nobody says.
            No part of what it means, as where it is stored.
    """

    name: str
    join_keys: tuple[Column, ...]
    source: SourceSpec
    features: tuple[FeatureSpec, ...]
    retention_ms: int | None
    lookback_ms: int = DEFAULT_LOOKBACK_MS
    where: str = ""
    undo: str = ""
    derived: tuple[ComputedColumn, ...] = ()
    members: tuple[MemberSpec, ...] = ()
    is_apart: bool = False
    required: str = ""
    expected_entities: int = 0

    @property
    def title(self) -> str:
        """What it is, and its name, for messages."""
        return f'{"storage group" if self.members else "feature view"} "{self.name}"'

    @property
    def answers(self) -> tuple[Column, ...]:
        """Name and type of everything it answers: windowed features, then derived ones."""
        windowed = [Column(feature.name, feature.type) for feature in self.features]
        return (*windowed, *(Column(feature.name, feature.type) for feature in self.derived))


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The table that a plain view is materialized from, as the registry knows it.

    Attributes:
        source: the Feast data source's name.
        kind: its kind: "file", "bigquery" and so on.
        path: of files, as the author wrote it: a relative one starts from the repo. "" for other kinds.
        format: of files, such as "parquet"; "" for other kinds.
        timestamp_column: since when a row holds; "" where the registry does not say.
        created_column: when a row was written; "" for none.
        renamed: (column of the table, name in the view) pairs where the names differ.
        endpoint: of an object store that is not its cloud's own; "" for none.
    """

    source: str
    kind: str
    path: str
    format: str
    timestamp_column: str
    created_column: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class PlainViewSpec:
    """A feature view that others materialize (a batch profile): stored by Feast, served beside ours.

    Attributes:
        name: the Feast view's name.
        join_keys: typed join keys, in the order of the view's entities.
        features: name and type of each field.
        ttl_ms: age after which a value is too old to serve; None never.
        table: what it is materialized from; None where the registry does not say.
    """

    name: str
    join_keys: tuple[Column, ...]
    features: tuple[Column, ...]
    ttl_ms: int | None = None
    table: TableSpec | None = None
