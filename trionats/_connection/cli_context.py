"""Contexts of the `nats` command line tool, read and turned into options of `open_client`.

What a file means is in `_protocol.auth.cli_context`; here are the files. A context is read once, when the client is opened;
the credentials and certificates that it names are read anew at each connect.
"""

from __future__ import annotations

import os
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from trionats._connection.identity import LARGEST_FILE, InFile
from trionats._protocol.auth import cli_context as contexts
from trionats._protocol.auth import credentials
from trionats._protocol.showing import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from trionats._connection.options import ClientOptions

#: The options that say who we are.
IDENTITY = frozenset(
    {
        *("user", "password", "token"),
        *("user_credentials", "nkeys_seed", "nkeys_seed_str", "nkey", "user_jwt_cb", "signature_cb"),
    }
)


class Offer(NamedTuple):
    """What a context says; nothing where there is none."""

    url: str
    """Its servers."""
    options: ClientOptions
    jetstream: dict[str, str]
    """Arguments for `Client.jetstream` where the caller gives none."""


async def offered(own: ClientOptions) -> Offer:
    """Read the context that the caller names, if any: what holds where the caller says nothing.

    Who we are comes from one place (design 27): if the caller says anything about it, what the context says about it is left
    out.

    Args:
        own: The caller's options; `context` among them, perhaps.

    Raises:
        TypeError: `context` is neither a name nor a boolean.
        trionats._protocol.auth.cli_context.ContextError: (a `ValueError`) There is no such context, or it cannot be used.
    """
    name = own.get("context")
    if name is None or name is False:
        return Offer("", {}, {})
    if not isinstance(name, (str, bool)):
        raise TypeError(f"context must be the name of a nats context, or True, not {type(name).__name__}")
    ours = not IDENTITY.isdisjoint(own)
    context = await trio.to_thread.run_sync(partial(_read, "" if name is True else name, identity=not ours))
    jetstream = {"domain": context.jetstream_domain, "prefix": context.jetstream_api_prefix}
    return Offer(context.url, _options(context), {key: value for key, value in jetstream.items() if value})


def _options(context: contexts.Context) -> ClientOptions:
    options: ClientOptions = {}
    if context.token:
        options["token"] = _value("token", context.token)
    if context.user:
        options["user"] = context.user
        options["password"] = _value("password", context.password)
    if isinstance(context.user_jwt, contexts.Stored):
        options["user_jwt_cb"] = InFile("user_jwt_cb", context.user_jwt.path)
    elif jwt := context.user_jwt:
        options["user_jwt_cb"] = lambda: jwt
    if context.creds:
        options["user_credentials"] = context.creds
    if context.user_seed:
        options.update(_seed(context.user_seed))
    if context.nkey:
        options.update(_seed(context.nkey if isinstance(context.nkey, bytes) else contexts.Stored(context.nkey)))
    if context.inbox_prefix:
        options["inbox_prefix"] = context.inbox_prefix
    if context.tls_first:
        options["tls_handshake_first"] = True
    if context.cert or context.ca:
        options["tls"] = _tls_context(context)
    return options


def _value(option: str, value: str | contexts.Stored) -> str | InFile:
    return InFile(option, value.path) if isinstance(value, contexts.Stored) else value


def _seed(seed: str | bytes | contexts.Stored) -> ClientOptions:
    if isinstance(seed, contexts.Stored):
        return {"nkeys_seed": seed.path}
    return {"nkeys_seed_str": credentials.parse_seed(seed if isinstance(seed, str) else seed.decode())}


def _tls_context(context: contexts.Context) -> Callable[[], ssl.SSLContext]:
    def make() -> ssl.SSLContext:
        for path in filter(None, (context.ca, context.cert, context.key)):
            with open(path, "rb"):  # what ssl raises does not name the file
                pass
        made = ssl.create_default_context(cafile=context.ca or None)
        if context.cert:
            made.load_cert_chain(context.cert, context.key)
        return made

    return make


def _read(name: str, *, identity: bool) -> contexts.Context:
    home = os.path.expanduser("~")
    directory = Path(contexts.directory(os.environ, home))
    if not name:
        name = contexts.selected_name(_text(directory / contexts.SELECTED))
    path = directory / contexts.file_name(name)
    text = _text(path)
    if not text:
        raise contexts.ContextError(f"there is no nats context {name!r} (no file {path})")
    around = contexts.Surroundings(home, os.environ)
    return contexts.parse(name, text, around, file=shown_path(path, found=True), identity=identity)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        why = error.strerror
    raise contexts.ContextError(f"cannot read {path}: {why}")
