"""Which subscriptions were refused for a limit: told from how many were, and in which order all was said."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.sessions import BROKEN, Recorder, Server, sent
from trionats import errors
from trionats._protocol.admission import MOST_TOLD, Admissions
from trionats._protocol.engine import Engine, Phase
from trionats._protocol.happenings import OverLimit, Refused
from trionats._protocol.migration import Migration
from trionats._protocol.registrations import Registration

TEXT = "maximum subscriptions exceeded"


def greeted(engine: Engine, server: Server) -> None:
    engine.begin()
    engine.receive(b"INFO {}\r\n")
    heard(engine, server.answer(engine.greet({})))


def heard(engine: Engine, data: bytes) -> list[Registration]:
    """Let the engine hear something, and do what the link does with it."""
    refused: list[Registration] = []
    for event in engine.receive(data):
        if isinstance(event, OverLimit):
            assert event.text == TEXT
            rows = engine.over_limit()
            refused += rows
            for row in rows:
                engine.refuse(row, errors.Error())
        elif isinstance(event, Refused) and event.text.startswith("Permissions"):
            engine.refuse_subscription("denied", "", errors.Error())
    return refused


def talk(engine: Engine, server: Server) -> list[Registration]:
    """Let the two say what they have to say."""
    refused: list[Registration] = []
    while engine.outbox.frames:
        refused += heard(engine, server.answer(sent(engine.outbox)))
    return refused


def greeted_by(limit: int) -> tuple[Engine, Server]:
    engine, server = Engine(), Server(limit, b"denied")
    greeted(engine, server)
    return engine, server


def sub(engine: Engine, subject: bytes) -> Registration:
    return engine.subscribe(subject, b"", 0, Recorder())


def test_a_server_that_refuses_more_than_was_told() -> None:
    engine, server = greeted_by(5)
    row = sub(engine, b"a")
    assert talk(engine, server) == []
    assert heard(engine, b"-ERR '%b'\r\n" % TEXT.encode() * 2) == []
    for refused in ([row], []):  # what was refused is told once
        engine.ping("fence")
        assert talk(engine, server) == refused
        sub(engine, b"b")


def row(sid: int) -> Registration:
    return Registration(sid, b"s", b"", 0, Recorder())


def test_no_healthy_one_is_ended_where_the_numbers_do_not_fit() -> None:
    told = Admissions()
    first, second, third = map(row, range(3))
    told.subscribed(first)
    told.subscribed(second)
    told.unsubscribed(first)
    told.subscribed(third)
    # With no place all three are refused, with one only the second: that two were is nothing that could be.
    told.refused()
    told.refused()
    told.pinged()
    assert told.ponged()
    assert told.settle() == [second]


class Counted(Registration):
    """A row that counts how often its subject is looked at."""

    __slots__ = ()
    looks = 0

    def __getattribute__(self, name: str) -> object:
        Counted.looks += name == "subject"
        return super().__getattribute__(name)


def test_what_is_refused_for_its_subject_costs_the_same_however_many_there_are() -> None:
    many = 5000
    admissions = Admissions()
    rows = [Counted(number, b"s%d" % number, b"", 0, Recorder()) for number in range(many)]
    for row in rows:
        if admissions.subscribed(row):
            admissions.pinged()
    Counted.looks = 0
    for row in rows:
        admissions.denied(b"s%d" % row.sid, b"")
    # Looked through for each of them, it would be 2,500 times.
    assert Counted.looks <= 20 * many


def test_what_is_subscribed_again_after_it_was_refused_for_its_subject_counts() -> None:
    engine, server = greeted_by(1)
    sub(engine, b"denied")
    assert talk(engine, server) == []
    server.denies = b"another"
    sub(engine, b"a")
    again = sub(engine, b"denied")
    assert talk(engine, server) == [again]


def test_what_was_told_is_forgotten_again_without_a_refusal() -> None:
    engine, server = greeted_by(1 << 20)
    admissions = engine._session.admissions
    for _ in range(20 * MOST_TOLD):
        engine.unsubscribe(sub(engine, b"a"))
        talk(engine, server)
        assert len(admissions._told) + sum(map(len, admissions._fenced)) <= MOST_TOLD


def test_many_are_asked_about_now_and_then_and_a_refusal_is_told_once() -> None:
    engine, server = greeted_by(1 << 20)
    rows = [sub(engine, b"a") for _ in range(3 * MOST_TOLD)]
    assert engine.outbox.frames.count(b"PING\r\n") == 3
    assert talk(engine, server) == []
    for _ in range(2):
        engine.refuse(rows[0], errors.Error())
    assert isinstance(rows[0].receiver, Recorder)
    assert len(rows[0].receiver.ends) == 1


def test_a_replay_that_is_refused_in_part() -> None:
    engine = Engine()
    rows = [sub(engine, b"s%d" % n) for n in range(1000)]
    server = Server(990)
    greeted(engine, server)
    assert talk(engine, server) == rows[990:]
    # The connection after that has less room still.
    engine.lost(BROKEN)
    server = Server(10)
    greeted(engine, server)
    assert talk(engine, server) == rows[10:990]
    assert list(engine.registrations) == list(server.rows)


def moving(engine: Engine, new: Server) -> Migration:
    """Let the newcomer of a planned move arrive, which refuses nothing."""
    move = Migration(engine, b"_INBOX.")
    greeted(move.side, new)
    move.arrive("arrived")
    assert talk(move.side, new) == []
    return move


def test_the_newcomer_of_a_planned_move_has_less_room() -> None:
    (engine, old), new = greeted_by(9), Server(2)
    plain = [sub(engine, b"p%d" % n) for n in range(2)]
    queued = engine.subscribe(b"q", b"q", 0, Recorder())
    talk(engine, old)
    move = moving(engine, new)
    move.switch("fence")
    talk(move.side, old)
    engine.ping("mine")  # said while what is queued waits for the fence: the crossing ones go before it
    move.crossed(None)
    assert talk(engine, new) == [plain[1]]
    assert list(engine.registrations) == [plain[0].sid, queued.sid]


def test_a_refusal_that_is_found_out_behind_the_switch_of_a_planned_move_keeps_its_words() -> None:
    engine, old = greeted_by(1)
    rows = [sub(engine, b"p%d" % n) for n in range(2)]
    move = moving(engine, Server(9))
    assert heard(engine, old.answer(sent(engine.outbox))) == []  # what follows is the PING that finds it out
    move.switch("fence")
    assert talk(move.side, old) == rows[1:]


class Limited(RuleBasedStateMachine):
    """Whatever is said, and however it is cut up: those that the server refused end, and no others."""

    @initialize(limit=st.integers(0, 6))
    def begin(self, limit: int) -> None:
        self.engine, self.server = greeted_by(limit)
        self.refused: set[int] = set()
        self.left: set[int] = set()
        self.answers = b""

    @rule(subject=st.sampled_from([b"a", b"b", b"b", b"denied"]))
    def subscribe(self, subject: bytes) -> None:
        sub(self.engine, subject)

    @precondition(lambda self: self.engine.registrations)
    @rule(which=st.integers(0, 100))
    def unsubscribe(self, which: int) -> None:
        rows = list(self.engine.registrations.values())
        row = rows[which % len(rows)]
        self.left.add(row.sid)
        self.engine.unsubscribe(row)

    @rule()
    def ping(self) -> None:
        self.engine.ping("somebody")

    @rule(limit=st.integers(1, 60))
    def write(self, limit: int) -> None:
        self.answers += self.server.answer(sent(self.engine.outbox, limit))

    @rule(part=st.integers(0, 200))
    def hear(self, part: int) -> None:
        data, self.answers = self.answers[:part], self.answers[part:]
        self.refused |= {row.sid for row in heard(self.engine, data)}

    @rule()
    def come_to_rest(self) -> None:
        while self.engine.outbox.frames or self.answers:
            self.write(1 << 20)
            self.hear(1 << 20)
        assert set(self.engine.registrations) == set(self.server.rows)
        assert self.refused | (self.left & self.server.refused) == self.server.refused

    @rule(limit=st.integers(0, 6))
    def reconnect(self, limit: int) -> None:
        self.engine.lost(BROKEN)
        refused = self.server.refused
        self.server = Server(limit, b"denied")
        self.server.refused |= refused & (self.refused | self.left)
        self.answers = b""
        greeted(self.engine, self.server)

    @invariant()
    def nobody_else_was_ended(self) -> None:
        assert self.refused <= self.server.refused
        assert self.engine.phase is Phase.ONLINE


Limited.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLimited = Limited.TestCase


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 10))
def test_the_number_of_refusals_says_which(ends: list[int], places: int) -> None:
    # Each subscription ends so many steps later, 0 for not at all.
    rows = [row(sid) for sid in range(len(ends))]
    admissions = Admissions()
    inside: set[Registration] = set()
    refused = []
    for sid, one in enumerate(rows):
        admissions.subscribed(one)
        if len(inside) < places:
            inside.add(one)
        else:
            refused.append(one)
            admissions.refused()
        for before, after in enumerate(ends[: sid + 1]):
            if after and before + after == sid:
                inside.discard(rows[before])
                admissions.unsubscribed(rows[before])
    admissions.pinged()
    assert admissions.ponged() == bool(refused)
    if refused:
        assert admissions.settle() == refused
