"""An info whose outcome nobody waits for is followed until it is known which chunks are nobody's, and no others go."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trionats import api
from trionats._protocol.jetstream.objects.doubts import ATTEMPTS, PAUSE, RESPONSE_TIME, Doubt
from trionats._protocol.jetstream.objects.places import SHARES, Place

HERE, THERE = "$O.b.M.here", "$O.b.M.there"


def info_of(nuid: str, *, shares: str = "", **more: object) -> api.ObjectInfo:
    info = api.ObjectInfo("n", "b", nuid, **more)  # type: ignore[arg-type]
    if shares:
        info.extra[SHARES] = shares
    return info


def place_of(revision: int, nuid: str = "", *, subject: str = HERE, shares: str = "", deleted: bool = False) -> Place:
    info = info_of(nuid, shares=shares, deleted=deleted) if nuid else None
    return Place(subject, revision, info, nuid=nuid)


OLD = place_of(5, "old")
MARKED = info_of("old", deleted=True)

#: What was written, what is found in one place after the other once it was overtaken, and whose chunks go then.
OUTCOMES: dict[str, tuple[api.ObjectInfo, list[Place], str]] = {
    "ours stands there": (info_of("new"), [place_of(6, "new")], "old"),
    "ours was edited": (info_of("new"), [place_of(9, "new")], "old"),
    "somebody else's stands there": (info_of("new"), [place_of(6, "other")], "old new"),
    "the old one was edited": (info_of("new"), [place_of(6, "old")], "new"),
    "the old one was renamed": (
        info_of("new"),
        [place_of(7, "old", shares=THERE, deleted=True), place_of(6, "old", subject=THERE, shares=HERE)],
        "new",
    ),
    "the old one was renamed, and is no more": (
        info_of("new"),
        [place_of(7, "other", shares=THERE), place_of(8, "old", subject=THERE, shares=HERE, deleted=True)],
        "old new",
    ),
    "what stands there cannot be read": (info_of("new"), [place_of(6)], "old new"),
    "a link has no chunks": (info_of(""), [place_of(6, "other")], "old"),
    "a marker stands there": (MARKED, [place_of(6, "old", deleted=True)], "old"),
    "whoever overtook a marker purges for himself": (MARKED, [place_of(6, "other")], ""),
}


def goers(doubt: Doubt) -> str:
    return " ".join(["old"] * doubt.old_goes + ["new"] * doubt.new_goes)


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_chunks_go_that_no_info_names_wherever_it_was_renamed_to(name: str) -> None:
    info, places, expected = OUTCOMES[name]
    doubt = Doubt(info, OLD)
    assert repr(doubt) == "<Doubt, sending>"
    assert doubt.ask(0)
    doubt.refused(overtaken=True)
    for place in places:
        assert repr(doubt) == f"<Doubt, {place.subject}>"
        assert (doubt.ask(0), doubt.reading) == (True, place.subject)
        doubt.found(place, 0)
    assert (goers(doubt), doubt.given_up) == (expected, False)
    assert repr(doubt) == "<Doubt, over>"
    assert not doubt.ask(1000)


def test_what_is_acknowledged_takes_the_place_of_the_old_one() -> None:
    doubt = Doubt(info_of("new"), OLD)
    assert doubt.ask(0)
    assert not doubt.ask(0), "one thing is under way at a time"
    doubt.acknowledged()
    assert (doubt.over, goers(doubt)) == (True, "old")


@pytest.mark.parametrize("elsewhere", ["old", "other"])
@pytest.mark.parametrize("info", [info_of("new"), MARKED], ids=["put", "delete"])
@pytest.mark.parametrize("overtaken", [False, True])
def test_the_old_chunks_stay_where_the_object_has_another_place(
    elsewhere: str, info: api.ObjectInfo, overtaken: bool
) -> None:
    doubt = Doubt(info, place_of(5, "old", shares=THERE))
    assert doubt.ask(0)
    if overtaken:
        doubt.refused(overtaken=True)
        doubt.found(place_of(6, info.nuid, deleted=bool(info.deleted)) if info is MARKED else place_of(6, "rival"), 0)
    else:
        doubt.acknowledged()
    assert (doubt.over, doubt.reading) == (False, THERE)
    doubt.found(place_of(4, elsewhere, subject=THERE, shares=HERE), 0)
    stays = elsewhere == "old"
    new = ["new"] if overtaken and info is not MARKED else []
    assert (doubt.over, goers(doubt)) == (True, " ".join([*([] if stays else ["old"]), *new]))


@pytest.mark.parametrize("what", ["a leader that was one", "a refusal for another reason", "nothing there"])
def test_what_does_not_say_what_happened_is_asked_again_later(what: str) -> None:
    """A refusal says nothing of what was sent before, and a look at the place nothing of what is still on its way."""
    doubt = Doubt(info_of("new"), OLD)
    assert doubt.ask(0)
    doubt.refused(overtaken=what != "a refusal for another reason")
    assert doubt.ask(1)
    doubt.found({"a leader that was one": OLD, "nothing there": place_of(0)}.get(what, place_of(6, "other")), 1)
    assert (doubt.over, doubt.reading, doubt.look_at) == (False, "", 1 + PAUSE)
    assert not doubt.ask(PAUSE)
    doubt.look(1 + PAUSE)
    assert (doubt.ask(1 + PAUSE), doubt.reading) == (True, "")


def test_what_was_lost_with_the_connection_is_sent_again_at_once() -> None:
    doubt = Doubt(info_of("new"), OLD)
    for _ in range(1000):
        assert doubt.ask(0)
        doubt.lost()
    assert (doubt.over, doubt.ask(0)) == (False, True)


@pytest.mark.parametrize("how", ["silent", "not ready"])
def test_a_server_that_never_says_it_is_given_up_and_nothing_goes(how: str) -> None:
    doubt, now, asked = Doubt(info_of("new"), OLD), 0.0, 0
    while not doubt.over:
        if doubt.ask(now):
            asked += 1
            assert doubt.look_at == now + RESPONSE_TIME
            if how == "not ready":
                doubt.postponed(now)
                continue
        doubt.look(now)  # too early
        now = doubt.look_at
        doubt.look(now)
    assert asked == ATTEMPTS + 1
    assert (doubt.given_up, goers(doubt)) == (True, "")


class Bucket(RuleBasedStateMachine):
    """A stream that stores what comes at any time, over a connection that breaks at any time, with leaders that are none any more."""

    def __init__(self) -> None:
        super().__init__()
        self.doubt = Doubt(info_of("new"), OLD)
        self.log = [OLD]
        self.stored = False
        self.adrift = 0
        self.asked = False
        self.online = True
        self.now = 0.0

    @initialize(adrift=st.booleans())
    def begin(self, adrift: bool) -> None:
        if adrift:
            self.adrift = 1
        else:
            self.take()
        self.go_on()

    def go_on(self) -> None:
        self.asked = self.doubt.ask(self.now) or self.asked

    def take(self) -> bool:
        """Store ours if it can be."""
        if len(self.log) > 1:
            return False
        self.log.append(place_of(6, "new"))
        self.stored = True
        return True

    @precondition(lambda self: self.adrift)
    @rule()
    def one_that_was_adrift_arrives(self) -> None:
        self.adrift -= 1
        self.take()

    @rule(edits=st.booleans())
    def somebody_else_writes(self, edits: bool) -> None:
        last = self.log[-1]
        self.log.append(place_of(last.revision + 1, last.nuid if edits else f"other{len(self.log)}"))

    @precondition(lambda self: self.online and self.asked)
    @rule(answer=st.sampled_from(["as it is", "not ready", "another reason", "a leader that was one"]))
    def the_server_answers(self, answer: str) -> None:
        self.asked = False
        if answer == "not ready":
            self.doubt.postponed(self.now)
        elif self.doubt.reading:
            self.doubt.found(self.log[0 if answer == "a leader that was one" else -1], self.now)
        elif answer == "another reason":
            self.doubt.refused(overtaken=False)
        elif self.take():
            self.doubt.acknowledged()
        else:
            self.doubt.refused(overtaken=True)
        self.go_on()

    @precondition(lambda self: self.online)
    @rule(on_its_way=st.booleans())
    def the_connection_breaks(self, on_its_way: bool) -> None:
        self.online = False
        if self.asked:
            self.asked = False
            self.adrift += on_its_way and not self.doubt.reading
            self.doubt.lost()
            self.go_on()

    @precondition(lambda self: not self.online)
    @rule()
    def it_comes_back(self) -> None:
        self.online = True

    @precondition(lambda self: not self.doubt.over and self.doubt.look_at > self.now)
    @rule()
    def time_passes(self) -> None:
        self.now = self.doubt.look_at
        if self.asked and not self.doubt.reading:
            self.adrift += 1
        self.asked = False
        self.doubt.look(self.now)
        self.go_on()

    @invariant()
    def only_what_nobody_names_goes(self) -> None:
        named = self.log[-1].nuid
        assert not (self.doubt.old_goes and named == "old")
        assert not (self.doubt.new_goes and named == "new")
        if self.doubt.over and not self.doubt.given_up:
            # Whoever replaces one purges it; the one that stood first when ours did not come to stand was replaced by another.
            assert self.doubt.old_goes or named == "old" or not self.stored
            assert self.doubt.new_goes or self.stored
        if self.doubt.new_goes and not self.stored:
            assert len(self.log) > 1, "what is still on its way finds another one in its place"

    def teardown(self) -> None:
        self.online = True
        for _ in range(4 * ATTEMPTS):
            if self.doubt.over:
                break
            if self.asked:
                self.the_server_answers("as it is")
            else:
                self.time_passes()
            self.only_what_nobody_names_goes()
        assert self.doubt.over


TestBucket = Bucket.TestCase
TestBucket.settings = settings(max_examples=200, stateful_step_count=30)
