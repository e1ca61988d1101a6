"""Counters: subjects of a stream that add up (ADR-49)."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, final

from trionats import api, errors
from trionats._jetstream.api import about, api_error, unreadable
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.ordered.entries import Entries
from trionats._jetstream.ordered.listing import list_stored
from trionats._jetstream.publishing.publish import publish_until_known
from trionats._jetstream.streams import Stream
from trionats._protocol.jetstream.actions import LAST_PER_SUBJECT
from trionats._protocol.jetstream.counters import increment_of, read_entry, value_of
from trionats._protocol.jetstream.levels import Need
from trionats._protocol.subjects import matches, pattern, publish_subject, widest
from trionats._told.moments import moment_of

if TYPE_CHECKING:
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.acks import AckSubject

__all__ = ["Counter", "find_counter"]

#: The server's number for: this stream counts nothing.
DISABLED = 10168


@final
class Counter:
    """The counters of a stream, one for each subject: what `JetStream.counter` gives. It holds no state and needs no closing.

    Attributes:
        name: The stream's name.
    """

    def __init__(self, jetstream: Api[Publishing], info: api.StreamInfo) -> None:
        self._jetstream = jetstream
        self._stream = Stream(jetstream, info)
        self.name = self._stream.name

    def __repr__(self) -> str:
        return f"<Counter {self.name!r}>"

    async def add(self, subject: str, n: int) -> int:
        """Add to a counter; one that was never counted begins at 0.

        What is added at the same time by several is all counted. Where nobody leads the stream for a moment it is tried twice
        more. When the connection broke behind it, no answer came in time, or it was cancelled after it had been sent, it may
        have been counted or not: to add it again may count it twice. Streams of other domains that listen on the subject count
        it, too.

        Args:
            subject: The counter: a subject of the stream.
            n: How much: any whole number, below 0 too, of up to 65,000 digits: the server takes 64 KiB of headers.

        Returns:
            The counter's value behind it.

        Raises:
            TypeError: `n` is no whole number; nothing was sent.
            ValueError: The subject is none of the stream's, or `n` has more digits; nothing was sent.
            nats.errors.BadSubjectError: It is no subject at all.
            trionats.errors.NoStreamResponseError: Nobody leads the stream.
            nats.errors.TimeoutError: No answer came; whether it was counted is not known.
            trionats.errors.DisconnectedError: The connection broke, and whether it was counted is not known where its `sent` is
                True.
            trionats.errors.APIError: The stream refused: the sum is larger than its `max_msg_size`, for one.
        """
        doing = f"add to {subject!r}"
        publish_subject(subject, "add to")
        asked = increment_of(doing, n)
        await self._check_its_own(doing, subject)
        ack = await publish_until_known(self._jetstream, doing, subject, b"", asked, asked)
        with about(doing):
            if ack.stream != self.name:
                raise unreadable(doing, f"it was counted in stream {ack.stream!r}, not in {self.name!r}")
            return value_of(ack.val)

    async def get(self, subject: str) -> api.CounterEntry:
        """Read a counter.

        Args:
            subject: The counter, as it is stored: where the stream transforms its subjects that is not the one that is added to.

        Returns:
            What it has come to, and what others brought to it.

        Raises:
            nats.errors.BadSubjectError: The subject is none.
            trionats.errors.NotFoundError: Nothing was counted there yet.
            trionats.errors.APIError: What is stored there is no counter's.
        """
        publish_subject(subject, "counter")
        stored = await self._stream.get_last_msg(subject)
        with about(f"counter {subject!r} of stream {self.name!r}"):
            return read_entry(stored.subject, stored.seq, stored.time, stored.headers, stored.data)

    async def entries(self, subjects: str | Sequence[str] = ">") -> list[api.CounterEntry]:
        """Read many counters, however many there are.

        Args:
            subjects: Which ones: a pattern, in which a whole token may be `*` and the last one `>`, or several patterns. The
                server compares each with each other: where they are many thousands, reading all is faster.

        Returns:
            What each has come to, in the order in which they were counted last; none where there is nothing. What is stored
            and is no counter's is left out, and told (`events.ForeignDataSkipped`).

        Raises:
            TypeError: They are neither.
            ValueError: A pattern is none, or there is none of them.
            trionats.errors.NotFoundError: The stream is not there any more.
            nats.errors.TimeoutError: Nothing has come for 30 s.
        """
        if not isinstance(subjects, (str, Sequence)):
            raise TypeError(f"entries: subjects must be a pattern or several, not {type(subjects).__name__}")
        patterns = [
            pattern("entries: subjects", one) for one in ([subjects] if isinstance(subjects, str) else subjects)
        ]
        if not patterns:
            raise ValueError("entries: subjects is empty")
        doing = f"counters of stream {self.name!r}"
        entries = Entries(
            f"stream {self.name!r}",
            self._jetstream,
            self.name,
            widest(patterns),
            self._jetstream.connection.foreign.reader(doing, _read),
            attrgetter("subject"),
        )
        return await list_stored(entries, LAST_PER_SUBJECT, doing)

    async def _check_its_own(self, doing: str, subject: str) -> None:
        # What is expected of the stream the server does not let a counter say, so it would count in another one.
        if self._listens(self._stream.cached_info, subject):
            return
        if not self._listens(await self._stream.info(), subject):
            raise ValueError(f"{doing}: it is no subject of stream {self.name!r}")

    @staticmethod
    def _listens(info: api.StreamInfo, subject: str) -> bool:
        return any(matches(one, subject) for one in info.config.subjects or ())


def _read(msg: Msg, ack: AckSubject) -> api.CounterEntry:
    return read_entry(msg.subject, ack.sequence, moment_of(ack.timestamp), msg.headers, msg.data)


async def find_counter(jetstream: Api[Publishing], stream: str) -> Counter:
    """Find the counters of a stream.

    Args:
        jetstream: Where the stream is.
        stream: Its name.

    Raises:
        trionats.errors.NotFoundError: There is no such stream.
        trionats.errors.APIError: It counts nothing, or the server is too old for it.
    """
    info = await JetStreamManager(jetstream).stream_info(stream)
    if not info.config.allow_msg_counter:
        what = f"stream {stream!r}"
        await jetstream.require(what, Need("a counter", 2))
        text = "it counts nothing: a stream of counters is created with allow_msg_counter=True"
        raise api_error(errors.APIError, f"{what}: {text}", text, code=400, err_code=DISABLED)
    return Counter(jetstream, info)
