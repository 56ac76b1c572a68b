"""The plots of a parity report as SVG texts for a page: no files, no display, the same bytes for the same report."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from featurestore.offline.parity.report import COMPARED_KINDS, FRESHNESS_EDGES_MS, MINUTE_MS, ParityReport, kinds_of

COLORS = ("#8fb3a5", "#e2a84b", "#c0392b")
"""Equal, explained, unexplained."""

WIDTH_INCHES = 9.0
BAR_INCHES = 0.24
TIME_BINS_MAX = 120
FRESHNESS_TEXTS = ("<0.1 s", "<1 s", "<10 s", "<1 min", "<10 min", "<1 h", "<6 h", "<1 d", "<7 d", "older", "none")
"""Of the classes of FRESHNESS_EDGES_MS, and of rows without an event."""

_MS_PER_SECOND = 1_000


def plot_features(report: ParityReport) -> str:
    """A bar for each compared feature: shares of equal, explained and unexplained values."""
    names = [name for name, outcomes in report.outcomes.items() if sum(kinds_of(outcomes))]
    counts = np.array([kinds_of(report.outcomes[name]) for name in names], dtype=np.float64).reshape(-1, 3)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with figure_to_draw_on(1.2 + BAR_INCHES * len(names), "features") as (figure, drawn):
        axes = figure.subplots()
        left = np.zeros(len(names))
        for kind, color in enumerate(COLORS):
            axes.barh(range(len(names)), shares[:, kind], left=left, color=color, label=COMPARED_KINDS[kind])
            left += shares[:, kind]
        axes.set_yticks(range(len(names)), [f"{name.view}:{name.feature}" for name in names], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the logged values")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False, fontsize=9)
    return drawn[0]


def plot_times(report: ParityReport) -> str:
    """Values that differ, by read time."""
    edges, counts = _time_bins(report)
    with figure_to_draw_on(2.8, "times") as (figure, drawn):
        axes = figure.subplots()
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        bottom = np.zeros(len(shares))
        middles = np.arange(len(shares))
        for kind in (1, 2):
            axes.bar(middles, shares[:, kind], bottom=bottom, width=1.0, color=COLORS[kind], label=COMPARED_KINDS[kind])
            bottom += shares[:, kind]
        step = max(1, len(middles) // 6)
        axes.set_xticks(middles[::step], [_moment(edge) for edge in edges[::step]], fontsize=8)
        axes.set_xlabel("read time, UTC")
        axes.set_ylabel("% of the values")
        axes.set_ylim(0, max(1.0, float(bottom.max(initial=0.0)) * 1.15))
        axes.legend(frameon=False, fontsize=9)
    return drawn[0]


def plot_freshness(report: ParityReport) -> str:
    """How old the newest event behind the rows was, by view."""
    views = list(report.freshness)
    with figure_to_draw_on(2.8, "freshness") as (figure, drawn):
        axes = figure.subplots()
        width = 0.8 / max(len(views), 1)
        classes = np.arange(len(FRESHNESS_EDGES_MS) + 1)
        for index, view in enumerate(views):
            counts = report.freshness[view]
            axes.bar(classes + index * width, 100 * counts / max(int(counts.sum()), 1), width=width, label=view)
        axes.set_xticks(classes + 0.4 - width / 2, FRESHNESS_TEXTS, fontsize=8)
        axes.set_xlabel("read time minus newest event")
        axes.set_ylabel("% of the rows")
        axes.legend(frameon=False, fontsize=9)
    return drawn[0]


def _time_bins(report: ParityReport) -> tuple[Sequence[int], np.ndarray[Any, np.dtype[np.float64]]]:
    """Begin of each bin, ms, and (B, 3) counts: minutes put together until they are few."""
    minutes = np.array(sorted(report.by_minute), dtype=np.int64)
    if not len(minutes):
        return [], np.zeros((0, len(COMPARED_KINDS)))
    span = int(minutes[-1] - minutes[0]) + 1
    width = -(-span // TIME_BINS_MAX)
    counts = np.zeros((-(-span // width), len(COMPARED_KINDS)))
    for minute in minutes.tolist():
        counts[(minute - int(minutes[0])) // width] += report.by_minute[minute]
    return [(int(minutes[0]) + index * width) * MINUTE_MS for index in range(len(counts))], counts


@contextmanager
def figure_to_draw_on(height_inches: float, name: str) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on; its SVG is in the list when the block ends."""
    # Text stays text, and what matplotlib numbers at random is numbered by the figure's name.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        drawn: list[str] = []
        yield figure, drawn
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    # Of the document only the picture goes into a page; names are made unique among the page's figures.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    drawn.append(svg)


def _moment(moment_ms: int) -> str:
    """Date and minute."""
    return datetime.fromtimestamp(moment_ms / _MS_PER_SECOND, UTC).strftime("%m-%d %H:%M")
