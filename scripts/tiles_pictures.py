"""The pictures of docs/tiles.md: one function each, which draws images/tiles-<name>.svg.

    python scripts/tiles_pictures.py                  writes them all; equal code gives equal bytes
    python scripts/tiles_pictures.py --images DIR

Text stays text and the ground is white, so that a file is small, sharp, and readable on a dark page too. The numbers
are data of this file, for the page has one small example; a test compares them with what the real parts do.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

SINGLE, MINUTE, QUARTER = timedelta(milliseconds=1), timedelta(minutes=1), timedelta(minutes=15)


def monday(clock: str) -> datetime:
    """A moment of the day before the example's, UTC."""
    return datetime.fromisoformat(f"2026-01-05T{clock}").replace(tzinfo=UTC)


def tuesday(clock: str) -> datetime:
    """A moment of the day of the example, UTC."""
    return datetime.fromisoformat(f"2026-01-06T{clock}").replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Payment:
    """A record of the topic; its place in RECORDS is its offset."""

    payment_id: str
    paid_at: datetime
    amount: int


@dataclass(frozen=True, slots=True)
class Tile:
    """What a body keeps of the payments of [start, start + width)."""

    start: datetime
    width: timedelta
    count: int
    amount: int

    @property
    def span(self) -> str:
        """As page and pictures name it."""
        if self.width == SINGLE:
            return f"{self.start:%H:%M:%S}"
        day = "Mon " if self.start < tuesday("00:00") else ""
        return f"{day}{self.start:%H:%M}–{self.start + self.width:%H:%M}"


def lifted(payment: Payment) -> Tile:
    """The tile of a single payment."""
    return Tile(payment.paid_at, SINGLE, 1, payment.amount)


CARD, LANE, HEAD_ROW_BYTES, BODY_BYTES = "c-17", 14, 18, (62, 72, 68)

RECORDS = (
    Payment("p1", monday("12:33:10"), 20),
    Payment("p2", monday("12:41:45"), 5),
    Payment("p3", tuesday("11:39:30"), 50),
    Payment("p4", tuesday("11:40:10"), 10),
    Payment("p5", tuesday("12:05:10"), 40),
    Payment("p6", tuesday("12:05:50"), 15),
    Payment("p7", tuesday("12:39:30"), 30),
    Payment("p8", tuesday("12:40:12"), 8),
    Payment("p9", tuesday("12:40:20"), 25),
    Payment("p10", tuesday("12:40:45"), 7),
    Payment("p11", tuesday("12:05:30"), 12),
    Payment("p10", tuesday("12:40:45"), 7),
    Payment("p12", tuesday("13:05:00"), 9),
)
P3, P4, P5, P6, P7, P8, P9, P10 = RECORDS[2:10]

_OLDEST = Tile(monday("12:30"), QUARTER, 2, 25)
_AT_1139, _AT_1140 = Tile(tuesday("11:39"), MINUTE, 1, 50), Tile(tuesday("11:40"), MINUTE, 1, 10)

BODIES = (
    (_OLDEST, lifted(P3), lifted(P4)),
    (_OLDEST, _AT_1139, _AT_1140, Tile(tuesday("12:05"), MINUTE, 2, 55), lifted(P7), lifted(P8)),
    (
        Tile(tuesday("11:30"), QUARTER, 2, 60),
        Tile(tuesday("12:05"), MINUTE, 3, 67),
        Tile(tuesday("12:39"), MINUTE, 1, 30),
        Tile(tuesday("12:40"), MINUTE, 3, 40),
        lifted(RECORDS[12]),
    ),
)
"""Folded by the commit of offset 4, by that of offset 8, and by the one behind the last record."""

READ_AT = tuesday("12:40:50")
EDGES = {
    tuesday("12:40:45.000"): (6, 128),
    tuesday("12:40:45.001"): (7, 135),
    tuesday("12:40:59.999"): (7, 135),
    tuesday("12:41:00.000"): (6, 125),
}
"""Read time -> count and sum of the hour, before the late payment arrives."""

