"""One stream of a `FakeServer`, with its pull consumers (`fake_consumers`), and no clock unless one is asked for.

Messages keep their sequence; consumers deliver what matches their filters, pull by pull, with v1 ack subjects. Unless it is
`timed`, there is no time in it but `lag`: pulls do not expire and heartbeats do not come, so tests run it in real time and are done
long before either is due, or under a mock clock to see what silence does.

`FakeObjects` is the stream of a bucket: it also answers what an object store asks besides, unless a test answers in its place.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from tests.fake_consumers import USUAL, Clock, Consumer
from tests.fakes import NO_RESPONDERS, FakeServer, Frame, matches

TIMESTAMP = 1_700_000_000_000_000_000
CREATED = "2026-11-23T17:00:00Z"


def refusal(code: int, err_code: int, description: str) -> dict[str, Any]:
    """What the server answers that refuses something."""
    return {"error": {"code": code, "err_code": err_code, "description": description}}


BUSY = refusal(429, 10167, "too many requests")
FULL = refusal(400, 10077, "maximum bytes exceeded")
UNAVAILABLE = refusal(503, 10008, "JetStream system temporarily unavailable")
WRONG_SEQUENCE = refusal(400, 10071, "wrong last sequence")


def digest_of(data: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}"


@dataclasses.dataclass(slots=True)
class Stored:
    """One message of the stream."""

    sequence: int
    subject: str
    payload: bytes
    headers: bytes = b""

    @property
    def timestamp(self) -> int:
        return TIMESTAMP + self.sequence


class FakeStream:
    """A stream on a fake server, whose links see it at once; it stores what matches the subjects."""

    def __init__(self, server: FakeServer, name: str, *subjects: str, timed: bool = False) -> None:
        self.server = server
        self.name = name
        #: What time passes by for its consumers.
        self.clock = Clock() if timed else None
        self.messages: list[Stored] = []
        self.consumers: dict[str, Consumer] = {}
        self.last = self.made = 0
        #: How many more requests to create a consumer get no answer.
        self.deaf = 0
        #: How many seconds it takes to create a consumer and, in a bucket, to store a message. What is asked meanwhile
        #: overtakes them, as it does in the real server.
        self.lag = 0.0
        self._late: deque[tuple[str, Callable[[], dict[str, Any]]]] = deque()
        api = "$JS.API"
        server.on(f"{api}.STREAM.INFO.{name}", lambda _: self.about())
        server.on(f"{api}.CONSUMER.CREATE.{name}.>", self.create)
        server.on(f"{api}.CONSUMER.CREATE.{name}", self.create)
        server.on(f"{api}.CONSUMER.INFO.{name}.*", lambda frame: self._info(self._named(frame)))
        server.on(f"{api}.CONSUMER.DELETE.{name}.*", self._delete)
        server.on(f"{api}.CONSUMER.MSG.NEXT.{name}.*", self._next)
        server.on(f"{api}.CONSUMER.UNPIN.{name}.*", self._unpin)
        server.on(f"$JS.ACK.{name}.>", self._acknowledge)
        for subject in subjects:
            server.on(subject, lambda frame: self.store(frame.subject, frame.payload))

    def about(self) -> dict[str, Any]:
        """What the server says of the stream."""
        state = {"messages": len(self.messages), "bytes": 0, "first_seq": 1, "last_seq": self.last}
        state["consumer_count"] = len(self.consumers)
        return {"config": {"name": self.name}, "created": CREATED, "state": state}

    def store(self, subject: str, payload: bytes, *, rollup: bool = True, headers: bytes = b"") -> dict[str, Any]:
        """Add a message; with `rollup` it replaces the earlier ones of its subject."""
        self.last += 1
        if rollup:
            self.messages = [m for m in self.messages if m.subject != subject]
        self.messages.append(Stored(self.last, subject, payload, headers))
        for consumer in list(self.consumers.values()):
            self.serve(consumer)
        return {"stream": self.name, "seq": self.last}

    def _named(self, frame: Frame) -> Consumer | None:
        return self.consumers.get(frame.subject.rsplit(".", 1)[1])

    def create(self, frame: Frame) -> dict[str, Any] | None:
        if self.deaf:
            self.deaf -= 1
            return None
        config = json.loads(frame.payload)["config"]
        return self._in_time(frame, lambda: self._created(config))

    def _in_time(self, frame: Frame, act: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Do something now and give its answer; with a lag, do both later, in the order in which it was asked for."""
        if not self.lag:
            return act()
        self._late.append((frame.reply, act))

        async def later() -> None:
            await trio.sleep(self.lag)
            # Not necessarily its own: those that are due at the same time wake in any order.
            reply, oldest = self._late.popleft()
            self.server.publish(reply, json.dumps(oldest()).encode())

        trio.lowlevel.spawn_system_task(later)
        return None

    def _created(self, config: dict[str, Any]) -> dict[str, Any]:
        return self._info(self.add_consumer(**{"name": config.get("durable_name"), **config}))

    def add_consumer(self, name: str, **config: Any) -> Consumer:  # noqa: ANN401 - any field, as the server is told it
        """Make a consumer, or in place of one of the same name another one."""
        config = {**(USUAL if config.get("ack_policy", "none") != "none" else {}), **config, "name": name}
        starts = {"new": self.last, "by_start_sequence": int(config.get("opt_start_seq", 1)) - 1}
        policy = config.setdefault("deliver_policy", "all")
        self.made += 1
        made_at = f"2026-11-28T12:{self.made // 60:02}:{self.made % 60:02}Z"
        consumer = Consumer(self, name, config, starts.get(policy, 0), made_at)
        if policy == "last_per_subject":
            consumer.chosen = set({m.subject: m.sequence for m in self.messages if consumer.wants(m)}.values())
        self.consumers[consumer.name] = consumer
        return consumer

    def delete_consumer(self, name: str) -> bool:
        """Delete a consumer, and tell those who wait; say whether there was one."""
        consumer = self.consumers.pop(name, None)
        if consumer is not None:
            consumer.end("409 Consumer Deleted")
        return consumer is not None

    def serve(self, consumer: Consumer) -> None:
        """Let a consumer deliver what there is."""
        consumer.serve()

    def heard(self, inbox: str) -> bool:
        """Whether anybody listens there."""
        return any(matches(subscription.subject, inbox) for subscription in self.server.subscriptions)

    def hand_over(self, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Send a message to who listens on an inbox: it has the stream's subject all the same."""
        for link in self.server.live_links:
            for subscription in list(link.subscriptions.values()):
                if matches(subscription.subject, inbox):
                    link.deliver(subscription, subject, reply, headers, payload)

    def _info(self, consumer: Consumer | None) -> dict[str, Any]:
        return refusal(404, 10014, "consumer not found") if consumer is None else consumer.info()

    def _delete(self, frame: Frame) -> dict[str, Any]:
        return {"success": True} if self.delete_consumer(frame.subject.rsplit(".", 1)[1]) else self._info(None)

    def _next(self, frame: Frame) -> None:
        consumer = self._named(frame)
        if consumer is None:
            self.server.publish(frame.reply, headers=NO_RESPONDERS)
        else:
            consumer.pull(frame.reply, json.loads(frame.payload or b"{}"))

    def _unpin(self, frame: Frame) -> dict[str, Any]:
        consumer = self._named(frame)
        if consumer is None:
            return self._info(None)
        consumer.unpin()
        return {}

    def _acknowledge(self, frame: Frame) -> bytes | None:
        tokens = frame.subject.split(".")
        consumer = self.consumers.get(tokens[3])
        return None if consumer is None else consumer.acknowledge(int(tokens[5]), frame.payload, frame.reply)


class FakeObjects(FakeStream):
    """The stream of one bucket, with what an object store asks of it."""

    def __init__(self, server: FakeServer, bucket: str) -> None:
        super().__init__(server, f"OBJ_{bucket}")
        self.bucket = bucket
        self.prefix = f"$O.{bucket}"
        #: Asked about each message that is published into the bucket, and may answer in its place: a mapping or bytes are sent
        #: instead of storing it, `"503"` and `"silence"` are what they say, `"lost"` stores and keeps silent, None stores.
        self.hook: Callable[[Frame], Any] = lambda _: None
        #: Whether purges are done, and answered; or the refusal that they are answered with.
        self.purges: bool | dict[str, Any] = True
        #: How many subjects are listed at once, and the time of the server that lists them.
        self.page = 100_000
        self.now = "2026-11-29T12:00:00.000000001Z"
        server.on(f"$JS.API.STREAM.INFO.{self.name}", self._about_subjects, first=True)
        server.on(f"{self.prefix}.>", self._put)
        server.on(f"$JS.API.DIRECT.GET.{self.name}.>", self._direct_get)
        self.also()

    def also(self, api: str = "$JS.API", name: str = "") -> None:
        """Answer at another prefix, or as the stream of another name."""
        name = name or self.name
        self.server.on(f"{api}.STREAM.MSG.GET.{name}", self.get)
        self.server.on(f"{api}.STREAM.MSG.DELETE.{name}", self._erase)
        self.server.on(f"{api}.STREAM.PURGE.{name}", self.purge)

    def answer(self, pattern: str, *answers: Any) -> None:  # noqa: ANN401 - whatever a hook may answer
        """Give these answers to what matches, one after the other, and then none."""
        waiting = deque(answers)
        self.hook = lambda frame: waiting.popleft() if waiting and matches(pattern, frame.subject) else None

    def sequences(self, pattern: str) -> list[int]:
        return [message.sequence for message in self.messages if matches(pattern, message.subject)]

    def payloads(self, pattern: str) -> list[bytes]:
        return [message.payload for message in self.messages if matches(pattern, message.subject)]

    def data(self, nuid: str | None) -> list[bytes]:
        return self.payloads(f"{self.prefix}.C.{nuid}")

    @property
    def chunks(self) -> int:
        return len(self.sequences(f"{self.prefix}.C.*"))

    @property
    def metas(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads(f"{self.prefix}.M.*")]

    def forget(self, pattern: str) -> None:
        self.messages = [m for m in self.messages if not matches(pattern, m.subject)]

    def purged(self) -> int:
        """How often a purge was asked for."""
        return len(self.server.sent("PUB", "$JS.API.STREAM.PURGE.*"))

    def add(self, name: str, *chunks: bytes, deleted: bool = False, **more: object) -> None:
        """Store an object as a client would have done."""
        for chunk in chunks:
            self.store(f"{self.prefix}.C.nuid-{name}", chunk, rollup=False)
        info = {"name": name, "bucket": self.bucket, "nuid": f"nuid-{name}", "deleted": deleted}
        counts = {"size": sum(map(len, chunks)), "chunks": len(chunks), "digest": digest_of(b"".join(chunks))}
        subject = f"{self.prefix}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
        self.store(subject, json.dumps({**info, **counts, **more}).encode())

    def contents(self) -> dict[str, bytes]:
        """All objects that are not deleted.

        Raises:
            AssertionError: One of them is not whole, or there are chunks that belong to none.
        """
        chunked = [message.subject for message in self.messages if matches(f"{self.prefix}.C.*", message.subject)]
        chunks = {subject.rsplit(".", 1)[1]: self.payloads(subject) for subject in chunked}
        found = {}
        for info in self.metas:
            if not info["deleted"]:
                parts = chunks.pop(info["nuid"], [])
                found[info["name"]] = data = b"".join(parts)
                is_there, promised = (len(data), len(parts)), (info["size"], info["chunks"])
                assert is_there == promised, f"{info['name']!r} is not whole"
                assert info["digest"] == digest_of(data), f"{info['name']!r} is mixed"
        assert not chunks, f"orphans: {chunks}"
        return found

    def _last(self, subject: str) -> Stored | None:
        return next((m for m in reversed(self.messages) if m.subject == subject), None)

    def _put(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
        instead = self.hook(frame)
        if instead == "503":
            self.server.publish(frame.reply, headers=NO_RESPONDERS)
        elif instead == "lost":
            self.take(frame)
        elif instead is None:
            return self._in_time(frame, lambda: self.take(frame))
        return None if isinstance(instead, str) else instead

    def take(self, frame: Frame) -> dict[str, Any]:
        """Store what is published, unless something else was expected; give the answer."""
        _, _, rest = frame.headers.decode().partition("Nats-Expected-Last-Subject-Sequence: ")
        last = self._last(frame.subject)
        if rest and int(rest.split("\r\n")[0]) != (last.sequence if last else 0):
            return WRONG_SEQUENCE
        rollup = b"Nats-Rollup: sub" in frame.headers
        return self.store(frame.subject, frame.payload, rollup=rollup, headers=frame.headers)

    def get(self, frame: Frame) -> dict[str, Any]:
        asked = json.loads(frame.payload)
        found = next((m for m in self.messages if m.sequence == asked.get("seq")), None)
        if "last_by_subj" in asked:
            found = self._last(asked["last_by_subj"])
        if found is None:
            return refusal(404, 10037, "no message found")
        data = base64.b64encode(found.payload).decode()
        fields = {"subject": found.subject, "seq": found.sequence, "data": data, "time": CREATED}
        return {"message": fields}

    def _direct_get(self, frame: Frame) -> None:
        found = self._last(frame.subject.removeprefix(f"$JS.API.DIRECT.GET.{self.name}."))
        if found is None:
            self.server.publish(frame.reply, headers=b"NATS/1.0 404 Message Not Found\r\n\r\n")
            return
        fields = {"Stream": self.name, "Subject": found.subject, "Sequence": found.sequence}
        lines = "".join(f"Nats-{name}: {value}\r\n" for name, value in fields.items())
        self.server.publish(frame.reply, found.payload, headers=f"NATS/1.0\r\n{lines}\r\n".encode())

    def _erase(self, frame: Frame) -> dict[str, Any]:
        sequence = json.loads(frame.payload)["seq"]
        self.messages = [m for m in self.messages if m.sequence != sequence]
        return {"success": True}

    def purge(self, frame: Frame) -> dict[str, Any] | None:
        if self.purges is not True:
            return self.purges or None
        asked, before = json.loads(frame.payload or b"{}"), len(self.messages)
        pattern, bound = asked.get("filter", ">"), asked.get("seq", self.last + 1)
        self.messages = [m for m in self.messages if not (matches(pattern, m.subject) and m.sequence < bound)]
        return {"success": True, "purged": before - len(self.messages)}

    def _about_subjects(self, frame: Frame) -> dict[str, Any]:
        asked, info = json.loads(frame.payload or b"{}"), self.about()
        if "subjects_filter" in asked:
            subjects = [m.subject for m in self.messages if matches(asked["subjects_filter"], m.subject)]
            counts = {subject: subjects.count(subject) for subject in sorted(set(subjects))}
            offset = asked.get("offset", 0)
            info["state"]["subjects"] = dict(list(counts.items())[offset : offset + self.page])
            info |= {"total": len(counts), "offset": offset, "limit": self.page}
        return {**info, "ts": self.now}
