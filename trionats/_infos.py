"""What an object store knows of an object: its info, read from and written as a meta message."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio

from trionats import api, errors
from trionats._chunks import CLEANUP_LIMIT, IDLE_LIMIT, answer, idle_error, writable
from trionats._consumer import JITTER, Handed, OrderedSource
from trionats._jetstream import PUBLISH_RETRIES, PUBLISH_RETRY_WAIT, no_stream, publish_ack
from trionats._protocol.ordered import Ordered
from trionats._protocol.pulling import Start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats._jetstream import JetStream
    from trionats._message import Msg
    from trionats._protocol.pulling import AckSubject
    from trionats._requests import PendingReply

NUID_LIMIT = 128
#: How often a list begins anew because another stream took the place of the one that was read.
READ_ATTEMPTS = 10
_nuid_form = re.compile(r"[!-)+,\-/-=?-~]+").fullmatch  # visible ASCII but . * >

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})


def read_info(bucket: str, data: bytes, *, revision: int, stored_at: int | str) -> api.ObjectInfo:
    """Read an object's info from its meta message.

    Args:
        bucket: The bucket, for the text of an exception.
        data: The message's payload.
        revision: The message's sequence in the bucket's stream.
        stored_at: When the server stored the message: RFC 3339, or nanoseconds since 1970 as acks tell it.

    Returns:
        The info, with the message's time as its `mtime`.

    Raises:
        trionats.errors.BadObjectMetaError: Somebody wrote what is no object info.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or (complaint := _complaint(fields)) is not None:
        why = "it is no JSON object" if not isinstance(fields, dict) else complaint
        text = f"bucket {bucket!r}: message {revision} should be the info of an object, but {why}"
        raise errors.explained(errors.BadObjectMetaError, text, description=text)
    info = api.ObjectInfo.from_response(fields)
    info.revision = revision
    info.mtime = stored_at if isinstance(stored_at, str) else rfc3339(stored_at)
    return info


def _complaint(fields: Mapping[str, Any]) -> str | None:
    for key in ("name", "bucket", "nuid"):
        if not isinstance(fields.get(key), str):
            return f"its {key} is no text"
    for key in ("size", "chunks"):
        value = fields.get(key, 0)
        if not isinstance(value, int) or value < 0:
            return f"its {key} is no count"
    for key in ("headers", "metadata", "options"):
        if not isinstance(fields.get(key) or {}, dict):
            return f"its {key} is no JSON object"
    if not isinstance(((fields.get("options") or {}).get("link")) or {}, dict):
        return "its link is no JSON object"
    if not isinstance(fields.get("digest") or "", str):
        return "its digest is no text"
    return _nuid_complaint(fields["nuid"])


def _nuid_complaint(nuid: str) -> str | None:
    # It becomes part of the subject of a purge: a nuid of ">" would empty the bucket.
    # And one that is too long for a control line would end the connection.
    if nuid and (_nuid_form(nuid) is None or len(nuid) > NUID_LIMIT):
        return "its nuid cannot be part of a subject"
    return None