INK, GREY, BLUE, LIGHT_BLUE, MID_BLUE = "#1f2933", "#5f6b7a", "#1f5fa8", "#dbe8f6", "#a9c8ea"
ORANGE, LIGHT_ORANGE, GREEN, LIGHT_GREEN = "#b45309", "#fdebd3", "#2e7d32", "#cfe8d0"
WIDTH, LEFT, RIGHT = 860, 24, 836


@dataclass
class Picture:
    """An SVG that is being drawn; y grows downwards."""

    title: str
    height: int
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, *, size: int = 12, color: str = INK, at: str = "start") -> None:
        """A line of text; a leading "*" makes it bold."""
        bold = ' font-weight="bold"' if words.startswith("*") else ""
        words = escape(words.removeprefix("*"), quote=False)
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{at}"{bold}>{words}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str, dash: str = "none") -> None:
        """A rectangle with round corners."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{stroke}" '
            f'stroke-dasharray="{dash}"/>'
        )

    def line(self, x: float, y: float, to_x: float, to_y: float, *, color: str = GREY, dash: str = "none") -> None:
        """A straight line, without an arrow where it is dashed."""
        end = ' marker-end="url(#arrow)"' if dash == "none" else f' stroke-dasharray="{dash}"'
        self.parts.append(f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" stroke="{color}"{end}/>')

    def lines(self, x: float, y: float, *lines: str, at: str = "middle", step: int = 16) -> None:
        """Lines of text below each other."""
        for number, words in enumerate(lines):
            self.text(x, y + step * number, words, at=at)

    def tile(self, x: float, y: float, width: float, tile: Tile) -> None:
        """A tile with what it keeps."""
        self.box(x, y, width, 56, {SINGLE: "#ffffff", MINUTE: LIGHT_BLUE, QUARTER: MID_BLUE}[tile.width], BLUE)
        self.text(x + width / 2, y + 17, tile.span, size=11, at="middle")
        self.lines(x + width / 2, y + 33, f"count {tile.count}", f"sum {tile.amount}")

    def head_row(self, x: float, y: float, payment: Payment) -> None:
        """A row of a head, 76 wide."""
        self.box(x, y, 76, 56, LIGHT_ORANGE, ORANGE)
        self.text(x + 38, y + 17, f"{payment.paid_at:%H:%M:%S}", size=11, at="middle")
        self.lines(x + 38, y + 33, payment.payment_id, f"amount {payment.amount}")

    def svg(self) -> str:
        """The file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}" font-family="sans-serif" role="img">',
            f"<title>{escape(self.title, quote=False)}</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{GREY}"/></marker></defs>',
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1}" rx="10" fill="#ffffff" '
            'stroke="#d5dae0"/>',
        )
        picture = Picture(self.title, self.height)
        picture.text(LEFT, 32, f"*{self.title}", size=15)
        return "\n".join((*head, *picture.parts, *self.parts, "</svg>\n"))


def draw_head_and_body() -> Picture:
    """What the store holds of the card when it is asked."""
    picture = Picture(f"What the store holds of card {CARD} at {READ_AT:%H:%M:%S}", 236)
    picture.box(LEFT, 48, 596, 124, "#ffffff", BLUE)
    picture.text(LEFT + 12, 69, "*Body: tiles, oldest first", color=BLUE)
    picture.text(LEFT + 12, 190, f"written whole, by compaction only: {BODY_BYTES[1]} bytes now", color=BLUE)
    picture.box(640, 48, 196, 124, "#ffffff", ORANGE)
    picture.text(656, 69, "*Head: newest payments", color=ORANGE)
    picture.text(656, 190, "grows by APPEND", color=ORANGE)
    x, names = LEFT + 12, {QUARTER: "15 minutes", MINUTE: "1 minute", SINGLE: "1 payment"}
    for tile in BODIES[1]:
        width = {QUARTER: 114, MINUTE: 92, SINGLE: 76}[tile.width]
        picture.tile(x, 80, width, tile)
        picture.text(x + width / 2, 158, names[tile.width], size=11, color=GREY, at="middle")
        x += width + 6
    for x, payment in ((656, P9), (744, P10)):
        picture.head_row(x, 80, payment)
        picture.text(x + 38, 158, f"{HEAD_ROW_BYTES} bytes", size=11, color=GREY, at="middle")
    picture.line(LEFT, 206, RIGHT, 206)
    picture.text(LEFT, 224, "older", size=11, color=GREY)
    picture.text(WIDTH / 2, 224, "event time, not to scale", size=11, color=GREY, at="middle")
    picture.text(RIGHT, 224, "newer", size=11, color=GREY, at="end")
    return picture


