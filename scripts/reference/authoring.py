"""What authoring.md.template leaves open: arguments of the helpers, tags of plain Feast objects, limits."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType

from featurestore import definitions, features
from featurestore.core.spec import DEFAULT_LOOKBACK_MS, DEFAULT_MAX_FUTURE_MS, CalendarUnit
from featurestore.core.windows.durations import UNITS_MS, format_duration
from featurestore.definitions import limits
from featurestore.definitions.authoring.views import Over
from featurestore.definitions.compile.window import LIFETIME, SESSION
from featurestore.definitions.problems import MISTAKE_TAG
from featurestore.definitions.schemas.source_schema import COLUMN_TYPES, DDL_NAMES
from scripts.reference.markdown import attribute_docs, documented, filled, part_default, sentence, table, wrapped

TEMPLATE = "authoring.md.template"

CALENDARS = ("today", "this_week", "this_month", "this_year")

SECTIONS: Mapping[str, str] = {
    **{name: name for name in ("stream_view", "kafka_source", "aggregate", "count", "derive", "request_features")},
    **{
        name: name
        for name in ("expect", "null_share", "one_of", "usual_volume", "usual_lateness", "table", "label_source")
    },
    "about": "about",
    **{name: name for name in ("LIFETIME", "session", "series", "last_events")},
    **dict.fromkeys(CALENDARS, ", ".join(CALENDARS)),
    **{
        name: name
        for name in (
            "WindowedFeature",
            "DerivedFeature",
            "NamedWindow",
            "ExpectedOfRecords",
            "ExpectedOfHours",
            "TableColumns",
        )
    },
}
"""Name at the door -> heading of the section that is about it."""

SIGNATURE_CHARACTERS_MAX = 110

_WINDOWS = ", ".join(f"`{kind}`" for kind in (LIFETIME, SESSION, *CalendarUnit))
_FEATURES = "`{0}=` of `aggregate` and `count`"

TAG_DEFAULTS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("source", "event_id"): ("`event_id=` of `kafka_source`", "nothing is de-duplicated"),
    ("source", "dedup_horizon"): (
        "`dedup_horizon=` of `kafka_source`",
        f"`{format_duration(limits.DEDUP_HORIZON_MS_DEFAULT)}`",
    ),
    ("source", "max_future"): ("`max_future=` of `kafka_source`", f"`{format_duration(DEFAULT_MAX_FUTURE_MS)}`"),
    ("source", "event_time_unit"): ("`event_time_unit=` of `kafka_source`", '`"ms"`'),
    ("source", "format"): ("`format=` of `kafka_source`", "plain JSON"),
    ("source", "columns"): ("`columns=` of `kafka_source`", "the schema of its JsonFormat"),
    ("source", "schema_registry"): ("`registry=` of `kafka_source`", "none"),
    ("source", "subject_name"): ("`subject_name=` of `kafka_source`", '`"topic"`'),
    ("source", "records"): ("`records=` of `kafka_source`", "none"),
    ("source", "unit."): ("`units=` of `kafka_source`", "whatever the schemas say"),
    ("source", "changes"): ("`changes=` of `kafka_source`", "payloads are events"),
    ("source", "on_duplicate"): ("`on_duplicate=` of `kafka_source`", "`drop`: an id that is known counts no more"),
    ("source", "topic."): ("`more_topics=` of `kafka_source`", "one topic"),
    ("source", "topic_column"): ("`topic_column=` of `kafka_source`", "no such column"),
    ("source", "computed."): ("`computed=` of `kafka_source`", "no such column"),
    ("source", "enrich."): ("`enrich=` of `kafka_source`", "no such columns"),
    ("source", "freshness"): ("`freshness=` of `kafka_source`", "no promise"),
    ("source", "expect."): ("`expectations=` of `kafka_source`", "nothing is expected"),
    ("source", "usual_hour."): ("`expectations=` of `kafka_source`", "nothing is expected"),
    ("view", "freshness"): ("`freshness=` of `stream_view`", "no promise"),
    ("view", "freshness_target"): ("`freshness_target=` of `stream_view`", "`0.99`"),
    ("view", "where"): ("`where=` of `stream_view`", "all events"),
    ("view", "undo"): ("`undo=` of `stream_view`", "no event"),
    ("view", "storage"): ("`storage=` of `stream_view`", "it is stored with the others"),
    ("view", "expected_entities"): ("`expected_entities=` of `stream_view`", "every entity has keys of its own"),
    ("view", "lookback"): ("`lookback=` of `stream_view`", f"`{format_duration(DEFAULT_LOOKBACK_MS)}`"),
    ("Field", "where"): (_FEATURES.format("where"), "all events of the view"),
    ("Field without an aggregation", "expression"): ("`derive`", "a mistake"),
    ("view on demand", "expression."): ("`features=` of `request_features`", "a function computes it"),
    ("Field", "window"): ("`over=`", f"`time_window` says it; else {_WINDOWS}"),
    ("Field", "hop"): (_FEATURES.format("hop"), "`slide_interval` says it; else at most 1/60 of the window"),
    ("Field", "offset"): (_FEATURES.format("offset"), "it ends at the moment of the read"),
    ("Field", "in_flight"): (_FEATURES.format("in_flight"), "`true`, but for what tells of the newest event"),
    ("Field", "series"): ("`over=series(...)`", "one window, no list"),
    ("Field", "timezone"): ("`over=today(...)` ...", "a mistake, with a calendar window"),
    ("Field", "gap"): ("`over=session(...)`", "a mistake, with a session"),
    ("Field", "session_max"): ("`over=session(...)`", "100 gaps, but at most a day, or the gap if that is longer"),
    ("source of labels", "label_columns"): ("`labels=` of `label_source`", "it is no source of labels"),
    ("source of labels", "label_join_keys"): ("`join_keys=` of `label_source`", "a mistake"),
    ("source of labels", "label_matures_after"): ("`matures_after=` of `label_source`", "a mistake"),
    ("source of labels", "label_on_conflict"): ("`on_conflict=` of `label_source`", "`last`"),
    ("source", "pii."): ("`about(pii_columns=...)`", "nobody says"),
    ("source, view or service", "repo"): ("`repo:` of `feature_store.yaml`, by an apply", "one repo has the registry"),
    ("view or Field", "deprecated_until"): ("`about(deprecated_until=...)`", "it stays as it is while others read it"),
    ("Field", "owner"): ("`about(owner=...)`", "its view's owner"),
    **{
        ("source, view, Field or service", tag): (f"`about({tag}=...)`", "its view says it, of a Field; else nobody")
        for tag in ("on_call", "tier", "pii", "use_case", "docs")
    },
    ("feature service", "in_flight"): ("`tags=` of `FeatureService`", "what each function does by itself"),
    ("feature service", "shadow"): ("`tags=` of `FeatureService`", "it has none"),
}
"""Object and tag -> the argument that sets it, and what holds without it."""

JSON_VALUES: Mapping[str, str] = {
    "string": "a text",
    "bigint": "a whole number of at most 64 bits",
    "double": "a number",
    "boolean": "`true` or `false`",
    "timestamp": "ISO 8601 text, such as `2026-11-30T12:00:00.000Z`",
}
"""Type of a column -> what JSON has for it."""


def page() -> str:
    """The whole page."""
    parts = {f"summary {name}": _summary(name) for name in SECTIONS}
    parts |= {f"arguments {heading.replace(',', '')}": _arguments(heading) for heading in SECTIONS.values()}
    units = ", ".join(f"`{unit}`" for unit in reversed(UNITS_MS))
    parts |= {
        "overview": table(("helper", "what it makes"), _overview()),
        "column types": table(("type", "the same as", "in the payload"), _column_types()),
        "durations": wrapped(
            f'A whole number and one of the units {units}: `"15m"`, `"90d"`. A month has no fixed length, so there is '
            "no unit for it; see `this_month`."
        ),
        "lifetime": json.dumps(LIFETIME),
        "session gaps": f"{limits.SESSION_GAPS_MAX:,}",
        "tags": table(("tag", "of a", "meaning", "without it", "set by"), tag_rows()),
        "mistake tag": MISTAKE_TAG,
        "limits": table(("at most", "what"), _limits()),
    }
    return filled(TEMPLATE, parts)


def tag_rows() -> list[tuple[str, str, str, str, str]]:
    """A row for each object and tag, with what the constants' docstrings say, wherever in the definitions they are."""
    meanings = {}
    for found in pkgutil.walk_packages(definitions.__path__, f"{definitions.__name__}."):
        module = importlib.import_module(found.name)
        for constant, text in attribute_docs(module).items():
            for owner, meaning in re.findall(r"(?:Tags? of|Of) a ([^:]+): (.*?)(?= Of a |$)", text):
                meanings[owner, getattr(module, constant)] = meaning
    del meanings["view or Field", MISTAKE_TAG]  # nobody writes it; the page speaks of it under mistakes
    rows = []
    for owner, tag in sorted(meanings, key=list(TAG_DEFAULTS).index):
        argument, default = TAG_DEFAULTS[owner, tag]
        name = f"{tag}NAME" if tag.endswith(".") else tag
        rows.append((f"`{name}`", owner, sentence(meanings[owner, tag]), default, argument))
    return rows


