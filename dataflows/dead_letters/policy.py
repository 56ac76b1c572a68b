"""What is kept of the payloads of dead letters: the bytes, nothing, or what only a key opens.

    keep      the original bytes
    drop      nothing but their number; such a letter cannot be replayed
    encrypt   Fernet (AES-128-CBC and HMAC-SHA256, https://github.com/fernet/spec), with the newest of some keys

A key that encrypts no more stays in the file below the newer ones for as long as its letters are to be read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from featurestore.errors import InvalidRequest

_HINT = "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())' makes one"


class Payloads(enum.StrEnum):
    """What becomes of payloads."""

    KEEP = "keep"
    DROP = "drop"
    ENCRYPT = "encrypt"


@dataclass(frozen=True)
class PayloadPolicy:
    """What is kept of payloads, and how it is read again.

    Attributes:
        payloads: what becomes of those that are written.
        keys: Fernet keys, the newest first; all of them open what was encrypted.
    """

    payloads: Payloads = Payloads.KEEP
    keys: tuple[str, ...] = ()

    def stored(self, payload: bytes) -> bytes:
        """What is written for a payload."""
        if self.payloads is Payloads.DROP:
            return b""
        return payload if self._cipher is None or self.payloads is Payloads.KEEP else self._cipher.encrypt(payload)

    def opened(self, stored: bytes, how: Payloads) -> bytes | None:
        """The payload of a letter that was written so; None where no key opens it, or nothing was kept.

        Args:
            stored: what was written.
            how: the policy then.
        """
        if how is not Payloads.ENCRYPT:
            return stored if how is Payloads.KEEP else None
        try:
            return None if self._cipher is None else self._cipher.decrypt(stored)
        except InvalidToken:
            return None

    @cached_property
    def _cipher(self) -> MultiFernet | None:
        return MultiFernet([Fernet(key) for key in self.keys]) if self.keys else None


def payload_policy(payloads: str, key_file: Path | None) -> PayloadPolicy:
    """The policy of some settings.

    Args:
        payloads: "keep", "drop" or "encrypt"; "" keeps.
        key_file: Fernet keys, one a line, the newest first; None for none.

    Raises:
        InvalidRequest: there is no such policy, or no usable key where one is needed.
    """
    try:
        chosen = Payloads(payloads or Payloads.KEEP)
    except ValueError:
        hint = f"write {', '.join(Payloads)}"
        raise InvalidRequest(f'dead letter payloads "{payloads}" is no policy', hint=hint) from None
    keys = () if key_file is None else _keys_of(key_file)
    if chosen is Payloads.ENCRYPT and not keys:
        raise InvalidRequest("payloads of dead letters are to be encrypted, and there is no key", hint=_HINT)
    return PayloadPolicy(chosen, keys)


def _keys_of(path: Path) -> tuple[str, ...]:
    """The keys of a file."""
    try:
        keys = tuple(line.strip() for line in path.read_text(encoding="ascii").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f'key file "{path}" of dead letters cannot be read', detail=str(error)) from None
    for number, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            # Not the key: it would be in a log.
            raise InvalidRequest(f'line {number} of key file "{path}" is no Fernet key', hint=_HINT) from None
    return keys
