"""One apply at a time: whoever plans and applies holds the registry's turn, so what was checked is what is written.

file registry    an advisory lock on FILE.lock, which the system lets go of when its process ends
SQL registry     a row of featurestore_applies, taken by a compare-and-set of its revision; a turn of a process that
has died ends by itself
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurestore.clock import Clock, SystemClock
from featurestore.definitions.registry import is_sql, registry_path, sql_url
from featurestore.errors import SourceUnavailable, redacted

TURN_MS = 120_000
"""A turn that was not given back ends after this long: its process has died."""

WAIT_MS = 180_000
"""How long somebody waits for his."""

POLL_S = 0.05

_TABLE = (
    "CREATE TABLE IF NOT EXISTS featurestore_applies"
    " (project VARCHAR(255) PRIMARY KEY, revision BIGINT NOT NULL,"
    " holder VARCHAR(255) NOT NULL, until_ms BIGINT NOT NULL)"
)
_READ = "SELECT revision, holder, until_ms FROM featurestore_applies WHERE project = :project"
_ADD = "INSERT INTO featurestore_applies (project, revision, holder, until_ms) VALUES (:project, 0, '', 0)"
_TAKE = (
    "UPDATE featurestore_applies SET revision = revision + 1, holder = :holder, until_ms = :until_ms"
    " WHERE project = :project AND revision = :revision"
)
_RETURN = (
    "UPDATE featurestore_applies SET holder = '', until_ms = 0"
    " WHERE project = :project AND revision = :revision AND holder = :holder"
)


@contextlib.contextmanager
def apply_turn(registry: str | Path, project: str, clock: Clock | None = None) -> Iterator[None]:
    """Hold the turn of a project's registry.

    Args:
        registry: path or URL.
        project: Feast project.
        clock: says when a turn has ended.

    Raises:
        SourceUnavailable: another apply holds it for too long, or this one took longer than a turn.
    """
    clock = clock or SystemClock()
    with _sql_turn(registry, project, clock) if is_sql(registry) else _file_turn(registry_path(registry), clock):
        yield


@contextlib.contextmanager
def _file_turn(path: Path, clock: Clock) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline_ns = clock.monotonic_ns() + WAIT_MS * 1_000_000
    with path.with_name(path.name + ".lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(clock, deadline_ns, f'another apply holds "{path.name}"')
        yield


@contextlib.contextmanager
def _sql_turn(registry: str | Path, project: str, clock: Clock) -> Iterator[None]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(sql_url(registry))
    holder = f"{socket.gethostname()}:{os.getpid()}:{clock.monotonic_ns()}"
    try:
        with _database_errors(registry):
            revision = _take(engine, project, holder, clock)
        try:
            yield
        finally:
            given = {"project": project, "revision": revision, "holder": holder}
            with _database_errors(registry), engine.begin() as connection:
                returned = connection.execute(sqlalchemy.text(_RETURN), given).rowcount
        if not returned:
            fact = f"this apply took longer than a turn of {TURN_MS // 1_000} s, and another one began beside it"
            raise SourceUnavailable(fact, hint="run `featurestore plan`: it says what is missing")
    finally:
        engine.dispose()


def _take(engine: Any, project: str, holder: str, clock: Clock) -> int:
    """Compare and set until it is ours; answers with the revision that is."""
    import sqlalchemy

    deadline_ns = clock.monotonic_ns() + WAIT_MS * 1_000_000
    # Of two that create it at once one fails, each database in its own way, and it is there; the next query tells.
    with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), engine.begin() as connection:
        connection.execute(sqlalchemy.text(_TABLE))
    while True:
        with engine.begin() as connection:
            row = connection.execute(sqlalchemy.text(_READ), {"project": project}).first()
        if row is None:
            with contextlib.suppress(sqlalchemy.exc.IntegrityError), engine.begin() as connection:
                connection.execute(sqlalchemy.text(_ADD), {"project": project})
            continue
        revision, other, until_ms = int(row[0]), str(row[1]), int(row[2])
        now_ms = clock.now_ms()
        if not other or until_ms < now_ms:
            given = {"project": project, "revision": revision, "holder": holder, "until_ms": now_ms + TURN_MS}
            with engine.begin() as connection:
                if connection.execute(sqlalchemy.text(_TAKE), given).rowcount:
                    return revision + 1
        _wait(clock, deadline_ns, f'another apply of project "{project}" is under way, by {other}')


def _wait(clock: Clock, deadline_ns: int, fact: str) -> None:
    if clock.monotonic_ns() > deadline_ns:
        raise SourceUnavailable(fact, hint="wait until it has ended")
    clock.sleep(POLL_S)


@contextlib.contextmanager
def _database_errors(registry: str | Path) -> Iterator[None]:
    import sqlalchemy

    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError as error:
        hint = "check the database and the registry's URL"
        fact = f'the SQL registry "{redacted(str(registry))}" does not answer'
        raise SourceUnavailable(fact, detail=str(error), hint=hint) from error
