"""What a publish into a stream may ask for, and which PubAck counts.

A stream's subjects do not end where its JetStream domain does: what is published at a leaf reaches a stream of the hub
and one of the leaf, if both listen, and both reply. A PubAck names the domain that it comes from; a refusal names none.
So where a domain was asked for, only its own PubAck counts, and a refusal counts only once that PubAck has had its time
to come (design 54).
"""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from trionats import errors
from trionats._protocol.fields import MOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AckChooser", "AckKind", "judge", "patience", "time_to_live"]


class Reply(Protocol):
    """What is needed of a message."""

    @property
    def data(self) -> bytes:
        """Its payload."""


Msg = TypeVar("Msg", bound=Reply)

#: How long the own PubAck may take behind one from elsewhere.
ELSEWHERE_PATIENCE: Final = 3.0
#: And behind a refusal, where it is not known how far away the domain is; and besides its round trips where it is.
UNKNOWN_DISTANCE: Final = 0.5
LEAST_PATIENCE: Final = 0.1
ROUND_TRIPS: Final = 4


class AckKind(enum.Enum):
    """What a reply to a publish is."""

    OURS = enum.auto()
    """It counts: the PubAck of the domain that was asked for, or what is none at all."""
    ELSEWHERE = enum.auto()
    """The PubAck of another domain."""
    REFUSAL = enum.auto()
    """Somebody's refusal; it does not say whose."""


def judge(data: bytes, domain: str, *, strict: bool) -> tuple[AckKind, str, str]:
    """Read whose reply to a publish this is.

    Args:
        data: The reply's payload.
        domain: The domain that was asked for.
        strict: A PubAck without a domain is one from elsewhere. It is where the domain's API has named itself; else
            the name may be an alias of ours.

    Returns:
        What it is, and the stream and the domain that it names.
    """
    try:
        said: Any = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return AckKind.OURS, "", ""
    stream, named = (text if isinstance(text, str) else "" for text in (said.get("stream"), said.get("domain")))
    if "error" in said:
        return AckKind.REFUSAL, stream, named
    if not stream or named == domain or not (named or strict):
        return AckKind.OURS, stream, named
    return AckKind.ELSEWHERE, stream, named


class AckChooser(Generic[Msg]):
    """Chooses among the replies to one publish that was meant for one domain.

    Args:
        domain: The domain.
        strict: As for `judge`.
        patience: How many seconds to wait behind a refusal.
        tell: Called with stream and domain when another domain has stored the message; as often as that is said.
    """

    __slots__ = ("_domain", "_elsewhere", "_patience", "_refusal", "_strict", "_tell")

    def __init__(self, domain: str, *, strict: bool, patience: float, tell: Callable[[str, str], None]) -> None:
        self._domain, self._strict, self._patience, self._tell = domain, strict, patience, tell
        self._refusal: Msg | None = None
        self._elsewhere = ""

    def choose(self, message: Msg) -> float:
        """Take a reply.

        Args:
            message: The reply.

        Returns:
            0 if this is the one, else how many seconds to wait at the most for a better one.
        """
        kind, stream, domain = judge(message.data, self._domain, strict=self._strict)
        if kind is AckKind.OURS:
            return 0
        if kind is AckKind.ELSEWHERE:
            self._elsewhere = domain
            self._tell(stream, domain)
        elif self._refusal is None:
            self._refusal = message
        return ELSEWHERE_PATIENCE if self._refusal is None else self._patience

    def give_up(self) -> Msg | Exception:
        """Take what has come for all that comes.

        Returns:
            The refusal, or that nobody has replied who was asked.
        """
        if self._refusal is not None:
            return self._refusal
        text = f"no stream in domain {self._domain!r} has answered, but one in {self._elsewhere or 'no domain'!r}"
        return errors.explained(errors.NoStreamResponseError, text, description=text)


def patience(round_trip: float | None) -> float:
    """Say how long a domain's own PubAck may take behind somebody's refusal.

    Args:
        round_trip: How long the domain's API took to respond, or None where it was not asked.

    Returns:
        Seconds.
    """
    if round_trip is None:
        return UNKNOWN_DISTANCE
    # One response that took long, of a server that stood still, is no measure of the distance.
    return min(LEAST_PATIENCE + ROUND_TRIPS * round_trip, ELSEWHERE_PATIENCE)


def time_to_live(doing: str, ttl: object) -> str:
    """Write how long a message is to live, for its `Nats-TTL` header.

    Args:
        doing: What the message is published for, for the text of an exception.
        ttl: Whole seconds, or "never".

    Returns:
        The header's value.

    Raises:
        TypeError: It is neither a number nor "never".
        ValueError: It is a number that the server does not take, or would cut.
    """
    if isinstance(ttl, str) and ttl == "never":
        return "never"
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool):
        raise TypeError(f'{doing}: msg_ttl must be whole seconds or "never", not {type(ttl).__name__}')
    if not 1 <= ttl <= MOST_SECONDS:
        raise ValueError(f'{doing}: msg_ttl must be from 1 to {MOST_SECONDS} seconds, or "never"')
    if ttl != int(ttl):
        raise ValueError(f"{doing}: msg_ttl is {ttl:g} s: the server cuts it to whole seconds, so it must be whole")
    return f"{int(ttl)}s"
