"""What a publish into a stream may ask for, and which PubAck counts.

A stream's subjects do not end where its JetStream domain does: what is published at a leaf reaches a stream of the hub
and one of the leaf, if both listen, and both reply. A PubAck names the domain that it comes from; a refusal names none.
So where a domain was asked for, only its own PubAck counts, and a refusal counts only once that PubAck has had its time
to come (design 54).

What a publish asks of the stream stands in headers. They are checked here, so that what the server would take in silence for
something else (a filter that matches nothing, a time to live that it cuts) is refused before anything is sent.
"""

from __future__ import annotations

import enum
import json
import re
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypedDict, TypeVar

from trionats import errors
from trionats._protocol import subjects
from trionats._protocol.fields import MOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "CONFLICTS",
    "EXPECTED_LAST",
    "MSG_ID",
    "MSG_TTL",
    "PUBLISH_RETRIES",
    "PUBLISH_RETRY_WAIT",
    "ROLLUP",
    "UNDER_WAY",
    "UNDER_WAY_PAUSES",
    "AckChooser",
    "AckKind",
    "Attempts",
    "PublishOptions",
    "is_conflict",
    "is_plain_ack",
    "judge",
    "own_place",
    "patience",
    "publish_headers",
    "time_to_live",
]


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


#: The header that makes a second publish of the same message a duplicate.
MSG_ID: Final = "Nats-Msg-Id"
#: The header that says which sequence the subject's last message has to have, 0 for none at all.
EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
#: The header that says how long the server keeps a message, and the one by which it replaces what is before it.
MSG_TTL: Final = "Nats-TTL"
ROLLUP: Final = "Nats-Rollup"
#: A stream without a leader has no subscriber for a moment: how often, and after how many seconds, to try again (ADR-22).
PUBLISH_RETRIES: Final = 2
PUBLISH_RETRY_WAIT: Final = 0.25
#: A message of the same id is being stored: what it becomes is known soon.
UNDER_WAY: Final = 10158
UNDER_WAY_PAUSES: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
#: Something else is the last of the stream, or of the subject, than what was expected.
WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
#: Or has another id.
CONFLICTS: Final = WRONG_LAST_SEQUENCE | {10070}
#: A sequence is a number of 64 bits.
_MOST_SEQUENCE: Final = 2**64 - 1
#: What a stream says of a message that it stored, where there is nothing to read between the lines: most of all that come.
is_plain_ack: Final = re.compile(
    rb'\{"stream":"[^"\\\x00-\x1f\x7f-\xff]+", ?"seq":[1-9][0-9]{0,18}'
    rb'(?:, ?"domain":"[^"\\\x00-\x1f\x7f-\xff]+")?(?:, ?"duplicate": ?true)?\}'
).fullmatch


class PublishOptions(TypedDict, total=False):
    """What a publish asks of the stream: what `Publisher.publish` takes by keyword, and `JetStream.publish` beside its own."""

    stream: str | None
    msg_id: str | None
    msg_ttl: float | Literal["never"] | None
    rollup: Literal["sub", "all"] | None
    expected_last_seq: int | None
    expected_last_subject_seq: int | None
    expected_last_subject_seq_subject: str | None
    expected_last_msg_id: str | None


class Attempts:
    """How often one message was published, as far as it may be once more."""

    __slots__ = ("_nobody", "_under_way")

    def __init__(self) -> None:
        self._nobody = self._under_way = 0

    def nobody(self) -> float | None:
        """Take note that nobody listened.

        Returns:
            After how many seconds to try again, or None for not at all.
        """
        self._nobody += 1
        return PUBLISH_RETRY_WAIT if self._nobody <= PUBLISH_RETRIES else None

    def under_way(self) -> float | None:
        """Take note that a message of the same id is being stored; the same as for `nobody`."""
        self._under_way += 1
        return UNDER_WAY_PAUSES[self._under_way - 1] if self._under_way <= len(UNDER_WAY_PAUSES) else None


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


