"""Compile which topics a source reads, and how the fields of their payloads are named as columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from featurestore.core.spec import TopicSpec
from featurestore.definitions.problems import Place, ProblemList, suggest

TOPIC_TAG_PREFIX = "topic."
"""Tags of a source: "topic.chargebacks" adds a topic; its text maps fields to columns: "filed_at=event_time, ..."."""

TOPIC_COLUMN_TAG = "topic_column"
"""Tag of a source: name of a STRING column that holds the topic an event came from."""


def topics_of(
    tags: Mapping[str, str], columns: Collection[str], place: Place, problems: ProblemList
) -> tuple[TopicSpec, ...]:
    """The further topics of a source, by name."""
    topics = []
    for tag in sorted(tag for tag in tags if tag.startswith(TOPIC_TAG_PREFIX)):
        fields = [part.partition("=") for part in tags[tag].split(",") if part.strip()]
        mapping = {field.strip(): column.strip() for field, _, column in fields}
        if not all(field and column for field, column in mapping.items()):
            problems.add(place, f'tag "{tag}" is "{tags[tag]}"', 'write "field=column, field=column", or nothing')
            continue
        renamed = renamed_columns(mapping, columns, f'tag "{tag}"', place, problems)
        topics.append(TopicSpec(tag.removeprefix(TOPIC_TAG_PREFIX), renamed))
    return tuple(topics)


def renamed_columns(
    mapping: Mapping[str, str], columns: Collection[str], what: str, place: Place, problems: ProblemList
) -> tuple[tuple[str, str], ...]:
    """(column, field) pairs of a mapping from payload fields to columns, by column."""
    for column in mapping.values():
        if column not in columns:
            problems.add(place, f'{what} names a column "{column}" that it does not have', suggest(column, columns))
    if len(set(mapping.values())) < len(mapping):
        problems.add(place, f"{what} maps two fields to one column", "map each column once")
    return tuple(sorted((column, field) for field, column in mapping.items() if column != field))


def topic_text(mapping: Mapping[str, str]) -> str:
    """The tag that `topics_of` reads."""
    return ", ".join(f"{field}={column}" for field, column in mapping.items())
