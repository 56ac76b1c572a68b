"""Files for TLS, read again when somebody has replaced them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import InvalidRequest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS.

    Attributes:
        certificate, key: PEM files of the server.
        client_authority: PEM file; when given, clients must present a certificate that it signed.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        own = (self.certificate, self.key)
        return own if self.client_authority is None else (*own, self.client_authority)


@dataclass(frozen=True, slots=True)
class TlsBytes:
    """What stands in the files."""

    certificate: bytes
    key: bytes
    client_authority: bytes | None


class TlsFiles:
    """Files that somebody else replaces.

    Args:
        tls: the files.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamp: object = None

    def read(self) -> TlsBytes:
        """All files.

        Raises:
            InvalidRequest: one cannot be read.
        """
        tls = self._tls
        try:
            # First, so that what is replaced while it is read is read again.
            stamp = self._stamp_now()
            authority = None if tls.client_authority is None else tls.client_authority.read_bytes()
            found = TlsBytes(tls.certificate.read_bytes(), tls.key.read_bytes(), authority)
        except OSError as error:
            raise InvalidRequest("a TLS file cannot be read", detail=str(error)) from error
        # Not before: a file that may not be read yet looks the same once it may.
        self._stamp = stamp
        return found

    def read_if_changed(self) -> TlsBytes | None:
        """All files if one was replaced; None for what is in use, also where they cannot be read now."""
        try:
            if self._stamp_now() == self._stamp:
                return None
            found = self.read()
        except (OSError, InvalidRequest) as error:
            _log.error("TLS files cannot be read, those in use stay so: %s", error)
            return None
        _log.info("TLS files have changed and were read again")
        return found

    def _stamp_now(self) -> object:
        """Changes when a file does."""
        return [(each.st_mtime_ns, each.st_size, each.st_ino) for each in map(Path.stat, self._tls.paths)]
