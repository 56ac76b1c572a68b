"""Send OpenLineage events to a file or an endpoint.

Whoever waits for features does not wait for a catalog to be up: what cannot be sent is said, and the work goes on.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from featurestore.catalog.lineage.openlineage import ABORT, COMPLETE, FAIL, START, Event, Run, run_event
from featurestore.clock import Clock
from featurestore.errors import InvalidRequest, redacted

FILE_SCHEME = "file:"

KEY_VARIABLE = "OPENLINEAGE_API_KEY"
"""Environment variable of OpenLineage's own clients: a bearer token for the endpoint."""

TIMEOUT_S = 5.0


class LineageSender:
    """Sends events to one place.

    Args:
        place: "file:PATH", to which a line an event is added, or the address that takes an event, such as
            "http://marquez:5000/api/v1/lineage".
        project: whose runs they are.
        clock: when they are.
        say: told what could not be sent.

    Raises:
        InvalidRequest: it is neither.
    """

    def __init__(self, place: str, project: str, clock: Clock, say: Callable[[str], object]) -> None:
        if not place.startswith((FILE_SCHEME, "http://", "https://")):
            hint = "write file:lineage.jsonl, or http://HOST:PORT/api/v1/lineage"
            raise InvalidRequest(f'lineage cannot be sent to "{redacted(place)}"', hint=hint)
        self._place, self._project, self._clock, self._say = place, project, clock, say

    def send(self, events: Sequence[Event]) -> None:
        """Send some events, in their order; after one that cannot be sent no other is tried."""
        try:
            for event in events:
                self._send(msgspec.json.encode(event))
        except (OSError, urllib.error.URLError, ValueError) as error:
            self._say(f"note: lineage was not sent to {redacted(self._place)}: {error}")

    def begin(self, run: Run) -> None:
        """Say that something begins that has no end of its own."""
        self.send([run_event(run, str(uuid.uuid4()), START, self._project, self._clock.now_ms())])

    @contextmanager
    def during(self, run: Run) -> Iterator[None]:
        """Say that something begins, and how it ends."""
        identity = str(uuid.uuid4())
        self.send([run_event(run, identity, START, self._project, self._clock.now_ms())])
        try:
            yield
        except BaseException as error:
            kind = FAIL if isinstance(error, Exception) else ABORT
            text = redacted(f"{type(error).__name__}: {error}")
            self.send([run_event(run, identity, kind, self._project, self._clock.now_ms(), text)])
            raise
        self.send([run_event(run, identity, COMPLETE, self._project, self._clock.now_ms())])

    def _send(self, data: bytes) -> None:
        if self._place.startswith(FILE_SCHEME):
            with Path(self._place.removeprefix(FILE_SCHEME)).open("ab") as file:
                file.write(data + b"\n")
            return
        headers = {"content-type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._place, data, headers, method="POST")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass
