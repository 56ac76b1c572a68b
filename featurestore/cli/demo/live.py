"""The live minute: payments happen, the risk model asks for features, and somebody watches how fresh they are.

    event time   a shop asks: lookup with the payment in flight, score               (thread "payments")
    arrival      the record reaches the log, some 150 ms later; now and then late    (thread "payments")
    visible      the card's features show the payment: looked up until they do       (thread "freshness")

Both threads only ever append to `LiveFigures`; the screen reads it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from featurestore.cli.demo.payments import TOPIC, DemoPayments, Payment, asks_the_model
from featurestore.cli.demo.score import COMPARED, IN_FLIGHT, STORED, Assessment, Features, assess
from featurestore.clock import Clock
from featurestore.errors import FeatureStoreError
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.messages import EntityValues
from featurestore.testing.simulator.rows import FraudPattern, Rows

DECISION_SERVICE = "payment_decision"
STORED_SERVICE = "fraud_detection"
"""The same features without the payment, to show what it adds."""

SPENDING_SERVICE = "spending_limits"
"""What cards spend in euros, by rates that are looked up as of each payment."""

PROBED_SERVICE = "merchant_recommendations"
"""A small one with a card in it."""

PROBED_VIEW = "card_activity"

LOOKUP_TIMEOUT_S = 5.0
PROBE_TIMEOUT_MS = 20_000
"""A payment that is not visible by then counts as lost."""

QUESTION_LATE_MS_MAX = 1_000
"""A shop does not wait longer: on a machine that is too slow for the rate, later questions are left out."""

PROBE_DELAY_MS_MAX = 2_000
"""Only records that arrive promptly are probed, so that the card's newest event is the payment itself."""

RECENT_SHOWN = 64

COMPARED_TOGETHER = 20
"""Payments that are asked about once more, without themselves, in one lookup: the live ones must not wait for it."""

_STEP_S = 0.001
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class ScoredPayment:
    """A payment, and what the risk model got and said.

    Attributes:
        payment: as the shop asks.
        features: of DECISION_SERVICE, asked with the payment.
        assessment: by IN_FLIGHT, which decides.
    """

    payment: Payment
    features: Features
    assessment: Assessment


@dataclass
class Catch:
    """What a set of rules has flagged.

    Attributes:
        flagged: payments.
        frauds: those of them that are.
    """

    flagged: int = 0
    frauds: int = 0

    def count(self, assessment: Assessment, pattern: FraudPattern) -> None:
        """Add a payment, if it is suspicious."""
        self.flagged += assessment.is_suspicious
        self.frauds += assessment.is_suspicious and pattern is not FraudPattern.NONE


@dataclass
class LiveFigures:
    """What has happened so far.

    Attributes:
        answers: the latest payments that were asked about.
        suspicious: the latest suspicious ones.
        lookup_ms: latency of every lookup with the payment in flight.
        freshness_ms: of every probe: from the record in the log to the features that show it.
        unseen: probes that gave up.
        skipped: questions that this machine was too slow for.
        asked: questions by truth.
        decided: by the rules that decide, IN_FLIGHT.
        stored: by STORED, which see less.
        compared: by COMPARED.
        error: why a thread ended early.
    """

    answers: deque[ScoredPayment] = field(default_factory=lambda: deque(maxlen=RECENT_SHOWN))
    suspicious: deque[ScoredPayment] = field(default_factory=lambda: deque(maxlen=RECENT_SHOWN))
    lookup_ms: list[float] = field(default_factory=list)
    freshness_ms: list[float] = field(default_factory=list)
    unseen: int = 0
    skipped: int = 0
    asked: Counter[FraudPattern] = field(default_factory=Counter)
    decided: Catch = field(default_factory=Catch)
    stored: Catch = field(default_factory=Catch)
    compared: Catch = field(default_factory=Catch)
    error: FeatureStoreError | None = None

    @property
    def frauds_asked(self) -> int:
        """Questions about frauds."""
        return self.asked.total() - self.asked[FraudPattern.NONE]

    def record(self, answer: ScoredPayment, latency_ms: float) -> None:
        """Count one answered question."""
        self.lookup_ms.append(latency_ms)
        self.asked[answer.payment.pattern] += 1
        self.answers.append(answer)
        self.decided.count(answer.assessment, answer.payment.pattern)
        if answer.assessment.is_suspicious:
            self.suspicious.append(answer)

    def record_without(self, payment: Payment, features: Features) -> None:
        """Count the same question, asked without the payment in flight."""
        self.stored.count(assess(STORED, features, payment.amount), payment.pattern)
        self.compared.count(assess(COMPARED, features, payment.amount), payment.pattern)


