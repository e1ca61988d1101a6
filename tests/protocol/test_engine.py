"""The engine's tables: what goes out, what comes back, and what is still true after a connection broke."""

from __future__ import annotations

import pytest

from tests.protocol.sessions import BROKEN, INFO, Recorder, drained, msg, online, publish, reconnected
from trionats import errors
from trionats._protocol.engine import CONTROL_LINE, Engine, Phase
from trionats._protocol.happenings import Garbage, InfoChanged, Loss, PongArrived, Refused
from trionats._protocol.registrations import Registration


def subscribed(max_msgs: int = 0, receiver: Recorder | None = None) -> tuple[Engine, Recorder, Registration]:
    """Subscribe to "s", and the server knows."""
    engine, receiver = online(), receiver or Recorder()
    row = engine.subscribe(b"s", b"", max_msgs, receiver)
    drained(engine)
    return engine, receiver, row


# -- the session --------------------------------------------------------------------------------------------------


def test_the_phases_of_a_handshake() -> None:
    engine = Engine()
    assert [engine.phase] == [Phase.OFFLINE]
    engine.begin()
    assert engine.receive(b"PONG\r\n") == []  # nobody asked
    engine.receive(INFO[:10])
    assert [engine.phase] == [Phase.GREETING]
    engine.receive(INFO[10:] + b"PONG\r\n")  # a PONG before CONNECT proves nothing
    assert [engine.phase] == [Phase.GREETED]
    assert engine.greet({"verbose": False}) == b'CONNECT {"verbose":false}\r\nPING\r\n'
    publish(engine.outbox)
    assert engine.receive(b"+OK\r\n") == []
    assert [engine.phase] == [Phase.PROVING]
    engine.receive(b"PONG\r\n")
    assert [engine.phase] == [Phase.ONLINE]


