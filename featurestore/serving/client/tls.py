"""How a client connects by TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from featurestore.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files for TLS.

    Attributes:
        authority: PEM file of the authority that signed the server's certificate; None takes gRPC's own list.
        certificate, key: PEM files that the client presents, where the server asks for them.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The files' contents as gRPC wants them.

        Raises:
            InvalidRequest: a file cannot be read.
        """
        try:
            authority, key, certificate = (
                None if path is None else path.read_bytes() for path in (self.authority, self.key, self.certificate)
            )
        except OSError as error:
            raise InvalidRequest("a TLS file cannot be read", detail=str(error)) from error
        return grpc.ssl_channel_credentials(authority, key, certificate)
