"""On-demand views that are Python functions, built from the source text in the registry and run for whole requests.

    registry's text ─build─> function ── a thread of its own ── lists in, lists out ──> columns
                       │                    │
                       '─ logged, NOT_READY '─ raises, answers nonsense: NOT_READY, counted
                                               does not return in time: NOT_READY from now on

Whoever may write the registry has code run here, so a server does this only when it is told to. Nothing that a function
does ends a request, let alone the server, but what ends the process itself.
"""

from __future__ import annotations
import __future__

import ast
import logging
import queue
import re
import textwrap
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

from featurestore.clock import Clock
from featurestore.core.events import ColumnValues
from featurestore.core.lowering.request_time import column_of
from featurestore.core.spec import SCALAR_TYPES, OnDemandViewSpec, PythonFunction, RepoSpec
from featurestore.errors import InvalidRequest
from featurestore.online.answer.service_plan import OnDemandFunction

TIMEOUT_S = 1.0
"""A payment does not wait longer for its features."""

COMPLAINT_SECONDS = 60
"""A function fails with every request or with none: one line a minute says so."""

_NS_PER_SECOND = 1_000_000_000
_log = logging.getLogger(__name__)


class FunctionCounter(Protocol):
    """What is told about runs; the server's metrics."""

    def count_function(self, view: str, latency_ns: int, *, has_failed: bool) -> None:
        """One run of a view's function."""
        ...


