"""`featurestore bootstrap` and `featurestore rollback` as typed, beside the stream; logs are directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from tests.dataflows.payments import PROJECT, TOPIC, Payments, assert_every_value_is_exact, make_payments
from tests.dataflows.stream_process import StreamProcess

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path, redis_url: str, changed_registry: Path, capsys: Capture) -> Callable[..., str]:
    """Runs a command on the changed registry; what it printed, errors too."""

    def command(*arguments: str, expected: int = 0) -> str:
        where = ["--registry", str(changed_registry), "--project", PROJECT, "--store-url", redis_url]
        code = main([*arguments, *where])
        printed = capsys.readouterr()
        assert expected == code, printed
        return printed.out + printed.err

    return command


def append_retries(directory: Path, payments: Payments) -> None:
    """The producer sends the last payment of each partition again; other contents show if it counts."""
    for partition, records in enumerate(payments.records):
        last = next(json.loads(record) for record in reversed(records) if record.endswith(b"}"))
        with (directory / TOPIC / f"{partition}.jsonl").open("ab") as file:
            file.write(json.dumps({**last, "amount": 10**9}).encode() + b"\n")


def test_a_view_is_bootstrapped_and_rolled_back_by_commands(
    start_stream: Callable[..., StreamProcess],
    tmp_path: Path,
    redis_url: str,
    changed_registry: Path,
    run: Callable[..., str],
) -> None:
    """A retry that straddles the switch counts once, a second run changes nothing, and a rollback is one command."""
    first, second = make_payments(6_000, seed=71), make_payments(6_000, seed=72, first=6_000)
    log, event_log = tmp_path / "log", tmp_path / "event_log"
    first.append_to(log)
    logging = ("--log-dir", str(log), "--event-log", str(event_log), "--until-end")
    processes = [
        start_stream(*logging, program=("-m", "dataflows.log_to_table")),
        start_stream("--log-dir", str(log), "--until-end"),
    ]
    assert [process.wait() for process in processes] == [0, 0], processes[0].output + processes[1].output

    bootstrap = ("bootstrap", "cards", "--event-log", str(event_log))
    assert "cards@2: 16 of 16 lanes to fill" in (printed := run(*bootstrap))
    assert "cards@2 is complete" in printed
    assert "cards@2 was bootstrapped already and is filling" in run(*bootstrap)
    assert "filling" in run("status", "--no-memory")
    append_retries(log, first)
    second.append_to(log)
    stream = start_stream("--log-dir", str(log), "--until-end", use_registry=changed_registry)
    assert stream.wait() == 0, stream.output
    assert states(redis_url) == [GenerationState.RETIRED, GenerationState.SERVING]
    assert_every_value_is_exact(redis_url, first, second)

    assert "cards@1 serves again, cards@2 is kept but not fed\n0 records" in run("rollback", "cards")
    assert "rolled_back" in run("status", "--no-memory")
    assert_every_value_is_exact(redis_url, first, second)
    assert "cards@2 serves again" in run("rollback", "cards")


def test_what_cannot_be_bootstrapped_is_explained(tmp_path: Path, run: Callable[..., str]) -> None:
    """An unknown view, a log that is not there, a view without an earlier generation."""
    log = ("--event-log", str(tmp_path))

    assert 'stream feature view "card" is not registered' in run("bootstrap", "card", *log, expected=1)
    assert "there is no event log" in run("bootstrap", "cards", *log, expected=1)
    assert 'feature view "cards" has no earlier generation' in run("rollback", "cards", expected=1)


def states(url: str) -> list[GenerationState]:
    """Of the generations of cards, oldest first."""
    store = connect(url)
    found = [one.state for one in GenerationCatalog(store, PROJECT).generations("cards")]
    store.close()
    return found
