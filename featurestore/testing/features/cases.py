"""Feature tests as YAML: read, run, and what differs.

view: card_activity               or service: card_risk
given:                            events for all tests of the file; those of a test come behind them
payments:
- {event_time: -2h, card_id: card-1, amount: 1000}
tests:
- name: what was spent
at: 2026-01-01T12:00:00Z
for: {card_id: card-1}
expect: {amount_sum_7d: 1000}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from featurestore.definitions.problems import suggest
from featurestore.errors import FeatureStoreError, InvalidRequest
from featurestore.testing.features.calculator import FeatureCalculator, features_of, moment_ms

FILE_KEYS = ("view", "service", "given", "tests")
TEST_KEYS = ("name", "view", "service", "given", "at", "for", "request", "in_flight", "expect")
TOLERANCE = 1e-9
"""Floats may differ by this share: the order of additions is nobody's promise."""


@dataclass(frozen=True, slots=True)
class FeatureCase:
    """One test.

    Attributes:
        place: file and name.
        service: whose features; or "".
        view: likewise.
        given: rows by source.
        at, entity, request, in_flight: as in `FeatureCalculator.values`.
        expected: feature -> value.
    """

    place: str
    service: str
    view: str
    given: Mapping[str, Sequence[Mapping[str, object]]]
    at: object
    entity: Mapping[str, object]
    request: Mapping[str, object]
    in_flight: str
    expected: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """What came of a test.

    Attributes:
        case: the test.
        differences: feature -> (expected, is).
        error: why it could not be computed; "" if it was.
    """

    case: FeatureCase
    differences: Mapping[str, tuple[object, object]]
    error: str = ""

    @property
    def has_passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences and not self.error


def read_cases(path: Path) -> list[FeatureCase]:
    """The tests of a file.

    Raises:
        InvalidRequest: it is none; it says what is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f'"{path}" cannot be read', detail=str(error)) from error
    if not isinstance(content, Mapping) or not isinstance(content.get("tests"), list):
        raise InvalidRequest(f'"{path}" has no tests', hint="write `view: NAME` and a list `tests:`")
    _refuse_others(content, FILE_KEYS, str(path))
    return [_case(path, number, one, content) for number, one in enumerate(content["tests"], 1)]


def run_case(case: FeatureCase, calculator: FeatureCalculator) -> CaseOutcome:
    """Compute what a test asks for, and compare."""
    try:
        asked: str | list[str] = case.service or features_of(calculator.repo, case.view, list(case.expected))
        found = calculator.values(
            asked, case.given, at=case.at, entity=case.entity, request=case.request, in_flight=case.in_flight
        )
        if case.service:
            for name in case.expected:
                if name not in found:
                    raise InvalidRequest(f'"{case.service}" answers no "{name}"', hint=suggest(name, list(found)))
    except FeatureStoreError as error:
        text = "; ".join(part for part in (error.message, error.detail, error.hint) if part)
        return CaseOutcome(case, {}, text)
    is_now = {name: found[name if case.service else f"{case.view}:{name}"] for name in case.expected}
    differences = {
        name: (wanted, is_now[name]) for name, wanted in case.expected.items() if not is_equal(wanted, is_now[name])
    }
    return CaseOutcome(case, differences)


def is_equal(expected: object, value: object) -> bool:
    """Whether a value is the expected one: floats nearly, times as moments, all else exactly."""
    if isinstance(value, datetime):
        return expected is not None and moment_ms(expected, "expect") == moment_ms(value, "value")
    if isinstance(expected, bool) or isinstance(value, bool):
        return expected is value
    if isinstance(expected, int | float) and isinstance(value, float):
        return math.isclose(expected, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(expected, Mapping) and isinstance(value, Mapping):
        return expected.keys() == value.keys() and all(is_equal(expected[key], value[key]) for key in expected)
    if isinstance(expected, list) and isinstance(value, list):
        return len(expected) == len(value) and all(map(is_equal, expected, value))
    return type(expected) is type(value) and expected == value


def _case(path: Path, number: int, one: object, file: Mapping[str, object]) -> FeatureCase:
    """One of the list."""
    place = f"{path.name}: test {number}"
    if not isinstance(one, Mapping):
        raise InvalidRequest(f"{place} is no mapping", hint="write name, at, for and expect")
    place = f"{path.name}: {one.get('name', f'test {number}')}"
    _refuse_others(one, TEST_KEYS, place)
    view, service = (str(one.get(key) or file.get(key) or "") for key in ("view", "service"))
    if bool(view) == bool(service):
        raise InvalidRequest(f"{place}: it is of {'both' if view else 'neither'} a view and a service", hint="name one")
    if "at" not in one or not one.get("expect"):
        raise InvalidRequest(f"{place}: it does not say {'what to expect' if 'at' in one else 'when'}")
    given: dict[str, list[Mapping[str, object]]] = {}
    for name, row in (*_rows(file.get("given"), place), *_rows(one.get("given"), place)):
        given.setdefault(name, []).append(row)
    entity, request, expected = (_mapping(one.get(key), f"{place}: {key}") for key in ("for", "request", "expect"))
    return FeatureCase(
        place, service, view, given, one["at"], entity, request, str(one.get("in_flight") or ""), expected
    )


def _rows(given: object, place: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Source and event of each."""
    for name, rows in _mapping(given, f"{place}: given").items():
        for row in rows if isinstance(rows, list) else [rows]:
            yield name, _mapping(row, f"{place}: given {name}")


def _mapping(content: object, what: str) -> Mapping[str, object]:
    """A mapping of names; an empty one for nothing."""
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise InvalidRequest(f"{what} is no mapping", hint="write {name: value, ...}")
    return {str(key): value for key, value in content.items()}


def _refuse_others(content: Mapping[str, object], known: Sequence[str], place: str) -> None:
    """Keys that nobody reads."""
    for key in content:
        if key not in known:
            raise InvalidRequest(f'{place}: "{key}" is not known', hint=suggest(str(key), list(known)))
