"""Who we are by an NKey: seeds, signatures, and the files that hold them.

Strategy: whatever cannot be read is refused in words that name what is wrong and hold nothing of the text itself, since that
may be a seed or a JWT. For the same reason nothing is raised while another exception is handled: the chain would show that
one's text.

Ed25519 is the business of the package `nkeys` (an extra), which is imported when the first seed is used. Its reader of seeds
checks no checksum, so a mistyped seed would sign for somebody else; ours does.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, final

from trionats import errors

if TYPE_CHECKING:
    from typing import Any

SEED_PREFIX = 18 << 3  # "S" in base32
ROLES = {14 << 3: "operator", 0: "account", 20 << 3: "user", 13 << 3: "server", 2 << 3: "cluster", 23 << 3: "curve"}

_PUBLIC_BYTES = 35
_SEED_BYTES = 36  # two bytes of prefixes, 32 of the seed, two of the checksum
_SIGNATURE_BYTES = 64

_FRAME = re.compile(r"-{3,}\s*(BEGIN|END)\s+(.*?)\s*-{3,}")
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class Credentials(NamedTuple):
    """What a credentials file holds; the `repr()` shows neither."""

    jwt: str
    seed: str

    def __repr__(self) -> str:
        return "Credentials(jwt=..., seed=...)"


@final
class NKey:
    """A key pair: signs, and never shows its seed.

    Args:
        seed: The seed, as `nk` and `nsc` write it: "SU..." for a user.
        source: Where it comes from, for complaints.
        role: Whose it must be.

    Raises:
        nats.errors.InvalidUserCredentialsError: It is no seed, or somebody else's.
        ImportError: The extra `nkeys` is not installed.
    """

    __slots__ = ("_pair", "public")

    def __init__(self, seed: str, source: str = "the seed", role: str = "user") -> None:
        check_seed(seed := seed.strip(), source, role)
        self._pair = nkeys_library(source).from_seed(bytearray(seed.encode()))
        self.public: str = self._pair.public_key.decode()
        """The public key, "U..."."""

    def __repr__(self) -> str:
        return f"<NKey {self.public}>"

    def sign(self, data: bytes) -> bytes:
        """Sign `data`: 64 bytes."""
        return bytes(self._pair.sign(data))


def nkeys_library(user: str) -> Any:  # noqa: ANN401 - a module without types
    """Import what signs.

    Args:
        user: What needs it, for the complaint.

    Returns:
        The module `nkeys`.

    Raises:
        ImportError: It is not installed; the text says how to install it.
    """
    with suppress(ImportError):
        import nkeys  # type: ignore[import-untyped] # noqa: PLC0415 - an extra, and only who signs pays for its import

        return nkeys
    raise ImportError(f"{user}: signing needs the package nkeys: pip install 'trionats[nkeys]'")


def check_seed(seed: str, source: str = "the seed", role: str = "user") -> None:
    """Make sure that a text is the seed of a user, or of somebody else.

    Args:
        seed: The text, without white space around it.
        source: Where it comes from, for complaints.
        role: Whose it must be.

    Raises:
        nats.errors.InvalidUserCredentialsError: It is not.
    """
    found = seed_role(seed)
    if found is None:
        raise _invalid(f"{source}: this is no NKey seed: not base32, or mistyped")
    if found != role:
        raise _invalid(f"{source}: this is the seed of an NKey of kind {found}, and {role} is needed")


def seed_role(text: str) -> str | None:
    """Say whose seed a text is: "user", "account", ..., or None if it is no seed."""
    raw = _decoded(text)
    if len(raw) != _SEED_BYTES or raw[0] & 0xF8 != SEED_PREFIX:
        return None
    return ROLES.get((raw[0] & 7) << 5 | raw[1] >> 3)


def public_role(text: str) -> str | None:
    """Say whose public key a text is: "user", "account", ..., or None if it is no public key."""
    raw = _decoded(text)
    return ROLES.get(raw[0]) if len(raw) == _PUBLIC_BYTES else None


def parse_creds(text: str, source: str = "the credentials") -> Credentials:
    """Read the text of a credentials file, as `nsc` writes it: a JWT and a seed, each in a frame of dashes.

    Args:
        text: The text.
        source: Where it comes from, for complaints.

    Returns:
        What it holds.

    Raises:
        nats.errors.InvalidUserCredentialsError: One of the two is missing or not what it should be.
    """
    return Credentials(parse_jwt(text, source), parse_seed(text, source))


def parse_jwt(text: str, source: str = "the JWT") -> str:
    """Find the user's JWT: in its frame of dashes, or alone.

    Args:
        text: The text of a file, or what a callback gave.
        source: Where it comes from, for complaints.

    Returns:
        The JWT.

    Raises:
        nats.errors.InvalidUserCredentialsError: There is none.
    """
    jwt = _framed(text, "JWT")
    if not _JWT.fullmatch(jwt):
        raise _invalid(f"{source}: no user JWT found")
    return jwt


class Validity(NamedTuple):
    """From when and until when a JWT lets somebody in, in seconds since the epoch; None for no such limit."""

    begins: float | None = None
    ends: float | None = None


def validity(jwt: str) -> Validity:
    """Read when a JWT is valid; what cannot be read says nothing, since the server is who decides."""
    claims: object = None
    with suppress(ValueError, RecursionError):
        claims = json.loads(_unbase64(jwt.split(".")[1].encode()) if jwt.count(".") == 2 else b"")
    if not isinstance(claims, dict):
        return Validity()
    begins, ends = (_seconds(claims.get(name)) for name in ("nbf", "exp"))
    return Validity(begins, ends)


def _seconds(value: object) -> float | None:
    # Of the years that a calendar knows; 0 is how Go writes "none".
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**37:
        return None
    return float(value)


def parse_seed(text: str, source: str = "the seed") -> str:
    """Find the user's seed: in its frame of dashes, or as the first line that is not empty and no comment.

    Args:
        text: The text of a file.
        source: Where it comes from, for complaints.

    Returns:
        The seed, checked.

    Raises:
        nats.errors.InvalidUserCredentialsError: There is none, or it is not a user's.
    """
    seed = _framed(text, "SEED")
    if not seed:
        raise _invalid(f"{source}: no seed found")
    check_seed(seed, source)
    return seed


def canonical_signature(signature: object, source: str = "signature_cb") -> bytes:
    """Read a signature as callbacks give it: its 64 bytes, or, as nats-py wants them, those in base64.

    Args:
        signature: What the callback returned.
        source: Where it comes from, for complaints.

    Returns:
        The 64 bytes.

    Raises:
        nats.errors.InvalidUserCredentialsError: It is neither.
    """
    raw = b""
    if isinstance(signature, (bytes, bytearray)):
        raw = bytes(signature)
    elif isinstance(signature, str):
        raw = signature.encode(errors="replace")
    if len(raw) != _SIGNATURE_BYTES:
        raw = _unbase64(raw)
    if len(raw) != _SIGNATURE_BYTES:
        raise _invalid(f"{source}: this is no Ed25519 signature: neither its 64 bytes nor those in base64")
    return raw


def _decoded(text: object) -> bytes:
    """Undo base32 and check the checksum; nothing if that cannot be done."""
    if not isinstance(text, str):
        return b""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:  # binascii.Error is one
        return b""
    return raw if binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little") else b""


def _unbase64(text: bytes) -> bytes:
    plain = text.strip().rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return b""


def _framed(text: str, kind: str) -> str:
    """Return what stands in the frame whose label ends with `kind`; without frames, the first line that says something."""
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    frames = [(number, match) for number, line in enumerate(lines) if (match := _FRAME.fullmatch(line))]
    if not frames:
        return next((line for line in lines if line and not line.startswith("#")), "")
    for number, match in frames:
        if match[1] == "BEGIN" and match[2].endswith(kind):
            end = next((n for n, _ in frames if n > number), len(lines))
            return "".join(lines[number + 1 : end])
    return ""


def _invalid(text: str) -> errors.InvalidUserCredentialsError:
    return errors.explained(errors.InvalidUserCredentialsError, text)
