"""What all teams keep to: rules of the platform team over definitions, checked by every plan and apply.

    policies:
      - name: every view has an owner
        kind: view                                   source, view, feature or service
        require: owner IS NOT NULL AND description IS NOT NULL
        remedy: write owner="..." and description="..."
    exceptions:
      - {policy: every view has an owner, of: card_activity, until: 2026-12-31, reason: the team is being formed}

A rule is SQL as everywhere here, over what `facts.FACTS` lists; it is kept where it is true, neither false nor null. An
exception ends by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import yaml

from featurestore.core.events import BlobRow, ColumnValues
from featurestore.core.expressions import Expression, compile_expression
from featurestore.core.spec import ValueType
from featurestore.definitions.governance.facts import FACTS, Fact, Subject
from featurestore.definitions.problems import Problem, suggest
from featurestore.errors import InvalidRequest

POLICIES_MAX = 200
RULE_KEYS = ("name", "kind", "where", "require", "matches", "remedy")
EXCEPTION_KEYS = ("policy", "of", "until", "reason")


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule.

    Attributes:
        name: for people.
        on: kind of what it is about.
        where: of which of them; None for all.
        require: what they must be; None where only `matches` says.
        matches: fact -> pattern that its text must match as a whole.
        remedy: what to do about one that is not.
    """

    name: str
    on: str
    where: Expression | None
    require: Expression | None
    matches: Mapping[str, re.Pattern[str]]
    remedy: str


@dataclass(frozen=True, slots=True)
class PolicyException:
    """What a rule does not hold for, until a day.

    Attributes:
        policy: name of the rule.
        of: name of the object, a feature as "view:feature"; "*" stands for anything.
        until: the last day on which it holds, UTC.
        reason: for people.
    """

    policy: str
    of: str
    until: date
    reason: str


@dataclass(frozen=True, slots=True)
class Policies:
    """All of a file."""

    rules: tuple[Policy, ...] = ()
    exceptions: tuple[PolicyException, ...] = ()

    def asks_for(self, kind: str, fact: str) -> bool:
        """Whether a rule reads a fact."""
        mine = [rule for rule in self.rules if rule.on == kind]
        read = [one.columns for rule in mine for one in (rule.require, rule.where) if one is not None]
        return any(fact in columns for columns in read)


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """What a check says.

    Attributes:
        violations: what must be mended.
        notes: exceptions that hold, and until when.
    """

    violations: tuple[Problem, ...]
    notes: tuple[str, ...]


def read_policies(text: str, place: str) -> Policies:
    """The rules of a file.

    Args:
        text: YAML.
        place: where it is from, for messages.

    Raises:
        InvalidRequest: it is none; it says which rule is wrong and how.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRequest(f'policies "{place}" are no YAML', detail=str(error)) from error
    if not isinstance(content, Mapping) or not isinstance(content.get("policies"), list):
        raise InvalidRequest(
            f'"{place}" has no policies', hint="write a list `policies:` of name, kind, require, remedy"
        )
    _refuse_others(content, ("policies", "exceptions"), place)
    if len(content["policies"]) > POLICIES_MAX:
        raise InvalidRequest(f'"{place}" has more than {POLICIES_MAX} policies')
    rules = tuple(_rule(one, f'"{place}", policy {number}') for number, one in enumerate(content["policies"], 1))
    exceptions = tuple(_exception(one, rules, place) for one in content.get("exceptions") or ())
    return Policies(rules, exceptions)


def check_policies(policies: Policies, subjects: Sequence[Subject], today: date) -> PolicyOutcome:
    """Hold definitions against rules.

    Args:
        policies: the rules.
        subjects: what there is.
        today: decides which exceptions have ended.
    """
    violations, notes = list[Problem](), dict[str, None]()
    for rule in policies.rules:
        mine = [one for one in subjects if one.kind == rule.on]
        for one, is_kept in zip(mine, _are_kept(rule, mine), strict=True):
            if is_kept:
                continue
            excepted = [each for each in policies.exceptions if _is_about(each, rule, one)]
            if any(each.until >= today for each in excepted):
                until = max(each.until for each in excepted)
                notes[f'{one.place} is excepted from policy "{rule.name}" until {until}'] = None
                continue
            ended = f" (its exception ended on {max(each.until for each in excepted)})" if excepted else ""
            violations.append(
                Problem(one.place, f'it breaks policy "{rule.name}"{ended}{_why(rule, one)}', rule.remedy)
            )
    return PolicyOutcome(tuple(violations), tuple(notes))


def _are_kept(rule: Policy, subjects: Sequence[Subject]) -> list[bool]:
    """(N,) of N subjects of the rule's kind."""
    if not subjects:
        return []
    columns = {name: _column([one.facts.get(name) for one in subjects], kind) for name, kind in FACTS[rule.on].items()}
    kept = [True] * len(subjects)
    for number, one in enumerate(subjects):
        for name, pattern in rule.matches.items():
            kept[number] &= pattern.fullmatch(str(one.facts.get(name) or "")) is not None
    if rule.require is not None:
        kept = [a and b for a, b in zip(kept, _are_true(rule.require, columns, len(subjects)), strict=True)]
    if rule.where is not None:
        kept = [a or not b for a, b in zip(kept, _are_true(rule.where, columns, len(subjects)), strict=True)]
    return kept