def draw_path() -> Picture:
    """One payment from the topic to an answer."""
    picture = Picture(f"The way of payment p9: 25 paid by card {CARD} at 12:40:20", 446)
    hour = (*BODIES[1][2:], lifted(P9), lifted(P10))
    counts, amounts = (" + ".join(map(str, each)) for each in zip(*((t.count, t.amount) for t in hour), strict=True))
    write = (
        ("*1  read", "topic payments, partition 0,", "offset 8: a JSON record", "of payment p9"),
        ("*2  decode", "columns of the right type:", "paid_at 12:40:20.000", "card_id c-17, amount 25"),
        ("*3  key", f"entity key {CARD}", f"its hash: lane {LANE} of 16", f"to the writer of lane {LANE}"),
        ("*4  commit", "one script. Is the", "checkpoint as it was left?", "If so, all of this:"),
    )
    read = (
        ("*5  read", "body and head of the card,", "one command,", "one round trip"),
        ("*6  lift", "a head row becomes a tile:", "12:40:20, count 1, sum 25", ""),
        ("*7  merge", "the tiles of the hour:", counts, amounts),
        ("*8  lower", "accumulators to answers:", "count_1h = 7", "amount_sum_1h = 135"),
    )
    kept = (
        ("*body", "four older rows folded in:", f"{BODY_BYTES[0]} bytes become {BODY_BYTES[1]}", BLUE, LIGHT_BLUE),
        ("*head", "those rows deleted, then", f"p9 appended: {HEAD_ROW_BYTES} bytes", ORANGE, LIGHT_ORANGE),
        ("*event ids", "the id p9, so that", "a repeat is noticed", GREY, "#ffffff"),
        ("*checkpoint", "next offset of the", "partition: 8 becomes 9", GREY, "#ffffff"),
    )
    for y, steps in ((50, write), (336, read)):
        for number, lines in enumerate(steps):
            x = LEFT + 206 * number
            picture.box(x, y, 194, 86, "#f5f7f9", "#b6bfc9")
            picture.lines(x + 12, y + 20, *lines, at="start", step=19)
            if number:
                picture.line(x - 12, y + 43, x, y + 43)
    picture.box(LEFT, 172, RIGHT - LEFT, 122, "#ffffff", INK)
    picture.text(LEFT + 12, 193, f"*Redis, lane {LANE}: all of it changes in one step, or nothing does")
    for number, (name, first, second, stroke, fill) in enumerate(kept):
        picture.box(LEFT + 12 + 199 * number, 206, 191, 74, fill, stroke)
        picture.lines(LEFT + 24 + 199 * number, 228, name, first, second, at="start", step=19)
    picture.line(739, 136, 739, 172)
    picture.line(121, 294, 121, 336)
    picture.text(131, 319, "a lookup, as of 12:40:50", color=GREY)
    return picture


def draw_compaction() -> Picture:
    """A head is folded into its body."""
    picture = Picture("Compaction: the head is folded into the body", 344)
    columns = ((36, 114), (156, 92), (254, 92))
    picture.text(36, 62, "Before: three tiles in the body", color=BLUE)
    picture.text(382, 62, "four payments in the head", color=ORANGE)
    picture.box(LEFT, 70, 334, 80, "#ffffff", BLUE)
    picture.box(370, 70, 366, 80, "#ffffff", ORANGE)
    for (x, width), tile in zip(columns, BODIES[0], strict=True):
        picture.tile(x, 82, width, tile)
    for x, payment in ((382, P5), (464, P6), (566, P7), (648, P8)):
        picture.head_row(x, 82, payment)
        picture.line(x + 38, 150, x + 38, 206)
    picture.box(LEFT, 206, 712, 80, "#ffffff", BLUE)
    for (x, width), tile in zip((*columns, (382, 158), (566, 76), (648, 76)), BODIES[1], strict=True):
        picture.tile(x, 218, width, tile)
    for x, width in columns:
        picture.line(x + width / 2, 150, x + width / 2, 206)
    picture.box(748, 206, 88, 80, "#ffffff", ORANGE)
    picture.head_row(754, 218, P9)
    picture.text(36, 306, "After: six tiles in the body, and the same sums", color=BLUE)
    picture.text(RIGHT, 306, "a new head", color=ORANGE, at="end")
    picture.line(553, 160, 553, 312, color=INK, dash="4 3")
    picture.text(553, 328, f"{P8.paid_at - MINUTE:%H:%M:%S}: one minute before p8, the newest", at="middle")
    return picture