def _overview() -> Iterator[tuple[str, str]]:
    for name, heading in SECTIONS.items():
        yield f"[`{name}`](#{heading.lower().replace(',', '').replace(' ', '-')})", _summary(name)


def _summary(name: str) -> str:
    """The first paragraph of its docstring."""
    thing = getattr(features, name)
    if isinstance(thing, str):
        return "The window of everything there ever was."
    return " ".join(documented(thing).text.split("\n\n")[0].split())


def _arguments(heading: str) -> str:
    """Signatures, arguments of the first of them, what it returns and raises; nothing of a constant."""
    things = [getattr(features, name) for name in heading.split(", ")]
    if isinstance(things[0], str):
        return ""
    found = documented(things[0])
    meanings = found.entries.get("Args") or found.entries["Attributes"]
    rows = []
    for name, one in inspect.signature(things[0]).parameters.items():
        meaning, default = part_default(meanings[name])
        default = f"`{default}`" if default.startswith('"') else default
        if one.default is one.empty:
            default = "required" if isinstance(things[0], FunctionType) else ""
        elif one.default:
            default = f"`{_literal(one.default)}`"
        rows.append((f"`{name}`", f"`{_type_text(one.annotation)}`", default, sentence(meaning)))
    kind = "argument" if isinstance(things[0], FunctionType) else "attribute"
    blocks = [
        "```\n" + "\n".join(map(_signature, things)) + "\n```",
        table((kind, "type", "default", "meaning"), rows).rstrip(),
    ]
    blocks += [wrapped(f"Returns {found.returns[:1].lower()}{found.returns[1:]}")] if found.returns else []
    blocks += [wrapped(f"Raises `{error}`: {text}") for error, text in found.entries.get("Raises", {}).items()]
    return "\n\n".join(blocks)


