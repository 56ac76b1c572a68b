"""`featurestore demo`: the whole loop in a minute or two, on embedded parts: no Kafka, no Docker, nothing left behind.

history -> log directory -> stream -> Valkey -> server -> lookups with each live payment in flight -> score -> why
                                          └──> suspicious cards, published into the log
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np

from featurestore.cli.demo.decline import explain_decline, most_telling
from featurestore.cli.demo.live import DECISION_SERVICE, SPENDING_SERVICE, STORED_SERVICE, LiveFigures, LivePayments
from featurestore.cli.demo.parts import DemoFailed, DemoParts, demo_parts
from featurestore.cli.demo.payments import TOPIC, CardTotals, DemoPayments
from featurestore.cli.demo.screen import REFRESH_PER_SECOND, Screen
from featurestore.cli.demo.summary import Line, Summary
from featurestore.cli.demo.told import SERVICE, WHERE, publish_arguments, told_text
from featurestore.cli.demo.told import TOPIC as TOLD
from featurestore.cli.settings import load_settings
from featurestore.clock import Clock, SystemClock
from featurestore.definitions.schemas.directory import log_ends
from featurestore.errors import redacted
from featurestore.online.read.store_status import StoreOverview, look_over
from featurestore.online.redis.store import connect
from featurestore.online.store import OnlineStore
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.messages import EntityValues
from featurestore.testing.servers.process import ServerProcess
from featurestore.testing.simulator.payload import card_id
from featurestore.testing.simulator.population import FIRST_MERCHANT_ID, FIRST_TERMINAL_ID

EXIT_FAILED = 1

STALLED_TIMEOUT_S = 60.0
"""A catch-up that does not move for so long has failed."""

CARDS_CHECKED = 300
CARDS_A_LOOKUP = 100

SWITCH_INTERVAL_S = 0.000_5
"""Drawing the screen must not hold up the thread that measures lookups by Python's usual 5 ms."""

_WATCH_S = 0.2
_NS_PER_S = 1e9
_MS_PER_S = 1_000


@click.command("demo")
@click.option(
    "--seconds", type=click.FloatRange(min=2), default=35.0, show_default=True, help="How long payments come live."
)
@click.option("--rate", type=click.FloatRange(min=1), default=80.0, show_default=True, help="Live payments a second.")
@click.option(
    "--days", type=click.FloatRange(min=0.2), default=21.0, show_default=True, help="Days of history before them."
)
@click.option("--cards", type=click.IntRange(min=100), default=20_000, show_default=True, help="How many cards pay.")
@click.option("--seed", type=int, default=1, show_default=True, help="Equal seeds give equal cards and merchants.")
@click.option(
    "--repo",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("feature_repo"),
    show_default=True,
    help="The payments example; it is copied.",
)
def command(seconds: float, rate: float, days: float, cards: int, seed: int, repo: Path) -> int:
    """Simulate payments with fraud in them, stream and serve their features, and look them up as a risk model does.

    Takes a minute or two and leaves nothing behind. Exit code 1 when something did not work.
    """
    clock = SystemClock()
    screen = Screen(clock)
    screen.heading("featurestore demo", "simulated payments, a stream of features, and a risk model that asks for them")
    with demo_parts(repo) as parts:
        demo = _Demo(parts, screen, clock, DemoPayments(parts.log_dir, cards=cards, seed=seed))
        summary = demo.run(days=days, seconds=seconds, rate=rate)
    problems = summary.problems()
    screen.summary(summary, _next_commands(repo))
    for problem in problems:
        click.echo(click.style("failed: ", fg="red", bold=True) + problem, err=True)
    return EXIT_FAILED if problems else 0


