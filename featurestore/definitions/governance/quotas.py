"""How much each caller may ask for, and how much of a service: rules of the platform team, kept by every server.

    quotas:
      - {caller: fraud-model, rows_per_second: 5000}      his own
      - {caller: "*", rows_per_second: 500, share: 0.25}  each of all others
      - {service: card_check, requests_per_second: 2000}  everybody together
      - {caller: "batch-*", service: card_check, rows_per_second: 100}

A rule is about callers, about services, or about pairs of both. Of the rules about the same, the first whose pattern
fits holds. Whoever asks needs room in each of the three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import yaml

from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest

QUOTAS_MAX = 1_000
KEYS = ("caller", "service", "requests_per_second", "rows_per_second", "burst_seconds", "share")

BURST_SECONDS = 2.0
"""What a second leaves over may be used this much later."""

HINT = 'write {caller: NAME, rows_per_second: N}, a line each, below "quotas:"'


@dataclass(frozen=True, slots=True)
class Quota:
    """One rule.

    Attributes:
        caller, service: patterns of names; "" where the rule is not about them.
        requests_per_second, rows_per_second: limits; None for none.
        burst_seconds: of them may be used at once.
        share: of the requests that a server has room for; None for no limit.
    """

    caller: str = ""
    service: str = ""
    requests_per_second: float | None = None
    rows_per_second: float | None = None
    burst_seconds: float = BURST_SECONDS
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Quotas:
    """All rules, in the order of the file.

    Attributes:
        of_callers, of_services, of_pairs: by what they are about.
    """

    of_callers: tuple[Quota, ...] = ()
    of_services: tuple[Quota, ...] = ()
    of_pairs: tuple[Quota, ...] = ()

    def of_caller(self, caller: str) -> Quota | None:
        """The rule for a caller, whatever he asks for."""
        return next((one for one in self.of_callers if fnmatchcase(caller, one.caller)), None)

    def of_service(self, service: str) -> Quota | None:
        """The rule for a service, whoever asks."""
        return next((one for one in self.of_services if fnmatchcase(service, one.service)), None)

    def of_pair(self, caller: str, service: str) -> Quota | None:
        """The rule for a caller of a service."""
        pairs = self.of_pairs
        return next(
            (one for one in pairs if fnmatchcase(caller, one.caller) and fnmatchcase(service, one.service)), None
        )


def read_quotas(text: str, place: str) -> Quotas:
    """The rules of a file.

    Args:
        text: of the file, YAML.
        place: where it is, for messages.

    Raises:
        InvalidRequest: it says something that is no rule.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRequest(f'quotas "{place}" are no YAML', detail=str(error)) from error
    rules = content.get("quotas") if isinstance(content, Mapping) else None
    if not isinstance(rules, list) or len(rules) > QUOTAS_MAX or set(content) != {"quotas"}:
        raise InvalidRequest(f'"{place}" is not a list of at most {QUOTAS_MAX} quotas', hint=HINT)
    found = [_quota(rule, f'quota {number} of "{place}"') for number, rule in enumerate(rules, 1)]
    return Quotas(
        tuple(one for one in found if one.caller and not one.service),
        tuple(one for one in found if one.service and not one.caller),
        tuple(one for one in found if one.service and one.caller),
    )


def _quota(rule: object, where: str) -> Quota:
    if not isinstance(rule, Mapping):
        raise InvalidRequest(f"{where} is no rule", hint=HINT)
    for key in rule:
        if key not in KEYS:
            raise InvalidRequest(f'{where} has the key "{key}"', hint=suggest(str(key), KEYS))
    names: dict[str, str] = {key: rule.get(key, "") for key in ("caller", "service")}
    if not any(names.values()) or not all(isinstance(name, str) for name in names.values()):
        raise InvalidRequest(f"{where} names neither a caller nor a service", hint=HINT)
    numbers = {key: _number(rule, key, where) for key in KEYS[2:] if key in rule}
    if not numbers.keys() - {"burst_seconds"}:
        raise InvalidRequest(f"{where} limits nothing", hint="give requests_per_second, rows_per_second or share")
    share = numbers.get("share")
    if share is not None and (share > 1 or all(names.values())):
        raise InvalidRequest(
            f"{where} has a share that is none", hint="a share is above 0 and at most 1, of a caller or of a service"
        )
    return Quota(
        names["caller"],
        names["service"],
        numbers.get("requests_per_second"),
        numbers.get("rows_per_second"),
        numbers.get("burst_seconds", BURST_SECONDS),
        share,
    )


def _number(rule: Mapping[Any, Any], key: str, where: str) -> float:
    value = rule[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidRequest(f'{where}: {key} is "{value}"', hint="write a number above 0")
    return float(value)
