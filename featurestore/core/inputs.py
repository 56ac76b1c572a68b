"""What a view reads of an event: payload columns, columns computed from them, conditions, and who undoes whom.

    payload columns ──> computed columns ──> conditions        evaluated once a batch, when events arrive
          └───────────────────┴──────────────────┴──> event columns: what heads store and folding lifts

A conditional aggregation reads its column together with a flag, so ten conditions over one amount store the amount
once. After arrival nothing evaluates SQL again: a reader that lifts a head only looks at flags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from functools import cached_property, lru_cache

import numpy as np

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.events import BlobRow, BoolArray, ColumnValues
from featurestore.core.expressions import Expression, Frame, compile_expression, quietly
from featurestore.core.spec import Column, EnrichmentSpec, FeatureSpec, SourceSpec, ValueType, ViewSpec
from featurestore.core.tiles.lifting import Input
from featurestore.errors import InvalidRequest, InvariantBroken

EVENT = "*"
"""Stands for the event itself, where no column is read."""


class ViewInputs:
    """The inputs of one view.

    Args:
        view: a valid view.

    Attributes:
        event_columns: columns to carry to the fold and to store in heads, ascending by name.
        conditional: inputs of parts that are a column under a condition, by name.
        undo: the event column that is true for events which undo an earlier one; None when there are none.
    """

    def __init__(self, view: ViewSpec) -> None:
        self._view = view
        self._conditions = tuple(
            dict.fromkeys(text for text in (*(feature.where for feature in view.features), view.undo) if text)
        )
        self._flags = tuple(map(flag_name, self._conditions))
        self._selecting = tuple(text for text in (view.required, view.where) if text)
        self.undo = flag_name(view.undo) if view.undo else None
        self.conditional = {
            _input_name(feature.column, feature.where): Input(feature.column, flag_name(feature.where))
            for feature in view.features
            if feature.where
        }
        self._read = {feature.column for feature in view.features if feature.column is not None}
        self._read.update(name for feature in view.features for name in resolve(feature.function).further_columns)
        columns = [self.column(name) for name in self._read]
        columns += [Column(flag_name(text), ValueType.BOOL) for text in self._conditions]
        self.event_columns: tuple[Column, ...] = tuple(sorted(columns, key=lambda column: column.name))

    @property
    def source(self) -> SourceSpec:
        """Where the columns are from."""
        return self._view.source

    @cached_property
    def payload_columns(self) -> tuple[str, ...]:
        """Columns to decode, enriched ones among them: those behind features, conditions and join keys, by name."""
        computed = {column.name for column in self._view.source.computed}
        return tuple(sorted(self._closure - computed))

    @cached_property
    def computed_columns(self) -> tuple[str, ...]:
        """Computed columns that are needed, each behind those it reads."""
        return tuple(column.name for column in self._view.source.computed if column.name in self._closure)

    @cached_property
    def evaluated_columns(self) -> tuple[str, ...] | None:
        """Payload columns that `compute` and `selected` read, by name; None where there is nothing to evaluate."""
        texts = [flag_name(text) for text in (*self._conditions, *self._selecting)]
        evaluated = [self._expressions[name] for name in (*self.computed_columns, *texts)]
        if not evaluated:
            return None
        computed = {column.name for column in self._view.source.computed}
        return tuple(sorted({name for one in evaluated for name in one.columns} - computed))

    @property
    def enrichments(self) -> tuple[EnrichmentSpec, ...]:
        """The tables that needed columns are from, each with those alone."""
        return self._view.source.enriched_by(self._closure)

    def column(self, name: str) -> Column:
        """A column of the source, of the payload or computed."""
        column = self._view.source.column(name)
        if column is None:
            raise InvariantBroken(
                f'feature view "{self._view.name}" reads column "{name}" that its source does not have'
            )
        return column

    def input_of(self, feature: FeatureSpec) -> Column | None:
        """What the parts of a feature read; None counts all events."""
        if not feature.where:
            return None if feature.column is None else self.column(feature.column)
        value_type = ValueType.BOOL if feature.column is None else self.column(feature.column).type
        return Column(_input_name(feature.column, feature.where), value_type)

    def prepare(self) -> None:
        """Compile all expressions, before a payment waits for them."""
        self._expressions  # noqa: B018  # kept from now on

    def compute(self, columns: MutableMapping[str, ColumnValues], count: int) -> None:
        """Add everything that the view computes of N events; what other views computed of them stays.

        Args:
            columns: at least the payload columns, N rows each.
            count: N.
        """
        if not self.computed_columns and not self._flags:
            return
        # One frame: what several expressions have in common is computed once, and texts are cut out of bytes once.
        expressions, frame = self._expressions, Frame(columns)
        with quietly():
            for name in self.computed_columns:
                if name not in columns:
                    columns[name] = expressions[name].evaluate_in(frame, count).storable()
            for name in self._flags:
                if name not in columns:
                    columns[name] = _as_flag(expressions[name].evaluate_in(frame, count))

    def selected(self, columns: Mapping[str, ColumnValues], count: int) -> BoolArray | None:
        """(N,) whether each event is the view's; None when all are. `columns` went through `compute`."""
        if not self._selecting:
            return None
        selected = np.ones(count, dtype=np.bool_)
        for name in map(flag_name, self._selecting):
            # Whoever checked the source's contract has the flag already.
            flag = columns[name] if name in columns else self._expressions[name].evaluate(columns, count)
            selected &= np.asarray(flag.values, dtype=np.bool_)
        return None if selected.all() else selected

    @cached_property
    def _expressions(self) -> dict[str, Expression]:
        """Computed columns by name, conditions by their flag's. Only whoever takes events in needs them."""
        source = self._view.source
        types = {column.name: column.type for column in source.columns}
        types.update({column.name: column.type for column in source.computed})
        texts = {column.name: column.expression for column in source.computed}
        texts.update({flag_name(text): text for text in (*self._conditions, *self._selecting)})
        return {name: compile_expression(text, types) for name, text in texts.items()}

    @cached_property
    def _closure(self) -> frozenset[str]:
        """Every column that is needed, directly or by another, of the payload or computed."""
        found = set[str]()
        rest = [*self._read, *(key.name for key in self._view.join_keys)]
        for text in (*self._conditions, *self._selecting):
            rest += self._expressions[flag_name(text)].columns
        while rest:
            name = rest.pop()
            if name not in found:
                found.add(name)
                rest += self._expressions[name].columns if name in self._expressions else ()
        return frozenset(found)


