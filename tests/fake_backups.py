"""What a fake server does for backups of one stream: it sends a snapshot, and takes one."""

from __future__ import annotations

import json
from typing import Any

from tests.archives import new_archive
from tests.fake_jetstream import CREATED, refusal
from tests.fakes import FakeServer, Frame, matches

ENDED = b"NATS/1.0 204\r\n\r\n"


class FakeBackups:
    """The snapshots and restores of a stream.

    Args:
        server: The server.
        name: The stream.
        archive: What a snapshot of it is.
        piece: The size of a piece.
        window: How many pieces are sent ahead of their acknowledgements.
    """

    def __init__(
        self, server: FakeServer, name: str = "S", archive: bytes = b"", *, piece: int = 100, window: int = 3
    ) -> None:
        self.server, self.name = server, name
        self.config: dict[str, Any] = {"name": name, "subjects": ["s.>"], "num_replicas": 1, "new": {"field": None}}
        self.state: dict[str, Any] = {"messages": 2, "bytes": 100, "first_seq": 1, "last_seq": 2, "consumer_count": 1}
        self.archive = archive or new_archive(b"messages" * 100)
        #: The whole of what a snapshot sends, from which a test may take something.
        self.pieces = [self.archive[at : at + piece] for at in range(0, len(self.archive), piece)]
        self.window = window
        #: The last word of a snapshot.
        self.last = ENDED
        #: Whether pieces come before the response does, and whether any come at all.
        self.early, self.silent = False, False
        #: Which pieces are lost on their way, by their numbers.
        self.lost: set[int] = set()
        self.sent = self.acknowledged = 0
        self._inbox = ""
        #: What is left of one that came to nothing, as its info or a refusal, and whether it was deleted.
        self.left: dict[str, Any] = {}
        self.deleted = False
        #: What a restore was asked for, what was taken of it, and whether it was called off.
        self.asked: dict[str, Any] = {}
        self.taken = b""
        self.called_off = self.restored = False
        #: What is answered to a piece of a number; None for silence.
        self.answers: dict[int, Any] = {}
        self.count = 0
        self.level = 5
        server.on("$JS.API.INFO", lambda _: {"api": {"level": self.level}}, first=True)
        server.on(f"$JS.API.STREAM.SNAPSHOT.{name}", self._snapshot, first=True)
        server.on(f"$JS.SNAPSHOT.ACK.{name}.>", self._acknowledge, first=True)
        server.on(f"$JS.API.STREAM.RESTORE.{name}", self._restore, first=True)
        server.on(self.where, self._take, first=True)
        server.on("$JS.API.STREAM.NAMES", self._names, first=True)
        server.on(f"$JS.API.STREAM.DELETE.{name}", self._delete, first=True)

    @property
    def where(self) -> str:
        return f"$JS.SNAPSHOT.RESTORE.{self.name}.id"

    @property
    def heard(self) -> bool:
        """Whether anybody listens to the snapshot."""
        return any(matches(subscription.subject, self._inbox) for subscription in self.server.subscriptions)

    def _snapshot(self, frame: Frame) -> dict[str, Any] | None:
        self._inbox = json.loads(frame.payload)["deliver_subject"]
        self.sent = self.acknowledged = 0
        response = {"type": "snapshot", "config": self.config, "state": self.state}
        if not self.early:
            self.server.publish(frame.reply, json.dumps(response).encode())
        self._go_on()
        return response if self.early else None

    def _acknowledge(self, frame: Frame) -> None:
        self.acknowledged += 1
        self._go_on()

    def _go_on(self) -> None:
        while not self.silent and self.sent < len(self.pieces) and self.sent - self.acknowledged < self.window:
            if not self.heard:
                return
            self.sent += 1
            piece, last = self.pieces[self.sent - 1], self.sent == len(self.pieces)
            reply = "" if last else f"$JS.SNAPSHOT.ACK.{self.name}.id.{len(piece)}.{self.sent}"
            if self.sent not in self.lost:
                self.server.publish(self._inbox, piece, reply=reply)
            if last:
                self.server.publish(self._inbox, headers=self.last)

    def _restore(self, frame: Frame) -> dict[str, Any]:
        if self.restored:
            return refusal(400, 10130, "stream name already in use, cannot restore")
        self.asked, self.taken, self.count = json.loads(frame.payload), b"", 0
        self.called_off = False
        return {"type": "restore", "deliver_subject": self.where}

    def _take(self, frame: Frame) -> Any:  # noqa: ANN401 - whatever a test answers
        if not frame.reply:
            self.called_off = True
            return None
        self.count += 1
        if self.count in self.answers:
            return self.answers[self.count]
        if frame.payload:
            self.taken += frame.payload
            return b""
        if self.taken != self.archive:
            self.called_off = True
            return refusal(500, 10062, "restore failed: backup was truncated")
        self.restored = True
        return {"config": self.asked["config"], "state": self.asked["state"], "created": CREATED}

    def leave(self, **info: Any) -> None:  # noqa: ANN401 - what the server says of it
        """Have something under the stream's name from now on."""
        self.left = info
        self.server.on(f"$JS.API.STREAM.INFO.{self.name}", lambda _: info, first=True)

    def _names(self, _: Frame) -> dict[str, Any]:
        names = [self.name] if self.left and not self.deleted else []
        return {"total": len(names), "offset": 0, "limit": 1024, "streams": names}

    def _delete(self, _: Frame) -> dict[str, Any]:
        self.deleted = True
        return {"success": True}
