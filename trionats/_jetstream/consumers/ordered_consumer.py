"""Ordered consumers: a stream in order, without gap and without duplicate, by one reader after another.

The handle holds the decisions (`_protocol.jetstream.ordered.resuming`) and with them the cursor; nothing of it is on the server, nor at the
connection, while nobody reads. Each use (a fetch, a feed) is a source of its own, which resumes where the one before was left,
and only what a program was really given counts: what was buffered, or collected by a fetch that was cancelled, comes again (design 84).
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import TYPE_CHECKING, Final, Literal, Never, NoReturn, Protocol, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from trionats import errors
from trionats._core.deadlines import unexpected
from trionats._feeds.feed import Feed, feeding
from trionats._jetstream.api import about, api_error
from trionats._jetstream.jitter import JITTER
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.messages.deliverers import Deliverer
from trionats._jetstream.messages.message import JetStreamMsg
from trionats._jetstream.ordered.source import Handed, OrderedSource, Sink, delete_aside
from trionats._protocol import fields, subjects
from trionats._protocol.jetstream.ordered.fetch_credit import FetchCredit, limits_of
from trionats._protocol.jetstream.ordered.options import filters_of, more_of, prefix_of, start_of, threshold_of
from trionats._protocol.jetstream.ordered.resuming import Ordered
from trionats._protocol.jetstream.pull import Window
from trionats._protocol.jetstream.refusals import is_consumer_missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from trionats import api
    from trionats._core.message import Msg
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._protocol.jetstream.acks import AckSubject
    from trionats._protocol.jetstream.consumers.demand import Demand

__all__ = ["OrderedConsumer", "ordered_consumer", "reading"]

#: What is done about a stream that is deleted and made anew while it is read.
OnRecreate = Literal["fail", "restart"]
#: How often the server says that it is there, where nobody chose: as for watchers.
HEARTBEAT: Final = 5.0
#: The options of `open_consumer` that mean something here.
APPLY: Final = frozenset(
    {"max_messages", "max_bytes", "expires", "heartbeat", "stop_after", "threshold_messages", "threshold_bytes"}
)
#: The code of the status that says that a message needs more bytes than were asked for.
TOO_LARGE: Final = 409
_LONGEST_WAIT: Final = 86_400.0
_MOST: Final = (1 << 31) - 1


@final
class OrderedConsumer:
    """A stream, read in order: what `JetStream.ordered_consumer` gives.

    It knows up to where it was read, and each use goes on from there: a `fetch`, a `next`, a feed (`open_consumer`), in
    any order, but one at a time. What a program was given comes once; what it was not (what was still buffered when a feed
    was left, what a fetch that was cancelled had collected) comes with the next use. Messages need no acknowledgement and
    take none.

    It needs no closing. Each use creates a consumer on the server and deletes it at its end. Who fetches often keeps
    one from fetch to fetch with a block, at whose end it is deleted:

        async with ordered:
            while messages := await ordered.fetch(500, no_wait=True):
                ...

    Attributes:
        stream: The stream's name.
    """

    def __init__(self, jetstream: Api[Publishing], ordered: Ordered) -> None:
        self._jetstream, self._ordered = jetstream, ordered
        self.stream = ordered.stream
        self._name = f"ordered consumer of stream {self.stream!r}"
        self._deliverer = Deliverer(jetstream.connection, self._name, acknowledges=False)
        self._reader: _Reader | None = None
        self._keeps = 0

    def __repr__(self) -> str:
        return f"<OrderedConsumer of stream {self.stream!r}, at {self._ordered.cursor[0]}>"

    @enable_ki_protection
    async def fetch(
        self,
        batch: int,
        *,
        expires: float = 5.0,
        max_bytes: int | None = None,
        no_wait: bool = False,
        **unknown: Never,
    ) -> list[JetStreamMsg]:
        """Read the next messages.

        It survives whatever happens to the connection and to the server's consumer, within its time. A deadline in force
        shortens that, so that it ends just before, with what has come: by twice the API's last round trip, 20 ms at least, and
        half of what is left at the most. Cancelled, it loses nothing: what had come comes with the next use.

        Always a checkpoint.

        Args:
            batch: How many messages, at the most.
            expires: For how many seconds they are waited for, at the most a day; with `no_wait`, for the server's word.
            max_bytes: Give no more than so many bytes, counted as the server does: subject, reply subject, headers and
                payload. None for any number.
            no_wait: Give what is stored, and wait for nothing. In a cluster it is what the replica has that is read, which may
                lag for a moment.

        Returns:
            The messages in the stream's order; fewer than `batch` where no more came in time, none included.

        Raises:
            trio.BusyResourceError: Somebody else reads at the moment.
            nats.errors.TimeoutError: The server could not be asked within `expires`; the text says why, where it said so.
            trionats.errors.StreamRegressedError: The stream went backwards or was made anew; so will the next use, a new
                handle begins anew.
            trionats.errors.NotFoundError: The stream is gone.
            trionats.errors.BadRequestError: The next message alone is larger than `max_bytes`: both sizes are told, and it is the
                next one still.
            trionats.errors.PermissionsViolationError: The server refuses to be asked for messages, or for a consumer.
            nats.errors.ConnectionClosedError: The client was closed, or lost for good.
            TypeError: An argument is of another kind.
            ValueError: So is a number that cannot be meant.
        """
        if unknown:
            raise unexpected("fetch", unknown, "ordered")
        _check_number("batch", int, batch, 1, _MOST)
        _check_number("expires", float, expires, 0.001, _LONGEST_WAIT)
        if max_bytes is not None:
            _check_number("max_bytes", int, max_bytes, 1, _MOST)
        fields.check_argument("fetch", "no_wait", bool, no_wait)
        self._jetstream.connection.pace.run.check()
        deadline, round_trip = trio.current_effective_deadline(), self._jetstream.whereabouts.round_trip
        until, at_most, bounded = limits_of(trio.current_time(), expires, deadline, round_trip)
        window = FetchCredit(batch, max_bytes or 0, until=until, no_wait=no_wait, heartbeat=HEARTBEAT, rng=JITTER)
        collector = _Collector(batch, max_bytes, self._deliverer)
        with self._reading(collector, window) as source:
            collector.source = source
            with trio.move_on_at(at_most):
                await source.resume()
                while not (collector.complete or window.over):
                    await source.step()
            if collector.too_large:
                raise self._too_large(collector.too_large, max_bytes)
            if not (collector.messages or window.over or (self._ordered.reading and not no_wait)):
                if bounded:
                    # Who is cancelled at a deadline is not told why there is nothing by then.
                    await trio.sleep_until(deadline)
                raise self._silent(expires)
            collector.done = True
        return collector.messages

    async def next(self, *, expires: float = 5.0, **unknown: Never) -> JetStreamMsg | None:
        """Read the next message.

        Each call is a `fetch` of one: for message after message there is `open_consumer`.

        Args:
            expires: For how many seconds it is waited for.

        Returns:
            The message; None where none came in time.

        Raises:
            nats.errors.Error: As for `fetch`.
        """
        if unknown:
            raise unexpected("next", unknown, "ordered")
        messages = await self.fetch(1, expires=expires)
        return messages[0] if messages else None

    async def info(self) -> api.ConsumerInfo | None:
        """Ask what the server says of the consumer that it has for this at the moment.

        Returns:
            Its configuration and state; None where there is none, as while nobody reads.

        Raises:
            trionats.errors.APIError: The server refused.
        """
        self._jetstream.connection.pace.run.check()
        name = self._ordered.name
        if not name:
            await checkpoint()
            return None
        try:
            return await JetStreamManager(self._jetstream).consumer_info(self.stream, name)
        except errors.NotFoundError as error:
            if is_consumer_missing(error):
                return None
            raise

    async def __aenter__(self) -> Self:
        """Keep the server's consumer from one use to the next, until the block is left."""
        await checkpoint()
        self._keeps += 1
        return self

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._keeps -= 1
        if not self._keeps and self._reader is None:
            for name in self._ordered.leave():
                delete_aside(self._jetstream, self.stream, name)

    @asynccontextmanager
    async def __reading__(self, nursery: trio.Nursery, demand: Demand) -> AsyncIterator[OrderedFeed]:
        feed = OrderedFeed(self._name, self._jetstream.connection, demand, self._deliverer)
        pulse = min(HEARTBEAT, demand.expires / 2) if demand.heartbeat is None else demand.heartbeat
        window = Window(
            demand.max_messages,
            demand.credit_bytes,
            heartbeat=pulse,
            expires=demand.expires,
            rng=JITTER,
            threshold_messages=demand.threshold_messages,
            threshold_bytes=demand.threshold_bytes,
        )
        with self._reading(feed, window) as source:
            feed.source = source
            await source.resume()
            async with feeding(nursery, feed, feed.go_on):
                yield feed

    # Inside.

    @contextmanager
    def _reading(self, reader: _Reader, window: Window) -> Iterator[OrderedSource]:
        """Let somebody read, as the only one; afterwards the next one goes on behind what this one was really given."""
        ordered = self._ordered
        self._jetstream.connection.pace.run.check()
        if self._reader is not None:
            text = f"{self._name}: {self._reader.what} reads it, and only one may at a time"
            raise trio.BusyResourceError(text)
        self._reader = reader
        began, restarts, caught_up = ordered.cursor[0], ordered.restarts, ordered.caught_up
        ordered.resume(window)
        source = OrderedSource(self._jetstream, ordered, reader.sink)
        try:
            yield source
        finally:
            # What of a stream that is gone was not given is gone with it.
            start = began if ordered.restarts == restarts else ordered.origin
            last, caught_up = reader.given(start, caught_up=caught_up and ordered.restarts == restarts)
            ordered.rewind(last, caught_up=caught_up)
            source.close(keep=self._keeps > 0)
            self._reader = None

    def _too_large(self, size: int, max_bytes: int | None) -> errors.BadRequestError:
        text = f"the next message has {size} bytes, and max_bytes is {max_bytes}"
        return api_error(errors.BadRequestError, f"{self._name}: {text}", text, code=TOO_LARGE)

    def _silent(self, expires: float) -> errors.TimeoutError:
        why = self._ordered.refusal
        text = f"{self._name}: the server could not be asked within {expires:g} s"
        return errors.explained(errors.TimeoutError, text if why is None else f"{text}: {why}")


