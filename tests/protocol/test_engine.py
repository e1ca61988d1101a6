"""The engine's tables: what goes out, what comes back, and what is still true after a connection broke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trionats import errors
from trionats._protocol import commands
from trionats._protocol.engine import CONTROL_LINE, Engine, Phase
from trionats._protocol.happenings import Garbage, InfoChanged, Loss, PongArrived, Refused
from trionats._protocol.parser import Message
from trionats._protocol.registrations import Registration

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO = b'INFO {"server_id":"A","max_payload":100}\r\n'
BROKEN = errors.UnexpectedEOF()


class Recorder:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.told: list[object] = []

    def deliver(self, message: Message) -> None:
        self.messages.append(message.data)

    def connection_lost(self, reason: Exception) -> None:
        self.told.append(("lost", reason))

    def connection_restored(self) -> None:
        self.told.append("restored")

    def ended(self, reason: BaseException | None) -> None:
        self.told.append(("ended", reason))


def online(engine: Engine | None = None) -> Engine:
    engine = engine or Engine()
    engine.begin()
    assert engine.receive(INFO) == [InfoChanged({"server_id": "A", "max_payload": 100})]
    engine.greet({})
    assert engine.receive(b"PONG\r\n") == []
    assert engine.phase is Phase.ONLINE
    return engine


def at(engine: Engine) -> Phase:
    """Its phase, hidden from a type checker that believes phases never change."""
    return engine.phase


def drained(engine: Engine) -> bytes:
    batch = engine.take(1 << 30)
    engine.sent()
    return batch


def publish(engine: Engine, data: bytes = b"x") -> tuple[bytes, int]:
    frame = commands.pub(b"s", b"", data)
    engine.publish(frame, len(data))
    return frame, engine.newest


def msg(sid: int, data: bytes = b"x") -> bytes:
    return b"MSG s %d %d\r\n%b\r\n" % (sid, len(data), data)


# -- the session --------------------------------------------------------------------------------------------------


def test_the_handshake() -> None:
    engine = Engine()
    assert at(engine) is Phase.OFFLINE
    engine.begin()
    assert at(engine) is Phase.GREETING
    assert engine.receive(b"PONG\r\n") == []  # nobody asked
    engine.receive(INFO[:10])
    assert at(engine) is Phase.GREETING
    engine.receive(INFO[10:] + b"PONG\r\n")  # a PONG before CONNECT proves nothing
    assert at(engine) is Phase.GREETED
    assert engine.greet({"verbose": False}) == b'CONNECT {"verbose":false}\r\nPING\r\n'
    assert at(engine) is Phase.PROVING
    publish(engine)
    assert engine.receive(b"+OK\r\n") == []
    assert at(engine) is Phase.PROVING
    engine.receive(b"PONG\r\n")
    assert at(engine) is Phase.ONLINE


def test_welcome_news_and_messages_in_one_segment() -> None:
    """What comes right behind the PONG counts (nats.go 41c5d2b0)."""
    engine, receiver = Engine(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    engine.begin()
    engine.receive(INFO)
    engine.greet({})
    events = engine.receive(b'PONG\r\nINFO {"max_payload":7,"ldm":true}\r\n' + msg(1, b"early"))
    assert events == [InfoChanged({"max_payload": 7, "ldm": True})]
    assert engine.info == {"server_id": "A", "max_payload": 7, "ldm": True}
    assert receiver.messages == [b"early"]


def test_info_of_a_new_connection_replaces_the_old() -> None:
    engine = online()
    engine.receive(b'INFO {"only":"here"}\r\n')
    engine.lost(BROKEN)
    engine.begin()
    engine.receive(b'INFO {"server_id":"B"}\r\n')
    assert engine.info == {"server_id": "B"}


def test_what_the_server_says_besides() -> None:
    engine = online()
    assert engine.receive(b"-ERR 'Slow'\r\n+OK\r\nPING\r\nPONG\r\n") == [Refused("Slow")]
    assert drained(engine) == b"PONG\r\n"
    events = engine.receive(b"-ERR 'x'\r\nwhat?\r\nPING\r\n")
    assert events[0] == Refused("x")
    assert isinstance(events[1], Garbage)
    assert isinstance(events[1].error, errors.ProtocolError)
    assert len(events) == 2
    assert engine.receive(b"PING\r\n") == []


def test_wanted_is_the_parsers() -> None:
    engine = online()
    engine.receive(b"MSG s 1 1000\r\n")
    assert engine.wanted == 1002


# -- subscriptions -----------------------------------------------------------------------------------------------------


def test_subscribing() -> None:
    engine, receiver = online(), Recorder()
    row = engine.subscribe(b"a.*", b"", 0, receiver)
    queued = engine.subscribe(b"b", b"q", 3, receiver)
    assert drained(engine) == b"SUB a.* 1\r\nSUB b q 2\r\nUNSUB 2 3\r\n"
    engine.receive(msg(1) + msg(2) + msg(99))
    assert receiver.messages == [b"x", b"x"]
    engine.unsubscribe(row)
    engine.unsubscribe(row)
    assert drained(engine) == b"UNSUB 1\r\n"
    engine.receive(msg(1))
    assert len(receiver.messages) == 2
    assert list(engine.registrations.values()) == [queued]
    assert engine.subscribe(b"c", b"", 0, receiver).sid == 3
    assert (engine.in_msgs, engine.in_bytes) == (4, 4)
    assert receiver.told == []


def test_bytes_count_headers() -> None:
    engine, receiver = online(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    engine.receive(b"HMSG s 1 12 15\r\nNATS/1.0\r\n\r\nabc\r\n")
    assert (receiver.messages, engine.in_bytes) == ([b"abc"], 15)


def test_the_last_message_ends_a_subscription() -> None:
    engine, receiver = online(), Recorder()
    row = engine.subscribe(b"s", b"", 2, receiver)
    drained(engine)
    engine.receive(msg(1, b"1") + msg(1, b"2") + msg(1, b"3"))
    assert receiver.messages == [b"1", b"2"]
    assert receiver.told == [("ended", None)]
    assert engine.registrations == {}
    engine.unsubscribe(row)
    assert drained(engine) == b""


def test_the_last_message_is_too_much_for_its_receiver() -> None:
    """A receiver that unsubscribes on the very message that completes the count."""
    engine = online()

    class Full(Recorder):
        def deliver(self, message: Message) -> None:
            super().deliver(message)
            engine.unsubscribe(row)

    receiver = Full()
    row = engine.subscribe(b"s", b"", 1, receiver)
    engine.receive(msg(1) + b"PING\r\n")
    assert receiver.messages == [b"x"]
    assert receiver.told == []
    assert drained(engine).endswith(b"UNSUB 1\r\nPONG\r\n")


def test_replay_says_what_is_left() -> None:
    engine, receiver = online(), Recorder()
    engine.subscribe(b"s", b"", 5, receiver)
    gone = engine.subscribe(b"gone", b"", 0, receiver)
    drained(engine)
    engine.receive(msg(1) * 2)
    engine.lost(BROKEN)
    assert receiver.told == [("lost", BROKEN)] * 2
    engine.unsubscribe(gone)
    engine.subscribe(b"new", b"q", 0, receiver)
    assert drained(engine) == b""
    online(engine)
    assert receiver.told[2:] == ["restored"] * 2
    assert drained(engine) == b"SUB s 1\r\nUNSUB 1 3\r\nSUB new q 3\r\n"
    engine.receive(msg(1) * 4)
    assert len(receiver.messages) == 5
    assert receiver.told[4:] == [("ended", None)]


def test_subscribing_while_the_link_is_restored() -> None:
    engine = Engine()

    class Eager(Recorder):
        def connection_restored(self) -> None:
            engine.subscribe(b"more", b"", 0, Recorder())

    engine.subscribe(b"s", b"", 0, Eager())
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
    for receiver, (subject, queue) in zip(
        receivers, [(b"s", b""), (b"s", b"q"), (b"s", b""), (b"t", b"")], strict=True
    ):
        engine.subscribe(subject, queue, 0, receiver)
    drained(engine)
    error = errors.PermissionsViolationError()
    assert engine.refuse_subscription("s", "", error)
    assert [bool(receiver.told) for receiver in receivers] == [True, False, True, False]
    assert receivers[0].told == [("ended", error)]
    assert engine.refuse_subscription("s", "q", error)
    assert not engine.refuse_subscription("s", "q", error)
    assert not engine.refuse_subscription("\ud800", "\udfff", error)
    assert drained(engine) == b""
    engine.lost(BROKEN)
    online(engine)
    assert drained(engine) == b"SUB t 4\r\n"


class Searched(dict[int, Registration]):
    """A table that counts how often somebody goes through all of it."""

    searches = 0

    def values(self) -> Any:  # noqa: ANN401 - a view that has no name
        self.searches += 1
        return super().values()

    def items(self) -> Any:  # noqa: ANN401 - a view that has no name
        self.searches += 1
        return super().items()

    def __iter__(self) -> Iterator[int]:
        self.searches += 1
        return super().__iter__()


@pytest.mark.parametrize("queue", [b"", b"q"])
def test_many_refusals_search_no_table(queue: bytes) -> None:
    engine, receivers = online(), [Recorder() for _ in range(500)]
    engine.registrations = table = Searched()
    rows = [engine.subscribe(b"s.%d" % number, queue, 0, receiver) for number, receiver in enumerate(receivers)]
    engine.unsubscribe(rows[7])
    engine.complete(rows[8])
    for number in range(500):
        error = errors.PermissionsViolationError()
        assert engine.refuse_subscription(f"s.{number}", queue.decode(), error) == (number not in (7, 8))
    assert all(receiver.told for number, receiver in enumerate(receivers) if number != 7)
    assert not table.searches
    assert not engine.registrations
    assert not len(engine._named)


def test_each_way_to_end_takes_the_name_out() -> None:
    engine = online()
    engine.subscribe(b"s" * CONTROL_LINE, b"", 0, Recorder())
    engine.refuse_overlong(BROKEN)
    engine.subscribe(b"s", b"", 1, Recorder())
    engine.receive(msg(2))
    for _ in range(3):
        engine.subscribe(b"s", b"q", 0, Recorder())
    engine.end_all(None)
    assert not len(engine._named)


def test_ending_one_refused_ends_another() -> None:
    engine = online()

    class Pair(Recorder):
        def ended(self, reason: BaseException | None) -> None:
            super().ended(reason)
            engine.unsubscribe(rows[1])

    rows = [engine.subscribe(b"s", b"", 0, Pair()), engine.subscribe(b"s", b"", 0, Recorder())]
    assert engine.refuse_subscription("s", "", errors.PermissionsViolationError())
    assert engine.registrations == {}


def test_end_all() -> None:
    engine, receiver = online(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    engine.subscribe(b"t", b"", 0, receiver)
    drained(engine)
    engine.end_all(None)
    engine.end_all(BROKEN)
    assert receiver.told == [("ended", None)] * 2
    assert drained(engine) == b"UNSUB 1\r\nUNSUB 2\r\n"


# -- what goes out -----------------------------------------------------------------------------------------------------


def test_batches_are_whole_frames() -> None:
    engine = online()
    frames = [publish(engine, b"x" * size)[0] for size in (10, 20, 30, 500, 1)]
    assert engine.outbox_bytes == sum(map(len, frames))
    assert engine.take(len(frames[0]) + len(frames[1])) == frames[0] + frames[1]
    engine.sent()
    assert engine.take(40) == frames[2]
    engine.sent()
    assert engine.take(40) == frames[3]  # too big for any batch: one frame always comes
    engine.sent()
    assert engine.outbox_bytes == len(frames[4])
    assert engine.take(1) == frames[4]
    assert engine.take(1) == b""
    assert engine.outbox_bytes == 0
    assert (engine.out_msgs, engine.out_bytes) == (5, 561)


def test_loss_counts_the_batch_under_way_and_keeps_the_rest() -> None:
    engine, receiver = online(), Recorder()
    engine.subscribe(b"s", b"", 0, receiver)
    for data in (b"1", b"2"):
        publish(engine, data)
    engine.publish(b"HPUB s 12 12\r\nNATS/1.0\r\n\r\n\r\n", 12)
    engine.ping("flush")
    engine.take(1 << 20)
    kept, number = publish(engine, b"3")
    engine.ping("later")
    engine.ping()
    engine.queue(commands.unsub(9))
    loss = engine.lost(BROKEN)
    assert loss == Loss(frames=3, pings=["flush", "later"])
    assert engine.waits(kept, number)
    assert engine.outbox_bytes == len(kept)
    assert engine.lost(BROKEN) == Loss(frames=0, pings=[])
    online(engine)
    assert engine.waits(kept, number)
    assert drained(engine) == b"SUB s 1\r\n" + kept
    assert not engine.waits(kept, number)
    assert engine.out_msgs == 4


def test_our_own_publishes_are_nobodys_loss() -> None:
    """A goodbye waits for the next connection, what is passing does not, and neither is counted."""
    engine = online()
    engine.publish(commands.Aside(commands.pub(b"goodbye", b"", b"1")), 1)
    engine.publish(commands.Passing(commands.pub(b"pull", b"", b"22")), 2)
    assert (engine.unsent_publishes, engine.holds_publishes) == (0, False)
    published, _ = publish(engine, b"333")
    assert (engine.unsent_publishes, engine.holds_publishes) == (1, True)
    engine.take(1 << 20)
    assert (engine.unsent_publishes, engine.holds_publishes) == (1, True)
    goodbye = commands.Aside(commands.pub(b"goodbye", b"", b"4444"))
    engine.publish(goodbye, 4)
    engine.publish(commands.Passing(commands.pub(b"pull", b"", b"55555")), 5)
    assert engine.lost(BROKEN) == Loss(frames=1)
    # What was not sent was not published.
    assert (engine.out_msgs, engine.out_bytes) == (4, 10)
    kept, number = publish(engine, b"666666")
    assert engine.unsent_publishes == 1
    assert engine.waits(kept, number)
    online(engine)
    assert drained(engine) == goodbye + kept
    assert published not in (goodbye, kept)
    engine.publish(goodbye, 4)
    assert engine.discard() == 0


def test_our_own_publish_that_is_too_large_is_dropped_without_a_word() -> None:
    engine = Engine()
    engine.publish(commands.Aside(commands.pub(b"goodbye", b"", b"x" * 101)), 101)
    engine.publish(commands.pub(b"s", b"", b"x" * 101), 101)
    online(engine)
    assert (engine.oversized, drained(engine)) == (1, b"")


def test_anything_heard_is_a_sign_of_life() -> None:
    engine = online()
    heard = engine.heard
    engine.receive(b"PI")
    engine.receive(b"NG\r\n")
    assert engine.heard == heard + 2


def test_withdrawing() -> None:
    engine = online()
    one, first = publish(engine, b"1")
    two, second = publish(engine, b"22")
    three, third = publish(engine, b"333")
    assert engine.withdraw(two, second, 2)
    assert not engine.withdraw(two, second, 2)
    assert not engine.waits(bytes(bytearray(one)), first)  # the very object, not one like it
    assert (engine.out_msgs, engine.out_bytes) == (2, 4)
    assert engine.outbox_bytes == len(one) + len(three)
    assert engine.waits(three, third)
    assert drained(engine) == one + three
    assert not engine.withdraw(one, first, 1)
    assert (engine.out_msgs, engine.out_bytes) == (2, 4)
    assert not engine.withdraw(b"", 0)


def test_an_outage_full_of_withdrawn_requests_takes_no_room() -> None:
    engine = Engine()
    kept, number = publish(engine)
    for _ in range(1000):
        waiting = [publish(engine, b"request") for _ in range(3)]
        for frame, newest in waiting:
            assert engine.withdraw(frame, newest, 7)
    assert len(engine.outbox) == 1
    assert (engine.out_msgs, engine.out_bytes) == (1, 1)
    assert engine.waits(kept, number)
    again, number = publish(engine)
    assert engine.waits(again, number)
    assert engine.out_msgs == 2


def test_a_request_that_stays_open_does_not_keep_the_places_of_those_that_are_given_up() -> None:
    engine = Engine()
    kept, number = publish(engine)
    before = publish(engine, b"request")
    for _ in range(5000):
        # There is always one more behind it.
        now = publish(engine, b"request")
        assert engine.withdraw(*before, 7)
        before = now
    assert len(engine.outbox) < 200
    assert engine.waits(kept, number)
    assert engine.waits(*before)
    assert engine.out_msgs == 2


def test_what_is_queued_behind_a_fence_waits_for_the_next_connection() -> None:
    engine = online()
    assert [engine.sendable] == [False]
    before = [publish(engine, b"%d" % n) for n in range(3)]
    engine.fence("left")
    behind = [publish(engine, b"%d" % n) for n in range(3, 6)]
    engine.subscribe(b"a", b"", 0, Recorder())
    assert [engine.sendable] == [True]
    first = engine.take(len(before[0][0]))
    assert first == before[0][0]
    engine.sent()
    rest = engine.take(1 << 20)
    assert rest == before[1][0] + before[2][0] + b"PING\r\n"
    engine.sent()
    assert [engine.sendable] == [False]
    assert engine.take(1 << 20) == b""
    engine.sent()
    assert engine.receive(b"PONG\r\n") == [PongArrived("left")]
    assert engine.take(1 << 20) == b""
    assert engine.lost(errors.UnexpectedEOF()).frames == 0
    online(engine)
    assert engine.take(1 << 20) == b"SUB a 1\r\n" + b"".join(frame for frame, _ in behind)


def test_discard() -> None:
    engine = online()
    _, number = publish(engine)
    publish(engine)
    engine.ping()
    assert engine.discard() == 2
    assert (engine.outbox, engine.outbox_bytes, engine.out_msgs) == ([], 0, 2)
    frame, newest = publish(engine)
    assert newest == number + 3
    assert engine.waits(frame, newest)


# -- pings -------------------------------------------------------------------------------------------------------------


def test_pongs_answer_in_order() -> None:
    engine = online()
    engine.ping("a")
    engine.ping()
    engine.ping("b")
    assert drained(engine) == b"PING\r\n" * 3
    assert engine.receive(b"PONG\r\n") == [PongArrived("a")]
    assert engine.receive(b"PONG\r\nPONG\r\nPONG\r\n") == [PongArrived("b")]  # one more than was asked for


def test_no_pong_of_another_connection() -> None:
    engine = online()
    engine.ping("old")
    assert engine.lost(BROKEN).pings == ["old"]
    online(engine)
    engine.ping("new")
    assert engine.receive(b"PONG\r\n") == [PongArrived("new")]


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_keepalive_gives_up(most: int) -> None:
    engine = online()
    assert [engine.keepalive(most) for _ in range(most + 2)] == [True] * most + [False] * 2
    assert drained(engine) == b"PING\r\n" * most


def test_any_pong_is_a_sign_of_life() -> None:
    engine = online()
    assert engine.keepalive(1)
    assert not engine.keepalive(1)
    assert engine.receive(b"PONG\r\n") == []
    assert engine.keepalive(1)
    engine.lost(BROKEN)
    online(engine)
    assert engine.keepalive(1)


def test_a_row_remembers_where_to_deliver() -> None:
    """The row keeps its own `deliver`: one look-up less for each message."""
    receiver = Recorder()
    row = Registration(1, b"s", b"", 0, receiver)
    row.deliver(Message(1, "s", "", b"x"))
    assert receiver.messages == [b"x"]
