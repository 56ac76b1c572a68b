"""A dashboard for Grafana: whether promises are kept, then the server, the stream, and the values that are answered.

It asks for its data source when it is imported, and has nothing of this machine in it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featurestore.core.spec import RepoSpec
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.governance.monitoring.rules import LATE_SHARE

SCHEMA_VERSION = 39
"""Of the classic model, as Grafana 10.4 and 11 write it; newer ones migrate it when it is imported."""

GRID_COLUMNS = 24
PANEL_COLUMNS, PANEL_ROWS = 8, 8

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot over time.

    Attributes:
        title: of it.
        queries: (PromQL, legend) of each.
        unit: Grafana's name of the unit.
        description: what it says.
        bound: a line that is not to be passed; None for none.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str
    description: str = ""
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


SERVER = Section(
    "Server",
    (
        Panel(
            "Lookups",
            [("sum by (method) (rate(featurestore_requests_total[$__rate_interval]))", "{{method}}")],
            "reqps",
        ),
        Panel(
            "Latency, 99th percentile",
            [
                (
                    "histogram_quantile(0.99, sum by (le, service) "
                    "(rate(featurestore_feature_service_latency_seconds_bucket[$__rate_interval])))",
                    "{{service}}",
                )
            ],
            "s",
            "From the beginning of the work to the answer.",
        ),
        Panel(
            "Refused and failed",
            [
                ("sum by (full) (rate(featurestore_refusals_total[$__rate_interval]))", "full: {{full}}"),
                (
                    'sum by (status) (rate(featurestore_requests_total{status!="OK"}[$__rate_interval]))',
                    "{{status}}",
                ),
            ],
            "reqps",
        ),
    ),
)

STREAM = Section(
    "Stream",
    (
        Panel("Lag", [("sum by (topic) (featurestore_stream_lag_records)", "{{topic}}")], "short"),
        Panel(
            "Events applied",
            [("sum by (view) (rate(featurestore_stream_events_applied_total[$__rate_interval]))", "{{view}}")],
            "eps",
        ),
        Panel(
            "Dead letters",
            [
                (
                    "sum by (topic, reason) (rate(featurestore_stream_dead_letters_total[$__rate_interval]))",
                    "{{topic}} {{reason}}",
                )
            ],
            "eps",
        ),
    ),
)

VALUES = Section(
    "Values",
    (
        Panel(
            "Without an entity",
            [
                (
                    'sum by (view) (rate(featurestore_view_values_total{status="NOT_FOUND"}[$__rate_interval])) '
                    "/ sum by (view) (rate(featurestore_view_values_total[$__rate_interval]))",
                    "{{view}}",
                )
            ],
            "percentunit",
            "Share of the values whose entity has no event.",
        ),
        Panel(
            "Age of the newest event, median",
            [
                (
                    "histogram_quantile(0.5, sum by (le, view) "
                    "(rate(featurestore_view_age_seconds_bucket[$__rate_interval])))",
                    "{{view}}",
                )
            ],
            "s",
            "Of the entity that was asked for, when it was read.",
        ),
        Panel(
            "Logged answers",
            [("sum by (outcome) (rate(featurestore_feature_log_rows_total[$__rate_interval]))", "{{outcome}}")],
            "rowsps",
        ),
    ),
)


def dashboard_text(spec: RepoSpec) -> str:
    """The dashboard of a project, as JSON to import."""
    sections = [*_promised(spec), SERVER, STREAM, VALUES]
    document = {
        "uid": f"featurestore-{spec.project}"[:40],
        "title": f"Feature store: {spec.project}",
        "tags": ["featurestore"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "annotations": {"list": []},
        "panels": list(_panels(sections)),
    }
    return json.dumps(document, indent=2) + "\n"


def _promised(spec: RepoSpec) -> Iterator[Section]:
    """A section about what is promised; none where nothing is."""
    if not spec.promises:
        return
    left = [
        (f"1 - {LATE_SHARE}30d{{view={json.dumps(one.view)}}} / {1 - one.target:.6g}", one.view)
        for one in spec.promises
    ]
    late = [(f"{LATE_SHARE}1h", "{{view}}")]
    delay = [
        (
            "histogram_quantile(0.99, sum by (le, view) "
            "(rate(featurestore_stream_event_delay_seconds_bucket[$__rate_interval])))",
            "{{view}}",
        )
    ]
    promised = ", ".join(f"{one.view} {format_duration(one.freshness_ms)}" for one in spec.promises)
    yield Section(
        "Freshness",
        (
            Panel("Error budget left, 30 days", left, "percentunit", "Below 0 the promise is broken.", 0.0),
            Panel("Late events, an hour", late, "percentunit", f"Share that took longer than promised: {promised}."),
            Panel("From event to servable, 99th percentile", delay, "s", "Of each view or storage group."),
        ),
    )


def _panels(sections: Sequence[Section]) -> Iterator[dict[str, object]]:
    """Rows and plots, from the top to the bottom, three abreast."""
    numbers, y = itertools.count(1), 0
    for section in sections:
        place = {"x": 0, "y": y, "w": GRID_COLUMNS, "h": 1}
        yield {
            "id": next(numbers),
            "type": "row",
            "title": section.title,
            "gridPos": place,
            "collapsed": False,
            "panels": [],
        }
        y += 1
        for index, panel in enumerate(section.panels):
            x = index * PANEL_COLUMNS % GRID_COLUMNS
            yield _plot(next(numbers), panel, {"x": x, "y": y, "w": PANEL_COLUMNS, "h": PANEL_ROWS})
            if x + 2 * PANEL_COLUMNS > GRID_COLUMNS or index + 1 == len(section.panels):
                y += PANEL_ROWS


def _plot(number: int, panel: Panel, place: dict[str, int]) -> dict[str, object]:
    """A panel as Grafana has it."""
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if panel.bound is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.bound}]
    custom = {
        "drawStyle": "line",
        "fillOpacity": 10,
        "thresholdsStyle": {"mode": "off" if panel.bound is None else "line"},
    }
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index % 26) * (1 + index // 26),
                "datasource": _SOURCE,
                "expr": expr,
                "legendFormat": legend,
            }
            for index, (expr, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}},
    }
