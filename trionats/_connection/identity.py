"""Who we are, found out anew at each connect: callbacks are asked, files are read, nonces are signed.

Nothing is kept from one connect to the next, so that rotated credentials are used from the next connect on. Files are read
in a worker thread. What fails here fails the attempt to connect, not the client: a file may just be being replaced.
"""

from __future__ import annotations

import inspect
import os
import time
import traceback
from collections import UserString
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from trionats import errors
from trionats._discretion import guarded
from trionats._protocol.auth import credentials
from trionats._protocol.auth.cli_context import Stored
from trionats._protocol.auth.login import encode_signature
from trionats._protocol.auth.user_jwt import user_jwt
from trionats._protocol.showing import is_content, is_credential, shown_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from trionats._protocol.auth.login import LoginOptions

    Path_: TypeAlias = str | os.PathLike[str]
    Secret: TypeAlias = str | Stored | Callable[[], str | Awaitable[str]]
    CredentialsSource: TypeAlias = Path_ | tuple[Path_, Path_] | bytes | bytearray | UserString
    UserCredentials: TypeAlias = CredentialsSource | Callable[[], CredentialsSource | Awaitable[CredentialsSource]]
    JWTCallback: TypeAlias = Stored | Callable[[], str | bytes | bytearray | Awaitable[str | bytes | bytearray]]
    SignatureCallback: TypeAlias = Callable[[str], str | bytes | Awaitable[str | bytes]]

LARGEST_FILE = 1_048_576
"""A file of credentials that is longer is not one: a device or a mistake."""


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Where to find out who we are; the fields are options of `open_client`.

    The `repr()` shows what is set, and no value.

    Raises:
        ValueError: (from the constructor) The options contradict each other, or a secret stands where a path belongs.
        ImportError: What is needed for signing is not installed.
    """

    fixed: LoginOptions
    """What does not change: the name, and how we want to talk."""
    user: Secret | None = None
    password: Secret | None = None
    token: Secret | None = None
    user_credentials: UserCredentials | None = None
    nkeys_seed: Path_ | None = None
    nkeys_seed_str: str | None = None
    nkey: str | None = None
    user_jwt_cb: JWTCallback | None = None
    signature_cb: SignatureCallback | None = None

    def __post_init__(self) -> None:
        _at_most_one(self, "user_credentials", "user_jwt_cb")
        _at_most_one(self, "user_credentials", "nkeys_seed", "nkeys_seed_str", "signature_cb")
        if self.nkey is not None and self.signature_cb is None:
            raise ValueError("nkey is the public key that goes with signature_cb, which is missing")
        self._check_seeds()

    def __repr__(self) -> str:
        given = [f"{name}=..." for name in OPTIONS if getattr(self, name) is not None]
        return f"Identity({', '.join(given)})"

    async def login(self, nonce: str | None) -> LoginOptions:
        """Find out who we are now.

        Args:
            nonce: What the server wants signed, if it wants that.

        Returns:
            What CONNECT is made from.

        Raises:
            nats.errors.InvalidUserCredentialsError: A file cannot be read or is not what it should be, or a callback
                failed; the text names the option, the cause says more.
        """
        user = await _value("user", self.user)
        password = await _value("password", self.password)
        token = await _value("token", self.token)
        jwt, key, source = await self._jwt_and_key()
        public = self.nkey if jwt is not None or key is None else key.public
        signature = None if nonce is None else await self._sign(nonce, key)
        sig = None if signature is None else encode_signature(signature)
        return replace(
            self.fixed, user=user, password=password, token=token, jwt=jwt, nkey=public, sig=sig, jwt_source=source
        )

    async def _jwt_and_key(self) -> tuple[str | None, credentials.NKey | None, str]:
        """Find the JWT, what signs, and where the JWT comes from."""
        if self.user_credentials is not None:
            found, source = await _credentials(await ask("user_credentials", self.user_credentials))
            return found.jwt, credentials.NKey(found.seed, "user_credentials"), source
        jwt: str | None = None
        if self.user_jwt_cb is not None:
            answer = await ask("user_jwt_cb", self.user_jwt_cb)
            jwt = credentials.parse_jwt(_text("user_jwt_cb", answer), "user_jwt_cb")
        return jwt, await self._key(), "of user_jwt_cb"

    async def _key(self) -> credentials.NKey | None:
        if self.nkeys_seed is not None:
            text, source = await _file("nkeys_seed", self.nkeys_seed)
            return credentials.NKey(credentials.parse_seed(text, source), "nkeys_seed")
        if self.nkeys_seed_str is not None:
            return credentials.NKey(self.nkeys_seed_str, "nkeys_seed_str")
        return None

    async def _sign(self, nonce: str, key: credentials.NKey | None) -> bytes | None:
        if key is not None:
            return key.sign(nonce.encode())
        if self.signature_cb is not None:
            return credentials.canonical_signature(await ask("signature_cb", self.signature_cb, nonce))
        return None

    def _check_seeds(self) -> None:
        if isinstance(self.user_credentials, str) and is_content(self.user_credentials):
            raise ValueError("user_credentials is a path; the content itself is given as bytes")
        if _is_secret(self.nkeys_seed):
            raise ValueError("nkeys_seed is a path; the seed itself is given as nkeys_seed_str")
        if _is_secret(self.nkey):
            raise ValueError("nkey is the public key; the seed itself is given as nkeys_seed_str")
        if self.nkeys_seed_str is not None:
            seed: object = self.nkeys_seed_str
            if not isinstance(seed, str):
                raise TypeError(f"nkeys_seed_str must be text, not {type(seed).__name__}")
            credentials.check_seed(seed.strip(), "nkeys_seed_str")
        for option in ("user_credentials", "nkeys_seed", "nkeys_seed_str"):
            if getattr(self, option) is not None:
                credentials.nkeys_library(option)


OPTIONS = (
    *("user", "password", "token"),
    *("user_credentials", "nkeys_seed", "nkeys_seed_str", "nkey", "user_jwt_cb", "signature_cb"),
)
"""The options of `open_client` that say who we are."""


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


async def ask(
    option: str,
    value: Any,  # noqa: ANN401 - whatever the option's type is
    *arguments: object,
    told: Callable[[Exception], errors.Error] | None = None,
) -> Any:  # noqa: ANN401 - the same
    """Give the value of an option that may be a callback, synchronous or not.

    Args:
        option: Its name, for the complaint.
        value: The value, or what gives it.
        arguments: What the callback is called with.
        told: Makes the complaint of what the callback raised.

    Returns:
        The value.

    Raises:
        nats.errors.InvalidUserCredentialsError: The callback failed; the text says with which class of exception and
            where. Its words, and the exception itself, stay out of it: they may hold the secret.
    """
    if isinstance(value, Stored):
        return (await _read(option, value.path)).rstrip("\r\n")
    if not callable(value):
        return value
    try:
        answer = value(*arguments)
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception as error:
        text = f"{option}: the callback failed ({raised(error)})"
        failure = errors.explained(errors.InvalidUserCredentialsError, text) if told is None else told(error)
    else:
        return answer
    # Neither its words nor its frames, which may hold what it was about to give.
    raise failure


def raised(error: Exception) -> str:
    """Say what a callback raised, and where; not in its own words.

    Args:
        error: What it raised.

    Returns:
        Its class, and the file and line.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