def python_values(column: ColumnValues, value_type: ValueType) -> list[int | float | str | bool | None]:
    """N values of an event column as Python has them, None for null; texts are shown whatever their bytes."""
    values: list[int | float | str | bool]
    if value_type is ValueType.STRING:
        values = [text.decode(errors="backslashreplace") for text in BlobRow.of(column.values).values()]
    else:
        values = np.asarray(column.values).tolist()
        values = [bool(value) for value in values] if value_type is ValueType.BOOL else values
    valid = [True] * len(values) if column.valid is None else column.valid.tolist()
    return [value if is_there else None for value, is_there in zip(values, valid, strict=True)]


@lru_cache(maxsize=1_024)
def view_inputs(view: ViewSpec) -> ViewInputs:
    """The inputs of a view; expressions are compiled once."""
    return ViewInputs(view)


def refuse_enriched(views: Iterable[ViewSpec], who: str, hint: str) -> None:
    """Refuse views that read what events get from tables.

    Args:
        views: that are asked for.
        who: does not read tables.
        hint: what to do instead.

    Raises:
        InvalidRequest: one of them reads some.
    """
    for view in views:
        for one in view_inputs(view).enrichments if view.source.enrichments else ():
            raise InvalidRequest(
                f'{view.title} reads column "{one.columns[0][0].name}", which events get from table "{one.table}"',
                detail=f"{who} does not read tables.",
                hint=hint,
            )


def flag_name(condition: str) -> str:
    """Name of the BOOL event column that holds a condition."""
    return f"where {condition}"


def _input_name(column: str | None, condition: str) -> str:
    """Name of a column under a condition."""
    return f"{EVENT if column is None else column} {flag_name(condition)}"


def _as_flag(condition: ColumnValues) -> ColumnValues:
    """1 where a condition is true, 0 where it is false or null, as it has it there; never null itself."""
    return condition if condition.valid is None else ColumnValues(condition.values)