def test_welcome_news_and_messages_in_one_segment() -> None:
    """What comes right behind the PONG counts (nats.go 41c5d2b0); INFO of a new connection replaces the old."""
    engine, receiver = Engine(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    engine.begin()
    engine.receive(INFO)
    engine.greet({})
    events = engine.receive(b'PONG\r\nINFO {"max_payload":7,"ldm":true}\r\n' + msg(1, b"early"))
    assert events == [InfoChanged({"max_payload": 7, "ldm": True})]
    assert engine.info == {"server_id": "A", "max_payload": 7, "ldm": True}
    assert receiver.messages == [b"early"]
    engine.lost(BROKEN)
    engine.begin()
    engine.receive(b'INFO {"server_id":"B"}\r\n')
    assert engine.info == {"server_id": "B"}


def test_what_the_server_says_besides() -> None:
    engine = online()
    assert engine.receive(b"-ERR 'Slow'\r\n+OK\r\nPING\r\nPONG\r\n") == [Refused("Slow")]
    assert drained(engine) == b"PONG\r\n"
    refused, garbage = engine.receive(b"-ERR 'x'\r\nwhat?\r\nPING\r\n")
    assert refused == Refused("x")
    assert isinstance(garbage, Garbage)
    assert isinstance(garbage.error, errors.ProtocolError)
    assert engine.receive(b"PING\r\n") == []


def test_each_piece_is_a_sign_of_life_and_what_is_missing_of_a_payload_is_wanted() -> None:
    engine = online()
    heard = engine.heard
    engine.receive(b"PI")
    engine.receive(b"NG\r\n")
    assert engine.heard == heard + 2
    engine.receive(b"MSG s 1 1000\r\n")
    assert engine.wanted == 1002


# -- subscriptions -----------------------------------------------------------------------------------------------------


def test_a_subscription_is_told_to_the_server_and_delivered_until_it_is_left() -> None:
    engine, receiver = online(), Recorder()
    row = engine.subscribe(b"a.*", b"", 0, receiver)
    queued = engine.subscribe(b"b", b"q", 3, receiver)
    assert drained(engine) == b"SUB a.* 1\r\nSUB b q 2\r\nUNSUB 2 3\r\n"
    engine.receive(msg(1) + msg(2) + msg(99))
    engine.unsubscribe(row)
    engine.unsubscribe(row)
    assert drained(engine) == b"UNSUB 1\r\n"
    engine.receive(msg(1))
    assert receiver.messages == [b"x", b"x"]
    assert list(engine.registrations.values()) == [queued]
    assert engine.subscribe(b"c", b"", 0, receiver).sid == 3
    assert (engine.in_msgs, engine.in_bytes) == (4, 4)
    engine.receive(b"HMSG c 3 12 15\r\nNATS/1.0\r\n\r\nabc\r\n")
    assert (receiver.messages[2:], receiver.told, engine.in_bytes) == ([b"abc"], [], 4 + 15)


def test_the_last_message_ends_a_subscription() -> None:
    engine, receiver, row = subscribed(2)
    engine.receive(msg(1, b"1") + msg(1, b"2") + msg(1, b"3"))
    assert (receiver.messages, receiver.told, engine.registrations) == ([b"1", b"2"], ["ended"], {})
    engine.unsubscribe(row)
    assert drained(engine) == b""


def test_a_receiver_unsubscribes_on_the_very_message_that_completes_the_count() -> None:
    engine, receiver, row = subscribed(1, Recorder(lambda _: engine.unsubscribe(row)))
    engine.receive(msg(1) + b"PING\r\n")
    assert (receiver.messages, receiver.told) == ([b"x"], [])
    assert drained(engine) == b"UNSUB 1\r\nPONG\r\n"


def test_who_subscribes_when_the_connection_is_restored_is_not_replayed_twice() -> None:
    engine = Engine()
    engine.subscribe(b"s", b"", 0, Recorder(lambda _: engine.subscribe(b"more", b"", 0, Recorder())))
    online(engine)
    assert drained(engine) == b"SUB s 1\r\nSUB more 2\r\n"


def test_a_failed_handshake_tells_no_receiver() -> None:
    engine, receiver = Engine(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    engine.begin()
    assert engine.lost(BROKEN) == Loss(0, [])
    assert receiver.told == []


def test_refused_subscriptions_end() -> None:
    engine, receivers = online(), [Recorder() for _ in range(4)]
    for receiver, subject, queue in zip(receivers, (b"s", b"s", b"s", b"t"), (b"", b"q", b"", b""), strict=True):
        engine.subscribe(subject, queue, 0, receiver)
    drained(engine)
    error = errors.PermissionsViolationError()
    assert engine.refuse_subscription("s", "", error)
    assert [receiver.ends for receiver in receivers] == [[error], [], [error], []]
    assert engine.refuse_subscription("s", "q", error)
    assert not engine.refuse_subscription("s", "q", error)
    assert not engine.refuse_subscription("\ud800", "\udfff", error)
    assert drained(engine) == b""
    reconnected(engine)
    assert drained(engine) == b"SUB t 4\r\n"


class Unsearchable(dict[int, Registration]):
    """A table that nobody can go through."""

    __iter__ = keys = values = items = None  # type: ignore[assignment]


@pytest.mark.parametrize("queue", [b"", b"q"])
def test_many_refusals_search_no_table(queue: bytes) -> None:
    engine, receivers = online(), [Recorder() for _ in range(500)]
    engine.registrations = Unsearchable()
    rows = [engine.subscribe(b"s.%d" % number, queue, 0, receiver) for number, receiver in enumerate(receivers)]
    engine.unsubscribe(rows[7])
    engine.complete(rows[8])
    for number in range(500):
        error = errors.PermissionsViolationError()
        assert engine.refuse_subscription(f"s.{number}", queue.decode(), error) == (number not in (7, 8))
    assert all(receiver.told for number, receiver in enumerate(receivers) if number != 7)
    assert not engine.registrations
    assert not len(engine._named)


def test_each_way_to_end_takes_the_name_out() -> None:
    engine = online()
    engine.subscribe(b"s" * CONTROL_LINE, b"", 0, Recorder())
    engine.subscribe(b"s", b"", 1, Recorder())
    engine.refuse_overlong(BROKEN)
    assert list(engine.registrations) == [2]
    engine.receive(msg(2))
    for _ in range(3):
        engine.subscribe(b"s", b"q", 0, Recorder())
    engine.end_all(None)
    assert not len(engine._named)


def test_ending_one_refused_ends_another() -> None:
    engine, _, _ = subscribed(0, Recorder(lambda _: engine.unsubscribe(other)))
    other = engine.subscribe(b"s", b"", 0, Recorder())
    assert engine.refuse_subscription("s", "", errors.PermissionsViolationError())
    assert engine.registrations == {}


def test_all_end_once_and_the_server_is_told() -> None:
    engine, receiver, _ = subscribed()
    engine.subscribe(b"t", b"", 0, receiver)
    drained(engine)
    engine.end_all(None)
    engine.end_all(BROKEN)
    assert receiver.ends == [None] * 2
    assert drained(engine) == b"UNSUB 1\r\nUNSUB 2\r\n"


# -- giving up a subscription without losing what is on its way -------------------------------------------------------


def retired(max_msgs: int = 0) -> tuple[Engine, Recorder, Registration]:
    engine, receiver, row = subscribed(max_msgs)
    engine.retire(row)
    engine.retire(row)
    return engine, receiver, row


def test_what_comes_before_the_pong_is_delivered() -> None:
    engine, receiver, row = retired()
    engine.ping("fence")
    assert drained(engine) == b"UNSUB 1\r\nPING\r\n"
    assert engine.receive(msg(1) + b"PONG\r\n") == [PongArrived("fence")]
    engine.complete(row)
    engine.complete(row)
    engine.receive(msg(1, b"late"))
    assert (receiver.messages, receiver.ends, engine.registrations) == ([b"x"], [None], {})


def test_leaving_one_that_is_retired_says_nothing_again() -> None:
    engine, receiver, row = retired()
    engine.unsubscribe(row)
    engine.complete(row)
    assert (drained(engine), receiver.told) == (b"UNSUB 1\r\n", [])


def test_one_that_is_retired_is_not_replayed() -> None:
    engine, receiver, row = retired()
    reconnected(engine)
    engine.complete(row)
    assert (drained(engine), receiver.told) == (b"", ["lost", "restored", "ended"])


def test_the_agreed_number_ends_it_before_the_pong() -> None:
    engine, receiver, row = retired(max_msgs=1)
    engine.receive(msg(1))
    engine.complete(row)
    assert (receiver.messages, receiver.ends) == ([b"x"], [None])


def test_without_a_connection_or_once_it_has_ended_retiring_says_nothing() -> None:
    engine, _, row = subscribed()
    engine.lost(BROKEN)
    engine.retire(row)
    assert drained(engine) == b""
    engine, _, row = subscribed()
    engine.unsubscribe(row)
    drained(engine)
    engine.retire(row)
    assert drained(engine) == b""


# -- what goes out, over several connections --------------------------------------------------------------------------


def test_what_the_next_server_does_not_take_is_dropped() -> None:
    engine = Engine()
    publish(engine.outbox, b"x" * 101)
    fits = publish(engine.outbox, b"x" * 100)
    online(engine)
    assert (engine.outbox.oversized, drained(engine)) == (1, fits.frame)


def test_what_follows_a_fence_goes_behind_the_replay_of_the_next_connection() -> None:
    engine = online()
    before = publish(engine.outbox, b"1")
    engine.fence("left")
    behind = publish(engine.outbox, b"2")
    engine.subscribe(b"a", b"", 0, Recorder())
    assert drained(engine) == before.frame + b"PING\r\n"
    assert engine.receive(b"PONG\r\n") == [PongArrived("left")]
    assert drained(engine) == b""
    assert reconnected(engine).frames == 0
    assert drained(engine) == b"SUB a 1\r\n" + behind.frame


# -- pings -------------------------------------------------------------------------------------------------------------


def test_pongs_come_in_order_and_only_those_of_this_connection() -> None:
    engine = online()
    for token in ("a", None, "b"):
        engine.ping(token)
    assert drained(engine) == b"PING\r\n" * 3
    assert engine.receive(b"PONG\r\n") == [PongArrived("a")]
    assert engine.receive(b"PONG\r\nPONG\r\nPONG\r\n") == [PongArrived("b")]  # one more than was asked for
    engine.ping("old")
    assert reconnected(engine).pings == ["old"]
    engine.ping("new")
    assert engine.receive(b"PONG\r\n") == [PongArrived("new")]


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_keepalive_gives_up(most: int) -> None:
    engine = online()
    assert [engine.keepalive(most) for _ in range(most + 2)] == [True] * most + [False] * 2
    assert drained(engine) == b"PING\r\n" * most


def test_any_pong_and_a_new_connection_are_signs_of_life() -> None:
    engine = online()
    assert [engine.keepalive(1) for _ in range(2)] == [True, False]
    assert engine.receive(b"PONG\r\n") == []
    assert engine.keepalive(1)
    reconnected(engine)
    assert engine.keepalive(1)