async def _value(option: str, value: Secret | None) -> str | None:
    if value is None:
        return None
    return _text(option, await ask(option, value))


def _text(option: str, value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value).decode(errors="replace")
    if not isinstance(value, str):
        text = f"{option}: this is no text but {type(value).__name__}"
        raise errors.explained(errors.InvalidUserCredentialsError, text)
    return value


async def _credentials(source: CredentialsSource | tuple[Path_, ...]) -> tuple[credentials.Credentials, str]:
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


async def _file(option: str, path: Path_) -> tuple[str, str]:
    """Read a file, and name it for complaints about what stands in it."""
    text = await _read(option, path)
    return text, f"{option}: {shown_path(path, found=True)}"


async def _read(option: str, path: Path_) -> str:
    name = "the path given"
    try:
        name = shown_path(path)
        return await trio.to_thread.run_sync(_read_file, path, abandon_on_cancel=True)
    except (OSError, ValueError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    raise errors.explained(errors.InvalidUserCredentialsError, f"{option}: cannot read {name}: {why}")


def _read_file(path: Path_) -> str:
    with Path(path).expanduser().open("rb") as file:
        return file.read(LARGEST_FILE).decode(errors="replace")


def _is_secret(value: object) -> bool:
    """Say whether somebody gave a secret, or the content of a file, where a path belongs."""
    return isinstance(value, str) and (is_credential(value) or credentials.seed_role(value.strip()) is not None)


def _at_most_one(identity: Identity, *options: str) -> None:
    given = [option for option in options if getattr(identity, option) is not None]
    if len(given) > 1:
        raise ValueError(f"only one of these options can be given: {', '.join(given)}")
