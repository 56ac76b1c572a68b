"""Settings of the stream that publishes feature vectors; options and environment variables as in settings.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dataflows.log_to_features.encoding import FORMATS
from dataflows.log_to_features.publisher import Policy
from dataflows.settings import (
    OPTIONS,
    PATIENCE_SECONDS_DEFAULT,
    FlowSettings,
    Option,
    complete_options,
    flow_settings,
    is_set,
    read_options,
    seconds_setting,
)
from featurestore.errors import InvalidRequest

_NOT_HERE = frozenset(
    {
        "repo",
        "kafka_group",
        "dead_letter_dir",
        "addresses",
        "process_id",
        "writers",
        "merge_after_seconds",
        "store_patience_seconds",
    }
)
"""Options of the tile stream that mean nothing here, or have another name; all others mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings(FlowSettings):
    """What a process that publishes vectors needs to know.

    Attributes:
        store_url, store_cluster: the online store.
        service: the feature service.
        to: the topic.
        format: of the messages.
        schema_registry: where the schema of the messages is registered; "" for nowhere.
        where: SQL over the features, "" for all entities.
        policy: what is worth a message.
        from_now: a publication that is new leaves out what is in the source already.
    """

    store_url: str
    store_cluster: bool = False
    service: str
    to: str
    format: str = "json"
    schema_registry: str = ""
    where: str = ""
    policy: Policy = field(default_factory=Policy)
    from_now: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is connected."""
        FlowSettings.__post_init__(self)  # super() does not find a class that was made anew with slots
        if self.format not in FORMATS:
            raise InvalidRequest(f'"{self.format}" is no format of messages', hint=f"give {', '.join(FORMATS)}")
        if self.format != "json" and not self.schema_registry:
            raise InvalidRequest(
                f"messages in {self.format} cannot be read without their schema",
                hint="give --schema-registry, where it is to be registered",
            )
        if self.log_dir is not None and (self.format != "json" or self.schema_registry):
            raise InvalidRequest(
                "an embedded log takes messages in plain JSON alone", hint="leave --format and --schema-registry out"
            )
        if self.log_dir is not None and not re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9._-]*", self.to):
            raise InvalidRequest(
                f'"{self.to}" is no name of a topic', hint="give a name of letters, digits, dots and dashes"
            )

    @property
    def publication(self) -> str:
        """Its name as a consumer group and in transactions: one process publishes a service to a topic."""
        return f"featurestore.{self.project}.{self.service}.{self.to}"


PUBLISH_OPTIONS: tuple[Option, ...] = (
    *(option for option in OPTIONS if option.name not in _NOT_HERE),
    Option("service", "feature service whose vectors are published", is_required=True),
    Option(
        "to",
        "topic, made unless it is there: of the source's cluster, compacted, or of its log directory",
        is_required=True,
    ),
    Option("format", "json, avro or protobuf; default json"),
    Option("schema_registry", "register the messages' schema at this URL"),
    Option("only_changes", "leave out what is the same as the entity's last message", is_flag=True),
    Option("where", "publish what meets this condition over the features; with --only-changes remove what does not"),
    Option("windows", "publish also what changes because a window slides; implies --only-changes", is_flag=True),
    Option("pause_seconds", "of an entity, at most one message in so long; implies --only-changes"),
    Option("from_now", "a new publication begins with what comes, not with what the topic has", is_flag=True),
    Option("patience_seconds", f"retry what does not answer, default {PATIENCE_SECONDS_DEFAULT:g}"),
)
"""Every option of `python -m dataflows.log_to_features`, in the order of its help."""


def publish_settings(arguments: Sequence[str], environment: Mapping[str, str], *, program: str) -> PublishSettings:
    """Settings from options, and from the environment where an option is absent.

    Raises:
        InvalidRequest: a setting is missing or malformed. (`--help` and unknown options end the process, as usual.)
    """
    given = read_options(
        PUBLISH_OPTIONS, arguments, program=program, purpose="Publish feature vectors as events change them."
    )
    texts = complete_options(PUBLISH_OPTIONS, given, environment)
    flow = flow_settings({**dict.fromkeys(_NOT_HERE, ""), **texts}, group="kafka_group", patience="patience_seconds")
    return PublishSettings(
        **flow,
        store_url=texts["store_url"],
        store_cluster=is_set(texts["store_cluster"]),
        service=texts["service"],
        to=texts["to"],
        format=texts["format"] or "json",
        schema_registry=texts["schema_registry"],
        where=texts["where"],
        policy=Policy(
            only_changes=is_set(texts["only_changes"]),
            follows_windows=is_set(texts["windows"]),
            pause_ms=int(seconds_setting("pause_seconds", texts, 0.0) * 1_000),
        ),
        from_now=is_set(texts["from_now"]),
    )