class _Reader(Protocol):
    """Who reads, as far as the handle has to know it."""

    @property
    def what(self) -> str:
        """What reads, for people."""

    @property
    def sink(self) -> Sink:
        """Where the messages go."""

    def given(self, start: int, *, caught_up: bool) -> tuple[int, bool]:
        """Say what a program was really given.

        Args:
            start: The place behind which this reader began, or its stream.
            caught_up: Whether all that was stored had been given there.

        Returns:
            The last sequence, and whether all that was stored when reading began has been given with it.
        """


@final
class _Collector:
    """What a fetch has got so far."""

    what = "a fetch"

    def __init__(self, batch: int, max_bytes: int | None, deliverer: Deliverer) -> None:
        self._batch, self._limit, self._deliverer = batch, max_bytes or inf, deliverer
        self.messages: list[JetStreamMsg] = []
        self.too_large = self._last = self._size = 0
        self._full = False
        self.done = False
        """Whether a program has what was collected."""
        self.source: OrderedSource | None = None

    @property
    def sink(self) -> Sink:
        return Sink(self._take)

    @property
    def complete(self) -> bool:
        return self._full or len(self.messages) >= self._batch

    def given(self, start: int, *, caught_up: bool) -> tuple[int, bool]:
        return (self._last, True) if self.done and self.messages else (start, caught_up)

    def _take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        # One that is too large comes alone; and of a list the server is not told how many bytes there may be.
        self._full = self._size + size > self._limit
        if not self._full:
            self._size += size
            self.messages.append(JetStreamMsg(msg, self._deliverer))
            self._last = ack.sequence
        elif not self.messages:
            self.too_large = size
        if self.complete and self.source is not None:
            self.source.wake()
        return Handed.REFUSED if self._full else Handed.KEPT


