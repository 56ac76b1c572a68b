"""What is known of one row, put together: what the store says, what was logged, what the event log says."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.cli.lookup.screen import plain_json

if TYPE_CHECKING:
    from featurestore.offline.parity.feature_log_json import LoggedCell, LoggedMessage
    from featurestore.offline.parity.recount import Recount, RecountedEvent, RecountedFeature
    from featurestore.online.answer.explaining.explanation import ExplainedFeature, Explanation


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        explanation: what the store says now of the row's read time.
        logged: what a model was answered then; None where nobody asked for that.
        recount: what the event log says; None likewise.
    """

    explanation: Explanation
    logged: LoggedMessage | None = None
    recount: Recount | None = None

    def logged_cell(self, at: int) -> LoggedCell | None:
        """What was logged of a feature."""
        view, name = self._key(at)
        part = None if self.logged is None else self.logged.views.get(view)
        return None if part is None else part.features.get(name)

    def recounted(self, at: int) -> RecountedFeature | None:
        """What the event log says of a feature."""
        return None if self.recount is None else self.recount.features.get(self._key(at))

    def events_in(self, at: int) -> list[RecountedEvent] | None:
        """Events of the event log in a feature's windows, or in those of what it reads; None without an event log."""
        view, _ = self._key(at)
        if self.recount is None or view not in self.recount.events:
            return None
        windows = [window for one in _with_reads(self.explanation.features[at]) for window in one.windows]
        spans = [(window.begin_ms, window.end_ms) for window in windows]
        return [
            event
            for event in self.recount.events[view]
            if any(
                (begin is None or begin <= event.event_time_ms) and event.event_time_ms < end for begin, end in spans
            )
        ]

    def _key(self, at: int) -> tuple[str, str]:
        """View of a feature, and its name there."""
        feature = self.explanation.features[at]
        return self.explanation.views[feature.view].name, feature.feature

    def content(self) -> dict[str, object]:
        """All of it, for --format json: names are those of the classes."""
        found: dict[str, object] = {"explanation": _plain(self.explanation)}
        if self.logged is not None:
            cells = [self.logged_cell(at) for at in range(len(self.explanation.features))]
            found["logged"] = {
                "request_id": self.logged.request_id,
                "request_row": self.logged.request_row,
                "logged_at_ms": self.logged.logged_at_ms,
                "values": {
                    feature.name: None if cell is None else plain_json(cell.value)
                    for feature, cell in zip(self.explanation.features, cells, strict=True)
                },
            }
        if self.recount is not None:
            recounted = [self.recounted(at) for at in range(len(self.explanation.features))]
            found["recount"] = {
                "features": {
                    feature.name: None if one is None else _plain(one)
                    for feature, one in zip(self.explanation.features, recounted, strict=True)
                },
                "events": _plain(self.recount.events),
                "other_definitions": list(self.recount.other_definitions),
                "event_logs": dict(self.recount.event_logs),
            }
        return found


def _with_reads(feature: ExplainedFeature) -> list[ExplainedFeature]:
    """A feature and what it is computed from."""
    return [feature, *feature.reads]


def _plain(value: object) -> object:
    """Dataclasses as objects, statuses and types by their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.IntEnum):
        return value.name
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return plain_json(value)