def _signature(thing: type | FunctionType) -> str:
    """Names and defaults; types are in the table."""
    signature = inspect.signature(thing)
    parts = list[str]()
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        is_given = parameter.default is not parameter.empty
        parts.append(f"{parameter.name}={_literal(parameter.default)}" if is_given else parameter.name)
    returns = f" -> {signature.return_annotation}" if isinstance(thing, FunctionType) else ""
    line = f"{thing.__name__}({', '.join(parts)}){returns}"
    if len(line) <= SIGNATURE_CHARACTERS_MAX:
        return line
    return f"{thing.__name__}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _type_text(annotation: str) -> str:
    """A type as it is written in code, without modules."""
    text = str(Over) if annotation == "Over" else annotation
    return re.sub(r"\b(?:\w+\.)+(\w)", r"\1", text)


def _column_types() -> Iterator[Sequence[str]]:
    for value_type, name in DDL_NAMES.items():
        others = [f"`{other}`" for other, kind in COLUMN_TYPES.items() if kind is value_type and other != name]
        yield f"`{name}`", ", ".join(others), JSON_VALUES[name]


def _limits() -> Iterator[Sequence[str]]:
    """Limits of a repo, with what the constants' docstrings say."""
    for name, text in attribute_docs(limits).items():
        value = getattr(limits, name)
        if name.endswith("_MS_MAX"):
            yield format_duration(value), text
        elif name.endswith("_MAX") and "_BYTES_" not in name:
            yield f"{value:,}", text
