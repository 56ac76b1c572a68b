"""Check files for TLS before they are used: gRPC says of a wrong one only that some handshake failed."""

from __future__ import annotations

import ssl
from pathlib import Path

from featurestore.errors import InvalidRequest


def check_tls_files(*, authority: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Refuse files that cannot work, by their names.

    Args:
        authority: PEM certificates of those who sign the other side's.
        certificate: PEM of this side; only with the key.
        key: PEM of the certificate's private key.

    Raises:
        InvalidRequest: a file is not what it should be, or one of two is missing.
    """
    if authority is not None:
        _check_certificates(authority)
    if certificate is None or key is None:
        if certificate is not key:
            given, missing = ("certificate", "key") if key is None else ("key", "certificate")
            raise InvalidRequest(f"a TLS {given} without its {missing}", hint="give both, or neither")
        return
    _check_certificates(certificate)
    try:
        # An encrypted key would be asked about on the terminal, and gRPC could not read it.
        _context().load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fact, hint = (
                f'"{key}" is not the key of the certificate in "{certificate}"',
                "give the two that belong together",
            )
        else:
            fact, hint = f'"{key}" holds no key that can be read', "give a PEM file with a key that is not encrypted"
        raise InvalidRequest(fact, detail=str(error), hint=hint) from error
    except OSError as error:
        raise InvalidRequest(f'"{key}" cannot be read', detail=str(error)) from error


def _check_certificates(path: Path) -> None:
    try:
        _context().load_verify_locations(path)
    except ssl.SSLError as error:
        hint = "give a PEM file, which begins with -----BEGIN CERTIFICATE-----"
        raise InvalidRequest(f'"{path}" holds no certificate', detail=str(error), hint=hint) from error
    except OSError as error:
        raise InvalidRequest(f'"{path}" cannot be read', detail=str(error)) from error


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