class _Demo:
    """The demo's steps, in order."""

    def __init__(self, parts: DemoParts, screen: Screen, clock: Clock, payments: DemoPayments) -> None:
        self._parts = parts
        self._screen = screen
        self._clock = clock
        self._payments = payments
        self._project = load_settings(repo=parts.repo).project

    def run(self, *, days: float, seconds: float, rate: float) -> Summary:
        """All of it."""
        store = self._prepare(days)
        publish = [*publish_arguments(self._parts.log_dir), "--from-now", "--repo", str(self._parts.repo)]
        told = self._parts.start_command("publish", *publish)
        address, server, stream, catch_up_s = self._serve_and_catch_up(store)
        history_records = self._payments.records_written
        live = self._go_live(address, seconds, rate)
        self._parts.require_running(server, stream, told)
        self._screen.suspicious(live)
        self._explain(address, live)
        overview = self._catch_up(store, stream, "end of live")
        self._screen.step("publish", told_text(self._parts.log_dir))
        self._parts.require_running(server, stream)
        with LookupClient(address) as client:
            features = len(client.describe(DECISION_SERVICE).features)
            checked, wrong = self._compare_with_recount(client, self._payments.recount())
        store.close()
        return Summary(
            history_records=history_records,
            days=days,
            catch_up_s=catch_up_s,
            features=features,
            views=_view_count(overview),
            live=live,
            live_s=seconds,
            dead_letters=_count_dead_letters(self._parts.log_dir),
            cards_checked=checked,
            cards_wrong=wrong,
        )

    def _prepare(self, days: float) -> OnlineStore:
        """History in the log, definitions in the registry, an empty store."""
        parts, payments, begun_ns = self._parts, self._payments, self._clock.monotonic_ns()
        apply = parts.start_command("apply", "apply", "--repo", str(parts.repo))
        now_ms = self._clock.now_ms()
        payments.write_merchant_table(parts.repo / "data" / "merchants.parquet", updated_at_ms=now_ms)
        expected = round(float(payments.population.market_rate.sum()) * days)
        with self._screen.moving():
            payments.write_history(
                days=days,
                now_ms=now_ms,
                on_progress=lambda done: self._screen.progress("history", done, expected, f"{done:,} payments"),
            )
        records = payments.records_written
        self._screen.step(
            "history", f"{records:,} payments of {days:g} days simulated into a log ({self._since(begun_ns)})"
        )
        parts.finish(apply)
        self._screen.step("apply", f"feature repo registered: {_last_line(apply).partition(',')[0]}")
        url = parts.start_store()
        self._screen.step("store", f"embedded Valkey on {redacted(url)}")
        return connect(url)

    def _serve_and_catch_up(self, store: OnlineStore) -> tuple[str, ServerProcess, ServerProcess, float]:
        """Server and stream; returns when the stream has read the history and the merchants are materialized."""
        parts = self._parts
        begun_ns = self._clock.monotonic_ns()
        stream = parts.start_command(
            "stream", "stream", "--repo", str(parts.repo), "--log-dir", str(parts.log_dir), "--progress-seconds", "2"
        )
        server = parts.start_server()
        materialize = parts.start_feast(
            "materialize", "materialize", "2000-01-01T00:00:00", "2100-01-01T00:00:00", "--views", "merchant_profile"
        )
        overview = self._catch_up(store, stream, "catch-up")
        catch_up_s = (self._clock.monotonic_ns() - begun_ns) / _NS_PER_S
        rate = self._payments.records_written / catch_up_s
        views = _view_count(overview)
        self._screen.step("stream", f"caught up in {catch_up_s:.1f} s, {rate:,.0f} events/s into {views} views")
        parts.finish(materialize)
        self._screen.step("materialize", "merchant profiles by the stock `feast materialize`")
        address = parts.server_address(server)
        with LookupClient(address) as client:
            while not (schema := client.describe(DECISION_SERVICE)).event_sources:
                self._parts.require_running(server, stream)
                self._clock.sleep(_WATCH_S)  # the views have caught up, and are about to be promoted
        self._screen.step("server", f"gRPC on {address}, {len(schema.features)} features in {DECISION_SERVICE}")
        return address, server, stream, catch_up_s

    def _catch_up(self, store: OnlineStore, stream: ServerProcess, name: str) -> StoreOverview:
        """Wait until every view has read the log to its end."""
        ends = {place: end for place, end in log_ends(self._parts.log_dir).items() if place[0] == TOPIC}
        total = sum(ends.values())
        read, moved_ns = -1, self._clock.monotonic_ns()
        begun_ns = moved_ns
        with self._screen.moving():
            while True:
                self._parts.require_running(stream)
                overview = look_over(store, self._project, self._clock, ends=ends)
                lags = [generation.lag_records for generation in overview.generations]
                behind = max((total if lag is None else lag for lag in lags), default=total)
                if behind == 0:
                    return overview
                if total - behind != read:
                    read, moved_ns = total - behind, self._clock.monotonic_ns()
                elif (self._clock.monotonic_ns() - moved_ns) / _NS_PER_S > STALLED_TIMEOUT_S:
                    raise DemoFailed(f"the stream stands still at {read:,} of {total:,}", detail=stream.log_tail())
                rate = read / max(1e-3, (self._clock.monotonic_ns() - begun_ns) / _NS_PER_S)
                self._screen.progress(name, read, total, f"{read:,} of {total:,} events, {rate:,.0f}/s")
                self._clock.sleep(_WATCH_S)

    def _go_live(self, address: str, seconds: float, rate: float) -> LiveFigures:
        """Payments, lookups and probes for some seconds."""
        start_ms = self._clock.now_ms()
        end_ms = start_ms + round(seconds * _MS_PER_S)
        rows = self._payments.live(start_ms=start_ms, end_ms=end_ms, per_second=rate)
        live = LivePayments(self._payments, rows, start_ms=start_ms, address=address, clock=self._clock)
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            with live.running() as threads, self._screen.moving():
                while any(thread.is_alive() for thread in threads):
                    left_s = max(0.0, (end_ms - self._clock.now_ms()) / _MS_PER_S)
                    self._screen.payments(live.figures, left_s=left_s, per_second=rate)
                    threads[0].join(1 / REFRESH_PER_SECOND)
        finally:
            sys.setswitchinterval(before_s)
        if live.figures.error is not None:
            raise live.figures.error
        self._screen.step("live", f"{seconds:g} s at {rate:g} payments a second, each looked up while it waited")
        return live.figures

    def _explain(self, address: str, live: LiveFigures) -> None:
        """One of the suspicious payments, while the server can still be asked."""
        declined = most_telling(list(live.suspicious))
        if declined is not None:
            with LookupClient(address) as client:
                self._screen.decline(explain_decline(client, declined))

    def _compare_with_recount(self, client: LookupClient, totals: CardTotals) -> tuple[int, int]:
        """Cards compared, and how many differ: features of a whole life against a plain recount of the log."""
        count = len(totals.counts)
        cards = np.random.default_rng(count).choice(count, min(CARDS_CHECKED, count), replace=False).tolist()
        wrong = 0
        for begin in range(0, len(cards), CARDS_A_LOOKUP):
            some = cards[begin : begin + CARDS_A_LOOKUP]
            entities: dict[str, EntityValues] = {
                "card_id": [card_id(card) for card in some],
                "merchant_id": [FIRST_MERCHANT_ID] * len(some),
                "terminal_id": [FIRST_TERMINAL_ID] * len(some),
            }
            rows = client.lookup(STORED_SERVICE, entities).rows()
            spent = client.lookup(SPENDING_SERVICE, {"card_id": entities["card_id"]}).rows()
            wrong += sum(
                not totals.agree(card, {**row, **more}) for card, row, more in zip(some, rows, spent, strict=True)
            )
        return len(cards), wrong

    def _since(self, begun_ns: int) -> str:
        return f"{(self._clock.monotonic_ns() - begun_ns) / _NS_PER_S:.1f} s"


