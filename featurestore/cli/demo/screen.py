"""How the demo looks: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from featurestore.cli.demo.live import LiveFigures, ScoredPayment
from featurestore.cli.demo.score import number
from featurestore.cli.demo.summary import Line, Summary, percentiles_text
from featurestore.clock import Clock
from featurestore.testing.simulator.rows import FraudPattern

REFRESH_PER_SECOND = 4
PLAIN_LINE_EVERY_NS = 5_000_000_000

SUSPICIOUS_TITLE = "suspicious payments (red: fraud in truth, yellow: a false alarm)"
LATEST_ROWS = 6
SUSPICIOUS_ROWS = 10
STEP_WIDTH = 12
BAR_WIDTH = 40

_MS_PER_SECOND = 1_000


class Screen:
    """Shows the demo's steps, its live payments and its summary.

    Args:
        clock: durations of steps, and pauses between plain lines.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._is_live = self._console.is_terminal
        self._live: Live | None = None
        self._shown_ns = 0

    def heading(self, title: str, text: str) -> None:
        """What is about to be shown."""
        if self._is_live:
            self._console.print(Rule(f"[bold]{title}", align="left", style="cyan"))
            self._console.print(text, style="dim")
        else:
            self._console.print(f"{title}: {text}")

    def step(self, name: str, text: str) -> None:
        """A step that is done."""
        self._console.print(Text.assemble(("✓ ", "green"), (name.ljust(STEP_WIDTH), "bold"), text))

    @contextmanager
    def moving(self) -> Iterator[None]:
        """A part of the demo whose picture changes; the last picture vanishes with it."""
        if not self._is_live:
            self._shown_ns = self._clock.monotonic_ns()
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def progress(self, name: str, done: int, total: int, text: str) -> None:
        """How far a step is."""
        if self._live is not None:
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=max(total, 1), completed=done, width=BAR_WIDTH)
            grid.add_row(Text("… ", "yellow"), Text(name.ljust(STEP_WIDTH - 1), "bold"), bar, text)
            self._live.update(grid, refresh=True)
        elif self._is_time_for_a_line():
            self._console.print(f"  {name.ljust(STEP_WIDTH)}{text}")

    def payments(self, figures: LiveFigures, *, left_s: float, per_second: float) -> None:
        """The live payments."""
        if self._live is not None:
            self._live.update(self._picture(figures, left_s, per_second), refresh=True)
        elif self._is_time_for_a_line():
            facts = ", ".join(f"{name} {text}" for name, text in _facts(figures))
            self._console.print(f"  {'live'.ljust(STEP_WIDTH)}{left_s:.0f} s to go: {facts}")
            if figures.suspicious:
                self._console.print(f"  {''.ljust(STEP_WIDTH)}{_plain(figures.suspicious[-1])}")

    def suspicious(self, figures: LiveFigures) -> None:
        """The suspicious payments, to stay on the screen when the live picture is gone."""
        answers = list(figures.suspicious)[-SUSPICIOUS_ROWS:]
        if self._is_live and answers:
            self._console.print(_table(SUSPICIOUS_TITLE, answers, width=self._console.width))

    def decline(self, lines: Sequence[Line]) -> None:
        """Why a payment was declined."""
        self._lines("why was this payment declined?", lines)

    def summary(self, summary: Summary, commands: Sequence[Line]) -> None:
        """Figures, and what to type next; a problem is said by whoever judges it."""
        self._lines("summary", summary.lines())
        self._console.print(Rule("[bold]next", align="left", style="cyan") if self._is_live else "next")
        for command, text in commands:
            self._console.print(Text.assemble(("  " + command, "green"), ("    # " + text, "dim")), soft_wrap=True)

    def _lines(self, title: str, lines: Sequence[Line]) -> None:
        """A heading, and texts that go on below themselves where a terminal is too narrow for them."""
        self._console.print(Rule(f"[bold]{title}", align="left", style="cyan") if self._is_live else title)
        names = STEP_WIDTH + 2
        for name, text in lines:
            if not self._is_live:
                self._console.print(f"  {name.ljust(names - 1)} {text}")
                continue
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_column(width=1)
            grid.add_column(style="bold", min_width=names - 2)
            grid.add_column(overflow="fold")
            grid.add_row("", Text(name), Text(text))
            self._console.print(grid)

    def _is_time_for_a_line(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._shown_ns < PLAIN_LINE_EVERY_NS:
            return False
        self._shown_ns = now_ns
        return True

    def _picture(self, figures: LiveFigures, left_s: float, per_second: float) -> RenderableType:
        width = self._console.width
        facts = Table.grid(padding=(0, 3))
        for name, text in _facts(figures):
            facts.add_row(Text(name, "bold"), text)
        title = f"[bold]live[/]: {per_second:g} payments/s, {left_s:.0f} s to go"
        return Group(
            Rule(title, align="left", style="cyan"),
            _table("payments as the risk model gets them", list(figures.answers)[-LATEST_ROWS:], width=width),
            "",
            _table(SUSPICIOUS_TITLE, list(figures.suspicious)[-SUSPICIOUS_ROWS:], width=width),
            "",
            facts,
        )


def _facts(figures: LiveFigures) -> list[Line]:
    """The live figures in words."""
    decided = figures.decided
    return [
        ("lookups", f"{len(figures.lookup_ms):,}, {percentiles_text(figures.lookup_ms)}"),
        ("freshness", percentiles_text(figures.freshness_ms)),
        ("flagged", f"{decided.flagged}, {decided.frauds} of them fraud, of {figures.frauds_asked}"),
    ]


def _table(title: str, answers: Sequence[ScoredPayment], *, width: int) -> Table:
    """Payments with a few telling features, newest first; as many columns as the terminal has room for."""
    columns = [column for column in _COLUMNS if width >= column.from_width]
    gap = 2 if width >= _WIDE else 1
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, gap, 0, 0), pad_edge=False
    )
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            width=column.width,
            no_wrap=True,
            vertical="bottom",
            header_style="dim",
        )
    for answer in reversed(answers):
        style = "" if not answer.assessment.is_suspicious else "bold red" if answer.payment.pattern else "yellow"
        table.add_row(*(column.text(answer) for column in columns), style=style)
    return table


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the tables of payments.

    Attributes:
        heading: of one or two lines.
        width: characters.
        text: of a payment.
        is_number: stands to the right.
        from_width: terminals from this width on have room for it.
    """

    heading: str
    width: int
    text: Callable[[ScoredPayment], str]
    is_number: bool = False
    from_width: int = 0


_TRUTHS = {
    FraudPattern.NONE: "",
    FraudPattern.CARD_TESTING: "card testing",
    FraudPattern.STOLEN_CARD: "stolen card",
    FraudPattern.COMPROMISED_TERMINAL: "bad terminal",
}

_WIDE = 110
_VERY_WIDE = 150

_COLUMNS: tuple[_Column, ...] = (
    _Column("time", 8, lambda answer: _moment_text(answer.payment.event_time_ms), from_width=_WIDE),
    _Column("card", 8, lambda answer: answer.payment.card_id.removeprefix("card-")),
    _Column("shop", 14, lambda answer: f"{answer.payment.market} {answer.payment.category}"),
    _Column("amount", 12, lambda answer: answer.payment.amount_text, is_number=True),
    _Column("x shop\nmean", 6, lambda answer: _times_mean_text(answer), is_number=True),
    _Column("paid\nin 6 h", 6, lambda answer: _count_text(answer, "card_count_6h"), is_number=True),
    _Column("terminal\ndeclined", 8, lambda answer: _terminal_text(answer), is_number=True),
    _Column("score", 5, lambda answer: str(answer.assessment.points), is_number=True),
    _Column("why", 36, lambda answer: ", ".join(answer.assessment.reasons), from_width=_VERY_WIDE),
    _Column("in truth", 12, lambda answer: _TRUTHS[answer.payment.pattern]),
)


def _moment_text(moment_ms: int) -> str:
    """Time of day, UTC."""
    return datetime.fromtimestamp(moment_ms / _MS_PER_SECOND, tz=UTC).strftime("%H:%M:%S")


def _times_mean_text(answer: ScoredPayment) -> str:
    """The amount as a multiple of what the shop takes on average."""
    times = answer.features["amount_to_shop_mean"]
    return f"{times:.2f}" if isinstance(times, float) else "-"


def _count_text(answer: ScoredPayment, feature: str) -> str:
    """A count."""
    return f"{number(answer.features, feature):.0f}"


def _terminal_text(answer: ScoredPayment) -> str:
    """Declines at the terminal within five minutes, of how many."""
    return f"{_count_text(answer, 'terminal_declines_5m')} of {_count_text(answer, 'terminal_count_5m')}"


def _plain(answer: ScoredPayment) -> str:
    """One suspicious payment in a line."""
    payment = answer.payment
    truth = _TRUTHS[payment.pattern] or "honest"
    return (
        f"suspicious: {payment.card_id}, {payment.amount_text} at {payment.category} {payment.market}, "
        f"score {answer.assessment.points} ({'; '.join(answer.assessment.reasons)}); in truth {truth}"
    )
