"""TLS for an event loop, of files that may be renewed without a restart."""

from __future__ import annotations

import logging
import ssl

from featurestore.errors import InvalidRequest
from featurestore.serving.request.tls import Tls, TlsFiles

_log = logging.getLogger(__name__)


class RenewedContext:
    """The context of each handshake: that of the files as they are then.

    Args:
        tls: the files.

    Attributes:
        first: what to listen with.

    Raises:
        InvalidRequest: a file cannot be read, or is not what it should be.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._files = TlsFiles(tls)
        self._files.read()
        try:
            self.first = self._newest = _context(tls)
        except (ssl.SSLError, OSError) as error:
            raise InvalidRequest("the TLS files cannot be used", detail=str(error)) from error
        # Called at the first message of every handshake, whether it names a server or not.
        self.first.sni_callback = self._renew

    def _renew(self, connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        if self._files.read_if_changed() is not None:
            try:
                self._newest = _context(self._tls)
            except (ssl.SSLError, OSError) as error:
                _log.error("TLS files cannot be used, those in use stay so: %s", error)
        connection.context = self._newest


def _context(tls: Tls) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_authority is not None:
        context.load_verify_locations(tls.client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
