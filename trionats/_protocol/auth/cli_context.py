"""Contexts of the `nats` command line tool (ADR-21): what their files say, in the names of our options.

The files lie in `$XDG_CONFIG_HOME/nats`, or `~/.config/nats`: `context/<name>.json` each, and `context.txt` names the
selected one. Nothing here reads them; paths are made from what the environment said, and text comes in.

Values may refer to something else, and which fields may is the tool's business (jsm.go's `natscontext`): in paths, `~`
and variables of the environment are expanded; credentials may be the content of a file, of a variable or of the
reference itself. What would take another program is refused, and so is a reference where the tool knows none: sent as
it stands it would be taken for the secret (design 45).
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from trionats import errors
from trionats._protocol.auth import credentials
from trionats._protocol.showing import is_credential, is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What a file may hold and we cannot do; with a value, the user's intention would be lost without a word.
_UNSUPPORTED = {
    "nsc": "looking credentials up with nsc is",
    "socks_proxy": "SOCKS proxies are",
    "windows_cert_store": "the certificate store of Windows is",
}
_TEXTS = (
    *("description", "url", "token", "user", "password", "creds", "nkey", "user_jwt", "user_seed", "cert", "key", "ca"),
    *("inbox_prefix", "jetstream_domain", "jetstream_api_prefix"),
)
_FILES = ("creds", "nkey")
_TLS = ("cert", "key", "ca")
_LITERALS = ("token", "password", "user_jwt", "user_seed")
_IDENTITY = (*_FILES, *_LITERALS, "user")
_PLAIN = ("url", "user")

_REFERENCE = re.compile(r"(env|file|op|nsc|data):", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# As Go's `os.Expand` reads them; a name that is a sign or a digit is one character long.
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([*#$@!?0-9-])|([A-Za-z_][A-Za-z0-9_]*)|(\{))", re.ASCII)
_SHOWABLE = re.compile(r"[\w ./\\-]{0,64}")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class ContextError(ValueError):
    """A context cannot be used; the text names it and says why, and holds no value of it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A value that stands in a file, which a `file://` reference names; read anew at each connect."""

    path: str


@dataclass(frozen=True, slots=True, repr=False)
class Context:
    """One context; an empty string is what the file does not say. The `repr()` shows only its name."""

    name: str
    description: str = ""
    url: str = ""
    token: str | Stored = ""
    user: str = ""
    password: str | Stored = ""
    creds: str | bytes = ""
    """The path of a credentials file, or its content."""
    nkey: str | bytes = ""
    """The path of a seed, or the seed."""
    user_jwt: str | Stored = ""
    user_seed: str | Stored = ""
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


@dataclass(frozen=True, slots=True, repr=False)
class Surroundings:
    """What references in a context lead to."""

    home: str
    """The user's home directory, for paths that begin with `~`."""
    environment: Mapping[str, str]
    """The environment variables."""


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
    if not name or ".." in name or "/" in name or "\\" in name or not name.isprintable() or is_secret(name):
        # Whoever gives the content of a file for its name gives a password with it.
        shown = repr(name) if _SHOWABLE.fullmatch(name) and not is_secret(name) else "this"
        raise ContextError(f"{shown} is no name of a nats context")
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


def parse(name: str, text: str, around: Surroundings, *, file: object = "its file", identity: bool = True) -> Context:
    """Read a context's file.

    Args:
        name: The context's name.
        text: The content of its file.
        around: What references lead to.
        file: Where it stands, for complaints.
        identity: Look at what it says about who we are; the caller knows better otherwise.

    Returns:
        What it says. Keys that nobody knows are listed in `unknown`.

    Raises:
        ContextError: It is no JSON object, a value has the wrong type, a reference leads nowhere, or it asks for what
            we cannot do; the text names the field.
    """
    known = _fields(name, text, file)
    values = _texts(name, known)
    first = known.pop("tls_first", False)
    if first not in (True, False, None):
        raise ContextError(f"nats context {name!r}: tls_first is neither true nor false")
    for key, meaning in _UNSUPPORTED.items():
        if known.pop(key, None):
            raise ContextError(f"nats context {name!r}: {key}: {meaning} not supported")
    if not identity:
        values.update(dict.fromkeys(_IDENTITY, ""))
    resolved: dict[str, str | bytes | Stored] = dict(values)
    for keys, resolve in ((_PLAIN, _plain), (_TLS, _file), (_FILES, _file_or_content), (_LITERALS, _literal)):
        for key in keys:
            if values[key]:
                resolved[key] = resolve(f"nats context {name!r}: {key}", values[key], around)
    context = Context(name, **resolved, tls_first=bool(first), unknown=tuple(sorted(known)))  # type: ignore[arg-type]
    _check(context)
    return context


def _fields(name: str, text: str, file: object) -> dict[str, object]:
    fields: object = None
    where = ""
    # Not raised from here: the complaint of JSON holds the text, and that may hold a password.
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        where = f" (line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        where = " that can be read"
    if not isinstance(fields, dict):
        raise ContextError(f"nats context {name!r}: {file} is no JSON object{where}")
    return fields


def _texts(name: str, known: dict[str, object]) -> dict[str, str]:
    """Take what has to be text out of the fields."""
    values: dict[str, str] = {}
    for key in _TEXTS:
        value = known.pop(key, "")
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise ContextError(f"nats context {name!r}: {key} is no text")
        values[key] = value
    return values


