"""The catalog for assistants: a server of the Model Context Protocol over standard input and output.

    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "describe", "arguments": {"name": "cards"}}}

A line a message, JSON-RPC 2.0. Three tools, which read what is registered and nothing else, so no request depends on
one before it: clients of 2026-07-28, which say their version with every request, and earlier ones, which shake hands,
are answered by the same code. https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from featurestore import __version__
from featurestore.catalog.model import FACETS, Catalog, WatchedCatalog
from featurestore.catalog.search import find
from featurestore.definitions.governance.catalog import Item, item_called
from featurestore.errors import FeatureStoreError, InvalidRequest

STATELESS_VERSION = "2026-07-28"
HANDSHAKE_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")

VERSION_KEY, SERVER_KEY = "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/serverInfo"

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32_700, -32_600, -32_601, -32_602
UNSUPPORTED_VERSION = -32_022

LIMIT_DEFAULT, LIMIT_MAX = 20, 100
"""Things that a search names."""

INSTRUCTIONS = (
    "Features of a real-time feature store: what there is, what each means, whose it is, and what depends on what. "
    "Search first; then describe what was found. Nothing here reads values or changes anything."
)
_SERVER = {"name": "featurestore", "version": __version__}
_CAPABILITIES = {"tools": {"listChanged": False}}
_CACHEABLE = {"ttlMs": 60_000, "cacheScope": "private"}

Arguments = Mapping[str, Any]


class _Refused(Exception):
    """An error of the protocol."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


@dataclass(frozen=True, slots=True)
class _Tool:
    """What may be called.

    Attributes:
        description: for the assistant.
        properties: JSON schema of each argument; all are texts but `limit`.
        required: names of those that must be there.
        call: catalog and arguments -> what it answers.
    """

    description: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]
    call: Callable[[Catalog, Arguments], Mapping[str, Any]]


class ToolServer:
    """Answers one message after another.

    Args:
        watched: the catalog, which is read anew when the registry has changed.
    """

    def __init__(self, watched: WatchedCatalog) -> None:
        self._watched = watched

    def run(self, lines: Iterable[bytes], output: BinaryIO) -> None:
        """Answer until there are no more lines."""
        for line in lines:
            answer = self.answer(line) if line.strip() else None
            if answer is not None:
                output.write(answer + b"\n")
                output.flush()

    def answer(self, line: bytes) -> bytes | None:
        """The answer to a message; None where none is wanted."""
        identity: object = None
        try:
            try:
                message = msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError):
                raise _Refused(PARSE_ERROR, "the message is no JSON") from None
            if not isinstance(message, dict) or not isinstance(message.get("method"), str):
                raise _Refused(INVALID_REQUEST, "the message is no request")
            if "id" not in message:
                return None  # a notification
            identity = message["id"]
            params = message.get("params", {})
            if not isinstance(params, dict):
                raise _Refused(INVALID_PARAMS, "params is no object")
            found = {"result": self._result(message["method"], params)}
        except _Refused as refused:
            error = {"code": refused.code, "message": refused.message}
            found = {"error": error if refused.data is None else {**error, "data": refused.data}}
        return msgspec.json.encode({"jsonrpc": "2.0", "id": identity, **found})

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        meta = params.get("_meta")
        version = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
        if version is not None and version != STATELESS_VERSION:
            data = {"supported": [STATELESS_VERSION], "requested": version}
            raise _Refused(UNSUPPORTED_VERSION, "unsupported protocol version", data)
        result = self._of_method(method, params)
        return result if version is None else {**result, "resultType": "complete", "_meta": {SERVER_KEY: _SERVER}}

    def _of_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            asked = params.get("protocolVersion")
            version = asked if asked in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[0]
            about = {"serverInfo": _SERVER, "instructions": INSTRUCTIONS}
            return {"protocolVersion": version, "capabilities": _CAPABILITIES, **about}
        if method == "server/discover":
            about = {"capabilities": _CAPABILITIES, "instructions": INSTRUCTIONS}
            return {"supportedVersions": [STATELESS_VERSION], **about, **_CACHEABLE}
        if method == "ping":
            return {}
        if method == "tools/list":
            return {"tools": [_listed(name, tool) for name, tool in TOOLS.items()], **_CACHEABLE}
        if method == "tools/call":
            return self._call(params.get("name"), params.get("arguments") or {})
        raise _Refused(METHOD_NOT_FOUND, f'there is no method "{method}"')

    def _call(self, name: object, arguments: object) -> dict[str, Any]:
        tool = TOOLS.get(name) if isinstance(name, str) else None
        if tool is None:
            raise _Refused(INVALID_PARAMS, f'there is no tool "{name}"; there are {", ".join(TOOLS)}')
        self._watched.refresh()
        try:
            content = dict(tool.call(self._watched.current, _checked(tool, arguments)))
        except FeatureStoreError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        text = msgspec.json.encode(content).decode()
        return {"content": [{"type": "text", "text": text}], "structuredContent": content, "isError": False}


