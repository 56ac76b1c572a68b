"""A source's contract as a document: Open Data Contract Standard 3.1 (https://bitol.io), written and held against.

    source ──────> schema[].properties    columns, keys, types
    expectations > schema[].quality       SQL that any tool can run; its condition beside it, for ours
    owner ───────> team                   freshness ─> slaProperties      Kafka ─> servers
    on call ─────> support                PII ───────> classification

What is read of somebody else's document is what these say, and of its quality rules those that say something of each
record: ours, and the library's `nullValues`, `missingValues` and `invalidValues` with `validValues`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import Expectation, OnFail, SourceSpec, UsualHours, ValueType
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.schemas.source_schema import DDL_NAMES
from featurestore.errors import InvalidRequest

API_VERSION = "v3.1.0"
CONDITION, ON_FAIL, AT_MOST = "featurestore.condition", "featurestore.onFail", "featurestore.atMost"
"""customProperties of a rule: what a record is to meet, what becomes of one that does not, how many may fail."""

MEASURE, AT_LEAST = "featurestore.measure", "featurestore.atLeast"
"""Of a rule about hours: what is compared; and from how many times to AT_MOST times what is usual it may be."""

LOGICAL_TYPES: Mapping[ValueType, str] = {
    ValueType.STRING: "string",
    ValueType.INT64: "integer",
    ValueType.FLOAT64: "number",
    ValueType.BOOL: "boolean",
    ValueType.TIMESTAMP: "timestamp",
}

_READ_AS: Mapping[str, frozenset[ValueType]] = {
    "string": frozenset({ValueType.STRING, ValueType.TIMESTAMP}),
    "integer": frozenset({ValueType.INT64, ValueType.FLOAT64}),
    "number": frozenset({ValueType.FLOAT64}),
    "boolean": frozenset({ValueType.BOOL}),
    "timestamp": frozenset({ValueType.TIMESTAMP}),
    "date": frozenset({ValueType.TIMESTAMP}),
}
"""logicalType of a property -> types of columns that can hold it."""

_UNIT = re.compile(r"(\d+)(\w+)")


@dataclass(frozen=True, slots=True)
class ContractTerms:
    """What a document says beyond the source's own definition.

    Attributes:
        version: of the contract.
        status: such as "active" or "draft".
        owner: who answers for the source; "" for nobody that is known.
        description: of the source.
        freshness_ms: its newest event is promised not to be older; 0 for no promise.
        on_call: whom to reach; "" where nobody says.
        pii: column -> what its values tell of a person.
    """

    version: str = "1.0.0"
    status: str = "active"
    owner: str = ""
    description: str = ""
    freshness_ms: int = 0
    on_call: str = ""
    pii: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a document promises of each record.

    Attributes:
        name: for people.
        condition: SQL over the columns.
        at_most: share of the records that may break it.
    """

    name: str
    condition: str
    at_most: float


def contract_document(
    project: str,
    source: SourceSpec,
    expectations: Sequence[Expectation],
    terms: ContractTerms,
    usual_hours: Sequence[UsualHours] = (),
) -> dict[str, Any]:
    """The contract of a source, as the standard has it.

    Args:
        project: Feast project.
        source: whose contract.
        expectations: of that source.
        terms: what else it says.
        usual_hours: what is expected of the source's hours.
    """
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": f"{project}.{source.name}",
        "name": source.name,
        "version": terms.version,
        "status": terms.status,
    }
    if terms.description:
        document["description"] = {"purpose": terms.description}
    if source.bootstrap_servers:
        written = "json" if source.format == "json_schema" else source.format
        document["servers"] = [
            {"server": "kafka", "type": "kafka", "host": source.bootstrap_servers, "format": written}
        ]
    document["schema"] = [_object(one, expectations, usual_hours) for one in source.per_topic]
    for each in (one for of_topic in document["schema"] for one in of_topic["properties"]):
        if each["name"] in terms.pii:
            each["classification"] = terms.pii[each["name"]]
    if terms.owner:
        document["team"] = {"name": terms.owner}
    if terms.on_call:
        document["support"] = [{"channel": terms.on_call}]
    if terms.freshness_ms:
        number, unit = _UNIT.fullmatch(format_duration(terms.freshness_ms)).groups()  # type: ignore[union-attr]  # it is
        document["slaProperties"] = [{"property": "freshness", "value": int(number), "unit": unit}]
    return document