def _check(context: Context) -> None:
    """Refuse what belongs together and does not stand together, and what contradicts itself."""
    where = f"nats context {context.name!r}"
    for one, other in (("cert", "key"), ("key", "cert")):
        if getattr(context, one) and not getattr(context, other):
            # The tool leaves it out, and may then log in without TLS.
            raise ContextError(f"{where}: {one} is of no use without {other}")
    signers = [key for key in ("creds", "nkey", "user_seed") if getattr(context, key)]
    jwts = [key for key in ("creds", "user_jwt") if getattr(context, key)]
    for kinds in (signers, jwts):
        if len(kinds) > 1:
            raise ContextError(f"{where}: only one of these can be given: {', '.join(kinds)}")
    checks: tuple[tuple[str, Callable[[str, str], object]], ...] = (
        ("user_jwt", credentials.parse_jwt),
        ("user_seed", credentials.parse_seed),
    )
    for key, parsed in checks:
        if value := getattr(context, key):
            _checked(f"{where}: {key}", value, parsed)


def _checked(where: str, value: str | bytes | Stored, parsed: Callable[[str, str], object]) -> None:
    """Make sure that credentials are what they should be; those in a file are looked at when it is read."""
    if isinstance(value, Stored):
        return
    try:
        parsed(value if isinstance(value, str) else value.decode(errors="replace"), where)
    except errors.InvalidUserCredentialsError as error:
        complaint = str(error)
    else:
        return
    raise ContextError(complaint)


def _plain(where: str, value: str, around: Surroundings) -> str:
    if match := _REFERENCE.match(value):
        raise ContextError(f"{where}: references such as {match[0].lower()} are not resolved there")
    return value


def _file(where: str, value: str, around: Surroundings) -> str:
    """Resolve what has to be the path of a file."""
    path = _expanded(where, value, around)
    if (match := _REFERENCE.match(path)) and match[1].lower() != "file":
        raise ContextError(f"{where}: {_name(match)} is not supported, only the path of a file")
    return _path(where, path, around)


def _file_or_content(where: str, value: str, around: Surroundings) -> str | bytes:
    """Resolve what is the path of a file, or a reference to the content of one."""
    path = _expanded(where, value, around)
    if (match := _REFERENCE.match(path)) and match[1].lower() != "file":
        content = _content(where, path, match, around)
        _checked(where, content, credentials.parse_creds if where.endswith("creds") else credentials.parse_seed)
        return content
    return _path(where, path, around)


def _literal(where: str, value: str, around: Surroundings) -> str | Stored:
    """Resolve what is the value itself, or a reference to it."""
    match = _REFERENCE.match(value)
    if match is None:
        return value
    if match[1].lower() == "file":
        return Stored(_path(where, value, around))
    text = ""
    with suppress(UnicodeDecodeError):
        text = _content(where, value, match, around).decode().rstrip("\r\n")
    if not text:
        raise ContextError(f"{where}: {_name(match)} there is no text in it")
    return text


def _content(where: str, value: str, match: re.Match[str], around: Surroundings) -> bytes:
    """Follow a reference that leads to the content of something."""
    kind, rest = match[1].lower(), value[match.end() :]
    if kind == "data":
        return _embedded(where, rest)
    if kind != "env":
        raise ContextError(f"{where}: {_name(match)} is not supported: it takes another program")
    if not rest.startswith("//"):
        raise ContextError(f"{where}: a variable of the environment is written env://NAME")
    found = _variable(where, rest[2:], around)
    if not found:
        raise ContextError(f"{where}: {_shown_variable(rest[2:])} is empty")
    return found.encode(errors="surrogateescape")


def _embedded(where: str, text: str) -> bytes:
    head, comma, payload = text.partition(",")
    if not comma or "base64" not in [part.strip() for part in head.split(";")]:
        raise ContextError(f"{where}: data: is understood in base64 only, as data:;base64,...")
    try:
        return base64.b64decode(payload.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError:
        pass
    raise ContextError(f"{where}: what stands behind data: is no base64")


def _path(where: str, value: str, around: Surroundings) -> str:
    if (match := _REFERENCE.match(value)) and match[1].lower() == "file":
        if not value[match.end() :].startswith("//"):
            raise ContextError(f"{where}: the path of a file is written file:///path, or without file://")
        value = _expanded(where, value[match.end() + 2 :], around)
    elif _SCHEME.match(value):
        raise ContextError(f"{where}: references of this kind are not supported, only the path of a file")
    elif is_credential(value):
        raise ContextError(f"{where}: this is no path but looks like credentials")
    return value


def _expanded(where: str, value: str, around: Surroundings) -> str:
    """Expand variables of the environment, then a `~` at the beginning."""

    def variable(match: re.Match[str]) -> str:
        return _variable(where, match[1] or match[2] or match[3] or "", around)

    path = _VARIABLE.sub(variable, value)
    if path == "~" or path.startswith(("~/", "~\\")):
        return str(PurePath(around.home, path[2:]))
    if not path:
        raise ContextError(f"{where}: the environment variables in it leave nothing of it")
    return path


def _variable(where: str, name: str, around: Surroundings) -> str:
    """Look a variable up. The tool takes one that is not set for nothing, and so a wrong path for the right one."""
    if name not in around.environment:
        raise ContextError(f"{where}: {_shown_variable(name)} is not set")
    return around.environment[name]


def _shown_variable(name: str) -> str:
    shown = _NAME.fullmatch(name) is not None and not is_secret(name)
    return f"the environment variable {name!r}" if shown else "an environment variable in it"


def _name(match: re.Match[str]) -> str:
    return "data:" if match[1].lower() == "data" else f"{match[1].lower()}://"
