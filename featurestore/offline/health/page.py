"""A drift report as one HTML page that needs nothing else: a table, and for each feature both distributions."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from string import Template

import numpy as np

from featurestore.offline.health.baselines import Compared
from featurestore.offline.health.drift import WINDOWS_MS, FeatureDrift, bins_of
from featurestore.offline.parity.page import html_page, moment_text, table_row
from featurestore.offline.parity.plots import figure_to_draw_on

BASELINE_COLOR, CURRENT_COLOR, DRIFTED_COLOR = "#9aa5b1", "#3c7a5f", "#c0392b"

PLOTTED_MAX = 24
"""Features with plots, those that are furthest from the baseline; the table has all."""

COLUMNS = 3
LABEL_CHARACTERS_MAX = 12

_CONTENT = Template("""$elsewhere
<h2>Distributions</h2>
<p>Share of the rows in each bin, in percent: grey is the baseline, green the last day, red where it has drifted.</p>
$plots
<h2>Features</h2>
<div class="scroll"><table>
<tr><th>view</th><th>feature</th><th>window</th><th class="number">rows</th><th class="number">missing, before</th>
<th class="number">now</th><th class="number">PSI</th><th class="number">KS</th><th class="number">JS</th>
<th>verdict</th></tr>$features</table></div>""")


def render_page(compared: Compared) -> str:
    """The page."""
    report = compared.report
    drifted = {(one.view, one.feature) for one in report.drifted}
    elsewhere = [
        f"<p>{text}: {escape(', '.join(names))}</p>"
        for text, names in (("Not served", report.only_baseline), ("Not in the baseline", report.only_served))
        if names
    ]
    content = _CONTENT.substitute(
        elsewhere="".join(elsewhere), plots=_plots(compared), features="".join(_rows(report.features))
    )
    return html_page(
        f"Drift of {report.service}",
        span=f"Until {moment_text(report.at_ms)}, against the baseline {report.baseline_digest} of "
        f"{moment_text(report.baseline_taken_ms)}: {escape(report.baseline_source)}",
        verdict=f"{len(drifted)} features have drifted" if drifted else "nothing has drifted",
        is_bad=bool(drifted),
        content=content,
    )


def verdict_of(one: FeatureDrift) -> str:
    """In a word or three."""
    return "drifted" if one.is_drifted else "as before" if one.is_judged else "too few rows"


def distance_text(distance: float | None) -> str:
    """Three digits; "-" for none."""
    return "-" if distance is None else f"{distance:.3f}"


def _rows(features: tuple[FeatureDrift, ...]) -> Iterator[str]:
    """A row for each feature and window."""
    for one in features:
        cells = [escape(one.view), escape(one.feature), one.window, f"{one.rows:,}"]
        cells += [f"{one.baseline_missing_share:.1%}", f"{one.missing_share:.1%}"]
        cells += [*map(distance_text, (one.psi, one.ks, one.js)), verdict_of(one)]
        yield table_row(cells, numbers=(3, 4, 5, 6, 7, 8), is_bad=one.is_drifted)


def _plots(compared: Compared) -> str:
    """Both distributions of the features that are furthest, side by side."""
    longest = max(WINDOWS_MS, key=lambda window: WINDOWS_MS[window])
    found = [one for one in compared.report.features if one.window == longest and one.rows and one.baseline_rows]
    found = sorted(found, key=lambda one: -(one.psi or 0.0))[:PLOTTED_MAX]
    drifted = {(one.view, one.feature) for one in compared.report.drifted}
    if not found:
        return "<p>None: nothing was served.</p>"
    keys = {(key.view, key.feature): key for key in compared.baseline}
    rows = -(-len(found) // COLUMNS)
    with figure_to_draw_on(2.1 * rows, "drift") as (figure, drawn):
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for place, one in zip(axes, found, strict=False):
            key = keys[one.view, one.feature]
            baseline, current = compared.baseline[key], compared.windows[longest][key]
            bins = bins_of(baseline, current)
            at = np.arange(len(bins.names))
            color = DRIFTED_COLOR if (one.view, one.feature) in drifted else CURRENT_COLOR
            place.bar(at - 0.2, 100 * bins.baseline / bins.baseline.sum(), width=0.4, color=BASELINE_COLOR)
            place.bar(at + 0.2, 100 * bins.current / bins.current.sum(), width=0.4, color=color)
            place.set_title(f"{one.feature}\nPSI {distance_text(one.psi)}", fontsize=8)
            place.set_xticks(at, map(_label, bins.names), fontsize=6, rotation=60, ha="right")
            place.tick_params(axis="y", labelsize=6)
        for place in axes[len(found) :]:
            place.set_visible(False)
    return drawn[0]


def _label(name: str) -> str:
    """A bin's name, cut where it is long."""
    return name if len(name) <= LABEL_CHARACTERS_MAX else f"{name[: LABEL_CHARACTERS_MAX - 1]}…"