def contract_text(document: Mapping[str, Any]) -> str:
    """A document as YAML."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def read_contract(text: str) -> dict[str, Any]:
    """A document that somebody wrote.

    Raises:
        InvalidRequest: it is no contract of version 3 of the standard.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRequest("the contract is no YAML", detail=str(error)) from None
    if not isinstance(document, dict) or document.get("kind") != "DataContract":
        raise InvalidRequest("the file is no data contract", hint="its kind must be DataContract")
    version = str(document.get("apiVersion", ""))
    if not version.removeprefix("v").startswith("3."):
        hint = f"its apiVersion must be of version 3, such as {API_VERSION}"
        raise InvalidRequest(f'the contract is of version "{version}" of the standard', hint=hint)
    if not isinstance(document.get("schema"), list):
        raise InvalidRequest("the contract has no schema", hint="list the source's topic and its properties")
    return document


def object_of(document: Mapping[str, Any], source: SourceSpec) -> Mapping[str, Any]:
    """What a contract says of a source's topic.

    Raises:
        InvalidRequest: it says nothing of it.
    """
    objects = [one for one in document["schema"] if isinstance(one, dict)]
    for one in objects:
        if source.topic in (one.get("physicalName"), one.get("name")) or one.get("name") == source.name:
            return one
    names = ", ".join(sorted(str(one.get("physicalName", one.get("name"))) for one in objects)) or "nothing"
    raise InvalidRequest(f'the contract says nothing of topic "{source.topic}"', hint=f"it is about {names}")


def rules_of(described: Mapping[str, Any]) -> tuple[list[Rule], list[str]]:
    """What a contract promises of each record of an object; and its rules that are not understood here, by name."""
    rules, others = [], []
    for one in described.get("quality") or ():
        if MEASURE in _custom(one):
            continue  # of hours, and not of records
        found = _own_rule(one)
        (others.append(_name_of(one)) if found is None else rules.append(found))
    for each in described.get("properties") or ():
        name = str(each.get("name"))
        if each.get("required"):
            rules.append(Rule(f"{name} is required", f"{_quoted(name)} IS NOT NULL", 0.0))
        for one in each.get("quality") or ():
            found = _own_rule(one) or _library_rule(name, one)
            (others.append(f"{name}: {_name_of(one)}") if found is None else rules.append(found))
    return rules, others


def differences(
    described: Mapping[str, Any],
    source: SourceSpec,
    expectations: Sequence[Expectation],
    usual_hours: Sequence[UsualHours] = (),
) -> Iterator[str]:
    """Where a contract and what is registered of a source say different things, one sentence each."""
    yield from _differences_of_hours(described, source, usual_hours)
    properties = {_field_of(each): each for each in described.get("properties") or () if isinstance(each, dict)}
    names = {str(each.get("name")): each for each in properties.values()}
    renamed = dict(source.renamed)
    for column in source.columns:
        if column.name in source.generated:
            continue
        field = renamed.get(column.name, column.name)
        found = properties.get(field) or names.get(column.name)
        if found is None:
            yield f'column "{column.name}": the contract has no property "{field}"'
            continue
        logical = str(found.get("logicalType", ""))
        if logical and column.type not in _READ_AS.get(logical, frozenset()):
            yield f'column "{column.name}" is read as {DDL_NAMES[column.type]}, the contract has it as {logical}'
        if column.name == source.event_id_column and not (found.get("unique") or found.get("primaryKey")):
            yield f'column "{column.name}" is the event id, and the contract does not promise that it is unique'
    rules, others = rules_of(described)
    expected = {one.condition for one in expectations}
    types = {column.name: column.type for column in source.columns}
    types.update({column.name: column.type for column in source.computed})
    promised = set()
    for rule in rules:
        try:
            condition = compile_expression(rule.condition, types).text
        except InvalidRequest as error:
            yield f'rule "{rule.name}" cannot be checked: {error.message}'
            continue
        promised.add(condition)
        if condition not in expected and not rule.name.endswith(" is required"):
            yield f'rule "{rule.name}" is promised, and source "{source.name}" does not expect it'
    for one in expectations:
        if one.condition not in promised:
            yield f'source "{source.name}" expects "{one.name}", which the contract does not promise'
    for name in others:
        yield f'rule "{name}" is not understood here'


def _differences_of_hours(
    described: Mapping[str, Any], source: SourceSpec, usual_hours: Sequence[UsualHours]
) -> Iterator[str]:
    """What only one of the two says of hours."""
    custom = [_custom(one) for one in described.get("quality") or ()]
    promised = {_of_hours(one[MEASURE], one.get(AT_LEAST), one.get(AT_MOST)) for one in custom if MEASURE in one}
    expected = {_of_hours(one.measure, one.at_least, one.at_most) for one in usual_hours}
    for rule in sorted(promised - expected):
        yield f'rule "{rule}" is promised, and source "{source.name}" does not expect it'
    for rule in sorted(expected - promised):
        yield f'source "{source.name}" expects "{rule}", which the contract does not promise'