@final
class OrderedFeed(Feed[JetStreamMsg]):
    """A stream in order."""

    what = "a feed"

    def __init__(self, name: str, connection: Publishing, demand: Demand, deliverer: Deliverer) -> None:
        super().__init__(name, demand.max_messages, connection)
        self._limit = demand.max_bytes or _MOST
        self._remaining = demand.stop_after
        self._deliverer = deliverer
        #: Sequence and size of each message in the channel; no sequence where its stream is gone.
        self._places: deque[tuple[int | None, int]] = deque()
        self._given: int | None = None
        self._handed_over = 0
        self._stored: int | None = None
        self.source: OrderedSource | None = None

    @property
    def sink(self) -> Sink:
        return Sink(self._take, self._stored_read, self._end, self._begun_anew)

    def given(self, start: int, *, caught_up: bool) -> tuple[int, bool]:
        last = start if self._given is None else self._given
        return last, self._stored is not None and last >= self._stored

    async def go_on(self) -> NoReturn:
        """Read, for as long as there is no reason to end."""
        assert self.source is not None, "it is opened"
        while True:
            await self.source.step()

    # What the source calls.

    def _take(self, msg: Msg, ack: AckSubject, size: int) -> Handed:
        if size > self._limit:
            # It came alone, without a limit: none that was chosen is a limit for what comes with others.
            text = f"the next message has {size} bytes, and max_bytes is {self._limit}"
            self._end(api_error(errors.BadRequestError, f"{self.name}: {text}", text, code=TOO_LARGE))
            return Handed.REFUSED
        self._places.append((ack.sequence, size))
        if not self._put(JetStreamMsg(msg, self._deliverer)):
            self._places.pop()
            return Handed.REFUSED
        self._handed_over = ack.sequence
        if self._remaining:
            self._remaining -= 1
            if not self._remaining:
                self._end(None)
        return Handed.KEPT

    def _stored_read(self) -> None:
        self._stored = self._handed_over

    def _begun_anew(self) -> None:
        self._places = deque((None, size) for _, size in self._places)
        self._given, self._stored, self._handed_over = None, None, 0

    # Inside.

    def _taken(self, item: JetStreamMsg) -> None:
        self._given, size = self._places.popleft()
        if self.source is not None:
            self.source.taken(size)

    def _undo(self) -> None:
        if self.source is not None:
            self.source.close()