def draw_lookup() -> Picture:
    """Tiles in, sums out."""
    picture = Picture(f"A lookup of card {CARD} as of {READ_AT:%H:%M:%S}", 424)
    tiles, x, columns = (*BODIES[1], lifted(P9), lifted(P10)), 88, []
    for tile in tiles:
        columns.append((x, {QUARTER: 106, MINUTE: 86, SINGLE: 70}[tile.width]))
        x += columns[-1][1] + 5
    begin, end = columns[0][0], x - 5
    for y, words in ((73, "*read"), (140, "*lift"), (205, "*merge"), (391, "*lower")):
        picture.text(LEFT, y, words)
    picture.text(begin, 73, "body: six tiles, as they are", color=BLUE)
    picture.text(columns[-2][0] - 10, 73, "head: two payments", color=ORANGE, at="end")
    for (x, width), payment in zip(columns[-2:], (P9, P10), strict=True):
        picture.box(x, 54, width, 30, LIGHT_ORANGE, ORANGE)
        picture.text(x + width / 2, 73, f"{payment.payment_id}: {payment.amount}", at="middle")
        picture.line(x + width / 2, 84, x + width / 2, 106)
    for (x, width), tile in zip(columns, tiles, strict=True):
        picture.tile(x, 106, width, tile)
    windows = ((2, "1h", "the last hour, from 11:40:00", 190), (0, "1d", "the last day, from Monday 12:30:00", 278))
    for first, name, words, y in windows:
        picture.box(columns[first][0], y, end - columns[first][0], 22, LIGHT_GREEN, GREEN)
        picture.text((columns[first][0] + end) / 2, y + 15, words, at="middle")
        for row, label in enumerate(("count", "sum")):
            values = [tile.amount if row else tile.count for tile in tiles][first:]
            picture.text(columns[first][0] - 10, y + 42 + 20 * row, label, color=GREY, at="end")
            for (x, width), value in zip(columns[first:], values, strict=True):
                picture.text(x + width / 2, y + 42 + 20 * row, str(value), at="middle")
            picture.text(end + 14, y + 42 + 20 * row, f"*= {sum(values)}", color=GREEN)
            x = begin + 188 * (2 * (name == "1d") + row)
            picture.box(x, 374, 178, 28, LIGHT_GREEN, GREEN)
            feature = f"amount_sum_{name}" if row else f"count_{name}"
            picture.text(x + 89, 393, f"*{feature} = {sum(values)}", at="middle")
    return picture


