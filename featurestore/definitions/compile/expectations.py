"""Compile what is expected of a source's records: SQL in the source's tags.

"expect.amount is positive": "dead_letter: amount > 0"          no view counts a record that fails
"expect.currency is known":  "count at most 0.02: currency IS NOT NULL"    counted; broken above 2 % of an hour
"usual_hour.volume": "0.5 to 2"        an hour has half to twice the records of the same hour of other days
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from featurestore.core.spec import Expectation, Measure, OnFail, SourceSpec, UsualHours
from featurestore.definitions import limits
from featurestore.definitions.compile.expressions import condition
from featurestore.definitions.problems import Place, ProblemList

EXPECTATION_TAG_PREFIX = "expect."
"""Tags of a source: "expect.NAME" holds what to do, how many may fail, and the SQL that each record is to meet."""

FRESHNESS_TAG = "freshness"
"""Tag of a source: how old its newest event is promised to be at most; part of its contract as a document.
Of a view: how soon an event is promised to be servable."""

USUAL_HOUR_TAG_PREFIX = "usual_hour."
"""Tags of a source: "usual_hour.volume" and "usual_hour.lateness" hold two factors, "0.5 to 2"."""

_TEXT = re.compile(r"\s*(?P<on_fail>\w+)(?:\s+at\s+most\s+(?P<at_most>[^:\s]+))?\s*:\s*(?P<sql>.*)", re.DOTALL)
_REMEDY = 'write "dead_letter: amount >= 0" or "count at most 0.02: currency IS NOT NULL"'


def expectation_text(condition_text: str, on_fail: str, at_most: float) -> str:
    """The tag that `expectations_of` reads."""
    return f"{on_fail}{f' at most {at_most:g}' if at_most else ''}: {condition_text}"


def expectations_of(
    tags: Mapping[str, str], source: SourceSpec, place: Place, problems: ProblemList
) -> tuple[Expectation, ...]:
    """What a source's tags expect of its records, by name; those with a mistake are missing."""
    names = sorted(tag.removeprefix(EXPECTATION_TAG_PREFIX) for tag in tags if tag.startswith(EXPECTATION_TAG_PREFIX))
    if len(names) > limits.EXPECTATIONS_MAX:
        fact = f"it has {len(names)} expectations, at most {limits.EXPECTATIONS_MAX} are supported"
        problems.add(place, fact, "join some by AND")
    found = [_expectation(name, tags[EXPECTATION_TAG_PREFIX + name], source, place, problems) for name in names]
    return tuple(one for one in found if one is not None)


def usual_hours_of(tags: Mapping[str, str], source: str, place: Place, problems: ProblemList) -> tuple[UsualHours, ...]:
    """What a source's tags expect of its hours, by measure; those with a mistake are missing."""
    found = []
    for tag in sorted(tag for tag in tags if tag.startswith(USUAL_HOUR_TAG_PREFIX)):
        measure, factors = tag.removeprefix(USUAL_HOUR_TAG_PREFIX), _factors(tags[tag])
        if measure not in tuple(Measure):
            problems.add(place, f'tag "{tag}" is about "{measure}"', f"name one of {', '.join(Measure)}")
        elif factors is None:
            problems.add(place, f'tag "{tag}" is "{tags[tag]}"', 'write two factors, the smaller first: "0.5 to 2"')
        else:
            found.append(UsualHours(source, Measure(measure), *factors))
    return tuple(found)


def required_of(expectations: Sequence[Expectation]) -> str:
    """The condition that no record of a view may fail, "" for none; one for every order and every set of names."""
    texts = sorted({one.condition for one in expectations if one.on_fail is OnFail.DEAD_LETTER})
    return texts[0] if len(texts) == 1 else " AND ".join(f"({text})" for text in texts)


def _expectation(name: str, text: str, source: SourceSpec, place: Place, problems: ProblemList) -> Expectation | None:
    """One expectation; None where it has a mistake."""
    what = f'expectation "{name}"'
    if not 0 < len(name) <= limits.NAME_LENGTH_MAX:
        problems.add(place, f"{what}: its name is not of 1 to {limits.NAME_LENGTH_MAX} characters", "rename it")
        return None
    match = _TEXT.fullmatch(text)
    if match is None or match["on_fail"] not in tuple(OnFail):
        problems.add(place, f'{what} is "{text}"', _REMEDY)
        return None
    at_most = _share(match["at_most"])
    if at_most is None:
        fact = f"{what}: at most {match['at_most']} of the records may fail, which is no share"
        problems.add(place, fact, "write a number from 0 to 1, such as 0.02")
        return None
    compiled = condition(match["sql"], source, what, place, problems)
    if compiled == "":
        problems.add(place, f"{what} has no condition", _REMEDY)
    return Expectation(source.name, name, compiled, OnFail(match["on_fail"]), at_most) if compiled else None


def _factors(text: str) -> tuple[float, float] | None:
    """Two factors of what is usual; None where they are none."""
    try:
        low, high = (float(part) for part in text.split(" to "))
    except ValueError:
        return None
    return (low, high) if 0.0 <= low < high < math.inf else None


def _share(text: str | None) -> float | None:
    """A share of records; None where it is none."""
    try:
        share = float(text or 0.0)
    except ValueError:
        return None
    return share if 0.0 <= share <= 1.0 else None
