"""Schemas of payloads, from a registry that speaks Confluent's interface.

What does not answer is waited for, as a broker is; an id that it does not know is a matter of its records alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from featurestore.core.spec import SourceSpec
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.wire.formats.columns import SchemaText

TIMEOUT_SECONDS = 10
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class SchemaRegistries:
    """The registries that sources name.

    Args:
        options: settings of confluent_kafka's client, such as "basic.auth.user.info" and "ssl.ca.location"; its "url"
            stands for those of all sources.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self._texts: dict[str, SchemaText] = {}

    def of(self, source: SourceSpec) -> SchemaText:
        """Asks the registry of a source for schemas.

        Raises:
            InvalidRequest: the options are not usable.
        """
        url = self._options.get("url", "") or source.schema_registry
        if url not in self._texts:
            self._texts[url] = _asking(url, self._options)
        return self._texts[url]


def _asking(url: str, options: Mapping[str, str]) -> SchemaText:
    """Asks one registry."""
    from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
    from httpx2 import HTTPError

    try:
        # Retries are ours: whoever waits can be told to stop.
        client = SchemaRegistryClient({"timeout": TIMEOUT_SECONDS, "max.retries": 0, **options, "url": url})
    except (ValueError, TypeError) as error:
        raise InvalidRequest(
            "schema registry options are not usable", detail=str(error), hint="correct --schema-registry-option"
        ) from error

    def text(schema_id: int) -> str | None:
        try:
            return client.get_schema(schema_id).schema_str
        except SchemaRegistryError as error:
            if error.http_status_code == HTTPStatus.NOT_FOUND:
                return None
            kind = InvalidRequest if error.http_status_code in _DENIED else SourceUnavailable
            raise kind(f"schema registry {url} refuses schema {schema_id}", detail=str(error)) from error
        except (HTTPError, OSError) as error:
            raise SourceUnavailable(f"schema registry {url} does not answer", detail=str(error)) from error

    return text  # readers keep what a text means, and the client the text
