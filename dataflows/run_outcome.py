"""Why and when a running dataflow ends: the one piece of state that all its steps share within a process.

Nothing here interrupts a batch. Whoever wants the flow to end says so, sources notice and finish, what was read drains
through decode, key and commit, and the process that ran the flow looks at the outcome. Bytewax offers exceptions for
this, but they tear a worker down in the middle of a batch, reach the caller as text, and leave the other processes of a
cluster with a broken socket; so an error is kept here and travels to the other processes as an item of the flow.

    first cause wins, but a failure overrides a stop
    STOPPED   signal, or the end of the input:     drain, commit, exit 0
    REBUILD   the plan is outdated:                drop what is in flight (it is read again), plan again, go on
    FAILED    an error:                            drop what is in flight, exit with the error
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from featurestore.errors import StoreRolledBack

_logger = logging.getLogger(__name__)


class RunOutcome(enum.IntEnum):
    """How a run ended, by rising precedence."""

    RUNNING = 0
    STOPPED = 1
    REBUILD = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class PartitionEnd:
    """A source partition has been read to the end that was asked for."""

    stage: str
    topic: str
    partition: int


class Conductor:
    """Decides when the flow of this process ends. Thread safe: a process may run several workers.

    Args:
        raises: let errors out of the steps instead of draining, for runs that nobody supervises.

    Attributes:
        has_begun: set once the flow runs, in a cluster: once all processes have found each other.
        outcome, cause, error: how the run ended, and why.
    """

    def __init__(self, *, raises: bool = False) -> None:
        self._lock = threading.Lock()
        self._raises = raises
        self._ends_awaited: set[PartitionEnd] | None = None
        self.has_begun = threading.Event()
        self.outcome = RunOutcome.RUNNING
        self.cause = ""
        self.error: BaseException | None = None

    @property
    def is_ending(self) -> bool:
        """Sources must not read on."""
        return self.outcome is not RunOutcome.RUNNING

    @property
    def drops_batches(self) -> bool:
        """What is in flight must not be committed: something before it in its partition was not."""
        return self.outcome >= RunOutcome.REBUILD

    def end(self, outcome: RunOutcome, cause: str) -> None:
        """Ask the flow to end; a weaker outcome than one already known is ignored."""
        with self._lock:
            if outcome > self.outcome:
                self.outcome, self.cause = outcome, cause

    def fail(self, error: BaseException) -> None:
        """Record the first error and end the flow."""
        with self._lock:
            if self.error is None:
                self.error = error
            self.outcome, self.cause = RunOutcome.FAILED, str(error)
        self.raise_unless_supervised(error)

    @contextmanager
    def ends_on_errors(self) -> Iterator[None]:
        """A step's work: an error in it ends the flow, and what was not committed is read again."""
        try:
            yield
        except StoreRolledBack as error:
            _logger.warning("%s", error)
            self.end(RunOutcome.REBUILD, error.message)
            self.raise_unless_supervised(error)
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            self.fail(error)

    def raise_unless_supervised(self, error: BaseException) -> None:
        """Let an error out of the step where nobody is there to start the flow again."""
        if self._raises:
            raise error

    def await_ends(self, ends: Iterable[PartitionEnd]) -> None:
        """Stop once all of these partitions have ended."""
        with self._lock:
            self._ends_awaited = set(ends)
            is_done = not self._ends_awaited
        if is_done:
            self.end(RunOutcome.STOPPED, "there is nothing to read")

    def partition_ended(self, end: PartitionEnd) -> None:
        """A writer has committed everything up to the end of a partition."""
        with self._lock:
            if self._ends_awaited is None:
                return
            self._ends_awaited.discard(end)
            is_done = not self._ends_awaited
        if is_done:
            self.end(RunOutcome.STOPPED, "all partitions were read to their end")
