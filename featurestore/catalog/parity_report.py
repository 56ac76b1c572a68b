"""The last parity check, as `featurestore parity --format json` wrote it: how many answers were right, view by view."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import InvalidRequest

_EQUAL, _UNEXPLAINED = "equal", "unexplained"
_NOT_COMPARED = frozenset({"not_ready", "no_table", "not_defined", "on_demand", "event_not_logged"})


@dataclass(frozen=True, slots=True)
class ViewParity:
    """What came of the logged values of a view.

    Attributes:
        equal, explained, unexplained: values.
        first_ms, last_ms: read times of the first and the last row that was checked.
    """

    equal: int
    explained: int
    unexplained: int
    first_ms: int
    last_ms: int


def read_parity(path: Path) -> Mapping[str, ViewParity]:
    """View -> what came of it; nothing where no report has been written yet.

    Raises:
        InvalidRequest: the file is no report.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        counts: dict[str, Counter[str]] = {}
        for one in content["features"]:
            counts.setdefault(one["view"], Counter()).update(one["outcomes"])
        first_ms, last_ms = int(content["first_ms"]), int(content["last_ms"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "write it by `featurestore parity --format json > FILE`"
        raise InvalidRequest(f'"{path}" is no report of parity', detail=str(error), hint=hint) from error
    return {
        view: ViewParity(
            outcomes[_EQUAL],
            sum(count for name, count in outcomes.items() if name not in {_EQUAL, _UNEXPLAINED, *_NOT_COMPARED}),
            outcomes[_UNEXPLAINED],
            first_ms,
            last_ms,
        )
        for view, outcomes in counts.items()
    }