def _of_hours(measure: object, *times: object) -> str:
    """A rule about hours in words: the same whether a number is written 2 or 2.0."""
    at_least, at_most = (f"{one:g}" if isinstance(one, int | float) else str(one) for one in times)
    return f"usual {measure} from {at_least} to {at_most} times"


def _object(
    source: SourceSpec, expectations: Sequence[Expectation], usual_hours: Sequence[UsualHours]
) -> dict[str, Any]:
    """One topic."""
    renamed = dict(source.renamed)
    described: dict[str, Any] = {
        "name": source.name if not source.more_topics else source.topic,
        "physicalName": source.topic,
        "physicalType": "topic",
        "logicalType": "object",
        "properties": [],
    }
    for column in source.columns:
        if column.name in source.generated:
            continue
        each: dict[str, Any] = {"name": column.name}
        if column.name in renamed:
            each["physicalName"] = renamed[column.name]
        each |= {"logicalType": LOGICAL_TYPES[column.type], "physicalType": DDL_NAMES[column.type]}
        if column.name in (source.event_time_column, source.event_id_column):
            each["required"] = True
        if column.name == source.event_id_column:
            each |= {"unique": True, "primaryKey": True, "primaryKeyPosition": 1}
        described["properties"].append(each)
    if expectations or usual_hours:
        described["quality"] = [
            *(_quality(one, source) for one in expectations),
            *(_quality_of_hours(one) for one in usual_hours),
        ]
    return described


def _quality(one: Expectation, source: SourceSpec) -> dict[str, Any]:
    """An expectation as a rule in SQL: the share of records that do not meet it."""
    query = f"SELECT AVG(CASE WHEN {one.condition} THEN 0.0 ELSE 1.0 END) FROM {_quoted(source.topic)}"
    custom = {CONDITION: one.condition, ON_FAIL: str(one.on_fail), AT_MOST: one.at_most}
    return {
        "name": one.name,
        "type": "sql",
        "query": query,
        "mustBeLessOrEqualTo": one.at_most,
        "severity": "error" if one.on_fail is OnFail.DEAD_LETTER else "warning",
        "customProperties": [{"property": name, "value": value} for name, value in custom.items()],
    }


def _quality_of_hours(one: UsualHours) -> dict[str, Any]:
    """What is expected of hours, as a rule of this engine: the standard has no words for what is usual."""
    custom = {MEASURE: str(one.measure), AT_LEAST: one.at_least, AT_MOST: one.at_most}
    return {
        "name": f"usual {one.measure}",
        "type": "custom",
        "engine": "featurestore",
        "implementation": f"usual_{one.measure}(at_least={one.at_least}, at_most={one.at_most})",
        "severity": "warning",
        "customProperties": [{"property": name, "value": value} for name, value in custom.items()],
    }


def _custom(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The customProperties of a rule."""
    return {str(each.get("property")): each.get("value") for each in rule.get("customProperties") or ()}


def _own_rule(rule: Mapping[str, Any]) -> Rule | None:
    """A rule that has our condition beside its SQL."""
    custom = _custom(rule)
    if CONDITION not in custom:
        return None
    return Rule(_name_of(rule), str(custom[CONDITION]), float(custom.get(AT_MOST) or 0.0))


def _library_rule(column: str, rule: Mapping[str, Any]) -> Rule | None:
    """A rule of the standard's library about one column, where it says something of each record."""
    metric, is_share = rule.get("metric"), rule.get("unit") == "percent"
    bounds = [rule[key] for key in ("mustBe", "mustBeLessThan", "mustBeLessOrEqualTo") if key in rule]
    if len(bounds) != 1 or not isinstance(bounds[0], int | float) or (bounds[0] and not is_share):
        return None  # a number of rows says nothing of a stream without end
    at_most, name = bounds[0] / 100, f"{metric} of {column}"
    if metric in ("nullValues", "missingValues"):
        return Rule(name, f"{_quoted(column)} IS NOT NULL", at_most)
    values = (rule.get("arguments") or {}).get("validValues")
    if metric == "invalidValues" and values:
        listed = ", ".join(_literal(value) for value in values)
        return Rule(name, f"{_quoted(column)} IN ({listed})", at_most)
    return None


def _field_of(described: Mapping[str, Any]) -> str:
    """Where a property is in the payload."""
    return str(described.get("physicalName") or described.get("name"))


def _name_of(rule: Mapping[str, Any]) -> str:
    """A rule's name, or what says most of it."""
    return str(rule.get("name") or rule.get("metric") or rule.get("description") or rule.get("type") or "rule")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"
