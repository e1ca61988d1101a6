"""Contexts of the `nats` command line tool (ADR-21): what their files say, in the names of our options.

The files lie in `$XDG_CONFIG_HOME/nats`, or `~/.config/nats`: `context/<name>.json` each, and `context.txt` names the
selected one. Nothing here reads them; paths are made from what the environment said, and text comes in.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a file may hold and we cannot do; with a value, the user's intention would be lost without a word.
_UNSUPPORTED = {
    "nsc": "looking credentials up with nsc",
    "socks_proxy": "SOCKS proxies",
    "windows_cert_store": "the certificate store of Windows",
}
_TEXTS = (
    *("description", "url", "token", "user", "password", "creds", "nkey", "user_jwt", "user_seed", "cert", "key", "ca"),
    *("inbox_prefix", "jetstream_domain", "jetstream_api_prefix"),
)
_PATHS = ("creds", "nkey", "cert", "key", "ca")
_REMOTE = ("nsc://", "op://")  # credentials that the tool fetches by running other programs


class ContextError(ValueError):
    """A context cannot be used; the text names it and says why, and holds no value of it."""


@dataclass(frozen=True, slots=True, repr=False)
class Context:
    """One context; an empty string is what the file does not say. The `repr()` shows only its name."""

    name: str
    description: str = ""
    url: str = ""
    token: str = ""
    user: str = ""
    password: str = ""
    creds: str = ""
    nkey: str = ""
    """The path of a seed."""
    user_jwt: str = ""
    user_seed: str = ""
    cert: str = ""
    key: str = ""
    ca: str = ""
    inbox_prefix: str = ""
    jetstream_domain: str = ""
    jetstream_api_prefix: str = ""
    tls_first: bool = False
    unknown: tuple[str, ...] = field(default=())
    """Keys of the file that mean nothing to us."""

    def __repr__(self) -> str:
        return f"<Context {self.name!r}>"


def directory(environment: Mapping[str, str], home: str) -> PurePath:
    """Say where contexts lie.

    Args:
        environment: The process' environment variables.
        home: The user's home directory.

    Returns:
        The directory; it need not exist.
    """
    base = environment.get("XDG_CONFIG_HOME") or str(PurePath(home, ".config"))
    return PurePath(base, "nats")


def file_name(name: str) -> PurePath:
    """Make the name of a context's file, below `directory`.

    Args:
        name: The context.

    Returns:
        A relative path.

    Raises:
        ContextError: No context can have this name.
    """
    if not name or ".." in name or "/" in name or "\\" in name or not name.isprintable():
        raise ContextError(f"{name!r} is no name of a nats context")
    return PurePath("context", f"{name}.json")


SELECTED = PurePath("context.txt")


def selected_name(text: str) -> str:
    """Read the file that names the selected context.

    Args:
        text: Its content; empty where there is no such file.

    Returns:
        The name.

    Raises:
        ContextError: None is selected.
    """
    name = text.strip()
    if not name:
        raise ContextError("no nats context is selected: `nats context select` selects one, context='name' names one")
    return name


def parse(name: str, text: str, home: str) -> Context:
    """Read a context's file.

    Args:
        name: The context's name.
        text: The content of its file.
        home: The user's home directory, for paths that begin with `~`.

    Returns:
        What it says. Keys that nobody knows are listed in `unknown`.

    Raises:
        ContextError: It is no JSON object, a value has the wrong type, or it asks for what we cannot do.
    """
    known = _fields(name, text)
    values: dict[str, str] = {}
    for key in _TEXTS:
        value = known.pop(key, "")
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise ContextError(f"nats context {name!r}: {key} is no text")
        values[key] = value
    for key in _PATHS:
        values[key] = _path(name, key, values[key], home)
    first = known.pop("tls_first", False)
    if first not in (True, False, None):
        raise ContextError(f"nats context {name!r}: tls_first is neither true nor false")
    for key, meaning in _UNSUPPORTED.items():
        if known.pop(key, None):
            raise ContextError(f"nats context {name!r}: {key}: {meaning} is not supported")
    return Context(name, **values, tls_first=bool(first), unknown=tuple(sorted(known)))


def _fields(name: str, text: str) -> dict[str, object]:
    fields: object = None
    # Not raised from here: the complaint of JSON holds the text, and that may hold a password.
    with suppress(ValueError):
        fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ContextError(f"nats context {name!r}: its file is no JSON object")
    return fields


def _path(name: str, key: str, value: str, home: str) -> str:
    if value.startswith(_REMOTE):
        scheme = value.partition("://")[0]
        raise ContextError(f"nats context {name!r}: {key}: {scheme}:// is not supported, only paths of files")
    if value == "~" or value.startswith(("~/", "~\\")):
        return str(PurePath(home, value[2:]))
    return value