def draw_edges() -> Picture:
    """Where windows of an hour begin and end, read by read."""
    picture = Picture("The window of an hour, read at four moments", 322)
    left, right, second = 124.0, 450.0, 1.5
    tail, head = tuesday("11:39"), tuesday("12:40:40")
    for number in range(4):
        x = left + 60 * second * number
        picture.line(x, 84, x, 278, color="#b6bfc9", dash="2 3")
        picture.text(x, 78, f"{tail + number * MINUTE:%H:%M}", size=11, color=GREY, at="middle")
    for clock in ("12:40:45", "12:41:00"):
        x = right + 10 * (tuesday(clock) - head).total_seconds()
        picture.line(x, 84, x, 278, color="#b6bfc9", dash="2 3")
        picture.text(x, 78, clock, size=11, color=GREY, at="middle")
    picture.text(left, 58, "*Tail: the old edge, on the grid of minutes", color=BLUE)
    picture.text(right, 58, "*Head: the new edge, exact", color=ORANGE)
    picture.text(RIGHT, 58, "*count, sum", color=GREEN, at="end")
    for payment, x in ((P3, left + 30 * second), (P4, left + 70 * second), (P10, right + 50)):
        picture.box(x - 26, 86, 52, 20, "#ffffff", BLUE if payment is not P10 else ORANGE)
        picture.text(x, 100, f"{payment.payment_id}: {payment.amount}", size=11, at="middle")
    remarks = ("without p10", "with p10", "with p4", "without p4")
    for number, ((as_of, (count, amount)), words) in enumerate(zip(EDGES.items(), remarks, strict=True)):
        y = 118 + 40 * number
        begin = (as_of - timedelta(hours=1)).replace(second=0, microsecond=0)
        x = left + second * (begin - tail).total_seconds()
        exact = left + second * (as_of - timedelta(hours=1) - tail).total_seconds()
        end = right + 10 * (as_of - head).total_seconds()
        picture.text(LEFT, y + 17, f"{as_of:%H:%M:%S}.{as_of.microsecond // 1000:03d}")
        picture.box(x, y, end - x, 24, LIGHT_GREEN, GREEN)
        picture.line(exact, y - 3, exact, y + 27, color=INK, dash="3 2")
        picture.box(414, y - 1, 16, 26, "#ffffff", "none")
        picture.text(end + 10, y + 17, words, color=GREY)
        picture.text(RIGHT, y + 17, f"*{count}, {amount}", color=GREEN, at="end")
    words = "Black mark: exactly one hour before the read. The window begins at the last full minute up to there."
    picture.text(LEFT, 302, words)
    return picture


def draw_roll_up() -> Picture:
    """The bodies of the example, one after another."""
    picture = Picture("Tiles grow old: the body after each of three compactions", 452)
    ages = (
        (LEFT, 132, "#ffffff", "dropped", "4 3"),
        (156, 268, MID_BLUE, "tiles of 15 minutes", "none"),
        (424, 268, LIGHT_BLUE, "tiles of 1 minute", "none"),
        (692, 144, "#ffffff", "single payments", "none"),
    )
    for x, width, fill, words, dash in ages:
        picture.box(x, 50, width, 28, fill, BLUE, dash)
        picture.text(x + width / 2, 69, words, at="middle")
    for x, age in ((156, "1 day 17 min"), (424, "1 h 2 min"), (692, "1 min")):
        picture.text(x, 94, age, size=11, color=GREY, at="middle")
    picture.text(RIGHT, 94, "newest payment", size=11, color=GREY, at="end")
    columns = ((LEFT, 110), (140, 92), (238, 92), (358, 92), (478, 92), (576, 92), (744, 92))
    rows = ((126, (0, 1, 2)), (236, (0, 1, 2, 3, 4, 5)), (346, (1, 3, 4, 5, 6)))
    for body, (y, places) in zip(BODIES, rows, strict=True):
        newest = body[-1].start
        minutes, quarters = (f"{newest - age:%H:%M:%S}" for age in (MINUTE, 62 * MINUTE))
        picture.text(LEFT, y, f"*Newest payment {newest:%H:%M:%S}.")
        picture.text(220, y, f"Full minutes up to {minutes} are tiles, full quarters of an hour up to {quarters}.")
        for tile, place in zip(body, places, strict=True):
            x, width = columns[place]
            picture.tile(x, y + 12, 190 if tile == BODIES[2][0] else width, tile)
    for place, (x, width) in enumerate(columns[:6]):
        for y in (194, 304)[place > 2 :]:
            picture.line(x + width / 2, y, x + width / 2, y + 28)
    picture.box(LEFT, 358, 110, 56, "#ffffff", GREY, "4 3")
    picture.text(LEFT + 55, 391, "dropped", color=GREY, at="middle")
    for x, words in ((235, "p3 and p4"), (404, "p5, p6 and p11"), (524, "p7"), (622, "p8, p9, p10"), (790, "p12")):
        picture.text(x, 432, words, size=11, color=GREY, at="middle")
    return picture


PICTURES = {
    "head-and-body": draw_head_and_body,
    "path": draw_path,
    "compaction": draw_compaction,
    "lookup": draw_lookup,
    "edges": draw_edges,
    "roll-up": draw_roll_up,
}


def main() -> int:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=IMAGES, help="where they go")
    directory: Path = parser.parse_args().images
    directory.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (directory / f"tiles-{name}.svg").write_text(draw().svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
