"""One request as it was answered: what the lookup hands over to whoever keeps answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from featurestore.core.events import ColumnValues
from featurestore.online.answer.assembly import Answer, KeyColumns
from featurestore.online.answer.service_plan import ServicePlan


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """N rows; nothing of them is changed any more.

    Attributes:
        plan: the feature service.
        columns: values of its join keys.
        stored: what was read of the store, with checkpoints: the answer of the plan's stored plan.
        answer: with what was computed from that.
        request: columns of the request that features were computed from, by name.
        events: payments in flight: by source, its columns that were read.
        shadow_of: the service whose shadow answered; "" where the caller got the answer.
        shadow: works out what the service's shadow answers, which may raise what lookups raise; None where it has none.
        shadow_bytes: what it keeps of the store until then.
    """

    plan: ServicePlan
    columns: KeyColumns
    stored: Answer
    answer: Answer
    request: Mapping[str, ColumnValues] = field(default_factory=dict)
    events: Mapping[str, Mapping[str, ColumnValues]] = field(default_factory=dict)
    shadow_of: str = ""
    shadow: Callable[[], AnsweredRequest] | None = None
    shadow_bytes: int = 0
