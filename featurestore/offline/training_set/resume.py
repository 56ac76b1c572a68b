"""The work directory of a training set: what a killed process has finished, for the next one that is asked the same.

    WORK_DIR/<request>/versions.json       of the event logs that are read, from the first start on
                       <events>/<view>/    events and answers by part
             <request>.done/               not needed any more; being deleted

A request is definitions, entities, label times and memory. What it found goes by the events it was found in, so nothing
is ever mixed with other work. One process at a time works on a request; it holds a lock on its directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from featurestore.core.spec import ViewSpec
from featurestore.errors import Unavailable
from featurestore.offline.disk import make_directory, of_disk
from featurestore.offline.training_set.arrow_columns import content_digest
from featurestore.offline.training_set.histories import History, KeepsVersions
from featurestore.offline.training_set.plan import TrainingSetPlan

LAYOUT_VERSION = 1
"""Of the files below; work of another version is left alone."""

_VERSIONS = "versions.json"
_DONE = ".done"
_REQUEST = re.compile(r"[0-9a-f]{24}")


class KeptWork:
    """A request's directory, locked from `open` to `close`.

    Args:
        work_dir: of this and other requests; need not exist.
        plan: what is asked.
        history: of the events; is read as it was by a killed process, if it can be.
        memory_bytes: decides how the work is cut.
    """

    def __init__(self, work_dir: Path, plan: TrainingSetPlan, history: History, memory_bytes: int) -> None:
        self._plan = plan
        self._history = history
        self._directory = work_dir / _request_name(plan, memory_bytes)
        self._lock: int | None = None

    def open(self) -> Path:
        """The directory of what is computed from the history as it is now, or was.

        Raises:
            Unavailable: another process is at it.
            InvalidRequest: there is no such history.
        """
        shutil.rmtree(self._directory.with_suffix(_DONE), ignore_errors=True)
        self._lock = _locked(self._directory)
        try:
            if isinstance(self._history, KeepsVersions):
                self._history.keep_versions(self._directory / _VERSIONS)
            events = [
                self._history.version(outputs.view.source)
                for outputs in self._plan.views
                if isinstance(outputs.view, ViewSpec)
            ]
        except BaseException:
            self.close(is_done=False)
            raise
        return self._directory / _digest(events)

    def close(self, *, is_done: bool) -> None:
        """Let go of it; what is done is deleted.

        It loses its name first. What says that all events were written must not outlive the events by one moment, in
        which the process may end: the next one would find none.
        """
        if isinstance(self._history, KeepsVersions):
            self._history.keep_versions(None)
        if is_done:
            deleted = self._directory.with_suffix(_DONE)
            self._directory.rename(deleted)
            shutil.rmtree(deleted, ignore_errors=True)
        else:
            with suppress(OSError):  # there is something in it, which is kept
                self._directory.rmdir()
        if self._lock is not None:
            os.close(self._lock)


def forget_kept_work(work_dir: Path) -> tuple[int, int]:
    """Delete the work of all requests, which can be computed again; how many, and how many a process is at.

    Raises:
        Unavailable: the directory cannot be written.
    """
    deleted = busy = 0
    for directory in sorted(work_dir.iterdir()) if work_dir.is_dir() else []:
        if not _REQUEST.fullmatch(directory.stem) or not directory.is_dir():
            continue
        try:
            lock = _locked(directory)
        except Unavailable:
            busy += 1
            continue
        if directory.suffix != _DONE:
            directory = directory.rename(directory.with_suffix(_DONE))
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
        deleted += 1
    return deleted, busy


def _locked(directory: Path) -> int:
    """A descriptor that holds a lock on a directory; the kernel lets go when the process ends, however it ends."""
    while True:
        try:
            make_directory(directory)
        except OSError as error:
            fact = f'work directory "{directory.parent}" cannot be written'
            raise of_disk(error, fact, directory, unavailable=Unavailable) from error
        lock = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Unavailable(
                f'another process is at this very training set in "{directory.parent}"',
                hint="wait for it, or give another --work-dir (work_dir)",
            ) from None
        except OSError:
            pass  # a file system without locks; who shares it must take care
        with suppress(FileNotFoundError):
            if os.stat(directory).st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)  # it was deleted meanwhile, by the process that held the lock


def _request_name(plan: TrainingSetPlan, memory_bytes: int) -> str:
    """Name of what is asked: other labels, definitions or limits are other work."""
    labels = plan.labels
    keys = list(dict.fromkeys(key.name for outputs in plan.views for key in outputs.view.join_keys))
    # Of rows that are events any column may decide.
    entities = labels.table if labels.event_sources else labels.table.select(keys)
    return _digest(
        [
            str(LAYOUT_VERSION),
            repr((plan.views, memory_bytes, labels.event_sources)),
            content_digest(entities.schema, entities.to_batches()),
            hashlib.blake2b(labels.as_of_ms.tobytes() + labels.is_timed.tobytes(), digest_size=16).hexdigest(),
        ]
    )


def _digest(texts: list[str]) -> str:
    """Some texts as one name."""
    digest = hashlib.blake2b(digest_size=12)
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()
