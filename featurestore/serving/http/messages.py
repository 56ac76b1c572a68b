"""What a connection hands over, and what it is given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Head:
    """What a request begins with.

    Attributes:
        verb: such as POST.
        target: path and query, as sent.
        headers: (name in lower case, value) pairs.
    """

    verb: str
    target: str
    headers: Sequence[tuple[str, str]]

    @property
    def path(self) -> str:
        """Without the query; percent-encoded."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The first header of a name."""
        return next((value for each, value in self.headers if each == name), None)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        status: HTTP's.
        body: its bytes.
        content_type: of the body.
        headers: others.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    def encoded(self, *, closes: bool, with_body: bool = True) -> bytes:
        """As it goes over the wire.

        Args:
            closes: the connection ends after it.
            with_body: False for the answer to a HEAD.
        """
        lines = [
            _STATUS_LINES[self.status],
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        if closes:
            lines.append("connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head + self.body if with_body else head


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
