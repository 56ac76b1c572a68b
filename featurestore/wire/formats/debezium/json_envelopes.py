"""Envelopes of JSON, as Kafka Connect's converters write them: bare, beside a schema, or behind the id of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from featurestore.wire.formats.columns import header_mistake, id_bytes
from featurestore.wire.formats.debezium.envelope import Collected, Envelopes

_NULL = msgspec.Raw(b"null")
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Source(msgspec.Struct, frozen=True, gc=False):
    """Where a change stands: POSITION_FIELDS."""

    lsn: int | str | None = None
    file: int | str | None = None
    pos: int | str | None = None
    row: int | str | None = None
    change_lsn: int | str | None = None
    event_serial_no: int | str | None = None
    scn: int | str | None = None
    rs_id: int | str | None = None
    ssn: int | str | None = None


_NOWHERE = _Source()


class _Envelope(msgspec.Struct, gc=False):
    """A change."""

    op: str | None = None
    before: msgspec.Raw = _NULL
    after: msgspec.Raw = _NULL
    source: _Source | None = None


class _Record(_Envelope, gc=False):
    """A change, or one beside its schema."""

    payload: _Envelope | msgspec.UnsetType | None = msgspec.UNSET


class JsonEnvelopes:
    """Reads one envelope a payload; rows are JSON objects.

    Args:
        has_header: the id of a schema comes first, as where JSON is written by a schema of a registry.
    """

    def __init__(self, *, has_header: bool) -> None:
        self._has_header = has_header
        self._decode = msgspec.json.Decoder(_Record).decode

    def read(self, payloads: Sequence[bytes]) -> Envelopes:
        """See EnvelopeReader; a payload without a value is a tombstone, and says nothing."""
        collected = Collected(len(payloads))
        before, after = [b""] * len(payloads), [b""] * len(payloads)
        for number, payload in enumerate(payloads):
            if not payload:
                continue
            if self._has_header:
                if not (size := id_bytes(payload)):
                    collected.refuse(number, header_mistake(payload))
                    continue
                payload = payload[size:]
            try:
                record = self._decode(payload)
            except _UNDECODABLE as error:
                collected.refuse(number, str(error))
                continue
            envelope = record if record.payload is msgspec.UNSET else record.payload
            if envelope is None:
                continue  # a tombstone beside its schema
            before[number], after[number] = bytes(envelope.before), bytes(envelope.after)
            has_before, has_after = envelope.before != _NULL, envelope.after != _NULL
            found = partial(getattr, envelope.source or _NOWHERE)
            collected.take(number, envelope.op, found, has_before=has_before, has_after=has_after)
        return collected.envelopes(before, after)
