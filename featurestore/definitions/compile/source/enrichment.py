"""Compile what a source's events get from tables: a tag of the source for each, which has the whole table.

    "enrich.fx": {"on": "currency", "key": "currency", "columns": {"rate": "double"}, "stream": {...}}

The table is written into the tag as it is, so a view knows all that its events are made of, in every version of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from featurestore.core.spec import REPLACE, SCALAR_TYPES, Column, EnrichmentSpec, SourceSpec, TableSpec, ValueType
from featurestore.definitions import limits
from featurestore.definitions.problems import Place, ProblemList, suggest
from featurestore.definitions.schemas.source_schema import COLUMN_TYPES
from featurestore.wire.feast.registry import RegisteredSource, RegisteredTable

ENRICH_TAG_PREFIX = "enrich."
"""Tags of a source: "enrich.fx" holds a `WrittenTable` as JSON."""

ON_TYPES = frozenset({ValueType.STRING, ValueType.INT64})

CompileStream = Callable[[RegisteredSource, Place, ProblemList], SourceSpec | None]
"""The stream whose records are the rows of a table; None where its columns cannot be known."""

_FILES = "BATCH_FILE"


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """What an author wants of a table.

    Attributes:
        on: column of the events that names the row.
        key: column of the table.
        columns: of the table -> type; "" where nobody says it.
        names: column of the table -> what events call it, where that is not "{enrichment}_{column}".
        stream: the table as a topic; None where it is a batch source.
        files: the table as a batch source.
    """

    on: str
    key: str
    columns: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)
    stream: RegisteredSource | None = None
    files: RegisteredTable | None = None

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """(column of the events, column of the table), by the former."""
        return tuple(sorted((self.names.get(column, f"{name}_{column}"), column) for column in self.columns))

    def text(self) -> str:
        """The tag."""
        return msgspec.json.encode(self, order="deterministic").decode()


@dataclass(frozen=True, slots=True)
class Enrichments:
    """Those of a source, and the columns that events get by them."""

    specs: tuple[EnrichmentSpec, ...]
    columns: tuple[Column, ...]


def enriched_columns(tags: Mapping[str, str]) -> tuple[Column, ...]:
    """Columns that events get by some tags, as far as these say their types."""
    found = []
    for name, written in _written(tags, None, None).items():
        for column, of_table in written.pairs(name):
            kind = COLUMN_TYPES.get(written.columns[of_table])
            found += [] if kind is None else [Column(column, kind)]
    return tuple(found)


def enrichments_of(
    source: RegisteredSource,
    payload: Mapping[str, ValueType],
    compile_stream: CompileStream,
    place: Place,
    problems: ProblemList,
) -> Enrichments:
    """What a source's tags say; those with a mistake are missing.

    Args:
        source: with the tags.
        payload: type of each column of its payload.
        compile_stream: compiles a table that is a topic.
        place: of the source.
        problems: where mistakes go.
    """
    written = _written(source.tags, place, problems)
    if written and (source.tags.get("changes") or source.tags.get("on_duplicate") == REPLACE):
        is_of_rows = bool(source.tags.get("changes"))
        fact = (
            f"its {'payloads are changes of rows' if is_of_rows else 'events replace one another'}, and it is enriched"
        )
        what = "a row that is taken back" if is_of_rows else "an event that is replaced"
        remedy = f"leave enrich out: {what} might be looked up in another version than it was counted by"
        problems.add(place, fact, remedy)
        return Enrichments((), ())
    if len(written) > limits.ENRICHMENTS_MAX:
        fact = f"it is enriched from {len(written)} tables, at most {limits.ENRICHMENTS_MAX} are supported"
        problems.add(place, fact, "join some tables before")
    specs, columns, taken = list[EnrichmentSpec](), list[Column](), dict(payload)
    for name, one in sorted(written.items()):
        found = _Enrichment(name, one, payload, place, problems).compile(compile_stream)
        if found is None:
            continue
        spec, mine = found
        for column in mine:
            if column.name in taken:
                fact = f'{_what(name)}: it has a column "{column.name}" already'
                problems.add(place, fact, 'give it another name by table(names={"' + name + '": ...})')
            taken[column.name] = column.type
        specs.append(spec)
        columns += mine
    return Enrichments(tuple(specs), tuple(columns))


@dataclass(frozen=True, slots=True)
class _Enrichment:
    """One that is compiled."""

    name: str
    written: WrittenTable
    payload: Mapping[str, ValueType]
    place: Place
    problems: ProblemList

    def compile(self, compile_stream: CompileStream) -> tuple[EnrichmentSpec, list[Column]] | None:
        """The spec and its columns; None where it has a mistake."""
        found_before, written = len(self.problems.found), self.written
        if not self.name.isidentifier():
            self._refuse("its name is no plain name", "write a name such as fx")
        on_type = self.payload.get(written.on)
        if on_type is None:
            self._refuse(f'column "{written.on}" is not in the payload', suggest(written.on, self.payload))
        elif on_type not in ON_TYPES:
            self._refuse(f'column "{written.on}" is of type {on_type}', "use a string or bigint column")
        if not written.columns:
            self._refuse("no columns are named", "write table(columns=[...])")
        for stranger in sorted(written.names.keys() - written.columns.keys()):
            self._refuse(
                f'it renames a column "{stranger}" that it does not ask for', suggest(stranger, written.columns)
            )
        stream, files = None, None
        if written.stream is not None:
            stream = self._stream(written.stream, compile_stream)
        elif written.files is not None:
            files = self._files(written.files)
        else:
            self._refuse("its table is not known", "give table() a source")
        types = self._types(stream)
        key_type = on_type if stream is None else self._key_type(stream)
        if stream is not None and key_type is not on_type and on_type is not None and key_type is not None:
            fact = f'column "{written.on}" is {on_type}, and "{written.key}" of table "{stream.name}" is {key_type}'
            self._refuse(fact, "give both the same type")
        if len(self.problems.found) > found_before or key_type is None:
            return None
        pairs = tuple((Column(name, types[of_table]), of_table) for name, of_table in written.pairs(self.name))
        spec = EnrichmentSpec(self.name, written.on, Column(written.key, key_type), pairs, files, stream)
        return spec, [column for column, _ in pairs]

    def _refuse(self, fact: str, remedy: str) -> None:
        self.problems.add(self.place, f"{_what(self.name)}: {fact}", remedy)

    def _types(self, stream: SourceSpec | None) -> dict[str, ValueType]:
        """Type of each column that is asked for."""
        types: dict[str, ValueType] = {}
        known = None if stream is None else {column.name: column.type for column in stream.columns}
        for name, text in self.written.columns.items():
            declared = COLUMN_TYPES.get(text)
            if text and (declared is None or declared not in SCALAR_TYPES):
                self._refuse(f'column "{name}" is of unknown type {text}', f"types are {', '.join(COLUMN_TYPES)}")
            elif known is None:
                if declared is None:
                    self._refuse(
                        f'nobody says of what type column "{name}" is', 'write columns={"' + name + '": "double"}'
                    )
                else:
                    types[name] = declared
            elif name not in known:
                self._refuse(f'its table has no column "{name}"', suggest(name, known))
            elif declared is not None and declared is not known[name]:
                self._refuse(f'column "{name}" is {known[name]} in its table, not {declared}', "write the table's type")
            else:
                types[name] = known[name]
        return types

    def _key_type(self, stream: SourceSpec) -> ValueType | None:
        """Type of the table's key; None where it has none."""
        column = stream.column(self.written.key)
        if column is None:
            known = [column.name for column in stream.columns]
            self._refuse(f'its table has no column "{self.written.key}", the key', suggest(self.written.key, known))
        return None if column is None else column.type

    def _stream(self, table: RegisteredSource, compile_stream: CompileStream) -> SourceSpec | None:
        """A table that is a topic."""
        if table.tags.get("on_duplicate") == REPLACE:
            fact = f'events of its table "{table.name}" replace one another, and versions of a row do not'
            self._refuse(fact, "leave on_duplicate out: the newest version of a row as of a time counts anyway")
            return None
        if table.tags.get("changes"):
            self._refuse(
                f'its table "{table.name}" is a topic of changes (debezium), which no table is read from yet',
                "publish the rows themselves, each with its key and the time from which it holds",
            )
            return None
        if any(tag.startswith(ENRICH_TAG_PREFIX) for tag in table.tags):
            self._refuse(f'its table "{table.name}" is enriched itself', "enrich the events from both tables")
            return None
        if any(tag.startswith("topic.") for tag in table.tags):
            self._refuse(f'its table "{table.name}" has several topics', "read one")
            return None
        return compile_stream(table, Place("source", table.name), self.problems)

    def _files(self, table: RegisteredTable) -> TableSpec | None:
        """A table that is a batch source."""
        if table.kind != _FILES or table.format not in ("", "parquet_format"):
            fact = f'its table "{table.name}" is {table.kind.removeprefix("BATCH_").lower()} {table.format}'.rstrip()
            self._refuse(fact, "give a FileSource of Parquet files, or a kafka_source")
        if not table.timestamp_field:
            self._refuse(
                f'its table "{table.name}" does not say from when its rows hold', "give FileSource(timestamp_field=...)"
            )
        return TableSpec(
            source=table.name,
            kind="file",
            path=table.uri,
            format="parquet",
            timestamp_column=table.timestamp_field,
            created_column=table.created_field,
            renamed=tuple(sorted(table.field_mapping.items())),
            endpoint=table.endpoint,
        )


def _written(tags: Mapping[str, str], place: Place | None, problems: ProblemList | None) -> dict[str, WrittenTable]:
    """What the tags have, by name."""
    found = {}
    for tag in sorted(tag for tag in tags if tag.startswith(ENRICH_TAG_PREFIX)):
        name = tag.removeprefix(ENRICH_TAG_PREFIX)
        try:
            found[name] = msgspec.json.decode(tags[tag], type=WrittenTable)
        except msgspec.MsgspecError as error:
            if place is not None and problems is not None:
                problems.add(place, f'tag "{tag}" cannot be read: {error}', "write kafka_source(enrich={...})")
    return found


def _what(name: str) -> str:
    return f'enrichment "{name}"'
