"""Stream processes that are killed at work: real Apache Kafka, real Redis, SIGKILL, the naive oracle."""

from __future__ import annotations

import random
import time

import pytest

from featurestore.testing.servers import KafkaBroker
from tests.system.audit import Audit, audit, connected, reached, wait_until_reached
from tests.system.conftest import StartStream
from tests.system.dead_letters import letter_ends, letters_since
from tests.system.load import Load, reasons

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = 20
KILLS_AT_WORK_MIN = 12
"""A machine that stalls between two looks may let a life finish the load; so many must have hit work under way."""

EXIT_PEER_GONE = 4

LIFE_RECORDS_MAX = 4_000
"""A process applies at most so many before it is about to be killed; in the time of the kill it does some more."""

COMMIT_PERIOD_S = 0.04
"""About the time between two commits here: a kill may hit any phase of one."""


@pytest.mark.parametrize("process_count", [1, 2])
def test_twenty_kills_at_work_lose_nothing_and_double_nothing(
    start_stream: StartStream, kafka: KafkaBroker, load: Load, redis_url: str, process_count: int
) -> None:
    """Every value of some hundred entities at every read time is the oracle's, and lifetime totals are exact.

    Each life is ended soon after it has committed something, so that a good part of the load is left after the last
    kill.
    """
    draw = random.Random(process_count)
    letters_begin = letter_ends(kafka.bootstrap_servers)
    applied, ahead_total, ahead_kills, kills = 0, 0, 0, 0
    while kills < KILLS and applied < load.count:
        processes = start_stream(redis_url, process_count=process_count)
        wait_until_reached(redis_url, applied + draw.randint(1, LIFE_RECORDS_MAX), processes)
        time.sleep(draw.uniform(0.0, COMMIT_PERIOD_S))
        victim = draw.choice(processes)
        victim.kill()
        for other in processes:
            # Either it notices by itself that the cluster is broken, or it dies too.
            if other is not victim and draw.random() < 0.5:
                assert other.wait() == EXIT_PEER_GONE, other.output
            other.kill()
        with connected(redis_url) as store:
            found = reached(store)
        assert applied < found.slowest, "this life committed nothing"
        kills += found.slowest < load.count
        applied, ahead_total, ahead_kills = found.slowest, ahead_total + found.ahead, ahead_kills + (found.ahead > 0)
    assert kills >= KILLS_AT_WORK_MIN, f"only {kills} kills hit work under way"
    for process in start_stream(redis_url, "--until-end", process_count=process_count):
        assert process.wait(120) == 0, process.output

    compared = audit(redis_url, load)
    with connected(redis_url) as store:
        assert reached(store).slowest == load.count
    letter_count = _assert_letters_are_complete(kafka, load, letters_begin)
    print(
        f"\n{process_count} process(es): {load.count:,} records ({load.duplicates:,} duplicates), {kills} kills "
        f"({load.count - applied:,} left after the last); "
        f"{ahead_kills} of them left lanes apart, {ahead_total:,} records were read again by lanes that had them; "
        f"{_describe(compared)}; {letter_count} dead letters of {len(load.letters | load.letters_possible)} records "
        f"({reasons(load.letters | load.letters_possible)})"
    )


def _assert_letters_are_complete(kafka: KafkaBroker, load: Load, begins: dict[int, int]) -> int:
    """Every refused record has a letter with its bytes; repeats after a crash are allowed. Returns all letters."""
    letters = letters_since(kafka.bootstrap_servers, begins)
    written = {letter for letter, _ in letters}
    assert load.letters <= written
    assert written <= load.letters | load.letters_possible
    for (partition, offset, _, _), payload in letters:
        assert load.partitions[partition][offset] == payload
    return len(letters)


def _describe(compared: Audit) -> str:
    """An audit in a line."""
    return f"{compared.values:,} values of {compared.entities} entities compared, {compared.refused} reads refused"