def _view_count(overview: StoreOverview) -> int:
    """Stream views that are stored, alone or in groups."""
    return len({view for generation in overview.generations for view in generation.views})


def _last_line(chore: ServerProcess) -> str:
    """What a command said at its end."""
    return chore.log_tail().strip().rpartition("\n")[2]


def _count_dead_letters(log_dir: Path) -> Counter[str]:
    """Refused records by reason."""
    paths = (log_dir / f"{TOPIC}.dead-letters").glob("*.jsonl")
    return Counter(str(json.loads(line)["reason"]) for path in paths for line in path.read_bytes().splitlines())


def _next_commands(repo: Path) -> list[Line]:
    """What to type to do the same by hand, and to stay."""
    program = Path(sys.executable).with_name("featurestore")
    name = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else "featurestore"
    log = repo / "data" / "log"
    return [
        (f"{name} apply", "register the example's features"),
        (f"{name} simulate --to log:{log} --days 21", "three weeks of payments"),
        (f"{name} stream --log-dir {log}", "keep the features fresh; leave it running"),
        (f"{name} serve", "in another terminal"),
        (f"{name} lookup fraud_detection card_id=card-00000017 merchant_id=1000003 terminal_id=50000011", "ask"),
        (f"{name} publish {SERVICE} --to {TOLD} --where '{WHERE}' --log-dir {log}", "tell others, in a third one"),
        (f"{name} status --log-dir {log}", "what the store holds, and whether the payments keep their contract"),
        (f"{name} store stop", "when you have had enough; the data stay in {}".format(repo / "data")),
        ("docs/add-your-own-feature.md", "a feature of your own, from zero to a lookup"),
    ]
