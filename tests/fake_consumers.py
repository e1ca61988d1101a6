"""The pull consumers of a `FakeStream`: what they deliver, what they say, what they know of acknowledgements, and their faults.

    stream = FakeStream(server, "S", "s.>", timed=True)
    consumer = stream.consumers["C"]           # once a client has made it; or `stream.add_consumer("C", max_waiting=1)`
    consumer.lose_pulls = 1                     # the next request gets lost
    consumer.change_leader()
    assert consumer.verdicts == {1: [b"+ACK"]} and not consumer.unacked

Statuses, their texts and headers are those of nats-server 2.15. Time passes on Trio's clock, and only where the stream is
`timed`: pulls expire, heartbeats come, an ack wait ends.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from tests.fakes import matches

if TYPE_CHECKING:
    from tests.fake_jetstream import FakeStream, Stored

SECOND = 1_000_000_000
#: What the server makes of a configuration that takes acknowledgements and says nothing more.
USUAL = {"ack_wait": 30 * SECOND, "max_deliver": -1, "max_ack_pending": 1000, "max_waiting": 512}


class Clock:
    """Calls what is due on Trio's clock: one task for all, which is there from the beginning, so that no test misses it before."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._changed = trio.Event()
        trio.lowlevel.spawn_system_task(self._run, name="the clock of a stream in memory")

    def call_later(self, seconds: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._due, (trio.current_time() + seconds, next(self._numbers), act))
        self._changed.set()

    async def _run(self) -> None:
        while True:
            with trio.move_on_at(self._due[0][0] if self._due else inf):
                await self._changed.wait()
            self._changed = trio.Event()
            while self._due and self._due[0][0] <= trio.current_time():
                heapq.heappop(self._due)[2]()


@dataclasses.dataclass(slots=True, eq=False)
class Pull:
    """One pull request that is not satisfied yet."""

    inbox: str
    batch: int = 1
    no_wait: bool = False
    max_bytes: int = 0
    expires: float = 0.0
    heartbeat: float = 0.0
    pin: str = ""
    min_pending: int = 0
    min_ack_pending: int = 0
    priority: int = 0
    given: int = 0

    @classmethod
    def read(cls, inbox: str, request: dict[str, Any]) -> Pull:
        """Make one of a request's payload."""
        numbers = {name: request.get(name, 0) for name in ("max_bytes", "min_pending", "min_ack_pending", "priority")}
        times = {"expires": request.get("expires", 0) / SECOND, "heartbeat": request.get("idle_heartbeat", 0) / SECOND}
        batch, no_wait = request.get("batch", 1), bool(request.get("no_wait"))
        return cls(inbox, batch, no_wait, pin=request.get("id", ""), **numbers, **times)


@dataclasses.dataclass(slots=True)
class Unacked:
    """A message that was delivered and not settled yet."""

    due: float


