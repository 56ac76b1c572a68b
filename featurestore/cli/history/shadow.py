"""`featurestore parity --shadow`: what the shadow of a service answers otherwise, feature by feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import print_json
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.offline.parity.checking.batch import LoggedRows
    from featurestore.offline.parity.shadows import ShadowReport


def show_shadow(
    logged: Iterable[LoggedRows], service: str, since_ms: int | None, until_ms: int | None, output: str
) -> None:
    """Compare, and show.

    Raises:
        InvalidRequest: the log has no answers of the service's shadow.
    """
    from featurestore.offline.parity.shadows import compare_shadow

    report = compare_shadow(logged, service, since_ms=since_ms, until_ms=until_ms)
    if not report.both:
        raise InvalidRequest(
            f'the feature log has {report.rows:,} answers of "{service}", and none of its shadow to the same requests',
            hint='give the service a tag "shadow" with the name of another one, apply, and check --since and --until',
        )
    if output == "json":
        features = [asdict(one) for one in report.features.values()]
        only = {"only_answered": sorted(report.only_answered), "only_shadow": sorted(report.only_shadow)}
        print_json(
            {"service": service, "shadows": report.shadows, "rows": report.rows, "both": report.both}
            | {"features": features, **only}
        )
    else:
        _show_table(report)


def _show_table(report: ShadowReport) -> None:
    """A row for each feature, those first that differ most; fits on 80 columns."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    table = narrow_table(
        f"{report.service} and its shadow {', '.join(report.shadows)}: {report.both:,} of {report.rows:,} rows",
        texts=("feature", "largest at"),
        numbers=("equal", "largest\ndifference", "null", "null of\nshadow"),
    )
    for one in sorted(report.features.values(), key=lambda one: -one.differing / max(one.rows, 1)):
        rows = max(one.rows, 1)
        table.add_row(
            one.feature,
            ",".join(map(str, one.largest_at.values()))[:16] or "-",
            f"{1 - one.differing / rows:.1%}" if one.rows else "-",
            "-" if one.largest is None else f"{one.largest:,.6g}",
            f"{one.null / rows:.1%}",
            f"{one.null_of_shadow / rows:.1%}",
        )
    console.print(table)
    for what, names in (("only answered", report.only_answered), ("only the shadow has", report.only_shadow)):
        if names:
            console.print(f"{what}: {', '.join(sorted(names))}")
    waiting = [one.feature for one in report.features.values() if one.not_ready]
    if waiting:
        console.print(f"while one of both was being computed, not compared: {', '.join(waiting)}")
