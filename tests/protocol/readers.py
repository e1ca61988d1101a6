"""An ordered reader on the bench, and the little of a server that it needs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import inf
from typing import Any

from hypothesis import strategies as st

from trionats import errors
from trionats._protocol.jetstream.actions import Action, Create, Delete, Fail, Find, Inspect, Look, Start, Wait
from trionats._protocol.jetstream.ordered.leader import StreamSaid, nanoseconds_of
from trionats._protocol.jetstream.ordered.resuming import Ordered
from trionats._protocol.jetstream.pull import Pull

EARLY, MADE, LATER = (f"2026-11-28T22:53:5{second}.165045997Z" for second in (1, 5, 9))
SIZE = 50
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
REFUSED = errors.PermissionsViolationError("no")
GONE = errors.NotFoundError(code=404, err_code=10059)


class Bench:
    """An ordered reader of the stream `S`.

    It begins where `policy` says. `clustered`: its consumers say that there is a cluster. `takes`: what is handed over
    makes room at once. `trusting`: asked behind a second consumer, the stream's leader says that it is still the same
    one, else the test answers (`look`).
    """

    def __init__(
        self, policy: str, *, clustered: bool = False, trusting: bool = True, takes: bool = False, **options: object
    ) -> None:
        given: dict[str, Any] = {"filter_subjects": ["m.>"], "start": Start(policy), "snapshot": True, **options}
        self.ordered = Ordered("S", "pre", random.Random(3), **given)
        self.now, self.sequence, self.number = 100.0, 0, 0
        self.clustered, self.trusting, self.takes = clustered, trusting, takes
        self.config: dict[str, object] = {}

    def caught_up(self) -> bool:
        return self.ordered.caught_up

    def opening(self) -> bool:
        return self.ordered.opening

    def attention(self) -> bool:
        return self.ordered.attention

    def play(self, story: str) -> None:
        """Play a story, word by word.

        `1:2,3:0=+-` is what `feed` does, `!asks` looks at a fact, anything else happens with its numbers: `look:3`.
        What stands behind = must come of it; of a consumer that is made it is where it begins.
        """
        for word in story.split():
            what, _, outcome = word.removeprefix("!").partition("=")
            if what[0].isdigit():
                came: object = self.feed(*(tuple(map(int, message.split(":"))) for message in what.split(",")))
            else:
                name, *numbers = what.split(":")
                came = getattr(self, name)(*map(int, numbers))
            if what in ("caught_up", "opening", "attention", "asks", "remade"):
                assert came is not word.startswith("!"), f"{word} in {story}"
            elif outcome:
                came = came[1] or came[0] if isinstance(came, tuple) else came
                assert str(came) == outcome, f"{word} in {story}"

    # What it does, and what comes of it.

    def due(self) -> Action:
        """Let time pass until there is something to do; deletions aside."""
        while True:
            action = self.ordered.next(self.now)
            if isinstance(action, Delete):
                continue
            if not isinstance(action, Wait) or action.until == inf:
                return action
            self.now = action.until

    def create(self, pending: int = 0, at: int = 0, *, at_once: bool = False) -> tuple[object, object]:
        """Have the next consumer created; say where it begins. Its whole configuration is in `config`."""
        before = self.now
        action = self.due()
        assert isinstance(action, Create)
        assert self.now == before or not at_once
        self.sequence, self.config = 0, action.config
        cluster = {"cluster": {"name": "c", "leader": "n1"}} if self.clustered else {}
        self.ordered.created({**info(pending, at=at), "created": MADE, **cluster}, self.now)
        if self.trusting and self.ordered.attention and self.due() == Look():
            self.ordered.looked(StreamSaid(MADE, 1 << 40), self.now)
        return action.config["deliver_policy"], action.config.get("opt_start_seq")

    def refused(self) -> None:
        """Have a message refused, so that another consumer is due."""
        self.ordered.refused(self.now)

    def reset(self, pending: int = 0, at: int = 0) -> tuple[object, object]:
        """Have it begin with another consumer; as `create`."""
        self.refused()
        return self.create(pending, at)

    def create_at_once(self, pending: int) -> tuple[object, object]:
        return self.create(pending, at_once=True)

    # After each answer: whether it has caught up.

    def look(self, last: int, mark: int | None = None, *, created: str = EARLY, replicated: bool = True) -> bool:
        """Be asked for the stream, and answer; then, with a mark, be asked for the last message that matches."""
        assert self.due() == Look()
        self.ordered.looked(StreamSaid(created, last, replicated), self.now)
        return self.caught_up() if mark is None else self.find(mark)

    def look_alone(self, last: int) -> bool:
        return self.look(last, replicated=False)

    def look_anew(self, last: int) -> bool:
        return self.look(last, created=LATER)

    def forbid_to_look(self) -> bool:
        return self.refuse_to_look(REFUSED)

    def refuse_to_look(self, error: Exception | None = None) -> bool:
        """Be asked for the stream, or for the last message that matches, and refuse; say whether somebody is told."""
        assert isinstance(self.due(), Look | Find)
        return self.ordered.look_failed(self.now, error)

    def find(self, mark: int) -> bool:
        """Be asked for the last message that matches, and answer."""
        assert self.due() == Find(("m.>",))
        self.ordered.found(mark, self.now)
        return self.caught_up()

    def inspect(self, pending: int = 0, sent: int | None = None) -> bool:
        """Be asked for the consumer, and answer; it has sent what came, unless something else is said."""
        name = self.ordered.name
        assert self.ordered.next(self.now) == Inspect(name)
        self.ordered.inspected(name, info(pending, sent=self.sequence if sent is None else sent), self.now)
        return self.caught_up()

    def nothing(self, pending: int = 0, sent: int | None = None) -> bool:
        """Answer the request with the word that there is nothing, and the question that follows."""
        self.asks()
        self.status(self.number, 404, "No Messages")
        assert (self.attention(), self.asks()) == (True, False)
        self.ordered.inspected("pre_0", info(), self.now)  # of another consumer, which nobody asked about
        return self.inspect(pending, sent)

    def expired(self, left: int | None = None) -> None:
        """Let the request end, with so much of it unanswered."""
        headers = {} if left is None else {"Nats-Pending-Messages": str(left)}
        self.status(self.pull().number, 408, "Request Timeout", headers)

    def pull(self) -> Pull:
        """Be asked for messages."""
        pull = self.ordered.pull(self.now)
        assert pull is not None
        self.number = pull.number
        return pull

    def remade(self) -> bool:
        error = self.failure()
        return isinstance(error, errors.StreamRegressedError) and "made anew at 2026-11-28T22:53:59" in str(error)

    def deletes(self) -> str:
        """Be asked to delete a consumer."""
        action = self.ordered.next(self.now)
        assert isinstance(action, Delete)
        return action.name

    def restarts(self) -> int:
        return self.ordered.restarts

    def resets(self) -> int:
        return self.ordered.resets

    def pulls(self) -> str:
        """Be asked for messages; say for how many, and how long they are waited for."""
        pull = self.pull()
        return f"{pull.batch}/{pull.expires:g}"

    def asks(self) -> bool:
        """Whether it asks for messages now."""
        pull = self.ordered.pull(self.now)
        self.number = pull.number if pull is not None else self.number
        return pull is not None

    # What comes.

    def message(
        self, seq: int, pending: int = 0, timestamp: int | None = None, *, consumer_seq: int | None = None
    ) -> bool:
        """Deliver a message; say whether it was handed over."""
        self.sequence = self.sequence + 1 if consumer_seq is None else consumer_seq
        when = seq * 10 if timestamp is None else timestamp
        reply = f"$JS.ACK.S.{self.ordered.name}.1.{seq}.{self.sequence}.{when}.{pending}"
        ack = self.ordered.received(reply, SIZE, self.now)
        if ack is not None:
            self.ordered.delivered(ack, SIZE)
            if self.takes:
                self.ordered.taken(SIZE)
        return ack is not None

    def young(self, seq: int, pending: int) -> str:
        """Deliver a message that was stored after the consumer was made."""
        return "+" if self.message(seq, pending, nanoseconds_of(LATER)) else "-"

    def feed(self, *messages: tuple[int, ...]) -> str:
        """Let it ask for messages if it wants some, and deliver these, each with how many more the server says there are.

        Returns:
            A sign for each: + where it was handed over, - where not; and ! where it has caught up since the one before.
        """
        signs = ""
        self.asks()
        for seq, pending in messages:
            before = self.caught_up()
            signs += "+" if self.message(seq, pending) else "-"
            signs += "!" * (self.caught_up() and not before)
        return signs

    def status(self, number: int, code: int, text: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.ordered.status(number, code, text, headers or {}, self.now)

    def failure(self) -> Exception:
        """Why it gave up, for good."""
        action = self.due()
        assert isinstance(action, Fail)
        assert self.ordered.attention
        assert not self.message(99)
        self.refused()
        assert self.due() == action
        return action.error


def info(pending: int = 0, *, sent: int = 0, at: int = 0) -> dict[str, object]:
    """What the server says of a consumer."""
    return {"num_pending": pending, "delivered": {"consumer_seq": sent, "stream_seq": at}}


def reading(policy: str = "last_per_subject", pending: int = 5, *, at: int = 0, **options: Any) -> Bench:  # noqa: ANN401
    """A reader whose first consumer was made."""
    bench = Bench(policy, **options)
    bench.create(pending, at=at)
    return bench


def play(story: str, **options: Any) -> None:  # noqa: ANN401
    """Play a story: `policy pending@at options | happenings`, where options are what is true of the reader."""
    made, _, happenings = story.partition(" | ")
    policy, pending, *more = made.split()
    left, _, at = pending.partition("@")
    policy = "last_per_subject" if policy == "snapshot" else policy
    reading(policy, int(left), at=int(at or 0), **options, **dict.fromkeys(more, True)).play(happenings)