class PythonFunctions:
    """The functions of a repo; those that stay the same are kept.

    Args:
        clock: measures runs.
        counter: is told about them.
        timeout_s: how long one may take.
    """

    def __init__(self, clock: Clock, counter: FunctionCounter, *, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._counter = counter
        self._timeout_s = timeout_s
        self._known: dict[OnDemandViewSpec, AuthorFunction] = {}

    def of(self, repo: RepoSpec) -> Mapping[str, OnDemandFunction]:
        """By name of the view; one that cannot be built is logged and missing."""
        known: dict[OnDemandViewSpec, AuthorFunction] = {}
        for view in repo.on_demand_views:
            if view.function is None:
                continue
            try:
                known[view] = self._known.get(view) or AuthorFunction(
                    view, build(view.function), self._clock, self._counter, timeout_s=self._timeout_s
                )
            except Exception as error:  # noqa: BLE001  # whatever an author's module does
                _log.error(
                    'the function of on-demand view "%s" cannot be built, its features are NOT_READY: %s',
                    view.name,
                    _described(error),
                )
        for view in self._known.keys() - known.keys():
            self._known[view].close()
        self._known = known
        return {view.name: function for view, function in known.items()}


def build(function: PythonFunction) -> Callable[..., Any]:
    """A function from its source text, without its decorators; as in Feast it knows `np`, and `pd` if it names it.

    Raises:
        InvalidRequest: the text holds no function.
        Exception: whatever the text does.
    """
    tree = ast.parse(textwrap.dedent(function.text))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    named = [node for node in found if node.name == function.name] or found
    if not named:
        raise InvalidRequest("its text holds no function", hint="write it as `def`")
    for node in found:
        node.decorator_list = []
    names: dict[str, Any] = {"__name__": "featurestore_author_function", "np": np, "numpy": np}
    if function.mode == "pandas" or re.search(r"\b(pd|pandas)\b", function.text):
        import pandas

        names["pd"] = names["pandas"] = pandas
    # Annotations may name what is imported elsewhere in the author's module.
    exec(compile(tree, f"<{function.name}>", "exec", flags=__future__.annotations.compiler_flag), names)  # see above
    built: Callable[..., Any] = names[named[0].name]
    return built


class AuthorFunction:
    """One view's function.

    Args:
        view: what it computes.
        function: takes columns (or a frame, or a row) by name, returns features in the same form.
        clock: measures runs.
        counter: is told about them.
        timeout_s: how long one may take.
    """

    def __init__(
        self,
        view: OnDemandViewSpec,
        function: Callable[..., Any],
        clock: Clock,
        counter: FunctionCounter,
        *,
        timeout_s: float,
    ) -> None:
        assert view.function is not None, "only such views are built"
        self._view, self._recipe, self._function = view, view.function, function
        self._clock, self._counter, self._timeout_s = clock, counter, timeout_s
        self._short_names = {read.name: read.feature for read in view.inputs}
        self._features = [feature for feature in view.features if feature.type in SCALAR_TYPES]
        self._work: queue.SimpleQueue[tuple[Future[Any], Mapping[str, list[Any]], int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._hangs = False
        self._silent_until_ns = 0

    def compute(self, inputs: Mapping[str, list[Any]], row_count: int) -> Mapping[str, ColumnValues] | None:
        """Features by name; None where it failed."""
        if self._hangs:
            return None
        started_ns = self._clock.monotonic_ns()
        found: Mapping[str, ColumnValues] | None = None
        future: Future[Any] = Future()
        try:
            self._start()
            self._work.put((future, inputs, row_count))
            found = self._columns(future.result(self._timeout_s), row_count)
        except TimeoutError:
            # One that waits for others is not to blame; one that has begun holds its thread, maybe for ever.
            self._hangs = not future.cancel()
            self._complain(f"it did not return within {self._timeout_s:g} s")
        except Exception as error:  # noqa: BLE001  # whatever an author's function does
            self._complain(_failed(error))
        self._counter.count_function(self._view.name, self._clock.monotonic_ns() - started_ns, has_failed=found is None)
        return found

    def close(self) -> None:
        """End the thread, once it has nothing to do."""
        self._work.put(None)

    def _start(self) -> None:
        """The thread, at the first request: a daemon, so that one that hangs does not hold the process."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"on-demand {self._view.name}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """The thread: one request after another, so that authors need not know about threads."""
        while (wanted := self._work.get()) is not None:
            future, inputs, row_count = wanted
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._called(inputs, row_count))
                except BaseException as error:  # noqa: BLE001  # SystemExit too
                    future.set_exception(InvalidRequest(_failed(error)))

    def _called(self, inputs: Mapping[str, list[Any]], row_count: int) -> Mapping[str, Sequence[Any]]:
        """What it makes of N rows; inputs go by "view__feature" and by their own names."""
        given = {**{self._short_names.get(name, name): values for name, values in inputs.items()}, **inputs}
        if self._recipe.mode == "pandas":
            import pandas

            frame = self._function(pandas.DataFrame(given))
            missing = frame.isna()
            return {
                name: [None if gone else value for value, gone in zip(frame[name], missing[name], strict=True)]
                for name in frame
            }
        if self._recipe.is_by_row:
            rows = [self._function({name: values[row] for name, values in given.items()}) for row in range(row_count)]
            return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
        answer: Mapping[str, Sequence[Any]] = self._function(given)
        return answer

    def _columns(self, answer: Mapping[str, Sequence[Any]], row_count: int) -> Mapping[str, ColumnValues]:
        """Its features, checked."""
        columns = {}
        for feature in self._features:
            values = [value.item() if isinstance(value, np.generic) else value for value in answer[feature.name]]
            if len(values) != row_count:
                raise InvalidRequest(f'feature "{feature.name}" has {len(values)} values for {row_count} rows')
            try:
                columns[feature.name] = column_of(feature.name, values, feature.type)
            except InvalidRequest:
                raise InvalidRequest(f'feature "{feature.name}" is no {feature.type.value} in some row') from None
        return columns

    def _complain(self, what: str) -> None:
        """Say that it failed, once a minute."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._silent_until_ns:
            return
        self._silent_until_ns = now_ns + COMPLAINT_SECONDS * _NS_PER_SECOND
        until = " until it is changed or the server is started anew" if self._hangs else ""
        _log.error(
            'the function of on-demand view "%s" failed, its features are NOT_READY%s: %s', self._view.name, until, what
        )


def _described(error: BaseException) -> str:
    """Why a function cannot be built, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _failed(error: BaseException) -> str:
    """Why a function has no answer: what kind of error and where, as its text may have values of the request."""
    if isinstance(error, InvalidRequest):
        return error.message
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<")]
    return type(error).__name__ + (f" in line {lines[-1]} of its text" if lines else "")
