"""What the authoring helpers are given and cannot write is reported by the plan, in its place and beside the rest."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.definitions.compile.source import EVENT_LOG_COLUMNS
from featurestore.offline.event_log.schema import RESERVED

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")

Capture = pytest.CaptureFixture[str]

HEAD = """\
from datetime import timedelta
from feast import Entity, FeatureService, ValueType
from featurestore.definitions.authoring import *

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments",
    topic="payments",
    columns={"at": "timestamp", "card_id": "string", "amount": "bigint"},
    event_time="at",
)
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repo of one sound source; `write` adds the rest."""
    (tmp_path / "feature_store.yaml").write_text("project: shop\nprovider: local\nregistry: registry.db\n")
    return tmp_path


def plan(repo: Path, definitions: str, capsys: Capture) -> tuple[int, str]:
    """Exit code and stderr of a plan of these definitions."""
    (repo / "views.py").write_text(HEAD + textwrap.dedent(definitions))
    code = main(["plan", "--repo", str(repo)])
    return code, capsys.readouterr().err


def test_what_is_no_duration_is_reported_with_view_and_feature(repo: Path, capsys: Capture) -> None:
    """Windows, hops, offsets, gaps and ttl of any type, all in one plan, beside a mistake of another kind."""
    code, said = plan(
        repo,
        """
        activity = stream_view(
            name="activity", entities=[card], source=payments, ttl="long",
            features=[
                *count(over="1x"),
                *count(over=3600, name="seconds"),
                *count(over=[timedelta(hours=1)], name="delta"),
                *count(over=None, name="none"),
                *count(over=[], name="empty"),
                *count(over="999999999999999d", name="ages"),
                *count(over="1h", hop=60, name="hopping"),
                *count(over="1h", offset=7, name="offset"),
                *count(over=series("1z", 3), name="several"),
                *count(over=session(gap=30), name="visit"),
                *aggregate("amuont", "sum", over="1h"),
            ],
        )
        other = stream_view(name="other", entities=[card], source=payments, features=[*count(over="2y")])
        served = FeatureService(name="served", features=[activity, other])
        """,
        capsys,
    )

    assert code == 1
    assert 'project "shop" has 13 problems' in said
    place = 'feature view "activity", feature '
    for fact in (
        'feature view "activity": its ttl is "long", not a duration; write a whole number and a unit',
        f'{place}"count_1x": its window is "1x", not a duration; write a whole number and a unit',
        f'{place}"seconds_3600": its window is 3600, not a duration',
        f'{place}"delta_1:00:00": its window is datetime.timedelta(seconds=3600), not a duration',
        f'{place}"none_None": its window is None, not a duration',
        f'{place}"empty_[]": its window is [], not a duration',
        f'{place}"ages_999999999999999d": its window is "999999999999999d", which is too long; shorten it',
        f'{place}"hopping_1h": its hop is 60, not a duration',
        f'{place}"offset_1h_offset_7": tag "offset": "7" is not a duration',
        f'{place}"several_3x1z": its window is "1z", not a duration',
        f'{place}"visit_session_30": tag "gap": "30" is not a duration',
        f'{place}"amuont_sum_1h": column "amuont" is not a column',
        'feature view "other", feature "count_2y": its window is "2y"',
    ):
        assert fact in said


def test_a_view_without_windowed_features_is_refused(repo: Path, capsys: Capture) -> None:
    """Feast would take it for a plain view, and nothing would ever fill it; so would it a list without its star."""
    code, said = plan(
        repo,
        """
        empty = stream_view(name="empty", entities=[card], source=payments, features=[])
        derived = stream_view(name="derived", entities=[card], source=payments, features=derive("one", "1"))
        nested = stream_view(name="nested", entities=[card], source=payments, features=[count(over="1h")])
        """,
        capsys,
    )

    assert code == 1
    assert 'project "shop" has 3 problems' in said
    assert 'feature view "empty": it has no windowed features; give at least one count(...)' in said
    assert 'feature view "derived": it has no windowed features' in said
    assert 'feature view "nested": one of its features is a list; write *count(...), *aggregate(...)' in said


def test_what_a_helper_refuses_outright_names_file_and_line(repo: Path, capsys: Capture) -> None:
    """The author's own line, not that of the helper, and no name of a Python class."""
    code, said = plan(repo, 'broken = aggregate("amount", [], over="1h")\n', capsys)

    assert code == 1
    line = len(HEAD.splitlines()) + 1
    assert f"views.py:{line}: aggregate() is given no columns or no functions; name at least one" in said


def test_a_column_named_as_one_of_the_event_log_is_noted(repo: Path, capsys: Capture) -> None:
    """Online nothing is wrong with it, so the plan goes through; but its history cannot be kept."""
    (repo / "feature_store.yaml").write_text("project: shop\nprovider: local\nregistry: registry.db\n")
    code, said = plan(
        repo,
        """
        moved = kafka_source(
            name="moved", topic="moved", event_time="event_time_ms",
            columns={"event_time_ms": "bigint", "card_id": "string", "offset": "bigint"},
        )
        activity = stream_view(name="activity", entities=[card], source=moved, features=count(over="1h"))
        """,
        capsys,
    )

    assert code == 0
    assert 'note: source "moved" cannot have an event log' in said
    assert 'column "offset" has the name of a column of the log' in said
    assert "event_time_ms" not in said
    assert EVENT_LOG_COLUMNS == RESERVED
