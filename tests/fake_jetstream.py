"""One stream of a `FakeServer`, with its pull consumers (`fake_consumers`), and no clock unless one is asked for.

Messages keep their sequence; consumers deliver what matches their filters, pull by pull, with v1 ack subjects. Unless it is
`timed`, there is no time in it but `lag`: pulls do not expire and heartbeats do not come, so tests run it in real time and are done
long before either is due, or under a mock clock to see what silence does.

`FakeObjects` and `FakeKeyValue` are the streams of buckets: they also answer what a store asks besides, unless a test answers in
their place.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
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
#: What a stream of several replicas may say in its place.
WRONG_SEQUENCE_OF_SEVERAL = refusal(400, 10164, "wrong last sequence")
NO_TTL = refusal(400, 10166, "per-message TTL is disabled")


def digest_of(data: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}"


@dataclasses.dataclass(slots=True)
class Stored:
    """One message of the stream."""

    sequence: int
    subject: str
    payload: bytes
    headers: bytes = b""
    #: When it was stored, in nanoseconds; 0 where the sequence is all the time there is.
    at: int = 0

    @property
    def timestamp(self) -> int:
        return self.at or TIMESTAMP + self.sequence

    @property
    def time(self) -> str:
        """The same, as the server writes it; the day of CREATED where it is not known."""
        if not self.at:
            return CREATED
        seconds, nanoseconds = divmod(self.timestamp, 1_000_000_000)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"

    @property
    def fields(self) -> dict[str, str]:
        """Its headers by their names."""
        return fields_of(self.headers)


def fields_of(block: bytes) -> dict[str, str]:
    """Read a header block, of which every name stands there once."""
    lines = block.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


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

    def store(
        self, subject: str, payload: bytes, *, rollup: bool = True, headers: bytes = b"", at: int = 0
    ) -> dict[str, Any]:
        """Add a message; with `rollup` it replaces the earlier ones of its subject."""
        self.last += 1
        if rollup:
            self.messages = [m for m in self.messages if m.subject != subject]
        self.messages.append(Stored(self.last, subject, payload, headers, at))
        self.serve_all()
        return {"stream": self.name, "seq": self.last}

    def serve_all(self) -> None:
        """Let all consumers deliver what there is."""
        for consumer in list(self.consumers.values()):
            self.serve(consumer)

    @property
    def readable(self) -> Sequence[Stored]:
        """What is there for those who do not ask the leader."""
        return self.messages

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
        first = self.messages[0].sequence if self.messages else self.last + 1
        starts = {"new": self.last, "by_start_sequence": max(int(config.get("opt_start_seq", 1)), first) - 1}
        policy = config.setdefault("deliver_policy", "all")
        self.made += 1
        made_at = f"2026-11-28T12:{self.made // 60:02}:{self.made % 60:02}Z"
        consumer = Consumer(self, name, config, starts.get(policy, 0), made_at)
        if policy == "last_per_subject":
            consumer.chosen = set({m.subject: m.sequence for m in self.readable if consumer.wants(m)}.values())
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


class FakeBucket(FakeStream):
    """The stream of one bucket, with what stores of either kind ask of it.

    Args:
        server: The server.
        name: The stream's name.
        prefix: What its subjects begin with.
        timed: As for `FakeStream`.
    """

    def __init__(self, server: FakeServer, name: str, prefix: str, *, timed: bool = False) -> None:
        super().__init__(server, name, timed=timed)
        self.prefix = prefix
        #: Asked about each message that is published into the bucket, and may answer in its place: a mapping or bytes are sent
        #: instead of storing it, `"503"` and `"silence"` are what they say, `"lost"` stores and keeps silent, None stores.
        self.hook: Callable[[Frame], Any] = lambda _: None
        #: Whether purges are done, and answered; or the refusal that they are answered with.
        self.purges: bool | dict[str, Any] = True
        server.on(f"{prefix}.>", self._put)
        server.on(f"$JS.API.DIRECT.GET.{name}", self.direct_get)
        server.on(f"$JS.API.DIRECT.GET.{name}.>", self.direct_get)
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

    def forget(self, pattern: str) -> None:
        self.messages = [m for m in self.messages if not matches(pattern, m.subject)]

    def purged(self) -> int:
        """How often a purge was asked for."""
        return len(self.server.sent("PUB", "$JS.API.STREAM.PURGE.*"))

    def _last(self, pattern: str) -> Stored | None:
        return next((m for m in reversed(self.messages) if matches(pattern, m.subject)), None)

    def _put(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever a hook may answer
        instead = self.hook(frame)
        if instead == "503":
            self.server.publish(frame.reply, headers=NO_RESPONDERS)
        elif instead == "lost":
            self.take(frame)
        elif instead is None:
            return self._in_time(frame, lambda: self.take(frame))
        return None if isinstance(instead, str) else instead

    def refused(self, subject: str, asked: dict[str, str]) -> dict[str, Any] | None:
        """Say why a message is not stored, given its headers; None where it is."""
        expected = asked.get("Nats-Expected-Last-Subject-Sequence")
        last = self._last(subject)
        return WRONG_SEQUENCE if expected and int(expected) != (last.sequence if last else 0) else None

    def take(self, frame: Frame) -> dict[str, Any]:
        """Store what is published, unless something else was expected; give the answer."""
        asked = fields_of(frame.headers)
        refused = self.refused(frame.subject, asked)
        if refused is not None:
            return {**refused, "stream": self.name, "seq": 0}
        rollup = asked.get("Nats-Rollup") == "sub"
        return self.store(frame.subject, frame.payload, rollup=rollup, headers=frame.headers)

    def get(self, frame: Frame) -> dict[str, Any]:
        found = self._found(self.messages, json.loads(frame.payload))
        if found is None:
            return refusal(404, 10037, "no message found")
        parts = {"hdrs": found.headers, "data": found.payload}
        encoded = {name: base64.b64encode(part).decode() for name, part in parts.items() if part}
        return {"message": {"subject": found.subject, "seq": found.sequence, **encoded, "time": found.time}}

    def _found(self, messages: Sequence[Stored], asked: dict[str, Any]) -> Stored | None:
        if (pattern := asked.get("last_by_subj")) is not None:
            return next((m for m in reversed(messages) if matches(pattern, m.subject)), None)
        if (pattern := asked.get("next_by_subj")) is not None:
            first = asked.get("seq", 0)
            return next((m for m in messages if m.sequence >= first and matches(pattern, m.subject)), None)
        return next((m for m in messages if m.sequence == asked.get("seq")), None)

    def direct_get(self, frame: Frame) -> None:
        _, _, subject = frame.subject.partition(f".DIRECT.GET.{self.name}.")
        found = self._found(self.readable, {"last_by_subj": subject} if subject else json.loads(frame.payload))
        if found is None:
            self.server.publish(frame.reply, headers=b"NATS/1.0 404 Message Not Found\r\n\r\n")
            return
        fields = {"Stream": self.name, "Subject": found.subject, "Sequence": found.sequence, "Time-Stamp": found.time}
        lines = "".join(f"Nats-{name}: {value}\r\n" for name, value in fields.items())
        own = found.headers.removesuffix(b"\r\n") or b"NATS/1.0\r\n"
        self.server.publish(frame.reply, found.payload, headers=own + lines.encode() + b"\r\n")

    def _erase(self, frame: Frame) -> dict[str, Any]:
        sequence = json.loads(frame.payload)["seq"]
        self.messages = [m for m in self.messages if m.sequence != sequence]
        return {"success": True}

    def purge(self, frame: Frame) -> dict[str, Any] | None:
        if self.purges is not True:
            return self.purges or None
        asked = json.loads(frame.payload or b"{}")
        chosen = self.sequences(asked.get("filter", ">"))
        gone = set(chosen[: len(chosen) - asked.get("keep", 0)]) if "seq" not in asked else set()
        gone |= {sequence for sequence in chosen if sequence < asked.get("seq", 0)}
        self.messages = [m for m in self.messages if m.sequence not in gone]
        return {"success": True, "purged": len(gone)}


class FakeBatches(FakeBucket):
    """A stream that takes atomic batches, and what is set aside of them. Its clock is Trio's, its day that of 2026.

    Args:
        server: The server.
        name: The stream's name.
        prefix: What its subjects begin with.
    """

    def __init__(self, server: FakeServer, name: str, prefix: str) -> None:
        super().__init__(server, name, prefix)
        #: What is set aside of each batch.
        self.staged: dict[str, list[Frame]] = {}
        #: How many replicas it has, and which API level the server.
        self.replicas, self.level = 1, 4
        #: When it stored its last message.
        self.stored_at = 0.0
        server.on("$JS.API.INFO", lambda _: {"api": {"level": self.level}})

    def about(self) -> dict[str, Any]:
        said = super().about()
        moments = {"first_ts": written(0), "last_ts": written(self.stored_at)}
        config = {"name": self.name, "num_replicas": self.replicas, "allow_atomic": True}
        return {**said, "config": config, "ts": written(trio.current_time()), "state": {**said["state"], **moments}}

    def take(self, frame: Frame) -> Any:  # noqa: ANN401 - nothing, an acknowledgement, or a refusal
        asked = fields_of(frame.headers)
        batch, number = asked.get("Nats-Batch-Id"), int(asked.get("Nats-Batch-Sequence", 0))
        if batch is None or self.level < 2:
            self.stored_at = trio.current_time()
            return super().take(frame)
        staged = self.staged.setdefault(batch, []) if number == 1 else self.staged.get(batch)
        if staged is None or number != len(staged) + 1:
            self.staged.pop(batch, None)
            return {**refusal(400, 10176, "atomic publish batch is incomplete"), "stream": self.name, "seq": 0}
        staged.append(frame)
        if "Nats-Batch-Commit" not in asked:
            return b""
        del self.staged[batch]
        for one in staged:
            if (refused := self.refused(one.subject, fields_of(one.headers))) is not None:
                return {**refused, "stream": self.name, "seq": 0}
        self.stored_at = trio.current_time()
        for one in staged:
            self.store(one.subject, one.payload, rollup=False, headers=one.headers)
        return {"stream": self.name, "seq": self.last, "batch": batch, "count": len(staged)}


def written(seconds: float) -> str:
    """Write a time of Trio's clock as the server writes times."""
    return f"{datetime(2026, 11, 29, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%fZ}"