def rfc3339(nanoseconds: int) -> str:
    """Write the time of a message, given in nanoseconds since 1970, as the server does."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    # As Go writes it, so that the time of a message is the same text whichever way it was read.
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


class InfoWrite:
    """One replacement of an object's info, sent once or more often, and what is known of its outcome."""

    def __init__(self, js: JetStream, subject: str, doing: str) -> None:
        self._js = js
        self._subject = subject
        self._doing = doing
        self.revision: int | None = None
        """The sequence under which it was stored; None unless that is known."""
        self._under_way = False
        self._lost = False

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been stored without our knowing: a refusal says nothing of what was sent and lost before."""
        return self.revision is None and (self._under_way or self._lost)

    def is_not_stored(self) -> None:
        """Know that it is not, and will not be: somebody else's stands in its place."""
        self._under_way = self._lost = False

    async def send(self, info: api.ObjectInfo, expected: int) -> int:
        """Store `info` if the last one is that of the sequence `expected`.

        Returns:
            The new sequence.
        """
        headers = {
            api.Header.ROLLUP.value: "sub",
            api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(expected),
        }
        data = json.dumps(info.as_dict(), separators=(",", ":")).encode()
        for attempt in range(PUBLISH_RETRIES + 1):
            if attempt:
                await trio.sleep(PUBLISH_RETRY_WAIT)
            with await self._queue(data, headers) as reply:
                try:
                    return self._stored(await self._answer(reply))
                except errors.NoRespondersError:
                    self._under_way = False
        raise no_stream(self._doing)

    async def _queue(self, data: bytes, headers: Mapping[str, str]) -> PendingReply:
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                reply = self._js.nc.request_nowait(self._subject, data, headers=headers)
            except trio.WouldBlock:
                await writable(self._js.nc, self._doing)
                continue
            self._lost = self._lost or self._under_way
            self._under_way = True
            return reply

    async def _answer(self, reply: PendingReply) -> Msg:
        try:
            return await answer(reply, self._doing)
        except trio.Cancelled:
            # It is under way: whether the chunks are to stay depends on what becomes of it.
            with trio.move_on_after(CLEANUP_LIMIT, shield=True):
                try:
                    self._stored(await reply.wait())
                except errors.NoRespondersError:
                    self._under_way = False
                except errors.Error:
                    pass
            raise

    def _stored(self, msg: Msg) -> int:
        self._under_way = False
        try:
            self.revision = publish_ack(self._doing, msg).seq
        except errors.APIError as error:
            if error.err_code not in WRONG_LAST_SEQUENCE:
                raise
            text = f"{self._doing}: somebody else changed it at the same time ({error.description})"
            raise errors.explained(type(error), text, **vars(error)) from None
        return self.revision


async def read_infos(js: JetStream, bucket: str, stream: str, subject: str) -> list[api.ObjectInfo]:
    """Read the last info of every object in a bucket.

    Args:
        js: Through which.
        bucket: The bucket's name, for texts.
        stream: The stream that holds it.
        subject: The pattern that all infos match.

    Returns:
        The infos, markers of deleted objects included, in the order of their last change.

    Raises:
        nats.errors.Error: As for any question to the JetStream API.
    """
    for _ in range(READ_ATTEMPTS - 1):
        # The stream was made anew, or went back: what was read belongs to no list.
        with suppress(errors.StreamRegressedError):
            return await _read_infos(js, bucket, stream, subject)
    return await _read_infos(js, bucket, stream, subject)


async def _read_infos(js: JetStream, bucket: str, stream: str, subject: str) -> list[api.ObjectInfo]:
    reader = _InfoReader(bucket)
    ordered = Ordered(
        stream,
        js.nc.new_token(),
        JITTER,
        filter_subjects=[subject],
        start=Start("last_per_subject"),
        snapshot=True,
        # An info replaces the one before (`Nats-Rollup`).
        one_per_subject=True,
    )
    reader.source = source = OrderedSource(js, ordered, reader)
    try:
        await source.open()
        with reader.patience:
            reader.patience.deadline = trio.current_time() + IDLE_LIMIT
            while not reader.complete:
                await source.step()
    finally:
        source.close()
    if not reader.complete:
        raise idle_error(f"list of bucket {bucket!r}", source.refusal)
    return list(reader.infos.values())


class _InfoReader:
    """Collects infos; what is none is left out, since anybody may write into the bucket's subjects."""

    source: OrderedSource

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self.infos: dict[str, api.ObjectInfo] = {}
        self.complete = False
        self.patience = trio.CancelScope()

    def take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        """Take an info; a later one of the same subject replaces it."""
        self.patience.deadline = trio.current_time() + IDLE_LIMIT
        self.infos.pop(msg.subject, None)
        with suppress(errors.BadObjectMetaError):
            info = read_info(self._bucket, msg.data, revision=ack.sequence, stored_at=ack.timestamp)
            self.infos[msg.subject] = info
        return Handed.DROPPED

    def stored_read(self) -> None:
        """Know that these were all."""
        self.complete = True
        self.source.wake()

    def ended(self, reason: BaseException | None) -> None:
        """Nothing to do: the next step raises why."""
