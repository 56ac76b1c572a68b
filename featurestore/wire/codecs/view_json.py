"""Feature views as canonical JSON, and the hash that names a definition.

Equal definitions give equal bytes, in whatever order the registry returned their parts: features are ordered by name,
object keys are sorted. Where Kafka is reached is not part of what a feature means, so it is left out of the hash.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Container, Iterable

import msgspec

from featurestore.core.inputs import ViewInputs
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    EnrichmentSpec,
    FeatureSpec,
    OnDemandViewSpec,
    SourceSpec,
    ViewSpec,
)
from featurestore.errors import CorruptData

LAYOUT_VERSION = 5
"""Version of the tile bytes; part of every definition hash, so that a new layout is a new generation."""

HASH_BYTES = 16

_encoder = msgspec.json.Encoder(order="deterministic")
_in_order = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ViewSpec)


def encode_view(view: ViewSpec) -> bytes:
    """The view as JSON, features in the author's order."""
    return _encoder.encode(view)


def decode_view(data: bytes) -> ViewSpec:
    """The view that `encode_view` wrote.

    Raises:
        CorruptData: the bytes are not a view.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptData("stored feature view definition does not decode", detail=str(error)) from error


def base_name(view_name: str) -> str:
    """The view that a version is one of; a view's own name has no "@".

    >>> base_name("card_activity@v2"), base_name("card_activity")
    ('card_activity', 'card_activity')
    """
    return view_name.partition("@")[0]


_NOT_MEANT = frozenset({"format", "schema_registry", "subject_name", "records", "units", "changes", "row_id_column"})
"""Attributes of a source that say nothing of what its events mean."""


@functools.lru_cache(maxsize=4_096)
def definition_hash(view: ViewSpec) -> str:
    """32 hex digits, equal for equal definitions.

    The order of features, computed columns and renamings, Kafka's address and columns that the view does not read make
    no difference: a new column in the payload must not refill every view.
    """
    source, inputs = view.source, ViewInputs(view)
    read = {source.event_time_column, source.event_id_column, *source.stored(inputs.payload_columns)}
    read.update(inputs.payload_columns)
    canonical = dataclasses.replace(
        view,
        features=tuple(sorted(view.features, key=_name)),
        source=dataclasses.replace(
            source,
            columns=tuple(sorted((c for c in source.columns if c.name in read), key=_name)),
            bootstrap_servers="",
            computed=tuple(sorted((c for c in source.computed if c.name in inputs.computed_columns), key=_name)),
            renamed=_renamed(source.renamed, read),
            more_topics=tuple(
                dataclasses.replace(topic, renamed=_renamed(topic.renamed, read)) for topic in source.more_topics
            ),
            topic_column=source.topic_column if source.topic_column in read else "",
            enrichments=tuple(_enrichment(one) for one in source.enriched_by(inputs.payload_columns)),
        ),
        derived=tuple(sorted(view.derived, key=_name)),
    )
    fields = {field.name: getattr(canonical, field.name) for field in dataclasses.fields(canonical)}
    # "card_activity@v2" is what "card_activity" was or is.
    fields["name"] = base_name(view.name)
    # Where and how a view is stored says nothing of what it means.
    del fields["is_apart"], fields["expected_entities"]
    # Nor is anything stored of payments in flight: who counts them may change without filling the view anew.
    fields["features"] = [_stored(feature) for feature in canonical.features]
    # Nor of how an event was written down.
    fields["source"] = {
        field.name: getattr(canonical.source, field.name)
        for field in dataclasses.fields(SourceSpec)
        if field.name not in _NOT_MEANT
    }
    if not canonical.source.enrichments:
        del fields["source"]["enrichments"]
    fields["members"] = [(member.name, member.definition_hash) for member in view.members]
    if not view.members:
        del fields["members"]
    if not view.required:
        del fields["required"]
    payload = _in_order.encode({"layout": LAYOUT_VERSION, "view": fields})
    return hashlib.blake2b(payload, digest_size=HASH_BYTES).hexdigest()


@functools.lru_cache(maxsize=1_024)
def on_demand_hash(view: OnDemandViewSpec) -> str:
    """32 hex digits, equal for equal definitions: what is computed, and of what."""
    canonical = dataclasses.replace(
        view,
        inputs=tuple(sorted(view.inputs, key=lambda read: read.name)),
        request_columns=tuple(sorted(view.request_columns, key=lambda column: column.name)),
        features=tuple(sorted(view.features, key=lambda feature: feature.name)),
    )
    return hashlib.blake2b(_in_order.encode(canonical), digest_size=HASH_BYTES).hexdigest()


def _stored(feature: FeatureSpec) -> dict[str, object]:
    """A feature as far as what is stored depends on it."""
    names = (field.name for field in dataclasses.fields(feature))
    return {name: getattr(feature, name) for name in names if name not in ("in_flight", "fixes_in_flight")}


def _enrichment(one: EnrichmentSpec) -> EnrichmentSpec:
    """An enrichment as far as what events get depends on it: of a topic not how its records are written down."""
    if one.stream is None:
        return one
    table, read = one.stream, {one.key.name, one.stream.event_time_column, *(column for _, column in one.columns)}
    meant = SourceSpec(
        name=table.name,
        topic=table.topic,
        columns=tuple(sorted((column for column in table.columns if column.name in read), key=_name)),
        event_time_column=table.event_time_column,
        event_time_unit=table.event_time_unit,
        renamed=_renamed(table.renamed, read),
    )
    return dataclasses.replace(one, stream=meant)


def _renamed(pairs: Iterable[tuple[str, str]], read: Container[str | None]) -> tuple[tuple[str, str], ...]:
    """The renamed columns that are read, in a fixed order."""
    return tuple(sorted(pair for pair in pairs if pair[0] in read))


def _name(named: FeatureSpec | Column | ComputedColumn) -> str:
    """What parts are ordered by."""
    return named.name
