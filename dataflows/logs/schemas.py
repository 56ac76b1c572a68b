"""Schemas of payloads, from a registry that speaks Confluent's interface.

What does not answer is waited for, as a broker is; an id that it does not know is a matter of its records alone. The
address "file:DIR" is a directory of schemas in the place of one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from dataflows.settings import options_setting
from featurestore.core.spec import SourceSpec
from featurestore.definitions.schemas.directory import KINDS, SCHEME, SchemaDirectory
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.definitions.schemas.subjects import SubjectSchema, has_user, without_user
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.wire.formats.columns import SchemaId, Schemas, UnusableSchema

TIMEOUT_SECONDS = 10
_DENIED = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
)
"""A minute later it will be the same."""

_NUMBERS = frozenset(
    {"timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms", "cache.capacity", "cache.latest.ttl.sec"}
)
"""Settings that the client wants as numbers."""

_SECRET = re.compile(r"password|secret|token$|user\.info")
"""What names of settings have whose values nobody may see."""

_SECRET_CHARACTERS_MIN = 4
"""A shorter one would be found in any text."""


def registries_of(config_file: str, options: str) -> SchemaRegistries:
    """The registries that sources name.

    Args:
        config_file: path of a file of settings, one a line; "" for none.
        options: more of them, which go before those of the file.

    Raises:
        InvalidRequest: they cannot be read.
    """
    return SchemaRegistries(options_setting("schema registry", config_file, options))


class SchemaRegistries:
    """The registries that sources name.

    Args:
        options: settings of confluent_kafka's client, such as "basic.auth.user.info" and "ssl.ca.location"; its "url"
            stands for those of all sources.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self._registries: dict[str, _Registry | SchemaDirectory] = {}

    def of(self, source: SourceSpec) -> Schemas:
        """The schemas of a source's registry.

        Raises:
            InvalidRequest: the options are not usable.
        """
        return self._registry(source)

    def newest(self, source: SourceSpec, subject: str) -> SubjectSchema | None:
        """See Registries."""
        return self._registry(source).newest(subject)

    def before(self, source: SourceSpec, subject: str, version: int) -> SubjectSchema | None:
        """See Registries."""
        return self._registry(source).before(subject, version)

    def compatibility(self, source: SourceSpec, subject: str) -> str:
        """See Registries."""
        return self._registry(source).compatibility(subject)

    def register(self, url: str, subject: str, kind: str, text: str) -> int:
        """The id of a schema, which is registered unless it is there.

        Args:
            url: of the registry.
            subject: its name.
            kind: "AVRO", "PROTOBUF" or "JSON".
            text: the schema.

        Raises:
            SourceUnavailable: the registry does not answer.
            InvalidRequest: it refuses: the schema breaks those before, or this client may not write.
        """
        registry = self._registry_at(url)
        if isinstance(registry, SchemaDirectory):
            return registry.register(subject, text, next(ending for ending, one in KINDS.items() if one == kind))
        return registry.register(subject, kind, text)

    def _registry(self, source: SourceSpec) -> _Registry | SchemaDirectory:
        return self._registry_at(self._options.get("url", "") or source.schema_registry)

    def _registry_at(self, url: str) -> _Registry | SchemaDirectory:
        if has_user(url):
            raise InvalidRequest(
                f"the address of schema registry {without_user(url)} has a user in it",
                hint="give basic.auth.user.info=USER:PASSWORD in the file of --schema-registry-config",
            )
        if url not in self._registries:
            is_directory = url.startswith(SCHEME)
            path = Path(url.removeprefix(SCHEME).removeprefix("//"))
            self._registries[url] = SchemaDirectory(path) if is_directory else _Registry(url, self._options)
        return self._registries[url]


