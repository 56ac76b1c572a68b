"""What a plan says of the schemas that its views read: problems of views that are new or changed, notes of the others.

What runs is not held up: a producer may have changed its schema since, and an apply of something else must not wait for
that. What an author writes now has to fit the newest schema there is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from featurestore.core.spec import SourceSpec, ViewSpec
from featurestore.definitions.problems import Place, Problem
from featurestore.definitions.schemas.breaks import Break, Consequence, find_breaks
from featurestore.definitions.schemas.subjects import SCHEMA_TYPES, Registries, Subject, subjects_of
from featurestore.errors import FeatureStoreError, InvalidRequest

_NO_CHECK = "NONE"

_ALLOWED: Mapping[str, str] = {
    "BACKWARD": "drop any field",
    "FORWARD": "drop a field that has a default",
    "FULL": "drop a field that has a default",
}
"""What a producer may do to our columns in a registry's mode, without a word to anybody."""

FEATURES_TOLD_MAX = 3


@dataclass(slots=True)
class SchemaChecks:
    """What was found.

    Attributes:
        problems: of views that are new or changed.
        warnings: what nothing protects.
        notes: what is to be known.
    """

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sources_with_schemas(views: Sequence[ViewSpec]) -> list[tuple[SourceSpec, list[ViewSpec]]]:
    """The sources of one topic each whose records have schemas, and the views that read them."""
    found: dict[SourceSpec, list[ViewSpec]] = {}
    for view in views:
        for source in view.source.per_topic if view.source.format in SCHEMA_TYPES else ():
            found.setdefault(source, []).append(view)
    return list(found.items())


def check_schemas(views: Sequence[ViewSpec], changed: Collection[str], registries: Registries) -> SchemaChecks:
    """Check views against the newest schemas of what they read.

    Args:
        views: all that is to be stored.
        changed: names of those that are new or changed.
        registries: to ask.
    """
    checks = SchemaChecks()
    found: list[tuple[SourceSpec, Subject, Break]] = []
    asked: dict[str, set[tuple[str, str]]] = {}
    for source, of_source in sources_with_schemas(views):
        for subject in subjects_of(source):
            breaks = _breaks_of(source, subject, of_source, changed, registries, checks)
            if breaks is not None:
                asked.setdefault(source.name, set()).add((source.topic, subject.record))
                found += [(source, subject, one) for one in breaks]
    nulls: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for source, subject, one in found:
        if one.consequence is Consequence.IS_NULL:
            nulls.setdefault((source.name, one.column), set()).add((source.topic, subject.record))
    for source, subject, one in found:
        # What another topic or record of the source has may be null in this one.
        is_null = one.consequence is Consequence.IS_NULL
        is_elsewhere = is_null and nulls[source.name, one.column] < asked[source.name]
        for view, features in one.features.items():
            if view in changed and not is_elsewhere:
                checks.problems.append(_problem(subject, one, view, features))
        told = {view: names for view, names in one.features.items() if view not in changed or is_elsewhere}
        if told:
            checks.notes.append(_note(subject, one, told))
    return checks


def _breaks_of(
    source: SourceSpec,
    subject: Subject,
    views: Sequence[ViewSpec],
    changed: Collection[str],
    registries: Registries,
    checks: SchemaChecks,
) -> tuple[Break, ...] | None:
    """What the newest schema of a subject breaks; None where there is nothing to ask, which is noted."""
    try:
        schema = registries.newest(source, subject.name)
        if schema is None:
            checks.notes.append(
                f'source "{source.name}" is not checked against its schema: schema registry {source.schema_registry} '
                f'has no subject "{subject.name}"; if its producers name subjects otherwise, say so by subject_name='
            )
            return None
        before = registries.before(source, subject.name, schema.version)
        _tell_compatibility(subject, schema.version, registries.compatibility(source, subject.name), checks)
    except FeatureStoreError as error:
        checks.notes.append(f'source "{source.name}" is not checked against its schema: {error.message}')
        return None
    try:
        return find_breaks(source, views, subject, schema, before)
    except InvalidRequest as error:
        text = f'its records cannot be read by the newest schema of subject "{subject.name}": {error.message}'
        remedy = error.hint or "have the schema corrected"
        if any(view.name in changed for view in views):
            checks.problems.append(Problem(Place("source", source.name), text, remedy))
        else:
            checks.notes.append(f'source "{source.name}": {text}; {remedy}')
    except FeatureStoreError as error:
        checks.notes.append(f'source "{source.name}" is not checked against its schema: {error.message}')
    return None


def _tell_compatibility(subject: Subject, version: int, mode: str, checks: SchemaChecks) -> None:
    """What of a subject's next version its registry refuses."""
    if mode == _NO_CHECK:
        checks.warnings.append(
            f'subject "{subject.name}", version {version}: compatibility is NONE, so that a producer may register any '
            "schema; have it set to FULL, or FORWARD"
        )
    elif mode:
        allowed = _ALLOWED.get(mode.removesuffix("_TRANSITIVE"), "")
        more = f", so that a producer may {allowed}" if allowed else ""
        checks.notes.append(f'subject "{subject.name}", version {version}: compatibility is {mode}{more}')


def _problem(subject: Subject, one: Break, view: str, features: Sequence[str]) -> Problem:
    """A break of a view that an author writes now."""
    place = Place("feature view", view)
    if len(features) == 1:
        place, reads = place.of(features[0]), "it reads"
    else:
        told = ", ".join(features[:FEATURES_TOLD_MAX])
        more = f" and {len(features) - FEATURES_TOLD_MAX} more" if len(features) > FEATURES_TOLD_MAX else ""
        reads = f"{told}{more} read"
    fact = f'{reads} column "{one.column}"; by the newest schema of subject "{subject.name}", {one.reason}'
    return Problem(place, f"{fact}: {one.consequence}", one.remedy)


def _note(subject: Subject, one: Break, features: Mapping[str, Sequence[str]]) -> str:
    """A break of views that stay as they are."""
    told = ", ".join(f"{view} ({len(names)} features)" for view, names in features.items())
    return f'subject "{subject.name}", column "{one.column}": {one.reason}; {one.consequence}, read by {told}'
