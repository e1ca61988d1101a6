"""TLS: contexts made anew at each connect, handshakes, and what their failures mean.

A failure is told as `SecureConnFailedError` that names the server and the reason, in the words of whoever found it: we, of
the server's certificate; the server, of ours. With TLS 1.3 the server complains only after the handshake, so the first read
may bring it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._connection.callbacks import ask, raised
from trionats._protocol.addresses import certified
from trionats._protocol.showing import shown_path

if TYPE_CHECKING:
    from trionats._connection.options import Options
    from trionats._protocol.addresses import Server


@final
@dataclass(frozen=True, slots=True)
class TLSState:
    """What secures a connection.

    Attributes:
        version: The protocol, such as "TLSv1.3".
        cipher: The cipher suite.
        peer_certificate: The server's certificate (DER).
    """

    version: str
    cipher: str
    peer_certificate: bytes


async def secure(stream: trio.abc.Stream, options: Options, server: Server) -> trio.SSLStream[trio.abc.Stream]:
    """Do the TLS handshake on a stream.

    Args:
        stream: What to secure. It is not closed if that fails.
        options: `tls` and `tls_hostname`.
        server: Who is at the other end, for the name and for complaints.

    Returns:
        The secured stream.

    Raises:
        nats.errors.SecureConnFailedError: No context could be made, or the handshake failed; the text says why.
    """
    context = await _context(options, server)
    name = server.verified_name if options.tls_hostname is None else certified(options.tls_hostname)
    try:
        secured = trio.SSLStream(stream, context, server_hostname=name)
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        raise failure(error, server, "the TLS handshake failed") from None
    except (ssl.SSLError, ValueError, TypeError) as error:
        # The last two: a name that cannot stand in a certificate.
        raise errors.explained(errors.SecureConnFailedError, f"{server}: the TLS handshake failed: {error}") from None
    return secured


def state(stream: trio.SSLStream[trio.abc.Stream]) -> TLSState:
    """Say what secures a connection."""
    cipher = stream.cipher()
    return TLSState(
        version=stream.version() or "",
        cipher=cipher[0] if cipher else "",
        peer_certificate=stream.getpeercert(binary_form=True) or b"",
    )


def failure(error: BaseException, server: Server, what: str) -> errors.SecureConnFailedError:
    """Say why TLS broke.

    Args:
        error: What the stream raised.
        server: The other end.
        what: What failed, for reasons that do not say it themselves.

    Returns:
        The exception to raise.
    """
    return errors.explained(errors.SecureConnFailedError, f"{server}: {_reason(error, what)}")


def has_tls_cause(error: BaseException) -> bool:
    """Say whether it is TLS that broke a stream, and not the network below it."""
    return isinstance(error.__cause__, ssl.SSLError)


async def _context(options: Options, server: Server) -> ssl.SSLContext:
    wanted = options.tls
    if wanted is None or isinstance(wanted, bool):
        # Reading the system's certificates takes 20 ms and more.
        return await trio.to_thread.run_sync(ssl.create_default_context)
    context = await ask("tls", wanted, told=partial(_told, server))
    if not isinstance(context, ssl.SSLContext):
        text = f"{server}: no TLS context: the callback of tls= returned {type(context).__name__}"
        raise errors.explained(errors.SecureConnFailedError, text)
    return context


def _told(server: Server, error: Exception) -> errors.Error:
    why = f"the callback failed ({raised(error)})"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        why = error.strerror or type(error).__name__
        if error.filename:
            why += f": {shown_path(error.filename)}"
    return errors.explained(errors.SecureConnFailedError, f"{server}: no TLS context: {why}")


# By what OpenSSL calls the alert of the server.
_ALERTS = (
    ("CERTIFICATE_REQUIRED", "the server wants a client certificate"),
    ("BAD_CERTIFICATE", "the server does not accept our client certificate, or wants one"),
    ("UNKNOWN_CA", "the server does not know who issued our client certificate"),
    ("CERTIFICATE_EXPIRED", "our client certificate has expired"),
    ("CERTIFICATE_REVOKED", "our client certificate is revoked"),
    ("CERTIFICATE_UNKNOWN", "the server does not accept our client certificate"),
    ("HANDSHAKE_FAILURE", "the server and we have no way of TLS in common, or it wants a client certificate"),
    ("WRONG_VERSION_NUMBER", "what the server sends is not TLS; perhaps it does the handshake after its INFO"),
    ("RECORD_LAYER_FAILURE", "what the server sends is not TLS; perhaps it does the handshake after its INFO"),
)


def _reason(error: BaseException, what: str) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message.rstrip('.')}"
    if isinstance(cause, ssl.SSLError):
        code = cause.reason or ""
        for name, meaning in _ALERTS:
            if name in code.upper().replace(" ", "_"):
                return f"{meaning} (TLS: {code})"
        return f"{what}: {code or cause}"
    if cause is not None and str(cause):
        return f"{what}: {cause}"
    return f"{what}: the server closed the connection"