@enable_ki_protection
async def ordered_consumer(
    jetstream: Api[Publishing],
    stream: str,
    *,
    filter_subjects: str | Sequence[str] | None,
    deliver_policy: str,
    opt_start_seq: int | None,
    opt_start_time: datetime | None,
    headers_only: bool,
    replay_policy: str,
    inactive_threshold: float,
    name_prefix: str | None,
    metadata: Mapping[str, str] | None,
    on_recreate: OnRecreate,
) -> OrderedConsumer:
    """Make an ordered consumer as `JetStream.ordered_consumer` says: with a consumer that fixes where reading begins."""
    subjects.stream_name(stream)
    fields.check_argument("ordered_consumer", "headers_only", bool, headers_only)
    if on_recreate not in ("fail", "restart"):
        raise ValueError(f"ordered_consumer: on_recreate must be 'fail' or 'restart', not {on_recreate!r}")
    ordered = Ordered(
        stream,
        prefix_of(name_prefix, jetstream.connection.new_token()),
        JITTER,
        filter_subjects=filters_of(filter_subjects),
        start=start_of(deliver_policy, opt_start_seq, opt_start_time),
        headers_only=headers_only,
        # Nothing is asked for before somebody reads.
        max_messages=0,
        inactive_threshold=threshold_of(inactive_threshold),
        restart=on_recreate == "restart",
        more=more_of(replay_policy, metadata),
    )
    source = OrderedSource(jetstream, ordered, Sink())
    with about(f"ordered consumer of stream {stream!r}"):
        await source.open()
    source.close()
    return OrderedConsumer(jetstream, ordered)


@asynccontextmanager
async def reading(nursery: trio.Nursery, consumer: OrderedConsumer, demand: Demand) -> AsyncIterator[OrderedFeed]:
    """Read a stream in order: what `open_consumer` does with an `OrderedConsumer`.

    Args:
        nursery: Where the feeding task lives.
        consumer: What is read.
        demand: What is wanted of it.
    """
    demand.only("an ordered consumer", APPLY)
    async with consumer.__reading__(nursery, demand) as feed:
        yield feed


def _check_number(name: str, kind: type, value: float, least: float, most: float) -> None:
    fields.check_argument("fetch", name, kind, value)
    if not least <= value <= most:
        raise ValueError(f"fetch: {name} must be from {least:.12g} to {most:.12g}, not {value:.12g}")