class LivePayments:
    """Sends records when they arrive and asks the risk model when they happen.

    Args:
        payments: the world.
        rows: records to send, by arrival.
        start_ms: questions are asked from here on.
        address: of the gRPC server.
        clock: processing time.
    """

    def __init__(self, payments: DemoPayments, rows: Rows, *, start_ms: int, address: str, clock: Clock) -> None:
        self.figures = LiveFigures()
        self._payments = payments
        self._rows = rows
        questions = rows[asks_the_model(rows, since_ms=start_ms)]
        self._questions = questions[np.argsort(questions["event_time_ms"], kind="stable")]
        self._clock = clock
        self._client = LookupClient(address, timeout_s=LOOKUP_TIMEOUT_S)
        self._probe_client = LookupClient(address, timeout_s=LOOKUP_TIMEOUT_S)
        self._decided: list[Payment] = []
        self._stopping = threading.Event()
        self._probed: deque[tuple[Payment, int]] = deque(maxlen=1)

    @contextmanager
    def running(self) -> Iterator[list[threading.Thread]]:
        """The two threads; they end with the records, or with the block."""
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("payments", self._send_and_ask), ("freshness", self._probe_freshness))
        ]
        for thread in threads:
            thread.start()
        try:
            yield threads[:1]
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()
            self._client.close()
            self._probe_client.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Keep the error that ends a thread."""
        try:
            work()
        except FeatureStoreError as error:
            self.figures.error = error

    def _send_and_ask(self) -> None:
        sent, asked = 0, 0
        arrival_ms, question_ms = self._rows["arrival_ms"], self._questions["event_time_ms"]
        broken_at = len(self._rows) // 2
        while (sent < len(self._rows) or asked < len(self._questions)) and not self._stopping.is_set():
            now_ms = self._clock.now_ms()
            due = int(np.searchsorted(arrival_ms, now_ms, side="right"))
            if due > sent:
                self._send(self._rows[sent:due], now_ms)
                if sent <= broken_at < due:
                    self._payments.send_broken()
                sent = due
            elif asked < len(self._questions) and question_ms[asked] <= now_ms:
                if now_ms - question_ms[asked] <= QUESTION_LATE_MS_MAX:
                    self._ask(self._payments.payment(self._questions[asked]))
                else:
                    self.figures.skipped += 1
                asked += 1
            else:
                self._clock.sleep(_STEP_S)
        self._ask_without()

    def _send(self, rows: Rows, now_ms: int) -> None:
        """Append records to the log, and offer the last prompt one to the probe."""
        self._payments.send(rows)
        sent_ns = self._clock.monotonic_ns()
        prompt = rows[now_ms - rows["event_time_ms"] < PROBE_DELAY_MS_MAX]
        if len(prompt):
            self._probed.append((self._payments.payment(prompt[-1]), sent_ns))

    def _ask(self, payment: Payment) -> None:
        """What the risk model does while the payment waits."""
        begun_ns = self._clock.monotonic_ns()
        result = self._client.lookup(
            DECISION_SERVICE, payment.entities, request={"amount": payment.amount}, events={TOPIC: payment.event}
        )
        latency_ms = (self._clock.monotonic_ns() - begun_ns) / _NS_PER_MS
        [features] = result.rows()
        self.figures.record(ScoredPayment(payment, features, assess(IN_FLIGHT, features, payment.amount)), latency_ms)
        self._decided.append(payment)
        if len(self._decided) == COMPARED_TOGETHER:
            self._ask_without()

    def _ask_without(self) -> None:
        """What the risk model would have known of the payments just decided, had they not come along."""
        decided, self._decided = self._decided, []
        if not decided:
            return
        entities: dict[str, EntityValues] = {
            "card_id": [payment.card_id for payment in decided],
            "merchant_id": [payment.merchant_id for payment in decided],
            "terminal_id": [payment.terminal_id for payment in decided],
        }
        moments = [payment.event_time_ms for payment in decided]
        rows = self._client.lookup(STORED_SERVICE, entities, as_of_ms=moments).rows()
        for payment, features in zip(decided, rows, strict=True):
            self.figures.record_without(payment, features)

    def _probe_freshness(self) -> None:
        while not self._stopping.is_set():
            if not self._probed:
                self._clock.sleep(_STEP_S)
                continue
            payment, sent_ns = self._probed.pop()
            while not self._stopping.is_set():
                is_visible = self._newest_event_ms(payment) >= payment.event_time_ms
                waited_ms = (self._clock.monotonic_ns() - sent_ns) / _NS_PER_MS
                if is_visible:
                    self.figures.freshness_ms.append(waited_ms)
                    self._probed.clear()  # what was sent while we looked would count our own work as delay
                    break
                if waited_ms > PROBE_TIMEOUT_MS:
                    self.figures.unseen += 1
                    break
                self._clock.sleep(_STEP_S)

    def _newest_event_ms(self, payment: Payment) -> int:
        """Newest event of a card that its features show."""
        entities: dict[str, EntityValues] = {"card_id": payment.card_id, "merchant_id": payment.merchant_id}
        result = self._probe_client.lookup(PROBED_SERVICE, entities, with_metadata=True)
        return next(int(view.event_time_ms[0]) for view in result.views if view.view == PROBED_VIEW)
