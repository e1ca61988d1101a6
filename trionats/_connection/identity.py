"""Who we are, found out anew at each connect (design 26): callbacks are asked, files are read, nonces are signed.

Nothing is kept from one connect to the next, so that rotated credentials are used from the next connect on. Files are read
in a worker thread. What fails here fails the attempt to connect, not the client: a file may just be being replaced.
"""

from __future__ import annotations

import time
from collections import UserString
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import trio

from trionats import errors
from trionats._connection.callbacks import ask
from trionats._discretion import guarded
from trionats._protocol.auth import credentials
from trionats._protocol.auth.login import LoginOptions, encode_signature
from trionats._protocol.auth.user_jwt import user_jwt
from trionats._protocol.showing import is_content, shown_path
from trionats._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trionats._connection.options import CredentialsSource, FilePath, JWTCallback, Options, Secret

LARGEST_FILE = 1_048_576
"""A file of credentials that is longer is not one: a device or a mistake."""


@final
@dataclass(frozen=True, slots=True)
class InFile:
    """A value of an option that stands in a file: a callback of our own, whose complaints may be shown."""

    option: str
    path: FilePath

    async def __call__(self) -> str:
        """Read the file."""
        return (await _read(self.option, self.path)).rstrip("\r\n")


def login_terms(options: Options) -> LoginOptions:
    """Give what CONNECT says whoever we are: our name, and how we want to talk."""
    return LoginOptions(
        version=__version__,
        name=options.name,
        no_echo=options.no_echo,
        verbose=options.verbose,
        pedantic=options.pedantic,
        tls=options.tls_wanted,
    )


async def login(options: Options, nonce: str | None) -> LoginOptions:
    """Find out who we are now.

    Args:
        options: Where to find it out.
        nonce: What the server wants signed, if it wants that.

    Returns:
        What CONNECT is made from.

    Raises:
        nats.errors.InvalidUserCredentialsError: A file cannot be read or is not what it should be, or a callback failed; the
            text names the option, the cause says more.
    """
    user = await _value("user", options.user)
    password = await _value("password", options.password)
    token = await _value("token", options.token)
    jwt, key, source = await _jwt_and_key(options)
    public = options.nkey if jwt is not None or key is None else key.public
    signature = None if nonce is None else await _sign(options, nonce, key)
    sig = None if signature is None else encode_signature(signature)
    return replace(
        login_terms(options),
        user=user,
        password=password,
        token=token,
        jwt=jwt,
        nkey=public,
        sig=sig,
        jwt_source=source,
    )


async def _jwt_and_key(options: Options) -> tuple[str | None, credentials.NKey | None, str]:
    """Find the JWT, what signs, and where the JWT comes from."""
    if options.user_credentials is not None:
        found, source = await _credentials(await ask("user_credentials", options.user_credentials))
        return found.jwt, credentials.NKey(found.seed, "user_credentials"), source
    text = await _value("user_jwt_cb", options.user_jwt_cb)
    jwt = None if text is None else credentials.parse_jwt(text, "user_jwt_cb")
    return jwt, await _key(options), "of user_jwt_cb"


async def _key(options: Options) -> credentials.NKey | None:
    if options.nkeys_seed is not None:
        text, source = await _file("nkeys_seed", options.nkeys_seed)
        return credentials.NKey(credentials.parse_seed(text, source), "nkeys_seed")
    if options.nkeys_seed_str is not None:
        return credentials.NKey(options.nkeys_seed_str, "nkeys_seed_str")
    return None


async def _sign(options: Options, nonce: str, key: credentials.NKey | None) -> bytes | None:
    if key is not None:
        return key.sign(nonce.encode())
    if options.signature_cb is not None:
        return credentials.canonical_signature(await ask("signature_cb", options.signature_cb, nonce))
    return None


@guarded
def issue_user_jwt(
    signing_seed: str,
    account: str,
    user: str,
    *,
    name: str = "",
    expires_in: float | None = None,
    tags: Sequence[str] = (),
) -> str:
    """Issue a JWT for a user with a scoped signing key of its account (ADR-14), as `user_jwt_cb` may return it.

    What the user may do is what the scope of the signing key says, in the account's own JWT.

    Args:
        signing_seed: The seed of the signing key, "SA...".
        account: The public key of the account, "A...".
        user: The public key of the user, "U...".
        name: The user's name; its public key, unless given.
        expires_in: After how many seconds the JWT expires; None for never.
        tags: The user's tags.

    Returns:
        The JWT.

    Raises:
        ValueError: A key is not what it should be, or the time is too short.
        nats.errors.InvalidUserCredentialsError: The seed is no account's.
        ImportError: The extra `nkeys` is not installed.
    """
    now = seconds_since_epoch()
    return user_jwt(signing_seed, account, user, name=name, expires_in=expires_in, tags=tags, now=now)


def seconds_since_epoch() -> float:
    """Give the one time in this library that is not Trio's: what JWTs say is compared with it, by other machines, too."""
    return time.time()


async def _value(option: str, value: Secret | JWTCallback | None) -> str | None:
    if value is None:
        return None
    return _text(option, await value() if isinstance(value, InFile) else await ask(option, value))


def _text(option: str, value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value).decode(errors="replace")
    if not isinstance(value, str):
        text = f"{option}: this is no text but {type(value).__name__}"
        raise errors.explained(errors.InvalidUserCredentialsError, text)
    return value


async def _credentials(source: CredentialsSource | tuple[FilePath, ...]) -> tuple[credentials.Credentials, str]:
    """Read credentials, and say where the JWT comes from."""
    option = "user_credentials"
    if isinstance(source, tuple):
        if len(source) != 2:
            text = f"{option}: a tuple of {len(source)}, where the paths of a JWT and of a seed are wanted"
            raise errors.explained(errors.InvalidUserCredentialsError, text)
        (jwt, jwt_file), (seed, seed_file) = await _file(option, source[0]), await _file(option, source[1])
        found = credentials.Credentials(credentials.parse_jwt(jwt, jwt_file), credentials.parse_seed(seed, seed_file))
        return found, f"in {shown_path(source[0], found=True)}"
    if isinstance(source, (bytes, bytearray, UserString)):
        content = _text(option, source.data if isinstance(source, UserString) else source)
        return credentials.parse_creds(content, option), f"in {option}"
    if isinstance(source, str) and is_content(source):
        text = f"{option}: content instead of a path; give it as bytes"
        raise errors.explained(errors.InvalidUserCredentialsError, text)
    content, file = await _file(option, source)
    return credentials.parse_creds(content, file), f"in {shown_path(source, found=True)}"


async def _file(option: str, path: FilePath) -> tuple[str, str]:
    """Read a file, and name it for complaints about what stands in it."""
    text = await _read(option, path)
    return text, f"{option}: {shown_path(path, found=True)}"


async def _read(option: str, path: FilePath) -> str:
    name = "the path given"
    try:
        name = shown_path(path)
        return await trio.to_thread.run_sync(_read_file, path, abandon_on_cancel=True)
    except (OSError, ValueError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    raise errors.explained(errors.InvalidUserCredentialsError, f"{option}: cannot read {name}: {why}")


def _read_file(path: FilePath) -> str:
    with Path(path).expanduser().open("rb") as file:
        return file.read(LARGEST_FILE).decode(errors="replace")
