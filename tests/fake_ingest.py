"""What a stream makes of a fast ingest (ADR-50), as measured on nats-server 2.15.1: no network, no clock.

`FastBatches` is given one message after the other, by the tokens of its reply subject, and says what is sent back. `FakeIngestStream`
puts it behind the subjects of a `FakeServer`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from tests.fake_jetstream import FakeStream, refusal
from tests.fakes import NO_RESPONDERS, FakeServer, Frame, matches

UNKNOWN = refusal(400, 10208, "batch publish ID unknown")
DISABLED = refusal(400, 10205, "batch publish is disabled")
TOO_LARGE = refusal(400, 10054, "message size exceeds maximum allowed")
WRONG_LAST = refusal(400, 10071, "wrong last sequence: 9")
#: After how many seconds the server forgets a batch.
IDLE_LIMIT = 10.0


@dataclasses.dataclass
class FastBatch:
    """One batch, as the stream's leader knows it."""

    continues: bool
    limit: int
    step: int
    last: int = 0
    acked: int = 0
    at: float = 0.0


class FastBatches:
    """A stream that allows fast ingest.

    Args:
        step: After how many messages it acknowledges.
        name: Its name.
    """

    def __init__(self, step: int = 500, name: str = "S") -> None:
        self.name, self.domain = name, ""
        self.batches: dict[str, FastBatch] = {}
        self.stored: list[bytes] = []
        self.step = step
        self.now = 0.0
        self.allowed = True
        #: Which messages it does not take: "early", before it looks at the batch, or "late", as a wrong expectation.
        self.takes: Callable[[bytes], str] = lambda _: ""

    def heard(self, tail: str, payload: bytes) -> list[dict[str, Any]]:
        """Take a message.

        Args:
            tail: The last six tokens of its reply subject.
            payload: Its payload.

        Returns:
            What is sent back there, in this order.
        """
        name, flow, mode, number, operation, end = tail.split(".")
        assert end == "$FI"
        seq, op = int(number), int(operation)
        if not self.allowed:
            return [self._refused(DISABLED)]
        refuses = self.takes(payload) if op < 2 else ""
        if refuses == "early":
            return [self._refused(TOO_LARGE)]
        batch = self.batches.get(name)
        if batch is not None and batch.at + IDLE_LIMIT <= self.now:
            del self.batches[name]
            batch = None
        if batch is None:
            if seq != 1 or op == 4:
                return [self._refused(UNKNOWN)]
            step = min(self.step, int(flow))
            batch = self.batches[name] = FastBatch(mode == "ok", step, step)
        batch.at = self.now
        if op == 4:
            return self._pinged(name, batch, seq)
        return self._counted(name, batch, seq, op, payload, refuses)

    def _pinged(self, name: str, batch: FastBatch, seq: int) -> list[dict[str, Any]]:
        if seq <= batch.last:
            return [self._ack(batch)]
        gap = {"type": "gap", "last_seq": batch.last + 1, "seq": seq + 1}
        if not batch.continues:
            return [gap, self._over(name)]
        batch.last = seq
        return [gap, self._ack(batch)]

    def _counted(
        self, name: str, batch: FastBatch, seq: int, op: int, payload: bytes, refuses: str
    ) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        if seq != batch.last + 1:
            said.append({"type": "gap", "last_seq": batch.last + 1, "seq": seq})
            if not batch.continues or seq <= batch.last:
                return [*said, self._over(name)]
        if op == 3:
            batch.last = seq - 1
            return [*said, self._over(name)]
        batch.last = seq
        if seq == 1:
            said.append({"type": "ack", "seq": 0, "msgs": batch.step})
        if refuses:
            if batch.continues:
                return [*said, {"type": "err", "seq": seq, **WRONG_LAST}]
            if seq == 1:
                del self.batches[name]
                return [*said, self._refused(WRONG_LAST)]
            batch.last -= 1
            return [*said, {"type": "err", "seq": seq, **WRONG_LAST}, self._over(name)]
        self.stored.append(payload)
        if batch.last >= batch.acked + batch.step:
            said.append(self._ack(batch))
        return said

    def _ack(self, batch: FastBatch) -> dict[str, Any]:
        steps = (batch.last - batch.acked) // batch.step
        batch.acked += steps * batch.step
        return {"type": "ack", "seq": batch.acked, "msgs": batch.step}

    def _over(self, name: str) -> dict[str, Any]:
        batch = self.batches.pop(name)
        domain = {"domain": self.domain} if self.domain else {}
        return {"stream": self.name, "seq": len(self.stored), **domain, "batch": name, "count": batch.last}

    def _refused(self, why: dict[str, Any]) -> dict[str, Any]:
        return {**why, "stream": self.name, "seq": 0}


class FakeIngestStream(FakeStream):
    """A stream of a fake server that allows fast ingest.

    Args:
        server: The server.
        step: After how many messages it acknowledges.
        name: Its name.
        subject: What it listens to.
    """

    def __init__(self, server: FakeServer, step: int = 4, *, name: str = "S", subject: str = "s.>") -> None:
        super().__init__(server, name)
        self.fast = FastBatches(step, name)
        self.heard_frames: list[Frame] = []
        #: What is done in place of taking a message: "503", "silence", "lost" (it is taken, and nothing said), or a mapping that is
        #: answered; None takes it.
        self.hook: Callable[[Frame], Any] = lambda _: None
        self.level = 4
        self.config: dict[str, Any] = {"name": name, "subjects": [subject], "allow_batched": True}
        self.names: Callable[[str], list[str]] = lambda asked: [name] if matches(subject, asked) else []
        server.on(subject, self.publish)
        server.on("$JS.API.INFO", lambda _: {"api": {"level": self.level}})
        server.on(f"$JS.API.STREAM.INFO.{name}", lambda _: self.about(), first=True)
        server.on("$JS.API.STREAM.NAMES", self._named_for, first=True)

    def about(self) -> dict[str, Any]:
        return {**super().about(), "config": self.config}

    def _named_for(self, frame: Frame) -> dict[str, Any]:
        names = self.names(json.loads(frame.payload)["subject"])
        return {"streams": names, "total": len(names), "offset": 0, "limit": 1024}

    @property
    def payloads(self) -> list[bytes]:
        return self.fast.stored

    def operations(self) -> list[int]:
        """What was heard, by its operation."""
        return [int(frame.reply.split(".")[-2]) for frame in self.heard_frames]

    def publish(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever the hook says
        self.heard_frames.append(frame)
        instead = self.hook(frame)
        if instead == "503":
            self.server.publish(frame.reply, headers=NO_RESPONDERS)
            return None
        if instead not in (None, "lost", "silence"):
            return instead
        if instead != "silence":
            self.take(frame, tell=instead is None)
        return None

    def take(self, frame: Frame, *, tell: bool = True) -> None:
        """Take a message, and say what there is to say."""
        for answer in self.fast.heard(".".join(frame.reply.split(".")[-6:]), frame.payload):
            if tell:
                self.server.publish(frame.reply, json.dumps(answer).encode())