class FakeObjects(FakeBucket):
    """The stream of one object store."""

    def __init__(self, server: FakeServer, bucket: str) -> None:
        super().__init__(server, f"OBJ_{bucket}", f"$O.{bucket}")
        self.bucket = bucket
        #: How many subjects are listed at once, and the time of the server that lists them.
        self.page = 100_000
        self.now = "2026-11-29T12:00:00.000000001Z"
        server.on(f"$JS.API.STREAM.INFO.{self.name}", self.about_subjects, first=True)

    def about(self) -> dict[str, Any]:
        subjects = [f"{self.prefix}.C.>", f"{self.prefix}.M.>"]
        return {**super().about(), "config": {"name": self.name, "subjects": subjects, "allow_direct": True}}

    def data(self, nuid: str | None) -> list[bytes]:
        return self.payloads(f"{self.prefix}.C.{nuid}")

    @property
    def chunks(self) -> int:
        return len(self.sequences(f"{self.prefix}.C.*"))

    @property
    def metas(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads(f"{self.prefix}.M.*")]

    def add(self, name: str, *chunks: bytes, deleted: bool = False, **more: object) -> None:
        """Store an object as a client would have done."""
        for chunk in chunks:
            self.store(f"{self.prefix}.C.nuid-{name}", chunk, rollup=False)
        info = {"name": name, "bucket": self.bucket, "nuid": f"nuid-{name}", "deleted": deleted}
        counts = {"size": sum(map(len, chunks)), "chunks": len(chunks), "digest": digest_of(b"".join(chunks))}
        subject = f"{self.prefix}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
        self.store(subject, json.dumps({**info, **counts, **more}).encode())

    def contents(self) -> dict[str, bytes]:
        """All objects that are not deleted; of links, where they lead to.

        Raises:
            AssertionError: One of them is not whole, or there are chunks that belong to none.
        """
        chunked = [message.subject for message in self.messages if matches(f"{self.prefix}.C.*", message.subject)]
        chunks = {subject.rsplit(".", 1)[1]: self.payloads(subject) for subject in chunked}
        found = {}
        for info in self.metas:
            link = (info.get("options") or {}).get("link")
            if link and not info["deleted"]:
                found[info["name"]] = b"-> " + json.dumps(link).encode()
            elif not info["deleted"]:
                parts = chunks.pop(info["nuid"], [])
                found[info["name"]] = data = b"".join(parts)
                is_there, promised = (len(data), len(parts)), (info["size"], info["chunks"])
                assert is_there == promised, f"{info['name']!r} is not whole"
                assert info["digest"] == digest_of(data), f"{info['name']!r} is mixed"
        assert not chunks, f"orphans: {chunks}"
        return found

    def about_subjects(self, frame: Frame) -> dict[str, Any]:
        asked, info = json.loads(frame.payload or b"{}"), self.about()
        if "subjects_filter" in asked:
            subjects = [m.subject for m in self.messages if matches(asked["subjects_filter"], m.subject)]
            counts = {subject: subjects.count(subject) for subject in sorted(set(subjects))}
            offset = asked.get("offset", 0)
            info["state"]["subjects"] = dict(list(counts.items())[offset : offset + self.page])
            info |= {"total": len(counts), "offset": offset, "limit": self.page}
        return {**info, "ts": self.now}


