"""What a command does, in the audit log: that it begins, before anything is changed, and what came of it.

    begun ── the work ── done | failed          refused

A log that cannot be written stops the command before it does anything: what nobody could know of does not happen.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from featurestore.clock import Clock, SystemClock
from featurestore.core.spec.access import User
from featurestore.definitions.governance.audit.journal import Journal
from featurestore.errors import FeatureStoreError


class Action:
    """Something that a process does once; entered before it does it.

    Args:
        directory: of the audit log; None writes nothing.
        user: who does it; None for whoever the machine takes him for.
        what: it is, such as "apply".
        on: what it is done with.
        details: JSON values that are known before.
        clock: dates lines.
    """

    def __init__(
        self,
        directory: Path | None,
        user: User | None,
        what: str,
        on: str,
        details: Mapping[str, object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._directory, self._clock = directory, clock or SystemClock()
        who = {"who": _account(), "known_by": "account"} if user is None else _as_dict(user)
        self._said = {**who, "what": what, "on": on}
        self._details = dict(details or {})
        self._journal: Journal | None = None

    def add(self, **details: object) -> None:
        """What is known by now, for the line that says what came of it."""
        self._details.update(details)

    def add_evidence(self, evidence: Callable[[], Mapping[str, object]]) -> None:
        """As `add`, of what costs something to find out."""
        if self._journal is not None:
            self._details.update(evidence())

    def refuse(self, error: FeatureStoreError) -> None:
        """It is not done, because it may not be.

        Raises:
            SourceUnavailable: the log cannot be written.
        """
        self._begin()
        self._end("refused", error)

    def __enter__(self) -> Self:
        """Write that it begins.

        Raises:
            SourceUnavailable: the log cannot be written; nothing must be done then.
        """
        self._begin()
        if self._journal is not None:
            self._journal.write([{**self._said, "outcome": "begun", "details": self._details}])
            self._journal.note()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what came of it.

        Raises:
            SourceUnavailable: the log cannot be written any more, of something that was done.
        """
        has_failed = error is not None and getattr(error, "exit_code", 1) != 0
        self._end("failed" if has_failed else "done", error if has_failed else None)

    def _begin(self) -> None:
        if self._directory is not None:
            self._journal = Journal(self._directory, self._clock)

    def _end(self, outcome: str, error: BaseException | None) -> None:
        if self._journal is None:
            return
        why = {} if error is None else {"why": str(error).partition("\n")[0]}
        self._journal.write([{**self._said, "outcome": outcome, "details": {**self._details, **why}}])
        self._journal.close()
        self._journal = None


def _as_dict(user: User) -> dict[str, str]:
    return {"who": user.name, "known_by": user.known_by}


def _account() -> str:
    """Whom the machine takes the user for."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
