"""Tables can be read on a terminal of 80 columns: nothing is cut off, and names stay in one piece."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from featurestore.cli.generations import status
from featurestore.cli.history import parity
from featurestore.cli.settings import print_json
from featurestore.offline.parity.report import Example, FeatureName, ParityReport, ValueOutcome
from featurestore.online.read.store_sizes import MemoryOverview
from featurestore.online.read.store_status import (
    GenerationOverview,
    PartitionOverview,
    StoreOverview,
)

Capture = pytest.CaptureFixture[str]

NOW_MS = 1_795_341_600_000


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def report() -> ParityReport:
    """Features of long names in two views, with every outcome and a value that nothing explains."""
    names = [FeatureName("fraud_detection", "terminal_activity", f"terminal_amount_stddev_{d}d") for d in (1, 30, 90)]
    names += [FeatureName("fraud_detection", "merchant_profile", "merchant_chargeback_rate")]
    found = ParityReport(row_count=1_234_567, first_ms=NOW_MS, last_ms=NOW_MS)
    for number, name in enumerate(names):
        found.outcomes[name] = Counter(dict.fromkeys(ValueOutcome, 123_456 + number))
    found.examples.append(
        Example(names[0], "request-1", 3, NOW_MS, {"terminal_id": 17}, 4.0, float("nan"), None, (("payments", 0, 17),))
    )
    return found


def test_parity_fits_on_80_columns(capsys: Capture) -> None:
    """Service and view stand above their features, whose names are whole; texts are indented where they go on."""
    parity.show_report(report())
    lines = capsys.readouterr().out.splitlines()

    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]
    assert "fraud_detection: terminal_activity" in " ".join(lines)
    assert [line.split() for line in lines if line.startswith("terminal_amount_stddev_30d")] == [
        ["terminal_amount_stddev_30d", "1,604,941", "123,457", "740,742", "123,457", "617,285"]
    ]
    at = next(index for index, line in enumerate(lines) if "an event arrived after the read" in line)
    assert lines[at + 1].startswith(" " * 14)
    assert "unexplained: terminal_activity:terminal_amount_stddev_1d" in " ".join(lines)
    assert any("2026-11-22T10:00:00.000Z" in line for line in lines)


def test_parity_is_json_for_programs(capsys: Capture) -> None:
    """All outcomes by name, and the examples whole; NaN is a text, as JSON has no number for it."""
    print_json(parity.report_content(report()))
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    assert found["row_count"] == 1_234_567
    assert found["features"][1]["feature"] == "terminal_amount_stddev_30d"
    assert found["features"][1]["outcomes"]["equal"] == 123_457
    assert found["outcomes"]["unexplained"] == 4 * 123_456 + 6
    assert found["examples"][0]["name"]["view"] == "terminal_activity"
    assert (4.0, "NaN", None) == tuple(found["examples"][0][each] for each in ("logged", "recomputed", "at_positions"))


def test_status_fits_on_80_columns(capsys: Capture) -> None:
    """Whatever a view is called and however much it holds: every figure is whole."""
    memory = MemoryOverview(1_234_567, False, 12_345, 13_345_678_901)
    partition = PartitionOverview("transactions_of_the_group", 11, 123_456_789_012, 123_456_999_999, 210_987)
    generations = tuple(
        GenerationOverview(view, views, 12, state, "1f3a9c2d00ff", False, 256, NOW_MS, 7_200_000, (partition,), memory)
        for view, views, state in (
            ("card_at_merchant_activity_hourly", ("card_at_merchant_activity_hourly",), "bootstrapping"),
            ("short", tuple(f"card_activity_{number}" for number in range(15)), "rolled_back"),
        )
    )
    status.show(
        StoreOverview("payments", 256, NOW_MS, generations, {"merchant_profile": memory}, ("new_view",)),
        {"new_view": "risk, tier 1"},
    )
    lines = capsys.readouterr().out.splitlines()

    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]
    for figure in ("bootstrapping", "1f3a9c2d *", "≥ 1,234,567", "12,345", "≥ 12.4 GiB", "123,456,789,012", "210,987"):
        assert any(figure in line for line in lines), figure
