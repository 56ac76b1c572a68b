"""What a schema would break: columns that it does not have, cannot hold, or means otherwise, by view and feature."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from featurestore.core.inputs import ViewInputs
from featurestore.core.spec import REPLACE, SourceSpec, ViewSpec
from featurestore.definitions.schemas.fits import Fit, fit_of, require_kind
from featurestore.definitions.schemas.subjects import SCHEMA_TYPES, Subject, SubjectSchema
from featurestore.errors.near_names import near_names, quoted
from featurestore.wire.formats.columns import wanted_columns
from featurestore.wire.formats.wishes import NO_COLUMN_HOLDS

_OTHER_TYPE = "read another field, or give the column the field's type"
_OTHER_SHAPE = "read a field of one value, or ask the producer for one, such as the list's length"


class Consequence(enum.StrEnum):
    """What follows for a column, the worst first; in a clause."""

    LOSES_RECORDS = "every record would be a dead letter"
    MAY_LOSE_RECORDS = "records with such values would be dead letters"
    MEANS_OTHER = "its values would mean something else"
    IS_NULL = "it would be null"

    @property
    def loses_records(self) -> bool:
        """Whether records become dead letters."""
        return self in (Consequence.LOSES_RECORDS, Consequence.MAY_LOSE_RECORDS)


@dataclass(frozen=True, slots=True)
class Break:
    """A column that a schema breaks.

    Attributes:
        source: name of the source.
        column: of it.
        reason: what the schema has in its place.
        consequence: for the column.
        features: view -> names of its features that read the column.
        remedy: what the author of a view may do about it.
    """

    source: str
    column: str
    reason: str
    consequence: Consequence
    features: Mapping[str, tuple[str, ...]]
    remedy: str = ""


def find_breaks(
    source: SourceSpec,
    views: Sequence[ViewSpec],
    subject: Subject,
    schema: SubjectSchema,
    before: SubjectSchema | None = None,
) -> tuple[Break, ...]:
    """What a schema would break of the views of a source, the worst first.

    Args:
        source: of one topic, and a format with schemas.
        views: those that read it.
        subject: whose schema it is, or would be.
        schema: to check.
        before: the version before it, whose units it should have kept; None if there is none.

    Raises:
        InvalidRequest: the text is no schema, or is of another kind than the source's format.
    """
    require_kind(source, subject.name, schema, SCHEMA_TYPES[source.format])
    readers = _readers(source, views)
    # Of changes: a row is the same before and after.
    rows = source.rows_at("" if source.changes == REPLACE else "after", source.format) if source.changes else source
    columns = wanted_columns(rows, sorted(readers))
    fit = fit_of(rows, columns, schema, subject.record)
    needed = {source.event_time_column, rows.event_id_column}
    needed |= {key.name for view in views for key in view.join_keys}
    field_of = {column.name: column.field for column in columns}
    breaks = []

    def add(name: str, reason: str, consequence: Consequence, remedy: str) -> None:
        breaks.append(Break(source.name, name, reason, consequence, readers[name], remedy))

    for name, reason in fit.misfits.items():
        add(name, reason, Consequence.LOSES_RECORDS, _OTHER_SHAPE if reason.endswith(NO_COLUMN_HOLDS) else _OTHER_TYPE)
    for name, reason in fit.doubts.items():
        add(name, reason, Consequence.MAY_LOSE_RECORDS, _OTHER_TYPE)
    for name in fit.missing:
        consequence = Consequence.LOSES_RECORDS if name in needed else Consequence.IS_NULL
        add(name, f'the schema has no field "{field_of[name]}"', consequence, _other_field(field_of[name], fit))
    was = {} if before is None else _units_of(source, before, subject.record)
    for name in field_of.keys() - fit.missing - fit.misfits.keys():
        if reason := _other_unit(field_of[name], dict(source.units).get(name, ""), was, fit.units):
            remedy = f'convert it in a computed column, or correct units={{"{name}": ...}} of the source'
            add(name, reason, Consequence.MEANS_OTHER, remedy)
    return tuple(sorted(breaks, key=lambda one: (list(Consequence).index(one.consequence), one.column)))


def _other_field(field: str, fit: Fit) -> str:
    """What to read in place of a field that is not there."""
    leaf = field.rpartition(".")[2]
    of_leaf = [path for path in fit.paths if path.rpartition(".")[2].lower() == leaf.lower()]
    near = of_leaf or near_names(field, fit.paths)
    instead = f", such as {' or '.join(quoted(near[:3]))}" if near else ""
    return f"name the field that has it in fields={{...}} of the source{instead}, or leave the column out"


def _units_of(source: SourceSpec, schema: SubjectSchema, record: str) -> Mapping[str, str]:
    """The units of a schema's fields."""
    return fit_of(source, (), schema, record).units


def _other_unit(field: str, declared: str, was: Mapping[str, str], becomes: Mapping[str, str]) -> str:
    """What is said of a field's unit that is not what it was said to be; "" where nothing is."""
    unit = becomes.get(field, "")
    if declared:
        return f'{field} is in "{unit}", and the source says "{declared}"' if unit and unit != declared else ""
    if field in was and unit != was[field]:
        return f'{field} was in "{was[field]}", and ' + (f'is in "{unit}"' if unit else "has no unit any more")
    return ""


def _readers(source: SourceSpec, views: Sequence[ViewSpec]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Column of the payload -> view -> the features that read it."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    id_column = source.row_id_column if source.changes else source.event_id_column
    always = [name for name in (source.event_time_column, id_column) if name]
    for view in views:
        for feature in view.features:
            read = ViewInputs(replace(view, features=(feature,))).payload_columns
            for name in (*always, *source.stored(read)):
                if name in source.generated:
                    continue
                of_view = found.setdefault(name, {})
                if feature.name not in of_view.get(view.name, ()):
                    of_view[view.name] = (*of_view.get(view.name, ()), feature.name)
    return found
