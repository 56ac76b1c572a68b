"""What is kept of the payloads of dead letters: bytes, nothing, or what only a key opens."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from dataflows.dead_letters.book import FileBook
from dataflows.dead_letters.policy import PayloadPolicy, Payloads, payload_policy
from dataflows.dead_letters.writer import TOPIC_SUFFIX, FileDeadLetters
from featurestore.errors import InvalidRequest
from featurestore.testing.clock import ManualClock
from featurestore.wire.payloads import DeadLetter, DeadLetterReason

SECRET = b'{"card_id": "4711"'


@given(payload=st.binary(max_size=200))
def test_an_encrypted_payload_is_opened_by_each_key_that_is_still_there_and_by_no_other(payload: bytes) -> None:
    """Keys are rotated by putting a newer one above the old ones."""
    old, new, strange = (Fernet.generate_key().decode() for _ in range(3))
    before = PayloadPolicy(Payloads.ENCRYPT, (old,))
    rotated = PayloadPolicy(Payloads.ENCRYPT, (new, old))

    for stored in (before.stored(payload), rotated.stored(payload)):
        assert payload == rotated.opened(stored, Payloads.ENCRYPT)
        assert PayloadPolicy(keys=(strange,)).opened(stored, Payloads.ENCRYPT) is None
        assert PayloadPolicy().opened(stored, Payloads.ENCRYPT) is None
    assert PayloadPolicy(keys=(old,)).opened(rotated.stored(payload), Payloads.ENCRYPT) is None


@pytest.mark.parametrize("payloads", list(Payloads))
def test_a_letter_file_has_what_the_policy_keeps(payloads: Payloads, tmp_path: Path) -> None:
    """Reason, place, time and number of bytes always; the payload in the clear only where it is kept so."""
    policy = PayloadPolicy(payloads, (Fernet.generate_key().decode(),))
    letter = DeadLetter(DeadLetterReason.UNDECODABLE, "no JSON", "payments", 3, 17, SECRET)
    FileDeadLetters(tmp_path, policy, ManualClock(now_ms=1_000)).write([letter])
    content = (tmp_path / f"payments{TOPIC_SUFFIX}" / "3.jsonl").read_bytes()

    [kept] = FileBook(tmp_path, None, policy).find(["payments"], lambda _: True)

    assert (kept.reason, kept.partition, kept.offset, kept.written_ms) == ("undecodable", 3, 17, 1_000)
    assert len(SECRET) == kept.payload_bytes
    assert (None if payloads is Payloads.DROP else SECRET) == kept.payload
    assert (payloads is not Payloads.DROP) == kept.is_whole
    assert b"4711" not in content
    is_clear = base64.b64decode(json.loads(content)["payload"]) == SECRET
    assert is_clear == (payloads is Payloads.KEEP)


@pytest.mark.parametrize(
    ("payloads", "keys", "fact"),
    [
        ("burn", None, 'dead letter payloads "burn" is no policy'),
        ("encrypt", None, "payloads of dead letters are to be encrypted, and there is no key"),
        ("encrypt", "", "payloads of dead letters are to be encrypted, and there is no key"),
        ("keep", "geheim\n", "line 1 of key file"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused_before_anything_is_read(
    payloads: str, keys: str | None, fact: str, tmp_path: Path
) -> None:
    """No letter is written in the clear because a key was missing; and no key is in an error."""
    path = tmp_path / "keys"
    if keys is not None:
        path.write_text(keys)
    with pytest.raises(InvalidRequest, match=fact) as raised:
        payload_policy(payloads, None if keys is None else path)

    assert "geheim" not in str(raised.value)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        payload_policy("encrypt", tmp_path / "nowhere")