class FakeKeyValue(FakeBucket):
    """The stream of one key-value bucket.

    With `timed` its clock is Trio's: a `Nats-TTL` and the bucket's `ttl` end, and `limit_marker_ttl` leaves a marker.

    Args:
        server: The server.
        bucket: The bucket's name.
        history: How many messages a key has at the most.
        limit_marker_ttl: How many seconds a marker lives that the server itself makes; with it, messages may have a TTL.
        ttl: How many seconds a message lives; 0 for ever.
        replicas: What the configuration says of it.
        timed: As for `FakeStream`.
    """

    def __init__(
        self,
        server: FakeServer,
        bucket: str,
        *,
        history: int = 1,
        limit_marker_ttl: int = 0,
        ttl: int = 0,
        replicas: int = 1,
        timed: bool = False,
    ) -> None:
        super().__init__(server, f"KV_{bucket}", f"$KV.{bucket}", timed=timed)
        #: Which API level the server has: 0 is below 2.11.
        self.level = 4
        server.on("$JS.API.INFO", lambda _: {"api": {"level": self.level}})
        self.bucket = bucket
        self.limit_marker_ttl, self.ttl = limit_marker_ttl, ttl
        #: What the server says of the stream, which a test may change.
        self.config: dict[str, Any] = {
            "name": self.name,
            "subjects": [f"{self.prefix}.>"],
            "max_msgs_per_subject": history,
            "max_age": ttl * 1_000_000_000,
            "num_replicas": replicas,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "discard": "new",
            "retention": "limits",
            "storage": "memory",
        }
        if limit_marker_ttl:
            self.config |= {"allow_msg_ttl": True, "subject_delete_marker_ttl": limit_marker_ttl * 1_000_000_000}
        #: What a lost compare-and-set is answered with.
        self.conflict = WRONG_SEQUENCE
        self._lagging: tuple[Stored, ...] | None = None

    @property
    def history(self) -> int:
        return int(self.config["max_msgs_per_subject"])

    def about(self) -> dict[str, Any]:
        said = super().about()
        first = self.messages[0].sequence if self.messages else self.last + 1
        return {**said, "config": self.config, "state": {**said["state"], "first_seq": first}}

    # What a test sees and does.

    def key(self, message: Stored) -> str:
        return message.subject.removeprefix(f"{self.prefix}.")

    def values(self) -> dict[str, bytes]:
        """All keys that are not deleted, with their last values."""
        last = {self.key(message): message for message in self.messages}
        return {key: message.payload for key, message in last.items() if not self._is_marker(message)}

    def set(self, key: str, value: bytes = b"x", *, age: float | None = None, **headers: str) -> int:
        """Store a value as another client would have done; give its revision.

        Args:
            key: The key.
            value: The value.
            age: How many seconds ago, by this machine's clock; None for now, by the bucket's own.
            headers: Headers, with `_` for `-`.
        """
        lines = "".join(f"{name.replace('_', '-')}: {field}\r\n" for name, field in headers.items())
        block = f"NATS/1.0\r\n{lines}\r\n".encode() if lines else b""
        at = 0 if age is None else time.time_ns() - int(age * 1e9)
        return int(
            self.store(f"{self.prefix}.{key}", value, rollup="Nats_Rollup" in headers, headers=block, at=at)["seq"]
        )

    def mark(self, key: str, kind: str = "DEL", *, age: float | None = None) -> int:
        """Store a marker: "DEL" and "PURGE" as clients do, any other kind as the server does for that reason."""
        if kind in ("DEL", "PURGE"):
            rollup = {"Nats_Rollup": "sub"} if kind == "PURGE" else {}
            return self.set(key, b"", age=age, KV_Operation=kind, **rollup)
        return self.set(key, b"", age=age, Nats_Marker_Reason=kind, Nats_Rollup="sub")

    def lag_behind(self) -> None:
        """Have a replica that gets nothing more: direct gets and consumers are its, `STREAM.*` the leader's."""
        self._lagging = tuple(self.messages)

    def catch_up(self) -> None:
        """Let that replica have all that the leader has."""
        self._lagging = None
        self.serve_all()

    # What the server does.

    def _info(self, consumer: Consumer | None) -> dict[str, Any]:
        # Only in a cluster a consumer has one, and there a stream may have replicas.
        cluster = {"cluster": {"name": "c"}} if self.config["num_replicas"] > 1 else {}
        return {**super()._info(consumer), **cluster}

    @property
    def readable(self) -> Sequence[Stored]:
        return self.messages if self._lagging is None else self._lagging

    def store(
        self, subject: str, payload: bytes, *, rollup: bool = True, headers: bytes = b"", at: int = 0
    ) -> dict[str, Any]:
        at = at or TIMESTAMP + (self.last + 1 if self.clock is None else int(trio.current_time() * 1e9))
        answer = super().store(subject, payload, rollup=rollup, headers=headers, at=at)
        chosen = self.sequences(subject)
        gone = set(chosen[: -self.history])
        self.messages = [m for m in self.messages if m.sequence not in gone]
        self._expire_later(self.messages[-1])
        return answer

    def refused(self, subject: str, asked: dict[str, str]) -> dict[str, Any] | None:
        if "Nats-TTL" in asked and not self.config.get("allow_msg_ttl"):
            return NO_TTL
        return None if super().refused(subject, asked) is None else self.conflict

    def _is_marker(self, message: Stored) -> bool:
        return not {"KV-Operation", "Nats-Marker-Reason"}.isdisjoint(message.fields)

    def _expire_later(self, message: Stored) -> None:
        own = message.fields.get("Nats-TTL", "")
        seconds = [self.ttl] if self.ttl and own != "never" else []
        if own and own != "never":
            # As measured: it is stretched to the marker's, where a key has a history.
            least = self.limit_marker_ttl if self.history > 1 else 0
            seconds.append(max(int(own.removesuffix("s")), least))
        if seconds and self.clock is not None:
            self.clock.call_later(min(seconds), lambda: self.expire(message))

    def expire(self, message: Stored) -> None:
        """End a message as its TTL does: a marker takes the place of a key's last value, where the bucket has markers."""
        if message not in self.messages:
            return
        self.messages.remove(message)
        if self.limit_marker_ttl and not self.sequences(message.subject) and not self._is_marker(message):
            lines = {"Nats-Marker-Reason": "MaxAge", "Nats-TTL": f"{self.limit_marker_ttl}s", "Nats-Rollup": "sub"}
            block = "".join(f"{name}: {field}\r\n" for name, field in lines.items())
            self.store(message.subject, b"", headers=f"NATS/1.0\r\n{block}\r\n".encode())