class _Registry:
    """One registry; its client remembers what it was told."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self._url = url
        secrets = [value for key, value in options.items() if _SECRET.search(key)]
        # Of a user also the password alone, and as HTTP sends it.
        self._secrets = [*secrets, *(part for value in secrets for part in value.split(":", 1)[1:])]
        self._secrets += [base64.b64encode(value.encode()).decode() for value in secrets]
        # Retries are ours: whoever waits can be told to stop.
        settings: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "max.retries": 0, **options, "url": url}
        try:
            settings |= {key: float(settings[key]) for key in _NUMBERS & options.keys()}
            self._client = SchemaRegistryClient(settings)
        except (ValueError, TypeError, OSError) as error:
            # OSError: of the files for TLS, whose own errors do not say which.
            files = ", ".join(f'"{value}"' for key, value in options.items() if key.endswith(".location"))
            raise InvalidRequest(
                "schema registry options are not usable",
                detail=self._shown(str(error)) + (f"; its files are {files}" if isinstance(error, OSError) else ""),
                hint="correct --schema-registry-option, or the file of --schema-registry-config",
            ) from None

    def text(self, schema_id: SchemaId) -> str | None:
        """See Schemas."""
        schema = self._schema(schema_id)
        return None if schema is None else str(schema.schema_str)

    def files(self, schema_id: SchemaId) -> FileDescriptorSet | None:
        """See Schemas."""
        schema = self._schema(schema_id)
        if schema is None:
            return None
        # Not within: a registry that refuses to tell says nothing of a schema's records.
        references = self._references_of(schema)
        try:
            return descriptors(schema.schema_str, references)
        except InvalidRequest as error:
            raise UnusableSchema(error.message, detail=error.detail) from error

    def newest(self, subject: str) -> SubjectSchema | None:
        """See Registries."""
        return self.version(subject, "latest")

    def version(self, subject: str, version: int | str) -> SubjectSchema | None:
        """A version of a subject; None of one that is not there."""
        registered = self._asked(f'subject "{subject}"', self._client.get_version, subject, version)
        if registered is None:
            return None
        schema = registered.schema
        kind = str(schema.schema_type or "AVRO")
        return SubjectSchema(str(schema.schema_str), self._references_of(schema), kind, int(registered.version))

    def before(self, subject: str, version: int) -> SubjectSchema | None:
        """See Registries."""
        versions = self._asked(f'subject "{subject}"', self._client.get_versions, subject) or ()
        older = max((one for one in versions if one < version), default=None)
        return None if older is None else self.version(subject, older)

    def compatibility(self, subject: str) -> str:
        """See Registries. What nobody has said of a subject is said of all."""
        what = f'compatibility of subject "{subject}"'
        own = self._asked(what, self._client.get_compatibility, subject)
        return str(own or self._asked(what, self._client.get_compatibility) or "")

    def register(self, subject: str, kind: str, text: str) -> int:
        """See SchemaRegistries."""
        from confluent_kafka.schema_registry import Schema

        return int(
            self._asked(
                f'a new schema of subject "{subject}"', self._client.register_schema, subject, Schema(text, kind)
            )
        )

    def _schema(self, schema_id: SchemaId) -> Any:
        """A schema by its number or GUID; None of one that the registry does not know."""
        if isinstance(schema_id, int):
            return self._asked(f"schema {schema_id}", self._client.get_schema, schema_id)
        return self._asked(f"schema {schema_id}", self._client.get_schema_by_guid, str(schema_id))

    def _references_of(self, schema: Any) -> dict[str, str]:
        """All that a schema imports, by the names of the imports."""
        references: dict[str, str] = {}
        self._add_references(schema, references)
        return references

    def _add_references(self, schema: Any, found: dict[str, str]) -> None:
        """What a schema imports, and what that imports, by the names of the imports."""
        for reference in schema.references or ():
            if reference.name in found:
                continue
            what = f"version {reference.version} of {reference.subject}"
            registered = self._asked(what, self._client.get_version, reference.subject, reference.version)
            if registered is None:
                raise UnusableSchema(f'"{reference.name}" is {what}, which the registry does not have')
            found[reference.name] = registered.schema.schema_str
            self._add_references(registered.schema, found)

    def _asked(self, what: str, ask: Callable[..., Any], *arguments: object) -> Any:
        """What the registry says; None of what it does not know."""
        from confluent_kafka.schema_registry import SchemaRegistryError
        from confluent_kafka.schema_registry.error import OAuthTokenError
        from httpx2 import HTTPError

        try:
            return ask(*arguments)
        except SchemaRegistryError as error:
            if error.http_status_code == HTTPStatus.NOT_FOUND:
                return None
            kind = InvalidRequest if error.http_status_code in _DENIED else SourceUnavailable
            hint = "give its user, token or certificate by --schema-registry-config" if kind is InvalidRequest else ""
            fact = f"schema registry {self._url} refuses {what}"
            raise kind(fact, detail=self._shown(str(error)), hint=hint) from None
        except (HTTPError, OSError, OAuthTokenError) as error:
            who = "the issuer of tokens for " if isinstance(error, OAuthTokenError) else ""
            fact = f"{who}schema registry {self._url} does not answer"
            raise SourceUnavailable(fact, detail=self._shown(str(error))) from None

    def _shown(self, text: str) -> str:
        """A text without the secrets of the settings: errors end up in logs."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _SECRET_CHARACTERS_MIN:
                text = text.replace(secret, "***")
        return text