def _listed(name: str, tool: _Tool) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": tool.properties,
        "required": list(tool.required),
        "additionalProperties": False,
    }
    hints = {"readOnlyHint": True, "openWorldHint": False}
    return {"name": name, "description": tool.description, "inputSchema": schema, "annotations": hints}


def _checked(tool: _Tool, arguments: object) -> Arguments:
    """What an assistant can correct is told to it as the tool's own error.

    Raises:
        InvalidRequest: an argument is missing, unknown or of another type.
    """
    if not isinstance(arguments, dict):
        raise InvalidRequest("arguments is no object")
    for name in tool.required:
        if name not in arguments:
            raise InvalidRequest(f'argument "{name}" is missing')
    for name, value in arguments.items():
        if name not in tool.properties:
            raise InvalidRequest(f'there is no argument "{name}"', hint=f"there are {', '.join(tool.properties)}")
        wanted = int if tool.properties[name]["type"] == "integer" else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InvalidRequest(f'argument "{name}" is no {tool.properties[name]["type"]}')
        if value not in tool.properties[name].get("enum", (value,)):
            raise InvalidRequest(f'argument "{name}" is none of {", ".join(tool.properties[name]["enum"])}')
    return arguments


def _search(catalog: Catalog, arguments: Arguments) -> dict[str, Any]:
    limit = min(max(arguments.get("limit", LIMIT_DEFAULT), 1), LIMIT_MAX)
    filters = {facet: arguments[facet] for facet in FACETS if facet in arguments}
    found = find(catalog.entries, arguments["query"], filters)
    return {
        "total": len(found.entries),
        "results": [_short(catalog, entry.item) for entry in found.entries[:limit]],
    }


def _describe(catalog: Catalog, arguments: Arguments) -> dict[str, Any]:
    item = item_called(catalog.items, arguments["name"])
    about = {name: text for name in ("on_call", "use_case", "docs") if (text := getattr(item.about, name))}
    features = [_short(catalog, one) for one in catalog.features_of(item)]
    return {**_short(catalog, item), **about, "facts": item.facts, **({"features": features} if features else {})}


def _lineage(catalog: Catalog, arguments: Arguments) -> dict[str, Any]:
    lineage = catalog.lineage
    node = lineage.find(arguments["name"])
    is_up = arguments.get("direction") == "up"
    reached = lineage.comes_from(node) if is_up else lineage.depends_on(node)
    return {
        "kind": node.kind,
        "name": node.name,
        "comes_from" if is_up else "depends_on_it": [
            {"kind": one.node.kind, "name": one.node.name, "why": one.arrow.why, "steps": one.steps} for one in reached
        ],
    }


def _short(catalog: Catalog, item: Item) -> dict[str, Any]:
    """What an item is, without what nobody says."""
    one = item.about
    said = {"description": one.description, "owner": one.owner, "tier": one.tier, "personal_data": catalog.pii_of(item)}
    short = {"kind": item.kind, "name": item.name, "meaning": item.meaning, "type": item.facts.get("type", ""), **said}
    return {name: text for name, text in short.items() if text}


def _text(description: str, **more: object) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


TOOLS: Mapping[str, _Tool] = {
    "search_features": _Tool(
        "Find features, views, services and sources by words of their names, descriptions, owners, tags, columns, or "
        "of what they mean. All words must be said. Without words and kind, features are left out.",
        {
            "query": _text("words; may be empty"),
            "kind": _text("only of this kind", enum=["view", "feature", "service", "source"]),
            "team": _text("only what this team owns"),
            "entity": _text("only what has this join key, such as card_id"),
            "source": _text("only what is made of this source"),
            "tier": _text("1 (most depends on it) to 4", enum=["1", "2", "3", "4"]),
            "pii": _text("what it tells of a person", enum=["none", "pseudonymous", "personal", "sensitive"]),
            "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "description": "results at most"},
        },
        ("query",),
        _search,
    ),
    "describe": _Tool(
        "Say what a view, service, source or feature is: its meaning in a sentence made from its definition, owner, "
        "keys, columns, window and exactness, and the features of a view or service.",
        {"name": _text("of a view, service or source; of a feature VIEW:FEATURE")},
        ("name",),
        _describe,
    ),
    "lineage": _Tool(
        "Say what depends on a column, feature, view, source or topic, with a reason each; or what it is made of.",
        {
            "name": _text("SOURCE.COLUMN, VIEW:FEATURE, or a name"),
            "direction": _text("down: what depends on it (default); up: what it is made of", enum=["down", "up"]),
        },
        ("name",),
        _lineage,
    ),
}
