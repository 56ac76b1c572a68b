"""The pictures of docs/fraud-model.md: one function each, which writes images/fraud-model-<name>.svg.

Text stays text and the ground is white, so that a file is small, sharp, and readable on a dark page too. Equal data
give equal files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

DIRECTORY = Path("images")

BLUE, GREY, RED = "#1f5fa8", "#9a9a9a", "#c0392b"

WIDTH_INCHES = 7.5

CURVE_POINTS = 200
"""Of a precision-recall curve; more cannot be seen."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "featurestore",
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
}

COUNTS = (0.0, 1.0, 2.0, 3.0, 4.0, float("inf"))
RATIOS = (0.0, 0.05, 0.5, 1.0, 2.0, 4.0, float("inf"))

BoolArray = NDArray[np.bool_]
Float64Array = NDArray[np.float64]


def draw_days(payments: pd.DataFrame, periods: Mapping[str, range]) -> None:
    """Payments and frauds a day, the periods shaded.

    Args:
        payments: columns day, is_fraud.
        periods: name -> its days.
    """
    a_day = payments.groupby("day").is_fraud.agg(["size", "sum"])
    figure, (above, below) = _panels(2, 1, height_inches=3.6, sharex=True)
    above.bar(a_day.index, a_day["size"], color=GREY)
    above.set_ylabel("payments a day")
    below.bar(a_day.index, a_day["sum"], color=RED)
    below.set(ylabel="frauds a day", xlabel="day", xlim=(-0.7, len(a_day) - 0.3))
    for number, (name, days) in enumerate(periods.items()):
        for panel in (above, below):
            panel.axvspan(days[0] - 0.5, days[-1] + 0.5, color=BLUE, alpha=0.05 + 0.1 * (number % 2), lw=0, zorder=0)
        above.text((days[0] + days[-1]) / 2, above.get_ylim()[1] * 1.02, name, ha="center", fontsize=9)
    _save(figure, "days")


def draw_features(features: pd.DataFrame, amount: Float64Array, is_fraud: BoolArray) -> None:
    """The share of frauds by the value of four features.

    Args:
        features: N rows of the service's features.
        amount: (N,) of the payments.
        is_fraud: (N,) their labels.
    """
    figure, panels = _panels(2, 2, height_inches=4.6)
    shown = {
        "declined at the terminal in 1 h": (features.terminal_declines_1h, COUNTS),
        "payments of the card in 1 h": (features.card_count_1h, COUNTS),
        "amount / merchant's mean of 30 days": (amount / features.merchant_amount_mean_30d, RATIOS),
        "amount / card's mean of 30 days": (amount / features.card_amount_mean_30d, RATIOS),
    }
    for panel, (title, (values, edges)) in zip(panels, shown.items(), strict=True):
        names = [*(_range_name(edges, place) for place in range(len(edges) - 2)), f"{edges[-2]:g} +"]
        group = pd.cut(values, list(edges), right=False, labels=names)
        share = pd.Series(is_fraud, group.index).groupby(group, observed=False).mean()
        panel.bar(names, share * 100, color=BLUE)
        panel.axhline(float(is_fraud.mean()) * 100, color=RED, lw=1, ls="--")
        panel.set(title=title, ylabel="frauds, % of payments")
        panel.tick_params(axis="x", labelsize=9)
    _save(figure, "features")


def draw_quality(
    curves: Mapping[str, tuple[Float64Array, Float64Array]], by_day: Mapping[str, pd.DataFrame], chance: float
) -> None:
    """Precision against recall of two models, and their card precision of each day.

    Args:
        curves: model -> precision and recall by falling threshold.
        by_day: model -> columns precision and possible, a row a day.
        chance: precision of a model that knows nothing.
    """
    figure, (left, right) = _panels(1, 2, height_inches=3.2)
    for (name, (precision, recall)), color in zip(curves.items(), (GREY, BLUE), strict=True):
        some = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).astype(int))
        left.step(recall[some], precision[some], where="post", color=color, label=name)
    left.axhline(chance, color=RED, lw=1, ls="--", label="chance")
    left.set(xlabel="recall: frauds found", ylabel="precision: frauds among those", ylim=(0, 1.03))
    left.legend(loc=(0.02, 0.08))
    for offset, (name, found), color in zip((-0.2, 0.2), by_day.items(), (GREY, BLUE), strict=True):
        right.bar(found.index + offset, found.precision, width=0.4, color=color, label=name)
        label = "possible" if color == BLUE else None
        right.scatter(found.index + offset, found.possible, color=RED, marker="_", s=90, label=label, zorder=3)
    right.set(xlabel="day", ylabel="card precision", ylim=(0, 1.35), xticks=found.index)
    right.legend(loc="upper left", ncols=2)
    _save(figure, "quality")


def draw_importance(losses: pd.DataFrame) -> None:
    """What is lost without a group of features, the dozen that matters most.

    Args:
        losses: a column a group, a row a repetition: average precision lost.
    """
    top = losses.agg(["mean", "std"]).T.sort_values("mean").tail(12)
    figure, (axes,) = _panels(1, 1, height_inches=3.4)
    axes.barh(top.index, top["mean"], xerr=top["std"], color=BLUE, ecolor=GREY)
    axes.set_xlabel("average precision lost when the group is shuffled")
    _save(figure, "importance")


def draw_parity(offline: Float64Array, online: Float64Array, is_fraud: BoolArray) -> None:
    """Scores from the training set against scores from lookups, each (N,)."""
    figure, (axes,) = _panels(1, 1, height_inches=4.2, width_inches=4.6)
    for name, chosen, color in (("honest", ~is_fraud, GREY), ("fraud", is_fraud, RED)):
        # As a bitmap: thousands of points would make a large file.
        axes.scatter(offline[chosen], online[chosen], s=14, color=color, label=name, rasterized=True)
    axes.set(xscale="log", yscale="log", xlabel="score from the training set", ylabel="score from lookups over gRPC")
    axes.axline((0.001, 0.001), (1, 1), color=BLUE, lw=0.8)
    axes.legend()
    _save(figure, "parity")


def _panels(
    rows: int, columns: int, *, height_inches: float, width_inches: float = WIDTH_INCHES, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty picture in the style of all."""
    plt.style.use(_STYLE)
    figure, panels = plt.subplots(rows, columns, figsize=(width_inches, height_inches), sharex=sharex, squeeze=False)
    return figure, list(panels.flat)


def _save(figure: Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(DIRECTORY / f"fraud-model-{name}.svg", metadata={"Date": None}, dpi=120)
    plt.close(figure)


def _range_name(edges: tuple[float, ...], place: int) -> str:
    """The values from one edge to the next: one whole number, or all up to the next edge."""
    return f"{edges[place]:g}" if edges is COUNTS else f"to {edges[place + 1]:g}"
