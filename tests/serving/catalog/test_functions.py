"""Python functions of on-demand views: built from the registry's text, and no danger to the server."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from featurestore.clock import SystemClock
from featurestore.core.lowering.request_time import values_of
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    FeatureReference,
    OnDemandInput,
    OnDemandViewSpec,
    PythonFunction,
    ServiceSpec,
    ValueType,
)
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving.catalog.functions import AuthorFunction, PythonFunctions, build
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from tests.serving.payments import CARD_ID, REPO, Payments, RegistryInMemory

AMOUNT = Column("amount", ValueType.FLOAT64)
MEAN = OnDemandInput("card_activity__amount_mean_7d", "card_activity", "amount_mean_7d", ValueType.FLOAT64)

RATIOS = '''
    @on_demand_feature_view(sources=[card_activity, payment], schema=[Field(name="ratio", dtype=Float64)])
    def ratios(inputs: dict[str, Missing]) -> Missing:
        """A decorated and annotated function, indented as within a class."""
        import math

        means = inputs["amount_mean_7d"]
        assert means == inputs["card_activity__amount_mean_7d"]
        pairs = zip(inputs["amount"], means)
        return {"ratio": [math.floor(amount) / mean if amount is not None and mean else None for amount, mean in pairs]}
'''
PANDAS = """
def ratios(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"ratio": frame["amount"] / frame["amount_mean_7d"]})
"""
BY_ROW = 'def ratios(row): return {"ratio": (row["amount"] or 0.0) / (row["amount_mean_7d"] or 1.0)}'


class Counted:
    """What was counted."""

    def __init__(self) -> None:
        self.failed: list[bool] = []

    def count_function(self, view: str, latency_ns: int, *, has_failed: bool) -> None:
        """Of the one view."""
        assert (view, latency_ns > 0) == ("ratios", True)
        self.failed.append(has_failed)


def view_of(text: str, mode: str = "python", *, is_by_row: bool = False) -> OnDemandViewSpec:
    """A view "ratios" with one feature "ratio"."""
    function = PythonFunction("ratios", text, mode, is_by_row)
    return OnDemandViewSpec(
        "ratios", (CARD_ID,), (MEAN,), (AMOUNT,), (ComputedColumn("ratio", ValueType.FLOAT64, ""),), function
    )


def computed(view: OnDemandViewSpec, counted: Counted, *, timeout_s: float = 30.0) -> AuthorFunction:
    """Its function."""
    assert view.function is not None
    return AuthorFunction(view, build(view.function), SystemClock(), counted, timeout_s=timeout_s)


ROWS: Mapping[str, list[Any]] = {"amount": [12.5, None, 3.0], "card_activity__amount_mean_7d": [4.0, 2.0, None]}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (view_of(RATIOS), [3.0, None, None]),
        (view_of(PANDAS, "pandas"), [3.125, None, None]),
        (view_of(BY_ROW, is_by_row=True), [3.125, 0.0, 3.0]),
        (view_of('def ratios(inputs): return {"ratio": np.array([1, 2, 3])}'), [1.0, 2.0, 3.0]),
    ],
    ids=["python", "pandas", "singleton", "numpy"],
)
def test_functions_of_every_mode_compute_whole_requests(
    view: OnDemandViewSpec, expected: Sequence[float | None]
) -> None:
    """From their text alone, under both names of a feature; null is None, or NaN in a frame."""
    counted = Counted()

    found = computed(view, counted).compute(ROWS, 3)

    assert found is not None
    assert values_of(found["ratio"], ValueType.FLOAT64) == expected
    assert counted.failed == [False]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise KeyError(f'{inputs}')", "NOT_READY: KeyError in line 1 of its text"),
        ("raise SystemExit(3)", "SystemExit in line 1"),
        ("return {'ratio': [1.0]}", 'feature "ratio" has 1 values for 3 rows'),
        ("return {'ratio': ['a', 'b', 'c']}", 'feature "ratio" is no float64 in some row'),
        ("return {}", "KeyError"),
        ("return None", "TypeError"),
    ],
)
def test_a_function_that_fails_gives_no_features_and_says_why(
    body: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute, however many requests; every failure is counted, and the next request is tried."""
    counted = Counted()
    function = computed(view_of(f"def ratios(inputs): {body}"), counted)
    with caplog.at_level(logging.ERROR):
        assert function.compute(ROWS, 3) is None
        assert function.compute(ROWS, 3) is None

    assert counted.failed == [True, True]
    [line] = [record.getMessage() for record in caplog.records]
    assert told in line
    assert '"ratios"' in line


def test_a_function_that_does_not_return_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """It keeps its own thread, and no request waits for it any more."""
    counted = Counted()
    function = computed(
        view_of("def ratios(inputs):\n    import time\n    while True: time.sleep(0.01)"), counted, timeout_s=0.2
    )
    with caplog.at_level(logging.ERROR):
        assert function.compute(ROWS, 3) is None
        assert function.compute(ROWS, 3) is None

    assert counted.failed == [True]
    assert "did not return within 0.2 s" in caplog.text
    assert "until it is changed" in caplog.text


def test_what_cannot_be_built_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """The others are there; one that stays the same is built once."""
    broken, fine = replace(view_of("this is no Python"), name="broken"), view_of(RATIOS)
    functions = PythonFunctions(SystemClock(), Counted())
    repo = replace(REPO, on_demand_views=(broken, fine, replace(view_of("x = 1"), name="empty")))
    with caplog.at_level(logging.ERROR):
        found = functions.of(repo)

    assert list(found) == ["ratios"]
    assert found["ratios"] is functions.of(repo)["ratios"]
    assert '"broken" cannot be built' in caplog.text
    assert (
        '"empty" cannot be built, its features are NOT_READY: InvalidRequest: its text holds no function' in caplog.text
    )


def test_a_server_that_is_told_to_runs_them(payments: Payments, clock: ManualClock) -> None:
    """Good ones answer, bad ones are NOT_READY beside them; time and failures are in the metrics."""
    bad = replace(
        view_of("def ratios(inputs): return 1 / 0"),
        name="bad",
        features=(ComputedColumn("worse", ValueType.FLOAT64, ""),),
    )
    good = view_of(RATIOS)
    references = (
        FeatureReference("ratios", "ratio", "ratio"),
        FeatureReference("bad", "worse", "worse"),
        FeatureReference("card_activity", "count_1h", "count_1h"),
    )
    repo = replace(REPO, on_demand_views=(bad, good), services=(ServiceSpec("both", references, (CARD_ID,)),))
    for io in ("sync", "aio"):
        settings = ServerSettings(port=0, io=io)
        server = FeatureServer(
            RegistryInMemory(repo), payments.store, clock, settings, metrics_port=0, python_features=True
        )
        try:
            with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
                found = client.lookup(
                    "both", {"card_id": ["c-1", "c-1", "nobody"]}, request={"amount": [100.0, None, 5.0]}
                )
            with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as page:
                metrics = page.read().decode()
        finally:
            server.stop(drain_seconds=1.0)

        assert found.status("ratio") == [FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE, FeatureStatus.NULL_VALUE]
        assert found.status("worse") == [FeatureStatus.NOT_READY] * 3
        assert found.to_dict()["count_1h"] == [2, 2, 0]
        assert 'featurestore_on_demand_function_seconds_count{view="ratios"} 1.0' in metrics
        assert 'featurestore_on_demand_function_failures_total{view="bad"} 1.0' in metrics
