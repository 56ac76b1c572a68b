"""The page docs/tiles.md: its numbers are what the real writer leaves in a real Redis, and what the reader says."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from featurestore.core.spec import ViewSpec
from featurestore.definitions.repo import load_repo
from featurestore.errors import AsOfTooOld
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.write import compaction
from featurestore.online.write.report import WriteReport
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.answers import stored_answers
from featurestore.testing.batches import keyed_batch
from featurestore.testing.clock import ManualClock
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.writers import open_writer
from featurestore.wire.codecs.bodies import version5
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES
from featurestore.wire.codecs.body import decode_body
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.entity_key import lane_of
from featurestore.wire.entity_routing import PartitionWatermark, columns_read, key_events, refused_rows
from featurestore.wire.payloads import DeadLetterReason, EventDecoder, RawBatch
from featurestore.wire.store_layout import decode_checkpoint
from scripts import tiles_pictures
from scripts.tiles_pictures import BODIES, CARD, EDGES, PICTURES, READ_AT, RECORDS, Payment, Tile, tuesday

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "tiles.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[DEFINITIONS] = [text for language, text in BLOCKS if language == "python"]

CONFIG = "project: tiles\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
LANES = 16
HEAD_ROWS_ON_PAGE = 4
PAYMENTS, FOLLOWED, LATE, REPEATED, LAST = 10, 8, 10, 11, 12
"""How many payments the page begins with; the offset of the one that it follows, and of those that come later."""

FRAME_BYTES = 36
"""Of a body: header with the moment before which tiles were dropped, and checksum."""

COMMAND_TIMEOUT_S = 120.0
_MARK = "== typed"
_FRAMES = re.compile(r"[┃│━─┏┓┗┛┡┩╇┳┻└┘┴┬]")


def record_of(payment: Payment) -> bytes:
    """What the producer sends."""
    paid_at = payment.paid_at.isoformat().replace("+00:00", "Z")
    fields = {"payment_id": payment.payment_id, "paid_at": paid_at, "card_id": CARD, "amount": payment.amount}
    return json.dumps(fields).encode()


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return round(moment.timestamp() * 1_000)


@dataclass
class Stream:
    """The middle of the stream for one view: decode, key, commit."""

    store: RedisStore
    view: ViewSpec

    def __post_init__(self) -> None:
        """Take all lanes."""
        self.clock = ManualClock(now_ms=milliseconds(tuesday("13:06")))
        catalog = GenerationCatalog(self.store, "tiles")
        assert catalog.lane_count(LANES) == LANES
        self.generation = catalog.register(self.view)
        self.decoder = EventDecoder(self.view.source, columns_read(self.view))
        self.reader = Reader(self.store, LANES)
        self.writer = self.open_writer()

    def open_writer(self) -> ViewWriter:
        """A writer as a process has it that starts now."""
        return open_writer(self.store, self.generation, LANES, self.clock)

    def receive(self, first: int, behind: int) -> list[WriteReport]:
        """Records of some offsets, each in a commit of its own."""
        reports = []
        for offset in range(first, behind):
            raw = RawBatch("payments", 0, offset, offset + 1, np.array([offset]), [record_of(RECORDS[offset])])
            decoded = self.decoder.decode(raw, now_ms=self.clock.now_ms())
            assert decoded.dead_letters == ()
            reports.append(self.writer.write([key_events(decoded.events, self.view, LANES)]))
        return reports

    def stored(self, key: str = CARD) -> EntityBytes:
        """What the store holds of an entity."""
        [found] = self.reader.read([EntityRead(self.generation, key.encode())], with_checkpoint=True)
        assert isinstance(found, EntityBytes)
        return found

    def body(self) -> tuple[Tile, ...]:
        """The card's tiles."""
        table = decode_body(self.generation.compiled.layout, self.stored().body or b"")
        count, high, low = table.ints
        spans = zip(table.start_ms, table.end_ms - table.start_ms, strict=True)
        return tuple(
            Tile(datetime.fromtimestamp(start / 1_000, UTC), timedelta(milliseconds=int(width)), int(rows), int(amount))
            for (start, width), rows, amount in zip(spans, count, low + (high << 32), strict=True)
        )

    def head(self) -> list[str]:
        """The payments of the card's head, in its order."""
        rows = head_codec(self.generation.compiled).decode(self.stored().head or b"")
        ids = {(milliseconds(one.paid_at), one.amount): one.payment_id for one in RECORDS}
        amounts = np.asarray(rows.columns["amount"].values).tolist()
        return [ids[pair] for pair in zip(rows.event_time_ms.tolist(), amounts, strict=True)]

    def id_bytes(self) -> int:
        """Size of the event ids of the card's lane."""
        buckets = decode_checkpoint(self.stored().checkpoint).id_buckets
        keys = [self.generation.keys.id_bucket(tiles_pictures.LANE, bucket) for bucket, _ in buckets]
        return sum(len(value or b"") for value in self.store.read_groups([keys]))

    def answer(self, as_of: datetime) -> tuple[int, ...]:
        """Count and sum of the hour, count and sum of the day."""
        [found] = stored_answers(self.reader, self.generation, [CARD.encode()], milliseconds(as_of))
        return tuple(int(str(found[name])) for name in ("count_1h", "amount_sum_1h", "count_1d", "amount_sum_1d"))

    def row(self, as_of: datetime) -> str:
        """A lookup as a row of the page's tables."""
        clock = f"{as_of:%H:%M:%S}.{as_of.microsecond // 1_000:03d}"
        return f"| {clock} | " + " | ".join(map(str, self.answer(as_of))) + " |"


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> ViewSpec:
    """The page's definitions, compiled."""
    repo = tmp_path_factory.mktemp("tiles")
    (repo / "feature_store.yaml").write_text(CONFIG)
    (repo / "definitions.py").write_text(DEFINITIONS)
    [found] = load_repo(repo, "tiles").compile().require_sound().views
    return found


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """An empty Redis."""
    connected = connect(redis_url)
    yield connected
    connected.close()


