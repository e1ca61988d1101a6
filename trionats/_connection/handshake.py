"""One attempt to get in: dial, INFO, TLS where it is due, CONNECT, and the PONG that lets us in.

What the server says before TLS may be anybody's: it is read up to the end of INFO and not a byte further, and of INFO only
what the login needs outlives the TLS handshake (design 25). CONNECT is sent when everything that was demanded of the connection holds.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trionats import errors
from trionats._connection.dial import DialError, dialled, open_wire, upgrade
from trionats._connection.identity import login, login_terms, seconds_since_epoch
from trionats._connection.wire import broken, told_goodbye
from trionats._discretion import bare
from trionats._protocol.auth.login import connect_options, must_use_tls, why_refused
from trionats._protocol.engine import Phase
from trionats._protocol.happenings import Garbage, Refused
from trionats._protocol.server_errors import server_error
from trionats._protocol.showing import hidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trionats._connection.options import Options
    from trionats._connection.wire import Wire
    from trionats._protocol.addresses import Server
    from trionats._protocol.auth.login import LoginOptions
    from trionats._protocol.engine import Engine

#: How much is read at once, unless a large payload is under way. It is also how far the reader can get ahead of a
#: consumer that keeps up: 100 messages of 128 bytes, 1,260 of the smallest. 64 KiB save nothing that can be measured (design 35).
READ_SIZE = 16_384
#: How long a connection that takes nothing more is still read.
LAST_WORDS_SECONDS = 0.25


async def connect(server: Server, engine: Engine, options: Options) -> Wire:
    """Dial a server and log in, within `connect_timeout` in all.

    Args:
        server: The server.
        engine: What speaks there; it is online when this returns.
        options: How to connect, and who we are.

    Returns:
        The connection.

    Raises:
        OSError: Nobody is there.
        nats.errors.Error: The server did not let us in, or we did not want to; the text names it and the reason.
    """
    try:
        return await _connect(server, engine, options)
    except (OSError, errors.Error) as error:
        # What led to it shows what we log in with; and of a bug in `dial=`, the cause says where it is.
        failure = bare(error, error.__cause__ if isinstance(error, DialError) else None)
    raise failure


async def _connect(server: Server, engine: Engine, options: Options) -> Wire:
    stream: trio.abc.Stream | None = None
    wire: Wire | None = None
    try:
        with trio.move_on_after(options.connect_timeout):
            stream = await dialled(server, options)
            wire = await open_wire(stream, server, options)
            rest = await _hear_info(wire, server, engine)
            if must_use_tls(engine.info, login_terms(options), server, secured=wire.tls is not None):
                wire = await _secure(wire, rest, server, engine, options)
                rest = b""
            await _log_in(wire, rest, server, engine, options)
            return wire
    except trio.BrokenResourceError as error:
        if wire is not None:
            await wire.aclose()
        raise broken(error, server) from None
    except BaseException:
        if wire is not None:
            await wire.aclose()
        raise
    if wire is not None:
        await wire.aclose()
    raise _too_slow(stream, wire, server, engine, options)


def refusal(server: Server | None, text: str, confided: Iterable[str] = ()) -> errors.Error:
    """Turn the text of an `-ERR` into the exception that it means, naming the server."""
    error = server_error(text, confided)
    error.args = (f"{server}: {error}",)
    return error


async def _hear_info(wire: Wire, server: Server, engine: Engine) -> bytes:
    """Read the server's INFO and nothing behind it.

    Returns:
        What came with it, unread: it may have to be thrown away.
    """
    engine.begin()
    rest = b""
    while engine.phase is Phase.GREETING:
        data = rest or await _receive(wire, server, engine)
        end = data.find(b"\n") + 1 or len(data)
        _digest(data[:end], server, engine)
        rest = data[end:]
    return rest


async def _secure(wire: Wire, rest: bytes, server: Server, engine: Engine, options: Options) -> Wire:
    """Upgrade to TLS; whatever came in clear behind INFO ends the attempt."""
    if rest:
        text = f"{server}: {len(rest)} bytes came in clear, where only the TLS handshake can follow"
        raise errors.explained(errors.SecureConnFailedError, text)
    secured = await upgrade(wire, server, options)
    engine.secured()
    return secured


async def _log_in(wire: Wire, rest: bytes, server: Server, engine: Engine, options: Options) -> None:
    nonce = engine.info.get("nonce")
    if not (nonce is None or isinstance(nonce, str)):
        raise errors.explained(errors.ProtocolError, f"{server}: the nonce in its INFO is no text")
    who = await login(options, nonce)
    try:
        await _introduce(who, wire, rest, server, engine)
    except errors.AuthorizationError as error:
        error.args = (f"{error}{why_refused(who, server, seconds_since_epoch())}",)
        raise
    limit = engine.info.get("max_payload")
    wire.allow(limit if isinstance(limit, int) else 0)


async def _introduce(who: LoginOptions, wire: Wire, rest: bytes, server: Server, engine: Engine) -> None:
    """Say who we are, and hear what the server says to that; or what it said before it closed the connection under us."""
    broke: trio.BrokenResourceError | None = None
    greeting = engine.greet(connect_options(engine.info, who, server))
    wire.confide(engine.confided)
    try:
        await wire.send_all(greeting)
    except trio.BrokenResourceError as error:
        broke = error
    _digest(rest, server, engine)
    if broke is None:
        while engine.phase is not Phase.ONLINE:
            _digest(await _receive(wire, server, engine), server, engine)
        return
    with trio.move_on_after(LAST_WORDS_SECONDS), suppress(trio.BrokenResourceError):
        while data := await wire.receive_some(READ_SIZE):
            _digest(data, server, engine)
    raise broke


async def _receive(wire: Wire, server: Server, engine: Engine) -> bytes:
    data = await wire.receive_some(READ_SIZE)
    if not data:
        text = f"{server} closed the connection while we logged in{told_goodbye(wire.goodbye)}"
        if wire.tls is not None and (engine.phase is Phase.GREETING or engine.info.get("tls_verify")):
            text += "; perhaps it wants a client certificate (TLS), or does not accept ours"
        raise errors.explained(errors.UnexpectedEOF, text)
    return data


def _digest(data: bytes, server: Server, engine: Engine) -> None:
    """Take one piece of the handshake; a refusal ends it. What INFO says is looked at once we are in."""
    for event in engine.receive(data):
        match event:
            case Refused(text):
                raise refusal(server, text, engine.confided)
            case Garbage(error):
                raise errors.explained(errors.ProtocolError, f"{server}: {hidden(str(error), engine.confided)}")


def _too_slow(
    stream: trio.abc.Stream | None, wire: Wire | None, server: Server, engine: Engine, options: Options
) -> Exception:
    seconds = f"within {options.connect_timeout:g} s"
    text = f"no connection {seconds}"
    if stream is not None and wire is None:
        what = "TLS" if not server.websocket else "a WebSocket over TLS" if server.secure else "a WebSocket"
        text = f"connected, but the server did not shake hands for {what} {seconds}"
    elif wire is not None and engine.phase is Phase.GREETING:
        text = f"connected, but the server said nothing {seconds}; is this a NATS client port (4222, not 8222)?"
        if options.tls_wanted and wire.tls is None:
            text += " Or it does the TLS handshake first (tls_handshake_first)"
    return errors.explained(errors.TimeoutError, f"{server}: {text}")
