"""What the server's complaints (`-ERR`) mean, and whom they concern.

A complaint is a line of text. It says whether the connection goes on only by what follows, and names what was refused by its
subject at the best. So three things are decided here: which exception it is; whether it refuses something that we asked for
that gets no reply of its own from the server (a request, its reply subject, an inbox, a pull); and what that is to whoever
asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from trionats import errors
from trionats._protocol.showing import foreign, hidden

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = [
    "REFUSALS",
    "Refusal",
    "hint_at_inbox",
    "is_control_line",
    "is_subscription_limit",
    "refusal_of",
    "server_error",
]

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PERMISSIONS = re.compile(
    rf"permissions violation for (publish to|publish with reply of|subscription to) {_QUOTED}"
    rf"(?:, too many tokens)?(?: using queue {_QUOTED})?(?: \(sid {_QUOTED}\))?",
    re.IGNORECASE,
)
_OPERATIONS = {"publish to": "publish", "publish with reply of": "reply", "subscription to": "subscription"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)

# By the beginning of the text, in lower case. What is not listed (limits of the account, throttling, "authentication
# timeout") says nothing about us that another attempt could not change.
_KINDS: tuple[tuple[str, type[errors.Error]], ...] = (
    ("authorization violation", errors.AuthorizationError),
    ("user authentication expired", errors.AuthorizationError),
    ("user authentication revoked", errors.AuthorizationError),
    ("account authentication expired", errors.AuthorizationError),
    ("stale connection", errors.StaleConnectionError),
    ("secure connection - tls required", errors.SecureConnRequiredError),
    ("maximum payload", errors.MaxPayloadError),
    ("invalid subject", errors.BadSubjectError),
    ("invalid publish subject", errors.BadSubjectError),
    ("unknown protocol operation", errors.ProtocolError),
    ("invalid client protocol", errors.ProtocolError),
    ("maximum control line exceeded", errors.ProtocolError),
)


def server_error(text: str, confided: Iterable[str] = ()) -> errors.Error:
    """Turn the text of an `-ERR` into the exception that it means.

    The exception says nothing about whether the connection goes on: the server closes it, or leaves it open.

    Args:
        text: What stands behind `-ERR`, with or without its quotes, in upper or lower case.
        confided: What it must not be quoted with.

    Returns:
        The exception. A `PermissionsViolationError` has the attributes `operation` ("publish", "subscription", or
        "reply" for the reply subject of a publish), `subject` (both empty when the text cannot be read), `queue` (None for
        none) and `sid` (None unless the server says which subscription it removed).
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1].strip()
    explanation = f"the server says: {foreign(hidden(text, confided))}"
    lowered = text.lower()
    if lowered.startswith("permissions violation"):
        return errors.explained(errors.PermissionsViolationError, explanation, **_violation(text))
    for beginning, kind in _KINDS:
        if lowered.startswith(beginning):
            return errors.explained(kind, explanation)
    return errors.Error(explanation)


def _violation(text: str) -> dict[str, Any]:
    match = _PERMISSIONS.fullmatch(text)
    if match is None:
        return {"operation": "", "subject": "", "queue": None, "sid": None}
    operation, subject, queue, sid = match.groups()
    return {
        "operation": _OPERATIONS[operation.lower()],
        "subject": _unquoted(subject),
        "queue": None if queue is None else _unquoted(queue),
        "sid": int(sid) if sid and sid.isascii() and sid.isdigit() and len(sid) < 20 else None,
    }


def _unquoted(text: str) -> str:
    """Undo Go's `%q`, as far as names of subjects need it."""
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    number = match[1] or match[2] or match[3]
    if number is None:
        return _CONTROLS.get(match[4], match[4])
    point = int(number, 16)
    return chr(point) if point < 0x110000 else match[0]


_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


# What is asked for and gets no reply of its own from the server.

Refusal: TypeAlias = errors.PermissionsViolationError | errors.MaxSubscriptionsError
#: What a server says that lets nobody subscribe to an inbox, or publish a request: the connection goes on.
REFUSALS: Final = (errors.PermissionsViolationError, errors.MaxSubscriptionsError)

R = TypeVar("R", bound=Refusal)


def refusal_of(what: str, why: R, *, subject: str = "") -> R:
    """Make the error for who asked, of what the server said.

    Args:
        what: What was asked for: "request to 'orders'", or the name of a feed.
        why: What the server said.
        subject: The subject as it was asked for, where what the server said is known only in lower case.

    Returns:
        An error of the same class, which knows what `why` knows, and it as its cause.
    """
    known = vars(why) | ({"subject": subject} if subject else {})
    error = errors.explained(type(why), f"{what}: {why}", **known)
    error.__cause__ = why
    return error


def hint_at_inbox(error: errors.PermissionsViolationError, inbox_prefix: str) -> None:
    """Let the error for a refused subscription say what helps, where it is one for an inbox.

    Args:
        error: The error; its text is changed.
        inbox_prefix: What the client's inboxes begin with.
    """
    if error.operation == "subscription" and error.subject.startswith(inbox_prefix):
        error.args = (f"{error}; set inbox_prefix= to what this user may subscribe to",)


def is_subscription_limit(text: str) -> bool:
    """Say whether a complaint refuses a subscription because there are too many; it does not say which."""
    return "maximum subscriptions exceeded" in text.casefold()


def is_control_line(text: str) -> bool:
    """Say whether a complaint is about a control line that is too long."""
    return "control line" in text.casefold()
