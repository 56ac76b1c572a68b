"""Reads what was written: who did what, who looks what up, and whether anything is missing.

writers.jsonl ── names and heads ──┐
WRITER.jsonl ── chain ─────────────┴──> entries, or what does not fit
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featurestore.definitions.governance.audit.chain import START, Head, Line, is_torn, read_lines
from featurestore.definitions.governance.audit.journal import CLOSED, MANIFEST, OPENED, SUFFIX
from featurestore.errors import InvalidRequest

LOOKUP = "lookup"

_MS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that somebody did.

    Attributes:
        at_ms: when it was written.
        who: did it.
        known_by: how that is known: "token", "certificate", "account", "address", or "" for not at all.
        what: it was, such as "apply".
        on: what it was done with, such as 'feature service "card_check"'.
        outcome: "begun", "done", "failed" or "refused".
        details: JSON values.
    """

    at_ms: int
    who: str
    known_by: str
    what: str
    on: str
    outcome: str
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ServiceCaller:
    """Somebody who looks a feature service up.

    Attributes:
        who: he.
        requests, rows: how many.
        newest_ms: the end of the newest minute in which he did.
    """

    who: str
    requests: int
    rows: int
    newest_ms: int


@dataclass(frozen=True, slots=True)
class Billed:
    """What lookups took.

    Attributes:
        names: of what they are added up by.
        requests, rows, answer_bytes: how many.
        cpu_us: of the processor, microseconds.
    """

    names: tuple[str, ...]
    requests: int
    rows: int
    answer_bytes: int
    cpu_us: int


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of the whole log found.

    Attributes:
        lines: that were read.
        writers: of them.
        head: of the manifest: whoever keeps it elsewhere can tell later whether it is still there.
        problems: each says which file, and what does not fit.
        notes: what nobody can tell.
    """

    lines: int
    writers: int
    head: Head
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def read_entries(directory: Path, since_ms: int = 0) -> Iterator[Entry]:
    """All that was done since then, file by file; damaged lines are left out, which `verify` tells.

    Raises:
        InvalidRequest: there is no audit log.
    """
    for path in _files(directory, since_ms):
        for line in read_lines(path.read_bytes(), ""):
            found = _entry(line)
            if found is not None and found.at_ms >= since_ms:
                yield found


def find_entries(directory: Path, *, who: str = "", what: str = "", since_ms: int = 0) -> list[Entry]:
    """Some of it, the oldest first.

    Args:
        directory: of the log.
        who: a pattern as for names of files, "risk-*"; "" for everybody.
        what: likewise, of what was done; or a part of what it was done with; or how it ended.
        since_ms: nothing that is older.

    Raises:
        InvalidRequest: there is no audit log.
    """
    found = [
        one
        for one in read_entries(directory, since_ms)
        if (not who or fnmatch.fnmatchcase(one.who, who)) and (not what or what == one.outcome or _is_like(one, what))
    ]
    return sorted(found, key=lambda one: one.at_ms)


def _is_like(entry: Entry, what: str) -> bool:
    return fnmatch.fnmatchcase(entry.what, what) or fnmatch.fnmatchcase(entry.on, f"*{what}*")


def callers_of(directory: Path, service: str, since_ms: int = 0) -> list[ServiceCaller]:
    """Who has looked a feature service up since then, most rows first.

    Raises:
        InvalidRequest: there is no audit log.
    """
    found: dict[str, list[int]] = {}
    for one in read_entries(directory, since_ms):
        if one.what == LOOKUP and one.outcome == "done" and one.details.get("service") == service:
            counted = found.setdefault(one.who, [0, 0, 0])
            counted[0] += int(one.details.get("requests", 0))
            counted[1] += int(one.details.get("rows", 0))
            counted[2] = max(counted[2], int(one.details.get("until_ms", one.at_ms)))
    callers = [ServiceCaller(who, *counted) for who, counted in found.items()]
    return sorted(callers, key=lambda one: (-one.rows, one.who))


def billed(directory: Path, by: Sequence[str], since_ms: int = 0) -> list[Billed]:
    """What lookups took since then, most of the processor first.

    Args:
        directory: of the log.
        by: "team", "service" and "caller", as they are told apart.
        since_ms: nothing that is older.

    Raises:
        InvalidRequest: there is no audit log.
    """
    found: dict[tuple[str, ...], list[int]] = {}
    for one in read_entries(directory, since_ms):
        if one.what == LOOKUP and one.outcome == "done":
            told = {"team": one.details.get("owner", ""), "service": one.details.get("service", ""), "caller": one.who}
            amounts = found.setdefault(tuple(str(told[name]) for name in by), [0, 0, 0, 0])
            for at, name in enumerate(("requests", "rows", "bytes", "cpu_us")):
                amounts[at] += int(one.details.get(name, 0))
    bills = [Billed(names, *amounts) for names, amounts in found.items()]
    return sorted(bills, key=lambda one: (-one.cpu_us, one.names))


def verify(directory: Path, *, since_ms: int = 0, head: str = "") -> Verified:
    """Whether anything is missing, changed or out of place.

    Args:
        directory: of the log.
        since_ms: files of writers that were closed before may have been taken away.
        head: hash of a line of the manifest that was noted elsewhere.

    Raises:
        InvalidRequest: there is no audit log.
    """
    manifest, problems = _manifest(directory)
    if head and not any(line.head.hash == head for line in manifest):
        problems.append(f"{MANIFEST}: the line {head[:12]}... is not there any more")
    opened = {line.content["writer"]: line for line in manifest if line.content.get("event") == OPENED}
    seen, complete = _seen(manifest)
    notes, lines = [], 0
    for name, line in opened.items():
        path = directory / f"{name}{SUFFIX}"
        if not path.is_file():
            if complete.get(name, since_ms) >= since_ms:
                problems.append(f"{path.name}: it is missing")
            continue
        found, data = list(read_lines(data := path.read_bytes(), line.head.hash)), data
        lines += len(found)
        problems += [f"{path.name}: {one.problem}" for one in found if one.problem][:3]
        problems += _cut_off(path.name, found, seen.get(name, []))
        if name in complete and len(found) > seen[name][-1].seq:
            problems.append(f"{path.name}: it has lines behind its end")
        if name not in complete:
            last = max((one.seq for one in seen.get(name, [])), default=0)
            notes.append(f"{path.name}: it is still written; that nothing was cut off is known until line {last}")
        elif is_torn(data):
            problems.append(f"{path.name}: its last line has no end")
    known = {f"{name}{SUFFIX}" for name in opened} | {MANIFEST}
    strangers = sorted(path.name for path in directory.glob(f"*{SUFFIX}") if path.name not in known)
    problems += [f"{name}: {MANIFEST} knows nothing of it" for name in strangers]
    end = manifest[-1].head if manifest else Head(0, START)
    return Verified(lines, len(opened), end, tuple(problems), tuple(notes))


def _manifest(directory: Path) -> tuple[list[Line], list[str]]:
    path = directory / MANIFEST
    if not path.is_file():
        raise InvalidRequest(
            f'there is no audit log in "{directory}"', hint="write `audit: DIRECTORY` into feature_store.yaml"
        )
    data = path.read_bytes()
    lines = list(read_lines(data, START))
    problems = [f"{MANIFEST}: {line.problem}" for line in lines if line.problem]
    if is_torn(data):
        problems.append(f"{MANIFEST}: its last line has no end")
    whole = [line for line in lines if line.content]
    known = [line for line in whole if _is_of_manifest(line.content)]
    if len(known) < len(whole):
        problems.append(f"{MANIFEST}: it has lines that are none of a manifest")
    return known, problems


def _is_of_manifest(content: Mapping[str, Any]) -> bool:
    """Whether somebody who seals lines as we do has at least written what we would read."""
    heads = content.get("heads")
    return (
        isinstance(content.get("writer"), str)
        and isinstance(content.get("at_ms"), int)
        and isinstance(content.get("event"), str)
        and isinstance(heads, dict)
        and all(isinstance(one, list) and [type(each) for each in one] == [int, str] for one in heads.values())
    )


def _seen(manifest: Sequence[Line]) -> tuple[dict[str, list[Head]], dict[str, int]]:
    """How far the manifest has seen each file, and when it was told that this is the end of it."""
    seen: dict[str, list[Head]] = {}
    complete: dict[str, int] = {}
    for line in manifest:
        for name, (seq, found) in line.content["heads"].items():
            seen.setdefault(name, []).append(Head(seq, found))
            if line.content["event"] in (CLOSED, OPENED):
                complete[name] = line.content["at_ms"]
    return seen, complete


def _cut_off(name: str, found: Sequence[Line], seen: Sequence[Head]) -> list[str]:
    """What the manifest has seen and is not there."""
    hashes = {line.head.seq: line.head.hash for line in found}
    for head in seen:
        if head.seq and head.seq not in hashes:
            return [f"{name}: it ends at line {len(found)}, and had {head.seq}"]
        if head.seq and hashes[head.seq] != head.hash:
            return [f"{name}: line {head.seq} is another one than {MANIFEST} has seen"]
    return []


def _files(directory: Path, since_ms: int) -> list[Path]:
    """Files that may have lines since then, by the day in their names: each is of one day."""
    if not (directory / MANIFEST).is_file():
        _manifest(directory)
    day = datetime.fromtimestamp(max(0, since_ms - _MS_PER_DAY) / 1_000, tz=UTC).date().isoformat()
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.name != MANIFEST and path.name[:10] >= day)


def _entry(line: Line) -> Entry | None:
    said = line.content
    if "what" not in said:
        return None

    def text(name: str) -> str:
        return str(said.get(name, ""))

    at_ms, details = int(said.get("at_ms", 0)), said.get("details", {})
    return Entry(at_ms, text("who"), text("known_by"), text("what"), text("on"), text("outcome"), details)
