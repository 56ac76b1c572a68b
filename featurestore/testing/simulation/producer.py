"""A producer with bad habits.

Events come late, ahead of time, at the same millisecond, without an amount or a market; some records nobody can use. A
retry is the same event again: in its own partition or another one, soon or long after the horizon.
"""

from __future__ import annotations

import json
import random
from collections import Counter

from featurestore.testing.oracle.events import NaiveEvent
from featurestore.testing.simulation.definitions import KEYS
from featurestore.testing.simulation.stand_ins.log import SimulatedLog

RETRY_RECORDS = 30
"""How far back, in records of a partition, a retry may reach."""


class Producer:
    """Appends records to a log.

    Args:
        log: where to.
        counts: told what it did.
    """

    def __init__(self, log: SimulatedLog, counts: Counter[str]) -> None:
        self._log = log
        self._counts = counts
        self._sent = 0

    def send(self, draw: random.Random, now_ms: int, records: int) -> None:
        """Some records, to any partitions."""
        for _ in range(records):
            number = draw.randrange(self._log.count)
            habit = draw.random()
            if habit < 0.15 and self._retry(draw, number):
                continue
            if habit < 0.20:
                self._log.abort(number, draw.randint(1, 3))
                self._counts["offset gap"] += 1
            elif habit < 0.25:
                self._send_unusable(draw, number, now_ms)
            else:
                self._send_event(draw, number, now_ms)

    def send_again(self) -> None:
        """A producer that was restarted repeats what it had sent last."""
        for number in range(self._log.count):
            events = [record.event for record in self._log.at(number).records if record.event is not None]
            last = {event.event_id: event for event in events[-RETRY_RECORDS:]}
            for event in last.values():
                self._log.append(number, payload_of(event), event)
                self._counts["retry"] += 1

    def _send_event(self, draw: random.Random, number: int, now_ms: int) -> None:
        """A new event."""
        self._sent += 1
        event = NaiveEvent(
            key=draw.choice(KEYS + KEYS[:1] * 4).encode(),
            event_time_ms=now_ms + self._delay_ms(draw),
            event_id=b"id-%d" % self._sent,
            columns={
                "amount": None if draw.random() < 0.1 else draw.randint(-5, 100),
                "market": None if draw.random() < 0.1 else draw.choice(("DE", "SE", "日本")),
            },
        )
        self._log.append(number, payload_of(event), event)

    def _delay_ms(self, draw: random.Random) -> int:
        """Mostly none to speak of; late or ahead of time else."""
        habit = draw.random()
        if habit < 0.6:
            return -draw.choice((0, 0, 1, 7, 900, 2_000))
        if habit < 0.75:
            self._counts["late event"] += 1
            return -draw.choice((15_000, 61_000, 130_000, 299_000))
        if habit < 0.82:
            self._counts["very late event"] += 1
            return -draw.choice((400_000, 590_000, 700_000))
        if habit < 0.90:
            self._counts["event ahead of time"] += 1
            return draw.choice((1, 1_000, 20_000, 55_000))
        return -draw.randint(0, 10_000)

    def _retry(self, draw: random.Random, number: int) -> bool:
        """An event again; False where there is none yet."""
        origin = number if draw.random() < 0.6 else draw.randrange(self._log.count)
        events = [record.event for record in self._log.at(origin).records if record.event is not None]
        if not events:
            return False
        event = draw.choice(events[-RETRY_RECORDS:])
        self._log.append(number, payload_of(event), event)
        self._counts["retry" if origin == number else "retry elsewhere"] += 1
        return True

    def _send_unusable(self, draw: random.Random, number: int, now_ms: int) -> None:
        """A record for the dead letters; each has bytes of its own."""
        self._sent += 1
        self._counts["unusable record"] += 1
        unusable = (
            b'{"card_id": "a", #%d' % self._sent,
            json.dumps({"card_id": None, "event_time": now_ms, "event_id": f"id-{self._sent}"}).encode(),
            json.dumps({"card_id": "a", "event_id": f"id-{self._sent}"}).encode(),
            json.dumps({"card_id": "a", "event_time": now_ms, "amount": self._sent}).encode(),
        )
        self._log.append(number, draw.choice(unusable), None)


def payload_of(event: NaiveEvent) -> bytes:
    """The record of an event."""
    fields = {"event_id": (event.event_id or b"").decode(), "event_time": event.event_time_ms}
    return json.dumps({**fields, "card_id": event.key.decode(), **event.columns}).encode()
