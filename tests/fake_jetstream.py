"""One stream of a `FakeServer`, with its pull consumers: enough of JetStream for ordered reading, and no clock.

Messages keep their sequence; consumers deliver what matches their filters, pull by pull, with v1 ack subjects. There is no
time in it: pulls do not expire and heartbeats do not come, so tests run it in real time and are done long before either
is due, or under a mock clock to see what silence does.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from tests.fakes import FakeServer, Frame, matches

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMESTAMP = 1_700_000_000_000_000_000


@dataclasses.dataclass(slots=True)
class Stored:
    """One message of the stream."""

    sequence: int
    subject: str
    payload: bytes

    @property
    def timestamp(self) -> int:
        return TIMESTAMP + self.sequence


@dataclasses.dataclass(slots=True)
class Pull:
    """One pull request that is not satisfied yet."""

    inbox: str
    batch: int
    no_wait: bool


@dataclasses.dataclass(slots=True)
class Consumer:
    """One consumer: how far it is, and who waits."""

    name: str
    config: dict[str, Any]
    cursor: int
    chosen: set[int] | None = None
    delivered: int = 0
    pulls: list[Pull] = dataclasses.field(default_factory=list)


class FakeStream:
    """A stream on a fake server.

    Args:
        server: The server; its links see the stream at once.
        name: The stream's name.
        subjects: The patterns it stores.
    """

    def __init__(self, server: FakeServer, name: str, *subjects: str) -> None:
        self.server = server
        self.name = name
        self.messages: list[Stored] = []
        self.consumers: dict[str, Consumer] = {}
        self.last = 0
        #: How many more requests to create a consumer get no answer.
        self.deaf = 0
        api = "$JS.API"
        server.on(f"{api}.STREAM.INFO.{name}", lambda _: {"state": {"last_seq": self.last}})
        server.on(f"{api}.CONSUMER.CREATE.{name}.>", self._create)
        server.on(f"{api}.CONSUMER.INFO.{name}.*", lambda frame: self._info(self._named(frame)))
        server.on(f"{api}.CONSUMER.DELETE.{name}.*", self._delete)
        server.on(f"{api}.CONSUMER.MSG.NEXT.{name}.*", self._next)
        for subject in subjects:
            server.on(subject, lambda frame: self.store(frame.subject, frame.payload))

    def store(self, subject: str, payload: bytes, *, rollup: bool = True) -> dict[str, Any]:
        """Add a message; with `rollup` it replaces the earlier ones of its subject."""
        self.last += 1
        if rollup:
            self.messages = [m for m in self.messages if m.subject != subject]
        self.messages.append(Stored(self.last, subject, payload))
        for consumer in list(self.consumers.values()):
            self._serve(consumer)
        return {"stream": self.name, "seq": self.last}

    # -- the API -------------------------------------------------------------------------------------------------------

    def _named(self, frame: Frame) -> Consumer | None:
        return self.consumers.get(frame.subject.rsplit(".", 1)[1])

    def _create(self, frame: Frame) -> dict[str, Any] | None:
        if self.deaf:
            self.deaf -= 1
            return None
        config = json.loads(frame.payload)["config"]
        consumer = Consumer(config["name"], config, self._start(config))
        if config["deliver_policy"] == "last_per_subject":
            newest = {m.subject: m.sequence for m in self.messages if self._wants(config, m)}
            consumer.cursor, consumer.chosen = 0, set(newest.values())
        self.consumers[consumer.name] = consumer
        return self._info(consumer)

    def _start(self, config: dict[str, Any]) -> int:
        match config["deliver_policy"]:
            case "new":
                return self.last
            case "by_start_sequence":
                return int(config["opt_start_seq"]) - 1
            case _:
                return 0

    def _info(self, consumer: Consumer | None) -> dict[str, Any]:
        if consumer is None:
            return {"error": {"code": 404, "err_code": 10014, "description": "consumer not found"}}
        return {
            "stream_name": self.name,
            "name": consumer.name,
            "config": consumer.config,
            "num_pending": sum(1 for _ in self._pending(consumer)),
            "delivered": {"consumer_seq": consumer.delivered, "stream_seq": consumer.cursor},
        }

    def _delete(self, frame: Frame) -> dict[str, Any]:
        consumer = self.consumers.pop(frame.subject.rsplit(".", 1)[1], None)
        if consumer is not None:
            for pull in consumer.pulls:
                self._status(pull, "409 Consumer Deleted")
        return {"success": consumer is not None}

    def _next(self, frame: Frame) -> None:
        consumer = self._named(frame)
        request = json.loads(frame.payload or b"{}")
        pull = Pull(frame.reply, request.get("batch", 1), bool(request.get("no_wait")))
        if consumer is None:
            self.server.publish(frame.reply, headers=b"NATS/1.0 503\r\n\r\n")
            return
        consumer.pulls.append(pull)
        self._serve(consumer)

    # -- delivering ----------------------------------------------------------------------------------------------------

    def _wants(self, config: dict[str, Any], message: Stored) -> bool:
        filters = config.get("filter_subjects") or [config.get("filter_subject") or ">"]
        return any(matches(pattern, message.subject) for pattern in filters)

    def _pending(self, consumer: Consumer) -> Iterator[Stored]:
        for message in self.messages:
            if message.sequence <= consumer.cursor or not self._wants(consumer.config, message):
                continue
            stored_before = consumer.chosen is not None and message.sequence <= max(consumer.chosen, default=0)
            if not stored_before or (consumer.chosen and message.sequence in consumer.chosen):
                yield message

    def _serve(self, consumer: Consumer) -> None:
        while consumer.pulls:
            pull = consumer.pulls[0]
            message = next(self._pending(consumer), None)
            if message is None:
                if not pull.no_wait:
                    return
                consumer.pulls.pop(0)
                self._status(pull, "404 No Messages")
                continue
            self._deliver(consumer, message, pull.inbox)
            pull.batch -= 1
            if not pull.batch:
                consumer.pulls.pop(0)

    def _deliver(self, consumer: Consumer, message: Stored, inbox: str) -> None:
        consumer.cursor = message.sequence
        consumer.delivered += 1
        pending = sum(1 for _ in self._pending(consumer))
        numbers = f"1.{message.sequence}.{consumer.delivered}.{message.timestamp}.{pending}"
        reply = f"$JS.ACK.{self.name}.{consumer.name}.{numbers}"
        # A pull's messages come with the stream's subject, to whoever listens on the inbox.
        for link in self.server.live_links:
            for subscription in list(link.subscriptions.values()):
                if matches(subscription.subject, inbox):
                    link.deliver(subscription, message.subject, reply, b"", message.payload)

    def _status(self, pull: Pull, status: str) -> None:
        self.server.publish(pull.inbox, headers=f"NATS/1.0 {status}\r\n\r\n".encode())