@dataclasses.dataclass(slots=True, eq=False)
class Consumer:
    """One consumer: how far it is, who waits, and what is not acknowledged."""

    stream: FakeStream
    name: str
    config: dict[str, Any]
    cursor: int
    created: str
    chosen: set[int] | None = None
    delivered: int = 0
    pulls: list[Pull] = dataclasses.field(default_factory=list)
    #: By sequence: what waits for its acknowledgement, how often it was delivered, and what came about it.
    unacked: dict[int, Unacked] = dataclasses.field(default_factory=dict)
    deliveries: dict[int, int] = dataclasses.field(default_factory=dict)
    verdicts: dict[int, list[bytes]] = dataclasses.field(default_factory=dict)
    #: What is to be delivered again, before anything new.
    again: deque[int] = dataclasses.field(default_factory=deque)
    #: Who is pinned, and how many were.
    pinned: str = ""
    pins: int = 0
    #: How many of the next requests, and of the next messages, get lost.
    lose_pulls: int = 0
    lose_messages: int = 0
    #: Statuses that are not sent, by how they begin: "409", "408 Request Timeout", "100".
    suppressed: set[str] = dataclasses.field(default_factory=set)

    # What is asked of it.

    @property
    def acknowledges(self) -> bool:
        return bool(self.config.get("ack_policy", "none") != "none")

    def info(self) -> dict[str, Any]:
        """What the server says of it."""
        delivered = {"consumer_seq": self.delivered, "stream_seq": self.cursor}
        info: dict[str, Any] = {
            "stream_name": self.stream.name,
            "name": self.name,
            "config": self.config,
            "delivered": delivered,
        }
        info |= {
            "created": self.created,
            "ack_floor": delivered,
            "num_pending": sum(1 for _ in self.pending()),
            "num_waiting": len(self.pulls),
        }
        info |= {"num_ack_pending": len(self.unacked), "num_redelivered": len(self.again)}
        if group := self._group():
            info["priority_groups"] = [{"group": group, **({"pinned_client_id": self.pinned} if self.pinned else {})}]
        return info

    def pull(self, inbox: str, request: dict[str, Any]) -> None:
        """Take a request for messages."""
        if self.lose_pulls:
            self.lose_pulls -= 1
            return
        pull = Pull.read(inbox, request)
        complaint = self._complaint(pull, request)
        if complaint is not None:
            self._say(pull, complaint, pending=complaint.startswith("423 Nats-Wrong"))
        elif len(self.pulls) >= self.config.get("max_waiting", inf):
            # As measured: who asked for heartbeats is not even told.
            if not pull.heartbeat:
                self._say(pull, "409 Exceeded MaxWaiting")
        else:
            self.pulls.append(pull)
            self.stream.serve(self)
            self._keep_time(pull)

    def acknowledge(self, sequence: int, body: bytes, reply: str) -> bytes | None:
        """Take an acknowledgement; what is given is sent to who asked for a confirmation: nothing where a message is to come."""
        kind, _, rest = body.partition(b" ")
        self.verdicts.setdefault(sequence, []).append(body)
        if sequence in self.unacked:
            if kind == b"+WPI":
                self.unacked[sequence].due = trio.current_time() + self._ack_wait(sequence)
            elif kind == b"-NAK":
                delay = json.loads(rest).get("delay", 0) / SECOND if rest else 0
                self._redeliver(sequence) if not delay else self._later(delay, lambda: self._redeliver(sequence))
            elif kind in (b"", b"+ACK", b"+TERM", b"+NXT"):
                everything = self.config.get("ack_policy") == "all"
                for settled in [s for s in self.unacked if s == sequence or (everything and s < sequence)]:
                    del self.unacked[settled]
        if kind == b"+NXT":
            self.pull(reply, json.loads(rest or b"{}"))
        self.stream.serve(self)
        return None if kind == b"+NXT" else b""

    # What can happen to it.

    def end(self, status: str, *, pending: bool = False) -> None:
        """End all requests with a status; with `pending` it says what they have not got."""
        pulls, self.pulls = self.pulls, []
        for pull in pulls:
            self._say(pull, status, pending=pending)

    def change_leader(self) -> None:
        """Another server leads it: what was asked for is forgotten."""
        self.end("409 Leadership Change")

    def shut_down(self) -> None:
        """The server that leads it stops in good order."""
        self.end("409 Server Shutdown", pending=True)

    def unpin(self) -> None:
        """Let another client be pinned."""
        self.pinned = ""
        self.stream.serve(self)

    # Inside.

    def serve(self) -> None:
        """Deliver what there is to those who wait."""
        while (pull := self._next_pull()) is not None:
            message = self._next_message()
            if message is None:
                held_back = self._held_back() and next(self.pending(), None) is not None
                if not pull.no_wait or held_back or (pull.expires and not pull.given):
                    return
                self._done(pull, "404 No Messages")
            elif pull.max_bytes and (self._size(message, pull) > pull.max_bytes):
                self._done(pull, "409 Message Size Exceeds MaxBytes", pending=True)
            else:
                self.deliver(message, pull)

    def _next_pull(self) -> Pull | None:
        if subject := self.config.get("deliver_subject"):
            return Pull(subject) if self.stream.heard(subject) else None
        # Who has left is not waited for.
        self.pulls = [pull for pull in self.pulls if self.stream.heard(pull.inbox)]
        policy = self.config.get("priority_policy")
        chosen = self.pulls
        if policy == "overflow":
            counts = sum(1 for _ in self.pending()), len(self.unacked)
            chosen = [pull for pull in chosen if self._overflows(pull, *counts)]
        elif policy == "prioritized":
            chosen = sorted(chosen, key=lambda pull: pull.priority)
        elif policy == "pinned_client" and self.pinned:
            chosen = [pull for pull in chosen if pull.pin == self.pinned]
        return chosen[0] if chosen else None

    def _overflows(self, pull: Pull, pending: int, unacked: int) -> bool:
        wanted = [(pull.min_pending, pending), (pull.min_ack_pending, unacked)]
        return not any(least for least, _ in wanted) or any(least and count >= least for least, count in wanted)

    def _held_back(self) -> bool:
        return self.acknowledges and 0 < self.config.get("max_ack_pending", 0) <= len(self.unacked)

    def _next_message(self) -> Stored | None:
        while self.again:
            sequence = self.again[0]
            message = next((m for m in self.stream.messages if m.sequence == sequence), None)
            most = self.config.get("max_deliver", -1)
            if message is not None and not 0 < most <= self.deliveries[sequence]:
                return message
            self.again.popleft()
        return None if self._held_back() else next(self.pending(), None)

    def pending(self) -> Iterator[Stored]:
        """What it has not delivered once."""
        for message in self.stream.readable:
            if message.sequence <= self.cursor or not self.wants(message):
                continue
            stored_before = self.chosen is not None and message.sequence <= max(self.chosen, default=0)
            if not stored_before or (self.chosen and message.sequence in self.chosen):
                yield message

    def wants(self, message: Stored) -> bool:
        """Whether a message is one of those that it filters."""
        filters = self.config.get("filter_subjects") or [self.config.get("filter_subject") or ">"]
        return any(matches(pattern, message.subject) for pattern in filters)

    def _size(self, message: Stored, pull: Pull) -> int:
        # The server counts the acknowledgement's subject, too.
        reply = self._reply(message, self.delivered + 1, self.deliveries.get(message.sequence, 0) + 1, pending=0)
        return len(message.subject) + len(reply) + len(message.headers) + len(message.payload)

    def _reply(self, message: Stored, sequence: int, deliveries: int, pending: int) -> str:
        numbers = f"{deliveries}.{message.sequence}.{sequence}.{message.timestamp}.{pending}"
        return f"$JS.ACK.{self.stream.name}.{self.name}.{numbers}"

    def deliver(self, message: Stored, pull: Pull) -> None:
        """Deliver a message to who asked."""
        sequence = message.sequence
        if self.again and self.again[0] == sequence:
            self.again.popleft()
        else:
            self.cursor = sequence
        self.delivered += 1
        self.deliveries[sequence] = self.deliveries.get(sequence, 0) + 1
        if self.acknowledges:
            self.unacked[sequence] = Unacked(trio.current_time() + self._ack_wait(sequence))
            self._watch(sequence)
        reply = self._reply(message, self.delivered, self.deliveries[sequence], sum(1 for _ in self.pending()))
        headers = message.headers
        if self.config.get("priority_policy") == "pinned_client":
            headers = self._pin(pull, headers)
        payload = message.payload
        if self.config.get("headers_only"):
            line = f"Nats-Msg-Size: {len(payload)}\r\n".encode()
            headers, payload = (headers.removesuffix(b"\r\n") or b"NATS/1.0\r\n") + line + b"\r\n", b""
        size = len(message.subject) + len(reply) + len(headers) + len(payload)
        if self.lose_messages:
            self.lose_messages -= 1
        else:
            self.stream.hand_over(pull.inbox, message.subject, reply, headers, payload)
        pull.batch -= 1
        pull.given += 1
        if pull.max_bytes:
            pull.max_bytes = max(0, pull.max_bytes - size)
            if not pull.max_bytes:
                self._done(pull)
            elif not pull.batch:
                self._done(pull, "409 Batch Completed", pending=True)
        elif not pull.batch:
            self._done(pull)

    def _pin(self, pull: Pull, headers: bytes) -> bytes:
        if not self.pinned:
            self.pins += 1
            self.pinned = pull.pin = f"pin{self.pins}"
        line = f"Nats-Pin-Id: {self.pinned}\r\n".encode()
        return (headers.removesuffix(b"\r\n") or b"NATS/1.0\r\n") + line + b"\r\n"

    def _ack_wait(self, sequence: int) -> float:
        waits = self.config.get("backoff") or [self.config.get("ack_wait", 30 * SECOND)]
        return float(waits[min(self.deliveries[sequence], len(waits)) - 1] / SECOND)

    def _watch(self, sequence: int) -> None:
        """Deliver a message again when its ack wait is over."""
        unacked = self.unacked[sequence]

        def overdue() -> None:
            if self.unacked.get(sequence) is unacked:
                left = unacked.due - trio.current_time()
                self._later(left, overdue) if left > 0 else self._redeliver(sequence)

        self._later(self._ack_wait(sequence), overdue)

    def _redeliver(self, sequence: int) -> None:
        if self.unacked.pop(sequence, None) is not None:
            self.again.append(sequence)
            self.stream.serve(self)

    def _group(self) -> str:
        groups = self.config.get("priority_groups") or [""]
        return str(groups[0])

    def _complaint(self, pull: Pull, request: dict[str, Any]) -> str | None:
        config = self.config
        if config.get("deliver_subject"):
            return "409 Consumer is push based"
        if groups := config.get("priority_groups"):
            if not request.get("group"):
                return "400 Bad Request - Priority Group missing"
            if request["group"] not in groups:
                return "400 Bad Request - Invalid Priority Group"
        if pull.pin and pull.pin != self.pinned:
            return "423 Nats-Pin-Id mismatch" if self.pinned else "423 Nats-Wrong-Pin-Id"
        if 0 < config.get("max_batch", 0) < pull.batch:
            return f"409 Exceeded MaxRequestBatch of {config['max_batch']}"
        if 0 < config.get("max_expires", 0) < pull.expires * SECOND:
            return f"409 Exceeded MaxRequestExpires of {config['max_expires'] / SECOND:g}s"
        if 0 < config.get("max_bytes", 0) < pull.max_bytes:
            return f"409 Exceeded MaxRequestMaxBytes of {config['max_bytes']}"
        if pull.heartbeat > pull.expires / 2:
            return "400 Bad Request - heartbeat value too large"
        return None

    def _done(self, pull: Pull, status: str = "", *, pending: bool = False) -> None:
        if pull in self.pulls:
            self.pulls.remove(pull)
            if status:
                self._say(pull, status, pending=pending)

    def _say(self, pull: Pull, status: str, *, pending: bool = False) -> None:
        if any(status.startswith(beginning) for beginning in self.suppressed):
            return
        fields = {}
        if status.startswith("100"):
            fields = {"Nats-Last-Consumer": self.delivered, "Nats-Last-Stream": self.cursor}
        elif pending:
            fields = {"Nats-Pending-Messages": pull.batch, "Nats-Pending-Bytes": pull.max_bytes}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.stream.server.publish(pull.inbox, headers=f"NATS/1.0 {status}\r\n{lines}\r\n".encode())

    def _keep_time(self, pull: Pull) -> None:
        if pull.expires and pull in self.pulls:
            self._later(pull.expires, lambda: self._done(pull, "408 Request Timeout", pending=True))
            if pull.heartbeat:
                self._later(pull.heartbeat, lambda: self._beat(pull))

    def _beat(self, pull: Pull) -> None:
        if pull in self.pulls:
            self._say(pull, "100 Idle Heartbeat")
            self._later(pull.heartbeat, lambda: self._beat(pull))

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        def unless_deleted() -> None:
            if self.stream.consumers.get(self.name) is self:
                act()

        if self.stream.clock is not None:
            self.stream.clock.call_later(seconds, unless_deleted)
