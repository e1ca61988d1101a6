"""A purge is asked for until nothing can be left, whatever the server and the network do meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats._protocol.jetstream.objects.remnants import ATTEMPTS, RESPONSE_TIME, SETTLING, Remnant

#: What happens to it, word by word, and how it stands then.
SCRIPTS = {
    "what is acknowledged is purged once": "asks !asks !done coming=0 purged@1 done coming=0 !asks@1",
    "it waits for what is to come": "sent sent !asks coming=2 landed !asks coming=1 landed asks purged done coming=0",
    "it rests while it only waits for a time to come": f"""sent !rests missed asks !rests purged rests !done
        look@{SETTLING} !rests asks@{SETTLING} refused rests""",
    "one that is in a hurry purges again after each that comes late": """sent sent sent hurry asks purged !done !asks
        landed asks@1 landed !asks@1 purged@1 asks@1 purged@1 !done unsent done""",
    "what was adrift is purged some time after the next connection stands": f"""sent sent missed missed asks purged@100
        again={100 + SETTLING} !done look@{99 + SETTLING} !asks@100 look@{100 + SETTLING} asks@105 purged@106 done""",
    "a response that was lost is asked for again": "asks lost again=None " * 10 + "asks purged done",
    "a refusal ends it": "sent hurry asks refused landed look@1000 !asks@1000 done",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_purge_is_asked_for_as_long_as_something_may_be_left(name: str) -> None:
    remnant = Remnant()
    for word in SCRIPTS[name].split():
        verb, _, when = word.removeprefix("!").partition("@")
        match verb.partition("="):
            case "asks", _, _:
                assert remnant.ask(float(when or 0)) is not word.startswith("!"), word
            case "rests" | "done", _, _:
                assert getattr(remnant, verb) is not word.startswith("!"), word
            case "coming", _, count:
                assert repr(remnant) == f"<Remnant, {count} chunks to come, {'done' if remnant.done else 'not done'}>"
            case "again", _, moment:
                assert str(remnant.look_at) == moment
            case "purged" | "look", _, _:
                getattr(remnant, verb)(float(when or 0))
            case _:
                getattr(remnant, verb)()


@pytest.mark.parametrize("how", ["silent", "not ready"])
def test_a_server_that_never_responds_is_given_up(how: str) -> None:
    remnant, now, asked = Remnant(), 0.0, 0
    while remnant.ask(now):
        asked += 1
        if how == "not ready":
            remnant.postponed(now)
        if remnant.look_at is not None:
            assert remnant.look_at == now + (RESPONSE_TIME if how == "silent" else SETTLING)
            now = remnant.look_at
            remnant.look(now)
    assert asked == ATTEMPTS + 1
    assert (remnant.given_up, remnant.done, remnant.look_at) == (True, True, None)


class Bucket(RuleBasedStateMachine):
    """A server that stores chunks and purges in any order, over a connection that breaks at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.remnant = Remnant()
        self.now = self.adrift_until = 0.0
        self.flying = self.adrift = 0
        self.online, self.stored, self.purging = True, False, False

    def go_on(self) -> None:
        self.purging = self.remnant.ask(self.now) or self.purging

    @initialize(flying=st.integers(0, 4), stored=st.booleans(), hurried=st.booleans())
    def begin(self, flying: int, stored: bool, hurried: bool) -> None:
        self.flying, self.stored = flying, stored
        for _ in range(flying):
            self.remnant.sent()
        if hurried:
            self.remnant.hurry()
        self.go_on()

    @precondition(lambda self: self.online and self.flying)
    @rule(refused=st.booleans())
    def a_chunk_lands(self, refused: bool) -> None:
        self.flying -= 1
        self.stored = self.stored or not refused
        self.remnant.landed()
        self.go_on()

    @precondition(lambda self: self.online and self.purging)
    @rule()
    def the_purge_is_done(self) -> None:
        self.stored = self.purging = False
        # What was adrift lands soon after the server is there again.
        self.adrift_until = min(self.adrift_until, self.now + SETTLING / 2)
        self.remnant.purged(self.now)
        self.go_on()

    @precondition(lambda self: self.adrift)
    @rule()
    def one_that_was_adrift_lands(self) -> None:
        self.adrift -= 1
        self.stored = True

    @precondition(lambda self: self.online)
    @rule(answer_too_late=st.booleans())
    def the_connection_breaks(self, answer_too_late: bool) -> None:
        self.online = False
        purging, self.purging = self.purging, False
        if self.flying:
            self.adrift_until = float("inf")
        while self.flying:
            self.flying -= 1
            self.adrift += 1
            self.remnant.missed()
            self.go_on()
        if purging:
            self.stored = self.stored and not answer_too_late
            self.remnant.lost()
        self.go_on()

    @precondition(lambda self: not self.online)
    @rule()
    def it_comes_back(self) -> None:
        self.online = True

    @rule()
    def in_a_hurry(self) -> None:
        self.remnant.hurry()
        self.go_on()

    @precondition(lambda self: self.online and self.remnant.look_at is not None and not self.purging)
    @rule()
    def time_passes(self) -> None:
        assert self.remnant.look_at is not None
        self.now = self.remnant.look_at
        if self.adrift and self.adrift_until <= self.now:
            self.adrift, self.stored = 0, True
        self.remnant.look(self.now)
        self.go_on()

    @invariant()
    def nothing_is_left_when_it_is_done(self) -> None:
        if self.remnant.done:
            assert (self.stored, self.flying, self.adrift) == (False, 0, 0)

    def teardown(self) -> None:
        self.online = True
        for _ in range(1000):
            if self.remnant.done:
                break
            if self.flying:
                self.a_chunk_lands(False)
            elif self.purging:
                self.the_purge_is_done()
            else:
                self.time_passes()
        assert self.remnant.done
        self.nothing_is_left_when_it_is_done()


TestBucket = Bucket.TestCase
TestBucket.settings = settings(max_examples=200, stateful_step_count=30)