@pytest.fixture
def stream(store: RedisStore, view: ViewSpec, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """As the page has it: four rows are a long head."""
    monkeypatch.setattr(compaction, "HEAD_ROWS_MAX", HEAD_ROWS_ON_PAGE)
    return Stream(store, view)


def test_the_page_has_the_payments_that_the_pictures_have() -> None:
    """A row each; the repeat is told in words."""
    rows = [f"| {one.payment_id} | {one.paid_at:%a %H:%M:%S} | {one.amount} |" for one in RECORDS]
    first = "\n".join(rows[:PAYMENTS])

    assert first in PAGE
    assert rows[LATE] in PAGE
    assert rows[LAST] in PAGE
    assert RECORDS[REPEATED] == RECORDS[PAYMENTS - 1]
    assert f"with offset {LATE}:" in PAGE
    assert f"with offset {REPEATED}." in PAGE


def test_bodies_and_heads_become_what_pictures_and_page_say(stream: Stream) -> None:
    """Tiles, rows and bytes after each of the three compactions."""
    stream.receive(0, 5)
    sizes = [len(stream.stored().body or b"")]
    assert BODIES[0] == stream.body()
    stream.receive(5, FOLLOWED)
    assert ["p5", "p6", "p7", "p8"] == stream.head()
    stream.receive(FOLLOWED, PAYMENTS)
    sizes.append(len(stream.stored().body or b""))
    assert BODIES[1] == stream.body()
    assert ["p9", "p10"] == stream.head()
    header = version5.read_header(stream.generation.compiled.layout, stream.stored().body or b"")
    assert header.size + CHECKSUM_BYTES == FRAME_BYTES
    stream.receive(PAYMENTS, LAST + 1)
    assert BODIES[1] == stream.body()
    assert ["p9", "p10", "p11", "p12"] == stream.head()
    stream.writer.write([])
    sizes.append(len(stream.stored().body or b""))

    assert BODIES[2] == stream.body()
    assert stream.stored().head is None
    assert list(tiles_pictures.BODY_BYTES) == sizes
    assert f"the body is {len(BODIES[2])} tiles in {sizes[2]} bytes" in PAGE
    assert f"Of the {sizes[1]} bytes of these six tiles, {FRAME_BYTES} are header and checksum" in TEXT


def test_the_record_of_the_page_becomes_the_row_of_the_page(stream: Stream) -> None:
    """JSON in, lane and bytes out."""
    [record] = [text for language, text in BLOCKS if language == "json"]
    assert json.loads(record_of(RECORDS[FOLLOWED])) == json.loads(record)
    assert (tiles_pictures.LANE, LANES) == (lane_of(CARD.encode(), LANES), 16)
    stream.receive(0, FOLLOWED + 1)
    row = stream.stored().head or b""
    printed = "\n".join(text for language, text in BLOCKS if language == "text").splitlines()[:4]

    assert len(row) == tiles_pictures.HEAD_ROW_BYTES
    assert row == bytes.fromhex("".join(line.partition("   ")[0] for line in printed))
    assert printed[1].endswith(f"event time: {milliseconds(RECORDS[FOLLOWED].paid_at)} ms")


def test_one_commit_changes_body_head_ids_and_offset_as_the_page_says(stream: Stream) -> None:
    """The table of the commit of p9."""
    stream.receive(0, FOLLOWED)
    before, ids_before = stream.stored(), stream.id_bytes()
    [report] = stream.receive(FOLLOWED, FOLLOWED + 1)
    after = stream.stored()
    bodies, heads = ([len(data or b"") for data in pair] for pair in zip(before[:2], after[:2], strict=True))
    offsets = [decode_checkpoint(one.checkpoint).positions[0][2] for one in (before, after)]

    assert report.entities_compacted == 1
    assert "| body of `c-17` | {} bytes, 3 tiles | {} bytes, 6 tiles |".format(*bodies) in PAGE
    assert "| head of `c-17` | {} bytes, 4 rows | {} bytes, 1 row |".format(*heads) in PAGE
    assert f"{stream.id_bytes() - ids_before} bytes more: a hash of p9 and its card |" in PAGE
    assert "| next offset, in the checkpoint | {} | {} |".format(*offsets) in PAGE


def test_lookups_say_what_page_and_pictures_print(stream: Stream) -> None:
    """At 12:40:50, and at both edges of both windows."""
    stream.receive(0, PAYMENTS)
    moments = [*EDGES, tuesday("12:44:59.999"), tuesday("12:45:00.000")]

    assert stream.row(READ_AT) in PAGE
    assert "\n".join(stream.row(moment) for moment in moments) in PAGE
    tiles = [(tile.count, tile.amount) for tile in stream.body()[2:]] + [(1, 25), (1, 7)]
    counts, amounts = (" + ".join(map(str, each)) for each in zip(*tiles, strict=True))
    assert f"the counts make {counts} = 7 and the sums {amounts} = 135." in TEXT
    assert EDGES == {moment: stream.answer(moment)[:2] for moment in EDGES}


def test_a_late_payment_counts_as_if_it_had_come_in_time(stream: Stream) -> None:
    """Its tile in the body is left alone, its row counts, and the next compaction puts it where it belongs."""
    stream.receive(0, PAYMENTS)
    as_of = tuesday("12:41:20")
    without, body = stream.answer(as_of), stream.stored().body
    stream.receive(LATE, LATE + 1)

    assert "{} payments for {}, and the day {} for {}".format(*without) in TEXT
    assert stream.stored().body == body
    assert stream.head() == ["p9", "p10", "p11"]
    assert stream.row(as_of) in PAGE


def test_a_payment_that_is_sent_or_read_twice_counts_once(stream: Stream) -> None:
    """A new record of a known id is dropped by its id, a record that was applied is skipped by its offset."""
    stream.receive(0, REPEATED)
    answer = stream.answer(tuesday("12:41:20"))
    [repeated] = stream.receive(REPEATED, REPEATED + 1)
    stream.writer.close()
    stream.writer = stream.open_writer()
    [again] = stream.receive(REPEATED - 1, REPEATED)

    assert (0, 1, 0) == (repeated.events_applied, repeated.duplicates_dropped, repeated.replayed_skipped)
    assert (0, 0, 1) == (again.events_applied, again.duplicates_dropped, again.replayed_skipped)
    assert stream.answer(tuesday("12:41:20")) == answer
    assert "stays {}, {}, {} and {}".format(*answer) in TEXT


def test_lookups_of_the_past_are_answered_as_far_as_the_page_says(stream: Stream) -> None:
    """One lookback before the newest payment, and what lies before it is refused where a tile was in the way."""
    stream.receive(0, LAST + 1)
    assert stream.answer(READ_AT) == (8, 147, 11, 222)  # p11 has come meanwhile
    stream.writer.write([])

    assert stream.row(tuesday("13:05:20")) in PAGE
    assert stream.answer(tuesday("13:04:00")) == (7, 137, 9, 197)
    with pytest.raises(AsOfTooOld):
        stream.answer(READ_AT)


@pytest.mark.parametrize("head_rows", [1, 4, 48])
def test_compaction_decides_about_bytes_and_never_about_answers(
    store: RedisStore, view: ViewSpec, monkeypatch: pytest.MonkeyPatch, head_rows: int
) -> None:
    """After every record, whatever a long head is, the answer is the definition's: a loop over all payments."""
    monkeypatch.setattr(compaction, "HEAD_ROWS_MAX", head_rows)
    stream, seen = Stream(store, view), list[NaiveEvent]()
    for offset, payment in enumerate(RECORDS):
        stream.receive(offset, offset + 1)
        payment_id, at_ms = payment.payment_id.encode(), milliseconds(payment.paid_at)
        seen.append(NaiveEvent(CARD.encode(), at_ms, payment_id, {"amount": payment.amount}))
        as_of = max(one.paid_at for one in RECORDS[: offset + 1]) + timedelta(seconds=1)
        count_1h, count_1d, sum_1h, sum_1d = (naive_value(one, seen, milliseconds(as_of)) for one in view.features)

        assert (count_1h, sum_1h, count_1d, sum_1d) == stream.answer(as_of)


def test_hops_ages_and_limits_are_those_that_the_page_explains(store: RedisStore, view: ViewSpec) -> None:
    """A minute and 15 minutes; 1 minute, 1 h 2 min, 1 day 17 min; 48 rows."""
    minute, newest = 60_000, milliseconds(RECORDS[LAST].paid_at)
    kept_ms = (1_440 + 17) * minute
    roll_up, windows = Stream(store, view).generation.compiled.roll_up, {one.window for one in view.features}
    ages = dict(zip(roll_up.widths_ms, roll_up.ages_ms, strict=True))
    assert {(60 * minute, minute), (1_440 * minute, 15 * minute)} == {(one.length_ms, one.hop_ms) for one in windows}
    assert [1, 1, 62, 62] == [ages[width] // minute for width in (1_000, minute, 5 * minute, 15 * minute)]
    assert ages[60 * minute] > kept_ms  # dropped before it could be one
    assert kept_ms == (view.retention_ms or 0) + view.lookback_ms
    assert roll_up.dropped_before_ms(newest) == (newest - kept_ms) // (15 * minute) * 15 * minute
    assert compaction.HEAD_ROWS_MAX == 48
    assert "the product waits for 48" in PAGE


def test_records_that_the_page_calls_dead_letters_are(stream: Stream) -> None:
    """An amount that is a text, and a payment that comes later than the view retains."""
    kept, newest = timedelta(days=1, minutes=17), RECORDS[LAST]
    in_time, too_late = (
        Payment("p0", newest.paid_at - kept - beyond, 1) for beyond in (timedelta(0), timedelta(milliseconds=1))
    )
    payloads = [record_of(one) for one in (newest, in_time, too_late)]
    payloads.append(record_of(newest).replace(b'"amount": 9', b'"amount": "9"'))
    decoded = stream.decoder.decode(RawBatch("payments", 0, 0, 4, np.arange(4), payloads), now_ms=stream.clock.now_ms())
    watermark_ms = PartitionWatermark().advance(decoded.events.event_time_ms)
    refused = refused_rows(decoded.events, stream.view, watermark_ms)

    assert [(3, DeadLetterReason.UNDECODABLE)] == [(one.offset, one.reason) for one in decoded.dead_letters]
    assert [(2, DeadLetterReason.BEYOND_RETENTION)] == [(one.row, one.reason) for one in refused]


def test_a_busy_terminal_is_as_few_tiles_as_the_page_says(store: RedisStore, view: ViewSpec) -> None:
    """Thirty hours of a payment every five seconds."""
    stream, seconds = Stream(store, view), 5
    count = timedelta(hours=30) // timedelta(seconds=seconds)
    first = milliseconds(READ_AT) - count * seconds * 1_000
    times = range(first, milliseconds(READ_AT), seconds * 1_000)
    events = [NaiveEvent(CARD.encode(), at, b"%d" % n, {"amount": 1 + 31 * n % 97}) for n, at in enumerate(times)]
    for offset in range(0, count, 240):
        stream.writer.write([keyed_batch(view, events[offset : offset + 240], from_offset=offset)])
    stream.writer.write([])
    count_1h, _, count_1d, _ = stream.answer(READ_AT)

    assert stream.stored().head is None
    assert f"counts {count_1d:,} payments in the last day, and {count_1h} in the last hour." in TEXT
    assert f"reads {len(stream.body())} tiles for both, in {len(stream.stored().body or b''):,} bytes" in TEXT
    assert f"{timedelta(days=1) // timedelta(seconds=seconds):,} of them a day" in TEXT


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_the_script_draws(name: str) -> None:
    """Committed and shown on the page, with a white ground and all of its text inside."""
    svg, committed = PICTURES[name]().svg(), DOCS / "images" / f"tiles-{name}.svg"
    root = ElementTree.fromstring(svg)
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    texts = [one for one in root if one.tag.endswith("}text")]

    assert committed.read_text(encoding="utf-8") == svg
    assert f"](images/{committed.name})" in PAGE
    assert width <= 900
    assert next(one for one in root if one.tag.endswith("}rect")).attrib["fill"] == "#ffffff"
    assert len(texts) > 10
    assert all(0 < float(one.attrib["x"]) < width and 0 < float(one.attrib["y"]) < height for one in texts)


@pytest.mark.slow
def test_the_commands_of_the_page_print_what_it_says(tmp_path: Path, port: int) -> None:
    """Typed in from top to bottom in an empty directory; nothing is left running."""
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(DOCS.parent)}
    run = partial(subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    blocks = BLOCKS[next(number for number, (language, _) in enumerate(BLOCKS) if language == "bash") :]
    script = ["trap 'kill $server' EXIT"]
    for language, text in blocks:
        if text.startswith("featurestore serve"):
            script.append(f"{text.strip()} > serve.log & server=$!")
            script.append("until grep -q ^serving serve.log; do kill -0 $server; sleep 0.1; done")
        elif language == "bash":
            script.append(f"{text}echo '{_MARK}'")
    typed = "\n".join(script).replace("6566", str(port))
    try:
        done = run(["bash", "-e", "-c", typed], timeout=COMMAND_TIMEOUT_S)
    finally:
        run(["featurestore", "store", "stop"], check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = iter(done.stdout.split(_MARK))
    for (language, text), (next_language, expected) in itertools.pairwise(blocks):
        if language == "bash" and not text.startswith("featurestore serve"):
            lines = [" ".join(_FRAMES.sub(" ", line).split()) for line in next(printed).splitlines()]
            wanted = expected.splitlines() if next_language == "text" else []

            assert [line for line in wanted if line not in lines] == []
    assert {"bash", "text"} == {language for language, _ in blocks}
