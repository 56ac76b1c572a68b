"""`featurestore demo`, as a newcomer runs it, but shorter."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurestore.cli.demo.score import COMPARED, FLAG_POINTS, IN_FLIGHT, STORED, Features, Rule, assess

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 240.0
SHORT = ("--seconds", "4", "--rate", "40", "--days", "1", "--cards", "2000")


class DemoProcess:
    """A demo whose temporary files are in a directory of the test's own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "featurestore", "demo", *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self) -> tuple[int, str]:
        """Exit code and output."""
        try:
            output, _ = self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            output, _ = self.process.communicate()
            raise AssertionError(f"the demo does not end\n{output}") from None
        return self.process.returncode, output

    def left_behind(self) -> list[str]:
        """Files of the demo, and processes that have something of it on their command line."""
        processes = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            if str(self.directory) in command:
                processes.append(command)
        return [*(path.name for path in self.directory.iterdir()), *processes]

    def wait_for_part(self, name: str) -> None:
        """Wait until one of the demo's parts is being started."""
        deadline = time.monotonic() + TIMEOUT_S
        while not list(self.directory.glob(f"featurestore-demo-*/{name}")):
            assert time.monotonic() < deadline
            time.sleep(0.002)


@pytest.mark.slow
def test_the_demo_shows_the_whole_loop_and_leaves_nothing(tmp_path: Path) -> None:
    """History is caught up, payments are looked up and become visible, a recount agrees, and all is gone at the end."""
    demo = DemoProcess(tmp_path, *SHORT)
    exit_code, output = demo.wait()

    assert exit_code == 0, output
    figures = dict(re.findall(r"^  (\S+(?: \S+)?)  +(\S.*)$", output, re.MULTILINE))
    caught_up = re.match(r"([\d,]+) payments of 1 days into 4 views in [\d.]+ s", figures["catch-up"])
    assert caught_up is not None
    assert int(caught_up[1].replace(",", "")) > 2_000
    looked_up = re.match(r"(\d+) of 93 features .* p50 [\d.]+ ms, p99 [\d.]+ ms", figures["lookups"])
    assert looked_up is not None
    assert int(looked_up[1]) > 50
    assert re.match(r"p50 [\d.]+ ms, p99 [\d.]+ ms from a payment in the log until", figures["freshness"])
    assert re.match(r"\d+ of \d+ payments, scored three ways", figures["frauds"])
    assert re.search(r"^ +stored +\d+ caught.*rules over the payments before$", output, re.MULTILINE)
    decided = re.search(r"^ +in flight +\d+ caught.* (\d+) flagged.*with the payment in flight$", output, re.MULTILINE)
    assert decided is not None
    assert (int(decided[1]) > 0) is ("why was this payment declined?" in output)
    if int(decided[1]):
        assert re.search(r"^  \w+ .*; merged from \d+ tiles and events and this payment", output, re.MULTILINE)
        assert re.match(
            r"featurestore explain payment_decision card_id=\S+ .* --event is_declined= ", figures["command"]
        )
    assert re.search(
        r"^✓ publish +(\d+ suspicious cards told, such as \d+: \d+ declines|no card met)", output, re.MULTILINE
    )
    assert figures["dead letters"] == "3 for 3 records broken on purpose: undecodable 3"
    assert figures["recount"].startswith("300 of 300 cards")
    assert not re.search(r"redis://\S*@", output), "the store's password is on the screen"
    assert demo.left_behind() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "part"),
    [(signal.SIGINT, "store"), (signal.SIGINT, "serve.log"), (signal.SIGTERM, "materialize.log")],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals, part: str) -> None:
    """Ctrl-C, even while a part is being started, stops all of them and removes the directory."""
    demo = DemoProcess(tmp_path, *SHORT)
    demo.wait_for_part(part)
    demo.process.send_signal(number)
    exit_code, output = demo.wait()

    assert exit_code == 130, output
    assert demo.left_behind() == []


def test_a_demo_without_a_repo_says_what_to_do(tmp_path: Path) -> None:
    """In another directory the demo explains itself instead of failing half-way."""
    demo = DemoProcess(tmp_path, "--repo", str(tmp_path / "nowhere"))
    exit_code, output = demo.wait()

    assert exit_code == 1
    assert "is not a feature repo" in output
    assert "hint: run the demo in the project's directory" in output


QUIET: Features = {
    "terminal_count_5m": 2,
    "terminal_declines_5m": 0,
    "terminal_count_1h": 20,
    "terminal_declines_1h": 1,
    "merchant_amount_mean_30d": 1_000.0,
    "card_amount_mean_30d": None,
    "card_declines_1h": 0,
    "card_count_1h": 1,
    "card_count_6h": 1,
    "amount_to_shop_mean": None,
    "amount_to_card_mean": None,
}
"""A card nobody knows, at a shop like any other."""


@pytest.mark.parametrize(
    ("rules", "change", "amount", "points"),
    [
        (COMPARED, {}, 900, 0),
        (COMPARED, {}, None, 0),
        (COMPARED, {"terminal_count_5m": 10, "terminal_declines_5m": 4}, 900, 5),
        (COMPARED, {"terminal_count_5m": 40, "terminal_declines_5m": 4}, 900, 0),
        (COMPARED, {"card_declines_1h": 1, "card_count_1h": 2, "card_amount_mean_30d": 1_000.0}, 4_000, 6),
        (STORED, {"card_declines_1h": 1, "card_count_1h": 2, "card_amount_mean_30d": 1_000.0}, 4_000, 2),
        (IN_FLIGHT, {}, 900, 0),
        (IN_FLIGHT, {"terminal_count_1h": 9, "terminal_declines_1h": 2, "amount_to_shop_mean": 0.05}, 50, 5),
        (IN_FLIGHT, {"card_count_6h": 8, "amount_to_shop_mean": 4.0, "amount_to_card_mean": 4.0}, 4_000, 6),
    ],
)
def test_the_score_adds_up_its_rules(
    rules: tuple[Rule, ...], change: Features, amount: int | None, points: int
) -> None:
    """Points are those of the rules that apply, each named; unknown means and open amounts never raise an alarm."""
    assessment = assess(rules, {**QUIET, **change}, amount)

    assert assessment.points == points
    assert assessment.is_suspicious is (points >= FLAG_POINTS)
    assert bool(assessment.reasons) is (points > 0)