def publish_headers(
    doing: str,
    *,
    stream: str | None = None,
    msg_id: str | None = None,
    msg_ttl: float | str | None = None,
    rollup: str | None = None,
    expected_last_seq: int | None = None,
    expected_last_subject_seq: int | None = None,
    expected_last_subject_seq_subject: str | None = None,
    expected_last_msg_id: str | None = None,
) -> dict[str, str]:
    """Write what a publish asks of the stream as headers.

    Args:
        doing: What is published for, for the text of an exception.
        stream: As `JetStream.publish` takes it, and so is the rest.

    Raises:
        TypeError: An argument is of a wrong kind.
        ValueError: An argument cannot be meant; the text names it.
    """
    asked = {}
    if stream is not None:
        asked["Nats-Expected-Stream"] = _stream(doing, stream)
    if msg_id is not None:
        asked[MSG_ID] = _text(doing, "msg_id", msg_id)
    if msg_ttl is not None:
        asked[MSG_TTL] = time_to_live(doing, msg_ttl)
    if rollup is not None:
        if rollup not in ("sub", "all"):
            raise ValueError(f"{doing}: rollup must be 'sub' or 'all', not {rollup!r}")
        asked[ROLLUP] = rollup
    if expected_last_seq is not None:
        asked["Nats-Expected-Last-Sequence"] = _sequence(doing, "expected_last_seq", expected_last_seq)
    if expected_last_subject_seq is not None:
        sequence = _sequence(doing, "expected_last_subject_seq", expected_last_subject_seq)
        asked[EXPECTED_LAST] = sequence
    if expected_last_subject_seq_subject is not None:
        if expected_last_subject_seq is None:
            text = (
                "expected_last_subject_seq_subject says whose sequence expected_last_subject_seq is, which is missing"
            )
            raise ValueError(f"{doing}: {text}")
        # The server takes one that is none for a subject without messages, and lets a sequence of 0 pass.
        where = f"{doing}: expected_last_subject_seq_subject"
        asked["Nats-Expected-Last-Subject-Sequence-Subject"] = subjects.pattern(
            where, expected_last_subject_seq_subject
        )
    if expected_last_msg_id is not None:
        asked["Nats-Expected-Last-Msg-Id"] = _text(doing, "expected_last_msg_id", expected_last_msg_id)
    return asked


def own_place(subject: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """Say where a message stands if it was stored by an earlier publish, whose expectation was right.

    It is then the one behind the sequence that was expected: in the stream, or among those of its subject. What was stored
    since makes no difference.

    Args:
        subject: Its subject.
        asked: What was asked of the stream, as `publish_headers` wrote it.

    Returns:
        Which message that is: the arguments of `JetStreamManager.get_msg`.
    """
    if (last := asked.get("Nats-Expected-Last-Sequence")) is not None:
        return {"seq": int(last) + 1}
    if (last := asked.get(EXPECTED_LAST)) is not None:
        return {"seq": int(last) + 1, "subject": subject, "next": True}
    return {"subject": subject}


def _stream(doing: str, stream: str) -> str:
    try:
        return subjects.stream_name(stream)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{doing}: {error}") from None


def _text(doing: str, name: str, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{doing}: {name} must be text, not {type(text).__name__}")
    if not text or text.strip() != text:
        raise ValueError(f"{doing}: {name} is {text!r}: it must not be empty, nor begin or end with white space")
    return text


def _sequence(doing: str, name: str, sequence: object) -> str:
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise TypeError(f"{doing}: {name} must be a whole number, not {type(sequence).__name__}")
    if not 0 <= sequence <= _MOST_SEQUENCE:
        raise ValueError(f"{doing}: {name} is {sequence}: it must be from 0 to {_MOST_SEQUENCE}")
    return str(int(sequence))


def is_conflict(error: Exception) -> bool:
    """Say whether a message was refused since something else is the last of its subject."""
    return isinstance(error, errors.APIError) and error.err_code in WRONG_LAST_SEQUENCE


def time_to_live(doing: str, ttl: object, name: str = "msg_ttl") -> str:
    """Write how long a message is to live, for its `Nats-TTL` header.

    Args:
        doing: What the message is published for, for the text of an exception.
        ttl: Whole seconds, or "never".
        name: What the argument is called.

    Returns:
        The header's value.

    Raises:
        TypeError: It is neither a number nor "never".
        ValueError: It is a number that the server does not take, or would cut.
    """
    if isinstance(ttl, str) and ttl == "never":
        return "never"
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool):
        raise TypeError(f'{doing}: {name} must be whole seconds or "never", not {type(ttl).__name__}')
    if not 1 <= ttl <= MOST_SECONDS:
        raise ValueError(f'{doing}: {name} must be from 1 to {MOST_SECONDS} seconds, or "never"')
    if ttl != int(ttl):
        raise ValueError(f"{doing}: {name} is {ttl:g} s: the server cuts it to whole seconds, so it must be whole")
    return f"{int(ttl)}s"
