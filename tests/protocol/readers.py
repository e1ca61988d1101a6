"""An ordered reader on the bench, and the little of a server that it needs."""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Any

from trionats import errors
from trionats._protocol.jetstream.actions import Action, Create, Delete, Fail, Find, Inspect, Look, Start, Wait
from trionats._protocol.jetstream.leader import StreamSaid
from trionats._protocol.jetstream.ordered import Ordered
from trionats._protocol.jetstream.pull import Pull

if TYPE_CHECKING:
    from collections.abc import Mapping

EARLY, MADE, LATER = (f"2026-11-28T22:53:5{second}.165045997Z" for second in (1, 5, 9))
SIZE = 50
GONE = errors.NotFoundError(code=404, err_code=10059)


class Bench:
    """An ordered reader of the stream `S`.

    Args:
        policy: Where it begins.
        clustered: Whether its consumers say that there is a cluster.
        trusting: Whether the stream's leader, when it is asked behind a second consumer, says at once that it is the stream that
            it was; else the test answers (`look`).
        takes: Whether what is handed over makes room at once.
        options: For the reader.
    """

    def __init__(
        self, policy: str, *, clustered: bool = False, trusting: bool = True, takes: bool = False, **options: object
    ) -> None:
        given: dict[str, Any] = {"filter_subjects": ["m.>"], "start": Start(policy), "snapshot": True, **options}
        self.ordered = Ordered("S", "pre", random.Random(3), **given)
        self.now, self.sequence = 100.0, 0
        self.clustered, self.trusting, self.takes = clustered, trusting, takes
        self.config: dict[str, object] = {}

    def caught_up(self) -> bool:
        return self.ordered.caught_up

    def opening(self) -> bool:
        return self.ordered.opening

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

    def create(self, pending: int = 0, *, at: int = 0, at_once: bool = False) -> tuple[object, object]:
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

    def reset(self, pending: int = 0, *, at: int = 0) -> tuple[object, object]:
        """Have it begin with another consumer; as `create`."""
        self.refused()
        return self.create(pending, at=at)

    # After each answer: whether it has caught up.

    def look(self, last: int, *, mark: int | None = None, created: str = EARLY, replicated: bool = True) -> bool:
        """Be asked for the stream, and answer; then, with a mark, be asked for the last message that matches."""
        assert self.due() == Look()
        self.ordered.looked(StreamSaid(created, last, replicated), self.now)
        return self.caught_up() if mark is None else self.find(mark)

    def refuse_to_look(self, error: Exception | None = None) -> bool:
        """Be asked for the stream, or for the last message that matches, and refuse; say whether somebody is told."""
        assert isinstance(self.due(), Look | Find)
        return self.ordered.look_failed(self.now, error)

    def find(self, mark: int) -> bool:
        """Be asked for the last message that matches, and answer."""
        assert self.due() == Find(("m.>",))
        self.ordered.found(mark, self.now)
        return self.caught_up()

    def inspect(self, pending: int = 0, *, sent: int | None = None) -> bool:
        """Be asked for the consumer, and answer; it has sent what came, unless something else is said."""
        name = self.ordered.name
        assert self.ordered.next(self.now) == Inspect(name)
        self.ordered.inspected(name, info(pending, sent=self.sequence if sent is None else sent), self.now)
        return self.caught_up()

    def nothing(self, number: int, pending: int = 0, *, sent: int | None = None) -> bool:
        """Answer a request with the word that there is nothing, and the question that follows."""
        self.status(number, 404, "No Messages")
        return self.inspect(pending, sent=sent)

    def pull(self) -> Pull:
        """Be asked for messages."""
        pull = self.ordered.pull(self.now)
        assert pull is not None
        return pull

    def asks(self) -> bool:
        """Whether it asks for messages now."""
        return self.ordered.pull(self.now) is not None

    # What comes.

    def message(
        self, seq: int, pending: int = 0, *, timestamp: int | None = None, consumer_seq: int | None = None
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

    def feed(self, *messages: tuple[int, int]) -> str:
        """Let it ask for messages if it wants some, and deliver these, each with how many more the server says there are.

        Returns:
            A sign for each: + where it was handed over, - where not; and ! where it has caught up since the one before.
        """
        signs = ""
        self.ordered.pull(self.now)
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
