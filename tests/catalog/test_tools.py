"""The catalog as an assistant asks it, by messages of both protocols that there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featurestore.catalog.model import WatchedCatalog
from featurestore.catalog.tools import TOOLS, ToolServer

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


@pytest.fixture(scope="module")
def server(registry: Path) -> ToolServer:
    """Of the registry with everything."""
    return ToolServer(WatchedCatalog(str(registry), "catalog"))


def answer(server: ToolServer, method: str, **params: Any) -> Any:
    """What comes back: the result, or the error."""
    line = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()
    message = json.loads(server.answer(line) or b"null")
    assert (message["jsonrpc"], message["id"]) == ("2.0", 7)
    return message.get("result") or message["error"]


def call(server: ToolServer, tool: str, **arguments: Any) -> Any:
    """What a tool says, which is the same as text and as structure."""
    result = answer(server, "tools/call", name=tool, arguments=arguments)
    assert not result["isError"], result
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    return result["structuredContent"]


def test_an_assistant_finds_describes_and_traces(server: ToolServer) -> None:
    """Words lead to a feature, its meaning and what it is made of, in three calls."""
    found = call(server, "search_features", query="email", kind="feature")
    name = found["results"][0]["name"]
    assert (1, "card_activity:email_last_1d", "personal") == (
        found["total"],
        name,
        found["results"][0]["personal_data"],
    )
    described = call(server, "describe", name=name)
    assert described["meaning"].startswith("newest email in the payments of a card_id over 1 day")
    assert described["owner"] == "payments-risk"
    made_of = call(server, "lineage", name=name, direction="up")["comes_from"]
    assert {"kind": "column", "name": "payments.email", "why": "last", "steps": 1} in made_of
    assert 8 == len(call(server, "describe", name="card_activity")["features"])
    assert 1 == len(call(server, "search_features", query="", kind="feature", limit=1)["results"])


def test_both_protocols_are_spoken(server: ToolServer) -> None:
    """With a handshake, in the client's version where it is known; without one, as each request says."""
    for asked, given in (("2025-06-18", "2025-06-18"), ("2019-01-01", "2025-11-25")):
        shaken = answer(server, "initialize", protocolVersion=asked, capabilities={}, clientInfo={"name": "a"})
        assert shaken["protocolVersion"] == given
    assert server.answer(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}') is None
    assert "resultType" not in answer(server, "tools/list")

    found = answer(server, "server/discover", _meta=META)
    assert (["2026-07-28"], "complete") == (found["supportedVersions"], found["resultType"])
    listed = answer(server, "tools/list", _meta=META)
    assert list(TOOLS) == [tool["name"] for tool in listed["tools"]]
    assert all(tool["annotations"]["readOnlyHint"] for tool in listed["tools"])
    other = answer(server, "tools/list", _meta={**META, "io.modelcontextprotocol/protocolVersion": "2030-01-01"})
    assert (-32_022, ["2026-07-28"]) == (other["code"], other["data"]["supported"])


def test_what_is_wrong_is_told_to_whom_it_concerns(server: ToolServer) -> None:
    """What an assistant can correct is the tool's answer; what its program got wrong is an error of the protocol."""
    for arguments, said in (
        ({"name": "card_activty"}, 'did you mean "card_activity"'),
        ({}, 'argument "name" is missing'),
        ({"name": 5}, 'argument "name" is no string'),
        ({"name": "x", "key": "c-1"}, 'there is no argument "key"'),
    ):
        result = answer(server, "tools/call", name="describe", arguments=arguments)
        assert result["isError"]
        assert said in result["content"][0]["text"]
    assert -32_602 == answer(server, "tools/call", name="drop_view")["code"]
    assert -32_601 == answer(server, "resources/list")["code"]
    assert -32_700 == json.loads(server.answer(b"{") or b"")["error"]["code"]
    assert -32_600 == json.loads(server.answer(b"[]") or b"")["error"]["code"]


def test_the_command_answers_line_by_line(registry: Path) -> None:
    """Standard output has messages and nothing else, and the end of input is the end."""
    lines = [{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in (1, 2)]
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", "mcp", "--registry", str(registry), "--project", "catalog"],
        input="\n".join(map(json.dumps, lines)) + "\n",
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )

    assert [{"jsonrpc": "2.0", "id": number, "result": {}} for number in (1, 2)] == [
        json.loads(line) for line in done.stdout.splitlines()
    ]
