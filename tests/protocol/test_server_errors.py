"""What the server's complaints mean, and what they are to whoever asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trionats import errors
from trionats._protocol import server_errors
from trionats._protocol.server_errors import REFUSALS, hint_at_inbox, refusal_of, server_error

KINDS: list[tuple[type[errors.Error], list[str]]] = [
    (errors.AuthorizationError, ["Authorization Violation", "User Authentication Expired"]),
    (errors.AuthorizationError, ["User Authentication Revoked", "Account Authentication Expired"]),
    (errors.StaleConnectionError, ["Stale Connection"]),
    (errors.SecureConnRequiredError, ["Secure Connection - TLS Required"]),
    (errors.MaxPayloadError, ["Maximum Payload Violation", "maximum payload exceeded"]),
    (errors.BadSubjectError, ["Invalid Subject", "Invalid Publish Subject"]),
    (errors.ProtocolError, ["Unknown Protocol Operation", "invalid client protocol", "maximum control line exceeded"]),
    (errors.Error, ["maximum connections exceeded", "maximum account active connections exceeded"]),
    (errors.Error, ["maximum subscriptions exceeded", "authentication timeout", "something new", ""]),
    (errors.Error, ["Connection throttling is active. Please try again later."]),
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in KINDS for text in texts])
@pytest.mark.parametrize("change", [str, str.upper, str.lower, "'{}'".format, " '{}' ".format])
def test_each_complaint_has_its_exception(text: str, kind: type[errors.Error], change: Callable[[str], str]) -> None:
    error = server_error(change(text))
    assert isinstance(error, kind)
    assert type(error).__name__ == kind.__name__
    assert str(error).lower() == f"the server says: {text}".lower()


@pytest.mark.parametrize(
    ("what", "operation", "subject", "queue", "sid"),
    [
        ('Publish to "a.b"', "publish", "a.b", None, None),
        ('publish to "A.b"', "publish", "A.b", None, None),
        ('Publish with Reply of "_INBOX.x.y"', "reply", "_INBOX.x.y", None, None),
        ('Subscription to "a.>"', "subscription", "a.>", None, None),
        ('Subscription to "a.*" using queue "q"', "subscription", "a.*", "q", None),
        ('Subscription to "a", too many tokens', "subscription", "a", None, None),
        ('Subscription to "a" (sid "17")', "subscription", "a", None, 17),
        ('Subscription to "a" using queue "q" (sid "17")', "subscription", "a", "q", 17),
        ('Subscription to "a" (sid "seventeen")', "subscription", "a", None, None),
        ('Subscription to "a" (sid "\N{SUPERSCRIPT TWO}")', "subscription", "a", None, None),
        (r'Publish to "a\"b\\c"', "publish", 'a"b\\c', None, None),
        (r'Publish to "\\u0041"', "publish", r"\u0041", None, None),
        (r'Publish to "\u200bb\x7f\U000e0001\a"', "publish", "\u200bb\x7f\U000e0001\a", None, None),
        (r'Publish to "a\Uffffffff"', "publish", r"a\Uffffffff", None, None),
        ('Publish to "a\'b"', "publish", "a'b", None, None),
        (f'Publish to "{"a" * 4000}"', "publish", "a" * 4000, None, None),
        ("", "", "", None, None),
        ('Publish to "a', "", "", None, None),
        ('Tea to "a"', "", "", None, None),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_permission_violations_say_what_was_refused(
    what: str, operation: str, subject: str, queue: str | None, sid: int | None, quoted: bool
) -> None:
    violation = "permissions violation" if what.startswith("publish") else "Permissions Violation"
    text = f"{violation} for {what}" if what else violation
    error = server_error(f"'{text}'" if quoted else text)
    assert isinstance(error, errors.PermissionsViolationError)
    found = {name: getattr(error, name) for name in ("operation", "subject", "queue", "sid")}
    assert found == {"operation": operation, "subject": subject, "queue": queue, "sid": sid}
    assert str(error) == f"the server says: {text[:512]}"


@given(st.text() | st.builds("permissions violation for publish to {}".format, st.text()))
def test_any_text_is_an_error_to_return_and_none_to_raise(text: str) -> None:
    error = server_error(text)
    assert isinstance(error, errors.Error)
    assert len(str(error)) < 600


def test_what_a_server_says_is_shown_in_one_line() -> None:
    assert str(server_error("'bad\x1b[2J\u202e'")) == "the server says: bad\\x1b[2J\\u202e"


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [
        ("maximum subscriptions exceeded", True, False),
        ("Maximum Subscriptions Exceeded", True, False),
        ("maximum connections exceeded", False, False),
        ("Maximum Control Line Exceeded", False, True),
    ],
)
def test_what_a_complaint_is_about(text: str, limit: bool, line: bool) -> None:
    assert (server_errors.is_subscription_limit(text), server_errors.is_control_line(text)) == (limit, line)


PUBLISH = server_error('Permissions Violation for Publish to "a.b"')
LIMIT = errors.explained(errors.MaxSubscriptionsError, "too many", subject="a", queue=None)


@pytest.mark.parametrize("why", [PUBLISH, LIMIT])
def test_a_refusal_is_told_to_who_asked_with_all_that_is_known(why: errors.Error) -> None:
    assert isinstance(why, REFUSALS)
    told = refusal_of("request to 'A.b'", why)
    assert type(told).__name__ == type(why).__name__
    assert (str(told), vars(told), told.__cause__) == (f"request to 'A.b': {why}", vars(why), why)
    assert refusal_of("request", why, subject="A.b").subject == "A.b"


@pytest.mark.parametrize(
    ("operation", "subject", "hinted"),
    [("subscription", "_INBOX.a", True), ("subscription", "_INBOXES", False), ("publish", "_INBOX.a", False)],
)
def test_of_an_inbox_that_was_refused_it_is_said_what_helps(operation: str, subject: str, hinted: bool) -> None:
    error = errors.explained(errors.PermissionsViolationError, "no", operation=operation, subject=subject)
    hint_at_inbox(error, "_INBOX.")
    assert str(error) == ("no; set inbox_prefix= to what this user may subscribe to" if hinted else "no")
