"""Compile one stream feature view: entities, source, aggregations and fields into a ViewSpec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from featurestore.core.aggregations import catalog
from featurestore.core.aggregations.base import Aggregation
from featurestore.core.inputs import view_inputs
from featurestore.core.lowering.series import series_type
from featurestore.core.spec import (
    DEFAULT_LOOKBACK_MS,
    IS_UNDO,
    REPLACE,
    Column,
    FeatureSpec,
    FreshnessPromise,
    SourceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.core.windows.durations import format_duration
from featurestore.definitions import limits
from featurestore.definitions.compile.expectations import FRESHNESS_TAG, required_of
from featurestore.definitions.compile.expressions import (
    EXPRESSION_TAG,
    UNDO_TAG,
    WHERE_TAG,
    condition,
    derived_features,
)
from featurestore.definitions.compile.source import CompiledSource, compile_source, duration_tag
from featurestore.definitions.compile.types import EXACT_TYPES, join_keys_of
from featurestore.definitions.compile.window import (
    IN_FLIGHT_TAG,
    NANOSECONDS_PER_MS,
    SERIES_TAG,
    compile_in_flight,
    compile_window,
)
from featurestore.definitions.problems import Place, ProblemList, quoted, suggest
from featurestore.errors import InvalidRequest
from featurestore.errors.near_names import near_names
from featurestore.wire.feast.registry import RegisteredAggregation, RegisteredEntity, RegisteredField, RegisteredView

LOOKBACK_TAG = "lookback"
"""Tag of a view: how far before an entity's newest event a read stays exact."""

STORAGE_TAG = "storage"
"""Tag of a view: `own` keeps it out of the storage group of its source and join keys."""

OWN_STORAGE = "own"
"""The tag's only value."""

FRESHNESS_TARGET_TAG = "freshness_target"
"""Tag of a view: share of its events of which its `freshness` must be true, above 0 and below 1."""

FRESHNESS_TARGET_DEFAULT = 0.99

EXPECTED_ENTITIES_TAG = "expected_entities"
"""Tag of a view: how many entities it is going to have; those of few events then share keys."""

ROWS = ("", "*")
"""Columns that mean: count rows."""


