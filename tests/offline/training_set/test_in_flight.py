"""Label rows that are events: each answer counts its row's own, as a lookup counts the payment in flight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names
from featurestore.core.spec import FeatureSpec, ViewSpec
from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.online.generation import Generation
from featurestore.online.serving_view import views_of
from featurestore.testing.answers import all_of, answer_values
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import StreamCase, stream_cases
from featurestore.wire.codecs.view_json import definition_hash
from tests.core.test_tiles_against_naive import distinct
from tests.offline.training_set.label_tables import CARD, NOON_MS, PAIR, history_table, payments, plain_values, repo_of
from tests.offline.training_set.request_checks import (
    Check,
    checks_looked_up,
    checks_of,
    repo_with,
    requests,
    with_requests,
)
from tests.online.test_in_flight import lifted
from tests.online.test_storage_groups import stored

HISTORY = payments(
    ("p1", 0, "c-1", 1, 50, "DE"),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p3", 1_000, "c-1", 1, 70, "FI"),
    ("p4", 1_000, "c-2", 1, 9, "NO"),
)
"""p2 and p3 are of one millisecond."""


def looked_up(view: ViewSpec, events: list[NaiveEvent], event: NaiveEvent) -> dict[str, object]:
    """What a lookup says of an event in flight, when all events are stored."""
    selection = all_of(views_of(Generation("test", view, 1, definition_hash(view)))[0])
    answer = selection.answer_in_flight(*stored(view, [], events), lifted(selection, view, event), 0)
    return dict(answer_values(view, answer))


def test_each_row_counts_its_own_event_and_not_its_twin() -> None:
    """Over all that was before, whether the history has the row's event or not.

    c-1      0: 50 DE   1000: 150 SE (shop 2), 70 FI (shop 1)   5000: 1 DK, which nobody stored
    """
    more = payments(("p9", 5_000, "c-1", 1, 1, "DK"))
    labels = pa.concat_tables([HISTORY, more])

    found = build_training_set(
        repo_of(CARD, PAIR),
        "all",
        labels,
        history=FileHistory(HISTORY),
        timestamp_column="paid_at",
        event_sources=["payments"],
    )

    assert labels.equals(found.select(labels.column_names))
    assert [1, 2, 2, 1, 4] == found["count_1h"].to_pylist()
    assert [50, 200, 120, 9, 271] == found["amount_1h"].to_pylist()
    assert ["DE", "SE", "FI", "NO", "DK"] == found["market_last"].to_pylist()
    assert [1, 1, 2, 1, 3] == found["pair_count"].to_pylist()


@pytest.mark.parametrize("function", names())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_row_has_the_value_of_the_lookup_and_of_the_oracle(
    function: str, data: st.DataObject, tmp_path: Path
) -> None:
    """The whole catalog, every window; features that count the event, as they or the service say, beside others."""
    case: StreamCase = data.draw(stream_cases(functions=(function,)))
    if not case.events:
        return
    rows = data.draw(st.lists(st.sampled_from(case.events), max_size=8))
    checks, said = checks_of(case.view), data.draw(st.sampled_from((None, True, False)), label="the service's word")
    repo, asked = repo_with(case.view, checks, in_flight=said), [data.draw(requests) for _ in rows]
    features = [
        one if said is None or one.fixes_in_flight else replace(one, in_flight=said) for one in case.view.features
    ]
    found = build_training_set(
        repo,
        "all",
        with_requests(history_table(case.view, rows), asked),
        history=FileHistory(history_table(case.view, case.events)),
        timestamp_column=case.view.source.event_time_column,
        event_sources=[case.view.source.name],
        memory_bytes=data.draw(st.sampled_from((1 << 30, 1))),
    )
    outputs: list[FeatureSpec | Check] = [*case.view.features, *checks]
    columns = {one.name: plain_values(found[one.name], one.type) for one in outputs}
    for index, (event, request) in enumerate(zip(rows, asked, strict=True)):
        mine = distinct([one for one in case.events if one.key == event.key])
        online = looked_up(replace(case.view, features=tuple(features)), mine, event)
        expected, scales = {}, {}
        for feature in features:
            scales[feature.name] = magnitude(feature, mine, event.event_time_ms, event)
            expected[feature.name] = naive_value(feature, mine, event.event_time_ms, in_flight=event)
        if checks:
            online |= checks_looked_up(repo, mine, event, request)
        for check in checks:
            scales[check.name] = scales[check.read.name] / max(abs(request["rate"] or 1), 1)
            expected[check.name] = check.expected(expected[check.read.name], request)
        for one in outputs:
            scale, actual = scales[one.name], columns[one.name][index]
            assert agrees(expected[one.name], actual, scale=scale), (one, request, expected[one.name], actual)
            assert agrees(online[one.name], actual, scale=scale), (one, request, online[one.name], actual)


@pytest.mark.parametrize(
    ("change", "sources", "at_ms", "said"),
    [
        ({}, ["payment"], None, 'no feature that is asked for reads source "payment"'),
        ({"amount": None}, ["payments"], None, 'no column "amount", which events of source "payments" have'),
        ({"amount": ["a"] * 4}, ["payments"], None, 'column "amount" is of type string'),
        ({"asked": [NOON_MS] * 4}, ["payments"], None, "row 1 has the label time .* but its event .* is of"),
        ({}, ["payments"], NOON_MS, "the rows are events, and one moment is given"),
    ],
)
def test_rows_that_are_no_events_are_refused(
    change: dict[str, list[object] | None], sources: list[str], at_ms: int | None, said: str
) -> None:
    """With the column, the row, and what to do."""
    labels = HISTORY
    for name, values in change.items():
        labels = labels.drop_columns([name]) if name in labels.column_names else labels
        labels = labels if values is None else labels.append_column(name, pa.array(values))
    with pytest.raises(InvalidRequest, match=said):
        build_training_set(
            repo_of(CARD),
            "all",
            labels,
            history=FileHistory(HISTORY),
            timestamp_column="asked" if "asked" in change else "paid_at",
            at_ms=at_ms,
            event_sources=sources,
        )