def _are_true(condition: Expression, columns: Mapping[str, ColumnValues], count: int) -> list[bool]:
    found = condition.evaluate(columns, count)
    truth = np.asarray(found.values) != 0
    return [bool(one) for one in (truth if found.valid is None else truth & found.valid)]


def _column(values: Sequence[Fact], kind: ValueType) -> ColumnValues:
    """Facts of one name as an expression takes them."""
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    mask = None if valid.all() else valid
    if kind is ValueType.STRING:
        return ColumnValues(BlobRow.of([str(value or "").encode() for value in values]), mask)
    numbers: list[Any] = [0 if value is None else value for value in values]
    if kind is ValueType.FLOAT64:
        return ColumnValues(np.array(numbers, np.float64), mask)
    return ColumnValues(np.array(numbers, np.int64), mask)


def _is_about(exception: PolicyException, rule: Policy, subject: Subject) -> bool:
    return exception.policy == rule.name and fnmatchcase(subject.name, exception.of)


def _why(rule: Policy, subject: Subject) -> str:
    """What the rule reads of the subject."""
    read = {*rule.matches, *(rule.require.columns if rule.require else ())}
    told = ", ".join(f"{name} is {_text(subject.facts.get(name))}" for name in FACTS[rule.on] if name in read)
    return f": {told}" if told else ""


def _text(fact: Fact) -> str:
    return "unknown" if fact is None else f'"{fact}"' if isinstance(fact, str) else str(fact).lower()


def _rule(one: object, place: str) -> Policy:
    if not isinstance(one, Mapping):
        raise InvalidRequest(f"{place} is no mapping", hint="write name, kind, require and remedy")
    _refuse_others(one, RULE_KEYS, place)
    name, on, remedy = (str(one.get(key) or "") for key in ("name", "kind", "remedy"))
    if not name or not remedy:
        raise InvalidRequest(f"{place} has no {'remedy' if name else 'name'}", hint="whoever breaks it reads both")
    if on not in FACTS:
        raise InvalidRequest(f'policy "{name}" is of kind "{on}"', hint=suggest(on, list(FACTS)))
    patterns = dict[str, re.Pattern[str]]()
    for fact, pattern in (one.get("matches") or {}).items():
        if FACTS[on].get(fact) is not ValueType.STRING:
            texts = [known for known, kind in FACTS[on].items() if kind is ValueType.STRING]
            raise InvalidRequest(f'policy "{name}" matches "{fact}"', hint=suggest(str(fact), texts))
        try:
            patterns[fact] = re.compile(str(pattern))
        except re.error as error:
            raise InvalidRequest(f'policy "{name}" has a pattern that is none', detail=str(error)) from error
    require, where = (_condition(one.get(key), on, name) for key in ("require", "where"))
    if require is None and not patterns:
        raise InvalidRequest(f'policy "{name}" requires nothing', hint="write `require:` or `matches:`")
    return Policy(name, on, where, require, patterns, remedy)


def _condition(text: object, on: str, policy: str) -> Expression | None:
    if not text:
        return None
    try:
        found = compile_expression(str(text), FACTS[on])
    except InvalidRequest as error:
        hint = error.hint or f"facts of a {on}: {', '.join(FACTS[on])}"
        raise InvalidRequest(f'policy "{policy}": {error.message}', detail=error.detail, hint=hint) from error
    if not found.is_condition:
        raise InvalidRequest(f'policy "{policy}": "{text}" is neither true nor false', hint="write a comparison")
    return found


def _exception(one: object, rules: Sequence[Policy], place: str) -> PolicyException:
    if not isinstance(one, Mapping):
        raise InvalidRequest(f'an exception in "{place}" is no mapping', hint="write policy, of, until and reason")
    _refuse_others(one, EXCEPTION_KEYS, place)
    policy, of, until = str(one.get("policy") or ""), str(one.get("of") or ""), one.get("until")
    names = [rule.name for rule in rules]
    if policy not in names:
        raise InvalidRequest(
            f'"{place}" has an exception from "{policy}", which is no policy', hint=suggest(policy, names)
        )
    if not of or type(until) is not date:
        raise InvalidRequest(f'an exception from "{policy}" needs `of` and a date `until`', hint="until: 2026-12-31")
    return PolicyException(policy, of, until, str(one.get("reason") or ""))


def _refuse_others(content: Mapping[Any, object], known: Sequence[str], place: str) -> None:
    for key in content:
        if key not in known:
            raise InvalidRequest(f'{place}: "{key}" is not known', hint=suggest(str(key), list(known)))
