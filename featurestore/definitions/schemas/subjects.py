"""Subjects of a registry: under which names the schemas of a source's topic are, and what a registry says of one.

Confluent's serializers name the subject of a topic's values by one of three strategies:

    topic           payments-value                  one schema at a time for all of the topic; the default
    record          com.shop.Payment                the record's full name, whatever the topic
    topic_record    payments-com.shop.Payment       both: several kinds of records in one topic
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from featurestore.core.spec import SourceSpec

SUBJECT_NAMES = ("topic", "record", "topic_record")
"""The strategies: TopicNameStrategy, RecordNameStrategy, TopicRecordNameStrategy."""

SCHEMA_TYPES: Mapping[str, str] = {"avro": "AVRO", "protobuf": "PROTOBUF", "json_schema": "JSON"}
"""Format of a source -> what a registry calls the kind of its schemas."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Where the schemas of a topic's records are.

    Attributes:
        name: of the subject.
        record: full name of the record (or message) that is meant; "" is the schema's own, its first message.
    """

    name: str
    record: str = ""


@dataclass(frozen=True, slots=True)
class SubjectSchema:
    """One version of a subject.

    Attributes:
        text: the schema.
        references: what it imports, and what that imports, by the names of the imports.
        kind: "AVRO", "PROTOBUF" or "JSON"; "" is not known.
        version: number of it; 0 is none yet.
    """

    text: str
    references: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""
    version: int = 0


class Registries(Protocol):
    """The registries of sources, as far as a plan asks them.

    Each may raise SourceUnavailable, for a registry that does not answer, and InvalidRequest, for one that refuses.
    """

    def newest(self, source: SourceSpec, subject: str) -> SubjectSchema | None:
        """The newest version of a subject; None of a subject that is not there."""
        ...

    def before(self, source: SourceSpec, subject: str, version: int) -> SubjectSchema | None:
        """The newest version of a subject that is older than a version; None if there is none."""
        ...

    def compatibility(self, source: SourceSpec, subject: str) -> str:
        """What the registry demands of a subject's next version, such as "BACKWARD"; "" if it does not say."""
        ...


def has_user(url: str) -> bool:
    """Whether an address has a user, and perhaps a password, in it.

    >>> has_user("https://user:secret@schemas.test/v1"), has_user("https://schemas.test/a@b")
    (True, False)
    """
    return "@" in urlsplit(url).netloc


def without_user(url: str) -> str:
    """The address as it can be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def subjects_of(source: SourceSpec) -> tuple[Subject, ...]:
    """The subjects of a source of one topic."""
    if source.subject_name == "topic":
        return tuple(Subject(f"{source.topic}-value", record) for record in source.records or ("",))
    prefix = f"{source.topic}-" if source.subject_name == "topic_record" else ""
    return tuple(Subject(f"{prefix}{record}", record) for record in source.records)
