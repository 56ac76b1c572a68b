"""Public keys of whoever issues tokens, read again now and then, because issuers change them.

    file ───────────────────────────────────────────────┐
    URL ────────────────────────────────────────────────┼──> KeySet
    issuer ── /.well-known/openid-configuration ── URL ─┘

Source: RFC 7517 (JWKS), OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from featurestore.definitions.governance.access.auth_section import DISCOVERY_PATH
from featurestore.errors import InvalidRequest, SourceUnavailable, Unauthenticated, Unavailable

REFRESH_SECONDS = 300.0
"""Issuers announce a key that they will sign with for longer than that."""

RETRY_SECONDS = 10.0
"""After a failure, and at the earliest after a token whose key is not known."""

TIMEOUT_SECONDS = 5.0

BYTES_MAX = 1 << 20

_log = logging.getLogger(__name__)


class KeySet:
    """Keys by their ids; a thread keeps them up to date.

    Args:
        issuer: of the tokens.
        place: path or URL of the keys (JWKS); "" asks the issuer where they are.
        discovery: URL at which it is asked; "" for the usual one.
        is_brief: for a process that asks once: the keys are read now, and no thread reads them again.

    Raises:
        InvalidRequest: a file cannot be read, or is no JWKS. An issuer that does not answer is asked again.
        SourceUnavailable: it does not answer one that is brief.
    """

    def __init__(self, issuer: str, place: str = "", discovery: str = "", *, is_brief: bool = False) -> None:
        self._issuer, self._place = issuer, place
        self._discovery = discovery or issuer.rstrip("/") + DISCOVERY_PATH
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._trouble = "they have not been read yet"
        self._wanted, self._stopping = threading.Event(), threading.Event()
        if self._is_file:
            self._keys = self._read()
        self._thread = threading.Thread(target=self._run, name="token-keys", daemon=True)
        if is_brief:
            self._read_once()
        else:
            self._thread.start()

    def find(self, key_id: str | None) -> jwt.PyJWK:
        """The key of that id; of a token without one, the only key.

        Raises:
            Unauthenticated: there is none; the keys are read again soon.
            Unavailable: the keys have never been read.
        """
        keys = self._keys
        found = keys.get(key_id)
        if found is None and key_id is None and len(keys) == 1:
            found = next(iter(keys.values()))
        if found is not None:
            return found
        self._wanted.set()
        if not keys:
            raise Unavailable(f'the keys of "{self._issuer}" are not known', detail=self._trouble)
        raise Unauthenticated(
            "the token is signed with a key that is not known",
            hint=f'send a token of "{self._issuer}"; one that is signed with a new key is known in some seconds',
        )

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wanted.set()
        with contextlib.suppress(RuntimeError):  # a brief one has not been started
            self._thread.join()

    @property
    def _is_file(self) -> bool:
        return bool(self._place) and urlsplit(self._place).scheme not in ("http", "https")

    def _run(self) -> None:
        """The thread."""
        while not self._stopping.is_set():
            try:
                self._keys = self._read()
                pause_s = REFRESH_SECONDS
            except Exception as error:  # noqa: BLE001  # a thread that ended would keep the keys of today for ever
                self._trouble, pause_s = str(error), 0.0
                _log.error('the keys of "%s" cannot be read, those in use stay so: %s', self._issuer, error)
            # Tokens of unknown keys can be sent as often as anybody likes, so their wish is heard after that.
            if not self._stopping.wait(RETRY_SECONDS):
                self._wanted.wait(pause_s)
                self._wanted.clear()

    def _read_once(self) -> None:
        """Before anybody asks."""
        try:
            self._keys = self._read()
        except (OSError, ValueError, HTTPException) as error:
            raise SourceUnavailable(f'the keys of "{self._issuer}" cannot be read', detail=str(error)) from error

    def _read(self) -> Mapping[str | None, jwt.PyJWK]:
        """All keys for signatures.

        Raises:
            InvalidRequest: they are no keys.
            OSError, ValueError, HTTPException: they cannot be read.
        """
        place = self._place
        if not self._is_file:
            place = place or str(_fetched(self._discovery).get("jwks_uri"))
            return _keys_of(_fetched(place), place)
        try:
            return _keys_of(_object(Path(place).read_bytes(), place), place)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f'the keys in "{place}" cannot be read', detail=str(error)) from error


def _keys_of(document: dict[str, Any], place: str) -> Mapping[str | None, jwt.PyJWK]:
    """Those of a JWKS document that sign.

    Raises:
        InvalidRequest: it has none that can be used.
    """
    try:
        keys = jwt.PyJWKSet.from_dict(document).keys
    except (jwt.PyJWTError, AttributeError, TypeError) as error:
        raise InvalidRequest(
            f'"{place}" holds no keys', detail=str(error), hint="give a JWKS document, as issuers publish it"
        ) from error
    return {key.key_id: key for key in keys if key.public_key_use in (None, "sig")}


def _fetched(url: str) -> dict[str, Any]:
    """A JSON object of the web.

    Raises:
        OSError, ValueError, HTTPException: there is none.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f'"{url}" is no URL of the web')
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        return _object(response.read(BYTES_MAX), url)


def _object(content: bytes, place: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f'"{place}" is no JSON object')
    return found
