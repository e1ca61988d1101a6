"""What the reply subject of a JetStream message says, what is said there, and which numbers are taken for some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trionats._protocol.jetstream.acks import (
    AckSubject,
    NextReply,
    Standing,
    Verdict,
    exception_kinds,
    judge_next,
    nak_body,
    next_body,
    parse_ack_subject,
    term_body,
    verdict_on,
    whole_number,
)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("$JS.ACK.S.C.1.20.3.1795440575220161869.2", AckSubject("S", "C", 1, 20, 3, 1795440575220161869, 2)),
        # Measured with `js_ack_fc_v2`.
        ("$JS.ACK._.szMpdrwD.S.C.1.1.1.1795440575220161869.2", AckSubject("S", "C", 1, 1, 1, 1795440575220161869, 2)),
        ("$JS.ACK.hub.szMpdrwD.S.C.2.7.8.9.10", AckSubject("S", "C", 2, 7, 8, 9, 10, "hub")),
        ("$JS.ACK.hub.szMpdrwD.S.C.2.7.8.9.10.later.still", AckSubject("S", "C", 2, 7, 8, 9, 10, "hub")),
        ("$JS.ACK.S.C.1.2.3.4.5.6", None),
        ("$JS.ACK.S.C.1.2.3.4", None),
        ("$JS.ACK.S.C.1.2.three.4.5", None),
        ("$JS.ACK.S.C.1.2..4.5", None),
        (f"$JS.ACK.S.C.1.{'9' * 5000}.3.4.5", None),
        ("$JS.ACK.S.C.1.-2.3.4.5", None),
        (f"$JS.ACK.S.C.1.2.3.{1 << 63}.5", None),
        (f"$JS.ACK.S.C.1.{1 << 63}.3.4.5", None),
        (f"$JS.ACK.S.C.1.2.3.4.{1 << 63}", None),
        ("$JS.FC.S.C.1.2.3.4.5", None),
        ("_INBOX.a.b.c.d.e.f.g.h", None),
        ("", None),
    ],
)
def test_a_reply_subject_is_read_in_both_forms(reply: str, expected: AckSubject | None) -> None:
    assert parse_ack_subject(reply) == expected


@given(
    st.text(max_size=60) | st.lists(st.text(max_size=4), max_size=14).map(lambda parts: ".".join(["$JS.ACK", *parts]))
)
def test_any_reply_subject_is_survived(reply: str) -> None:
    assert isinstance(parse_ack_subject(reply), AckSubject | None)


NO_NUMBERS: list[object] = ["", "-1", "²", "9" * 30, None, [], -1, True, 1 << 63, 1.5]


@pytest.mark.parametrize(("value", "number"), [("12", 12), (7, 7), *((value, 0) for value in NO_NUMBERS)])
def test_what_is_no_count_counts_nothing(value: object, number: int) -> None:
    assert whole_number({"n": value}, "n") == number
    assert whole_number({}, "n") == 0


# -- verdicts --------------------------------------------------------------------------------------------------------------------


class Told(RuleBasedStateMachine):
    """A message is told one final thing, whatever it is asked to be told and whatever becomes of that."""

    def __init__(self) -> None:
        super().__init__()
        self.standing = Standing.OPEN
        self.sent: list[Verdict] = []

    @rule(verdict=st.sampled_from(Verdict), outcome=st.sampled_from(["sent", "not sent", "in doubt"]))
    def say(self, verdict: Verdict, outcome: str) -> None:
        after = self.standing.after(verdict)
        if after is None:
            assert self.standing.value, "an error has to say why"
            return
        if outcome == "not sent":
            return
        if verdict is not Verdict.IN_PROGRESS:
            self.sent.append(verdict)
        self.standing = Standing.IN_DOUBT if outcome == "in doubt" and verdict is Verdict.ACK else after

    @rule()
    def confirm(self) -> None:
        if self.standing is Standing.IN_DOUBT:
            self.standing = Standing.ACKED

    @invariant()
    def what_was_sent_never_contradicts_itself(self) -> None:
        assert len(set(self.sent)) <= 1
        assert len(self.sent) <= 1 or self.sent[0] is Verdict.ACK

    @invariant()
    def what_is_settled_stays_so(self) -> None:
        allowed = [verdict for verdict in Verdict if self.standing.after(verdict) is not None]
        expected = {Standing.OPEN: list(Verdict), Standing.IN_DOUBT: [Verdict.ACK]}
        assert allowed == expected.get(self.standing, [])


test_a_message_gets_one_final_verdict = Told.TestCase


def test_a_message_that_nobody_waits_for_gets_no_verdict() -> None:
    assert [Standing.UNASKED.after(verdict) for verdict in Verdict] == [None] * 4


@pytest.mark.parametrize(
    ("delay", "body"),
    [
        (None, b"-NAK"),
        (0, b"-NAK"),
        (1e-10, b"-NAK"),
        (1.5, b'-NAK {"delay": 1500000000}'),
        (9_223_372_036, b'-NAK {"delay": 9223372036000000000}'),
    ],
)
def test_a_nak_says_its_delay_in_nanoseconds(delay: float | None, body: bytes) -> None:
    assert nak_body(delay) == body


@pytest.mark.parametrize(
    ("delay", "kind"),
    [(-1, ValueError), (float("nan"), ValueError), (1e10, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_a_delay_that_is_none_is_refused(delay: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="nak: delay"):
        nak_body(delay)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "body"), [(None, b"+TERM"), ("", b"+TERM"), ("  ", b"+TERM"), (" no gööd ", "+TERM no gööd".encode())]
)
def test_a_term_says_its_reason(reason: str | None, body: bytes) -> None:
    assert term_body(reason) == body


@pytest.mark.parametrize(
    ("reason", "kind"), [("a\r\nb", ValueError), ("\0", ValueError), ("x" * 1025, ValueError), (b"x", TypeError)]
)
def test_a_reason_that_is_none_is_refused(reason: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="term: reason"):
        term_body(reason)  # type: ignore[arg-type]
    assert len(term_body("x" * 1024)) == 1030


def test_the_next_message_is_never_waited_for_without_an_end() -> None:
    assert next_body(0.25) == b'+NXT {"batch":1,"expires":250000000}'
    assert next_body(0) == b'+NXT {"batch":1,"expires":1}'


@pytest.mark.parametrize(
    ("code", "text", "meaning"),
    [
        (404, "No Messages", NextReply.NOTHING),
        (408, "Request Timeout", NextReply.NOTHING),
        (409, "Leadership Change", NextReply.NOTHING),
        (409, "Server Shutdown", NextReply.NOTHING),
        (503, "", NextReply.GONE),
        (409, "Consumer Deleted", NextReply.GONE),
        (409, "Consumer is push based", NextReply.REFUSED),
        (409, "Exceeded MaxRequestExpires of 1s", NextReply.REFUSED),
        (400, "Bad Request - Priority Group missing", NextReply.REFUSED),
    ],
)
def test_a_status_says_why_no_next_message_comes(code: int, text: str, meaning: NextReply) -> None:
    assert judge_next(code, text) is meaning


class Hopeless(ValueError): ...


@pytest.mark.parametrize(
    ("error", "terminal", "verdict"),
    [
        (Hopeless(), (ValueError,), Verdict.TERM),
        (Hopeless(), (), Verdict.NAK),
        (KeyError(), (ValueError, OSError), Verdict.NAK),
        (KeyboardInterrupt(), (Exception,), Verdict.NAK),
        (ExceptionGroup("", [Hopeless(), ExceptionGroup("", [ValueError()])]), (ValueError,), Verdict.TERM),
        (ExceptionGroup("", [Hopeless(), KeyError()]), (ValueError,), Verdict.NAK),
        (BaseExceptionGroup("", [Hopeless(), KeyboardInterrupt()]), (ValueError,), Verdict.NAK),
        (ExceptionGroup("", [Hopeless()]), (), Verdict.NAK),
    ],
)
def test_only_what_is_hopeless_throughout_terminates(
    error: BaseException, terminal: tuple[type[Exception], ...], verdict: Verdict
) -> None:
    found, body = verdict_on(error, terminal)
    assert found is verdict
    assert body == (b"-NAK" if verdict is Verdict.NAK else b"+TERM " + type(error).__name__.encode())


@pytest.mark.parametrize("given", [BaseException, ValueError(), "ValueError", (ValueError, int), [ValueError]])
def test_what_terminates_is_a_class_of_exceptions(given: object) -> None:
    with pytest.raises(TypeError, match="processing: term_on must be"):
        exception_kinds(given)
    assert exception_kinds(ValueError) == (ValueError,)
    assert exception_kinds(()) == ()