def compile_stream_view(
    view: RegisteredView, entities: Mapping[str, RegisteredEntity], problems: ProblemList
) -> ViewSpec | None:
    """The spec of a view with aggregations; None when it has a mistake, which is then in `problems`."""
    found_before = len(problems.found)
    place = Place("feature view", view.name)
    problems.add_mistake(place, view.tags)
    join_keys = join_keys_of(view, entities, place, problems)
    source = compile_source(view, place, problems)
    if source is not None and join_keys is not None:
        _check_join_keys(join_keys, source, place, problems)
    key_names = {entities[name].join_key for name in view.entities if name in entities}
    key_names |= {column.name for column in view.entity_columns}
    features = _FeatureCompiler(view, key_names, source, problems).compile()
    sound = {feature.name for feature in features}
    broken = {one.resolved_name for one in view.aggregations if one.resolved_name not in sound}
    derived = derived_features(
        [field for field in view.fields if _is_derived(field, key_names)], features, broken, place, problems
    )
    where = undo = None
    if source is not None:
        where = condition(view.tags.get(WHERE_TAG, ""), source.spec, f'tag "{WHERE_TAG}"', place, problems)
        undo = _undo(view, source.spec, features, place, problems)
    lookback_ms = duration_tag(
        view.tags, LOOKBACK_TAG, place, problems, default=DEFAULT_LOOKBACK_MS, maximum=limits.LOOKBACK_MS_MAX
    )
    _check_ttl(view, features, place, problems)
    storage = view.tags.get(STORAGE_TAG, "")
    if storage not in ("", OWN_STORAGE):
        fact = f'tag "{STORAGE_TAG}" is "{storage}"'
        problems.add(place, fact, f'write "{OWN_STORAGE}", or leave it out: the view is then stored with others')
    expected_entities = _expected_entities(view.tags, place, problems)
    if len(problems.found) > found_before or source is None or join_keys is None or where is None or undo is None:
        return None
    spec = ViewSpec(
        name=view.name,
        join_keys=join_keys,
        source=source.spec,
        features=features,
        retention_ms=_retention_ms(view.ttl_ns // NANOSECONDS_PER_MS, features, lookback_ms),
        lookback_ms=lookback_ms,
        where=where,
        undo=undo,
        derived=derived,
        is_apart=storage == OWN_STORAGE,
        required=required_of(source.expectations),
        expected_entities=expected_entities,
    )
    return spec if _can_undo(spec, place, problems) else None


def promise_of(tags: Mapping[str, str], view: str, place: Place, problems: ProblemList) -> FreshnessPromise | None:
    """What a stream view's tags promise of its freshness, which is no part of what it means; None for nothing."""
    found_before = len(problems.found)
    freshness_ms = duration_tag(tags, FRESHNESS_TAG, place, problems, default=0, maximum=limits.FRESHNESS_MS_MAX)
    target = _target(tags, place, problems)
    if FRESHNESS_TAG not in tags and FRESHNESS_TARGET_TAG in tags:
        fact = f'it has tag "{FRESHNESS_TARGET_TAG}", but no "{FRESHNESS_TAG}"'
        problems.add(place, fact, 'write how fresh it is promised to be: freshness="30s"')
    if not freshness_ms or len(problems.found) > found_before:
        return None
    return FreshnessPromise(view, freshness_ms, target)


def _target(tags: Mapping[str, str], place: Place, problems: ProblemList) -> float:
    text = tags.get(FRESHNESS_TARGET_TAG, str(FRESHNESS_TARGET_DEFAULT))
    try:
        target = float(text)
    except ValueError:
        target = 0.0
    if not 0.0 < target < 1.0:
        fact = f'tag "{FRESHNESS_TARGET_TAG}" is "{text}"'
        problems.add(place, fact, "write a share of the events above 0 and below 1, such as 0.99")
        return FRESHNESS_TARGET_DEFAULT
    return target


def _can_undo(view: ViewSpec, place: Place, problems: ProblemList) -> bool:
    """Whether what an event added can be taken back: a table may say something else by then."""
    enriched = view.source.enriched.intersection(view_inputs(view).payload_columns) if view.undo else ()
    for name in sorted(enriched):
        fact = f'it has "{UNDO_TAG}", and reads column "{name}", which events get from a table'
        problems.add(place, fact, "move what reads it to a view without undo: the table may have changed in between")
    return not enriched


def _expected_entities(tags: Mapping[str, str], place: Place, problems: ProblemList) -> int:
    """What the tag says; 0 without it, or with a mistake."""
    text = tags.get(EXPECTED_ENTITIES_TAG, "")
    # A number of Unicode's other digits would be read too, but nobody writes one on purpose.
    number = int(text) if text.isascii() and text.isdigit() else 0
    if text and not 0 < number <= limits.EXPECTED_ENTITIES_MAX:
        fact = f'tag "{EXPECTED_ENTITIES_TAG}" is "{text}"'
        problems.add(place, fact, f"write how many entities there will be: 1 to {limits.EXPECTED_ENTITIES_MAX}")
        return 0
    return number


def _is_derived(field: RegisteredField, key_names: set[str]) -> bool:
    """Whether a Field is computed from other features."""
    return EXPRESSION_TAG in field.tags and field.name not in key_names


def _undo(
    view: RegisteredView, source: SourceSpec, features: tuple[FeatureSpec, ...], place: Place, problems: ProblemList
) -> str | None:
    """Which events take back what an equal event added, only out of what can forget; None when it has a mistake."""
    text = view.tags.get(UNDO_TAG, "")
    if source.changes and text:
        said_by = "replacements" if source.changes == REPLACE else "changes"
        fact = f'it has "{UNDO_TAG}", but what is taken back is said by the {said_by} of source "{source.name}"'
        problems.add(place, fact, "leave it out")
        return None
    undo = condition(IS_UNDO if source.changes else text, source, f'tag "{UNDO_TAG}"', place, problems)
    why, remedy = f'the view has "{UNDO_TAG}"', "move the feature to a view without it, or exclude both events"
    if source.changes:
        what = "events that replace one another" if source.changes == REPLACE else "rows that are changed and deleted"
        why = f'source "{source.name}" has {what}'
        remedy = "use count, sum or mean, or read a topic of events that are only added"
    for feature in features if undo else ():
        if not catalog.resolve(feature.function).is_invertible:
            problems.add(place.of(feature.name), f"{why}, but {feature.function} cannot take an event back", remedy)
        elif source.changes and feature.window.gap_ms:
            problems.add(
                place.of(feature.name), f"{why}, but a session cannot take an event back", "use a sliding window"
            )
    return undo


def _check_join_keys(
    join_keys: tuple[Column, ...], source: CompiledSource, place: Place, problems: ProblemList
) -> None:
    for key in join_keys:
        column = source.spec.column(key.name)
        if column is None:
            known = suggest(key.name, source.names)
            problems.add(place, f'join key "{key.name}" is not a column of source "{source.spec.name}"', known)
        elif column.type is not key.type:
            problems.add(
                place,
                f'join key "{key.name}" is {key.type} in its entity and {column.type} in source "{source.spec.name}"',
                "give both the same type",
            )


def _check_ttl(view: RegisteredView, features: tuple[FeatureSpec, ...], place: Place, problems: ProblemList) -> None:
    """A ttl is the author's word on how long events matter; a window that outlives it contradicts it."""
    ttl_ms = view.ttl_ns // NANOSECONDS_PER_MS
    if not ttl_ms:
        return
    for feature in features:
        if feature.window.length_ms is None:
            fact, remedy = "it covers the entity's lifetime", "leave ttl out"
        elif feature.window.span_ms > ttl_ms:
            needed = format_duration(feature.window.span_ms)
            fact, remedy = f"it reaches back {needed}", f"leave ttl out, or make it {needed} or longer"
        else:
            continue
        problems.add(place.of(feature.name), f"{fact}, but the view's ttl is {format_duration(ttl_ms)}", remedy)


def _retention_ms(ttl_ms: int, features: tuple[FeatureSpec, ...], lookback_ms: int) -> int | None:
    """How long events must be kept: the longest reach in whole tiles of the widest hop, at least the ttl."""
    windows = [feature.window for feature in features]
    if any(window.length_ms is None for window in windows):
        return None
    widest_hop_ms = max(window.hop_ms for window in windows)
    reach_ms = max(window.reach_ms for window in windows)
    return max(ttl_ms, -(-reach_ms // widest_hop_ms) * widest_hop_ms) + lookback_ms


@dataclass(frozen=True, slots=True)
class _FeatureCompiler:
    """Pairs the aggregations of one view with its fields.

    Attributes:
        view: the registered view.
        key_names: its join keys; Feast mixes them into the fields.
        source: None when the source itself is wrong, so that columns are not checked against nothing.
        problems: where mistakes go.
    """

    view: RegisteredView
    key_names: set[str]
    source: CompiledSource | None
    problems: ProblemList

    def compile(self) -> tuple[FeatureSpec, ...]:
        """Features in the order of the aggregations; those with a mistake are missing."""
        place = Place("feature view", self.view.name)
        fields = {
            field.name: field
            for field in self.view.fields
            if field.name not in self.key_names and not _is_derived(field, self.key_names)
        }
        names = [aggregation.resolved_name for aggregation in self.view.aggregations]
        self._check_names(names, place)
        if len(names) > limits.VIEW_FEATURES_MAX:
            fact = f"it has {len(names)} features, at most {limits.VIEW_FEATURES_MAX} are supported"
            self.problems.add(place, fact, "split the view")
        if not fields:
            example = ", ".join(quoted(names[:3]))
            self.problems.add(place, "it has no schema", f"give one Field per aggregation ({example} ...)")
        misspelled = set[str]()
        for name in fields:
            if name not in names:
                unpaired = [one for one in names if one not in fields]
                misspelled |= set(near := near_names(name, unpaired)[:1])
                known = suggest(name, near or names)
                self.problems.add(place.of(name), "the Field has no aggregation of that name", f"add one; {known}")
        compiled = []
        for name, aggregation in zip(names, self.view.aggregations, strict=True):
            if name in self.key_names:
                continue
            if fields and name not in fields and name not in misspelled:
                remedy = f'add Field(name="{name}", dtype=...) to the schema'
                self.problems.add(place.of(name), "the aggregation has no Field of that name", remedy)
            compiled.append(self._feature(aggregation, fields.get(name), place.of(name)))
        return tuple(feature for feature in compiled if feature is not None)

    def _check_names(self, names: list[str], place: Place) -> None:
        for name, count in Counter(names).items():
            if count > 1:
                self.problems.add(place.of(name), f"{count} aggregations have that name", "give each its own name")
            if name in self.key_names:
                self.problems.add(place.of(name), "the name is also that of a join key", "rename the aggregation")
            if len(name) > limits.NAME_LENGTH_MAX:
                fact = f"the name is longer than {limits.NAME_LENGTH_MAX} characters"
                self.problems.add(place.of(name), fact, "shorten it")

    def _feature(
        self, aggregation: RegisteredAggregation, field: RegisteredField | None, place: Place
    ) -> FeatureSpec | None:
        window = compile_window(aggregation, field.tags if field else {}, place, self.problems)
        function = self._function(aggregation, place)
        if function is None:
            return None
        is_row_count = not function.requires_column and aggregation.column in ROWS
        column = None if is_row_count else self._column(aggregation, function, place)
        if column is None and not is_row_count:
            return None
        output_type = self._output_type(function, column, window, field, place)
        if output_type is None or window is None:
            return None
        column_name = column.name if column else None
        where = self._where(field, place)
        if where is None or not self._can_read(function, column, place):
            return None
        if where and function.keeps_nulls:
            fact = f'tag "{WHERE_TAG}" does not go with {function.name}: a value under a condition is null without it'
            self.problems.add(place, fact, "make it the view's where, or ignore nulls")
            return None
        tags = field.tags if field else {}
        in_flight = compile_in_flight(
            tags, window, by_default=function.counts_in_flight, place=place, problems=self.problems
        )
        return FeatureSpec(
            aggregation.resolved_name,
            function.name,
            column_name,
            window,
            output_type,
            where,
            in_flight,
            fixes_in_flight=IN_FLIGHT_TAG in tags,
        )

    def _where(self, field: RegisteredField | None, place: Place) -> str | None:
        """The feature's condition; None when it has a mistake."""
        if field is None or self.source is None:
            return ""
        text = field.tags.get(WHERE_TAG, "")
        return condition(text, self.source.spec, f'tag "{WHERE_TAG}"', place, self.problems)

    def _can_read(self, function: Aggregation, column: Column | None, place: Place) -> bool:
        """Whether the source has the columns that the function names in its parameters, of types that it takes."""
        if self.source is None:
            return True
        further = [(name, self.source.spec.column(name)) for name in function.further_columns]
        for name, found in further:
            if found is None:
                fact = f'column "{name}" of function "{function.name}" is not a column of source '
                self.problems.add(place, fact + f'"{self.source.spec.name}"', suggest(name, self.source.names))
                return False
        try:
            function.parts(column, [found for _, found in further if found is not None])
        except InvalidRequest as error:
            self.problems.add(place, error.message, error.hint)
            return False
        return True

    def _function(self, aggregation: RegisteredAggregation, place: Place) -> Aggregation | None:
        try:
            return catalog.resolve(aggregation.function)
        except InvalidRequest as error:
            self.problems.add(place, error.message, error.hint)
            return None

    def _column(self, aggregation: RegisteredAggregation, function: Aggregation, place: Place) -> Column | None:
        """The source's column; None when it is missing or unreadable, or when the source is wrong."""
        name = aggregation.column
        if name in ROWS:
            self.problems.add(place, f'function "{function.name}" needs a column', "give Aggregation(column=...)")
            return None
        if self.source is None:
            return None
        column = self.source.spec.column(name)
        if column is not None:
            return column
        if name in self.source.unsupported:
            types = ", ".join(sorted(function.input_types))
            fact = f'column "{name}" is of type {self.source.unsupported[name]}, which is not read'
            self.problems.add(place, fact, f"use a column of type {types}")
        else:
            fact = f'column "{name}" is not a column of source "{self.source.spec.name}"'
            self.problems.add(place, fact, suggest(name, self.source.names))
        return None

    def _output_type(
        self,
        function: Aggregation,
        column: Column | None,
        window: Window | None,
        field: RegisteredField | None,
        place: Place,
    ) -> ValueType | None:
        output_type = function.output_type(column.type if column else None)
        what = f'{column.type} column "{column.name}"' if column else "rows"
        if output_type is None:
            types = ", ".join(sorted(function.input_types))
            fact = f'function "{function.name}" cannot take {what}'
            self.problems.add(place, fact, f"use a column of type {types}, or another function")
            return None
        if window is not None and window.series:
            what = f"a series over {what}"
            output_type = self._series_type(function, output_type, column, place)
            if output_type is None:
                return None
        if window is None and field is not None and SERIES_TAG in field.tags:
            return output_type  # of one window; the Field is right to be of another type
        registered, written = EXACT_TYPES[output_type]
        if field is not None and field.value_type != registered:
            fact = f"the Field is of type {field.value_type}, but {function.name} of {what} is {registered}"
            self.problems.add(place, fact, f"write dtype={written}")
        return output_type

    def _series_type(
        self, function: Aggregation, output_type: ValueType, column: Column | None, place: Place
    ) -> ValueType | None:
        """Type of a list of answers."""
        known = [self.source.spec.column(name) for name in function.further_columns] if self.source else []
        further = tuple(each for each in known if each is not None)
        if len(further) < len(function.further_columns):
            return None  # reported where the column is looked up
        list_type = series_type(function, output_type, column, further)
        if list_type is None:
            fact = f"a series cannot hold the answers of {function.name}, of type {output_type}"
            if output_type is ValueType.INT64:
                fact += ", which is null over no events while lists hold no null"
            self.problems.add(place, fact, "use a function that answers float64 (null is NaN there), or count or sum")
        return list_type
