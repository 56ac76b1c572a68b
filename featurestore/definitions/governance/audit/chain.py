"""Lines that vouch for those before them.

    {"seq":1,...,"previous":"(hash of the line before)","hash":"(SHA-256 of this line without its hash)"}

A line that is changed, taken out, put in or moved does not fit its neighbours any more. What is cut off at the end can
be told only by somebody who has seen the hash of a later line.

Source: "How to time-stamp a digital document", Haber and Stornetta, 1991 (linked time stamps).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

START = "0" * 64
"""What the first line of a manifest has before it."""

LINE_BYTES_MAX = 1 << 20

_MARK = b',"hash":"'
_TAIL_BYTES = len(_MARK) + 64 + len(b'"}')


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of a chain: its number, from 1, and its hash; of none the number 0, and what the first follows."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it was read.

    Attributes:
        content: what it says; nothing where that was changed.
        head: its number and hash.
        problem: why it does not belong where it stands; "" where it does.
    """

    content: Mapping[str, Any]
    head: Head
    problem: str = ""


def sealed(content: Mapping[str, object], before: Head) -> tuple[bytes, Head]:
    """A line for what comes after another one.

    Args:
        content: JSON values by name; none is called seq, previous or hash.
        before: the line before it.

    Returns:
        Its bytes, newline included, and itself as the head.
    """
    seq = before.seq + 1
    body = msgspec.json.encode({"seq": seq, **content, "previous": before.hash})
    found = hashlib.sha256(body).hexdigest()
    return body[:-1] + _MARK + found.encode() + b'"}\n', Head(seq, found)


def read_lines(data: bytes, start: str) -> Iterator[Line]:
    """Lines of a chain; after the first that does not belong there, the others are held against it as it stands.

    Args:
        data: of a file; what stands behind the last newline is a line that was torn.
        start: what the first line must have before it.
    """
    before = Head(0, start)
    for raw in data.split(b"\n"):
        if not raw:
            continue
        line = _read(raw, before)
        before = line.head
        yield line


def last_of(raw: bytes) -> Line:
    """A line by itself, whatever stands before it."""
    try:
        content = msgspec.json.decode(raw)
        return _read(raw, Head(int(content["seq"]) - 1, str(content["previous"])))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return Line({}, Head(0, START), "the last line is damaged")


def is_torn(data: bytes) -> bool:
    """Whether the last line has no end."""
    return bool(data) and not data.endswith(b"\n")


def _read(raw: bytes, before: Head) -> Line:
    body, seal = raw[:-_TAIL_BYTES] + b"}", raw[-_TAIL_BYTES:]
    try:
        content = msgspec.json.decode(raw)
        seq, previous, said = int(content["seq"]), str(content["previous"]), str(content["hash"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return Line({}, Head(before.seq + 1, ""), f"line {before.seq + 1} is damaged")
    head = Head(seq, said)
    if not seal.startswith(_MARK) or hashlib.sha256(body).hexdigest() != said:
        # What it says now is nobody's word.
        return Line({}, head, f"line {seq} was changed")
    if seq != before.seq + 1:
        return Line(content, head, f"line {seq} stands where {before.seq + 1} should")
    if previous != before.hash:
        return Line(content, head, f"line {seq} does not follow the one before it")
    return Line(content, head)
