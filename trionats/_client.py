"""open_client: publish, request, reconnect, drain.

What is built on a client does not know it, but the `Connection` behind it (`_core.connection`), through the seam: so do
`open_subscription` and its like, and `JetStream`, which is made here and knows nothing of clients.
"""

from __future__ import annotations

import copy
from threading import get_ident
from typing import TYPE_CHECKING, Any, Never, Unpack, final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from trionats import errors, events
from trionats._connection.cli_context import offered
from trionats._connection.options import ClientOptions, Options, check_seconds, describes_options
from trionats._core.connection import Connection
from trionats._core.deadlines import reply_within, unexpected
from trionats._core.hops import trace_message
from trionats._core.status import ClientStatistics, state_of, statistics_of
from trionats._discretion import Given, guarded, guarded_async
from trionats._feeds.opening import check_nursery, opens
from trionats._jetstream.context import JetStream
from trionats._protocol.commands import CRLF, LENGTHS
from trionats._protocol.fields import check_argument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import EllipsisType

    from trionats._connection.tls import TLSState
    from trionats._core.frames import Headers
    from trionats._core.message import Msg
    from trionats._core.requests import PendingReply
    from trionats._protocol.commands import Payload
    from trionats.monitoring import Trace


@final
class Client:
    """A connection to NATS: what `open_client` gives.

    Its calls may be used from any task of the Trio run it was opened in.
    """

    def __init__(
        self, servers: str | Sequence[str], options: Options, jetstream: Mapping[str, str] | None = None
    ) -> None:
        self._connection = connection = Connection(servers, options, self)
        self._jetstream = jetstream or {}
        self._nursery: trio.Nursery | None = None
        # What the fast paths work with, in reach.
        self._pace = connection.pace
        self._engine = connection.engine
        self._outbox = connection.engine.outbox
        self._supervisor = connection.supervisor
        self._frames = connection.frames
        self._heads = connection.frames.heads

    def __repr__(self) -> str:
        return f"<Client {self.state.value} {self.connected_url or ''}>"

    def __messaging__(self) -> Connection:
        """Give the seam, for what is built on a client."""
        return self._connection

    # Publishing.

    @enable_ki_protection
    async def publish(
        self, subject: str, payload: Payload = b"", reply: str = "", headers: Headers | None = None
    ) -> None:
        """Publish a message.

        It returns once the message is queued, whole; the writer sends it. It waits while more than `pending_size` bytes
        are queued. Cancelled, nothing was queued. Always a cancellation point; a scheduling point when it waits, at
        least once in 64 messages of the client, and whenever 1 ms has passed since the last one.

        Args:
            subject: Where to; no wildcards.
            payload: The message.
            reply: Where a reply is expected.
            headers: Names and values; a sequence of values repeats the name.

        Raises:
            nats.errors.BadSubjectError: The subject or reply is not valid.
            nats.errors.BadHeaderError: A header is not valid.
            nats.errors.MaxPayloadError: Headers and payload are more than the server takes.
            nats.errors.OutboundBufferLimitError: There is no connection, and `pending_size` bytes wait for one.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        # Without the calls that this could be divided into: they would cost half as much again.
        pace = self._pace
        if get_ident() != pace.thread:
            pace.run.check()
        supervisor = self._supervisor
        outbox = self._outbox
        try:
            head = self._heads[subject]
        except (KeyError, TypeError):
            head = b""
        if not head or headers or reply or payload.__class__ is not bytes or (size := len(payload)) > supervisor.small:
            frame, size = self._frames.make(subject, payload, reply, headers)
        else:
            frame = b"".join((head, LENGTHS[size], payload, CRLF))
        pace.left -= 1
        if pace.left < 0 or pace.now() >= pace.due:
            await pace.trip()
        else:
            await checkpoint_if_cancelled()
        if outbox.bytes >= supervisor.high_water:
            supervisor.check_open()
            await supervisor.wait_room()
        outbox.frames.append(frame)
        outbox.bytes += len(frame)
        outbox.out_bytes += size
        if supervisor.idle is not None:
            supervisor.wake()

    @enable_ki_protection
    def publish_nowait(
        self, subject: str, payload: Payload = b"", reply: str = "", headers: Headers | None = None
    ) -> None:
        """Queue a message, without waiting.

        Args:
            subject: Where to; no wildcards.
            payload: The message.
            reply: Where a reply is expected.
            headers: Names and values; a sequence of values repeats the name.

        Raises:
            trio.WouldBlock: `pending_size` bytes are queued.
            nats.errors.Error: As for `publish`.
        """
        if get_ident() != self._pace.thread:
            self._pace.run.check()
        frame, size = self._frames.make(subject, payload, reply, headers)
        supervisor = self._supervisor
        supervisor.check_open()
        supervisor.check_room()
        self._outbox.publish(frame, size)
        if supervisor.idle is not None:
            supervisor.wake()

    async def wait_writable(self) -> None:
        """Wait until `publish_nowait` would take a message.

        Raises:
            nats.errors.OutboundBufferLimitError: There is no connection, and `pending_size` bytes wait for one.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        await self._connection.wait_writable()

    # Requests.

    @enable_ki_protection
    async def request(
        self, subject: str, payload: Payload = b"", headers: Headers | None = None, **unknown: Never
    ) -> Msg:
        """Publish a request and wait for the first reply.

        The deadline in force governs, and beside it a `request_timeout` that was chosen, whichever comes first; where
        there is neither, it waits 5 s. Cancelled or failed, nothing is left of it: a reply that still comes is
        ignored.

        Args:
            subject: Where to; no wildcards.
            payload: The request.
            headers: Names and values; a sequence of values repeats the name.

        Returns:
            The reply.

        Raises:
            nats.errors.NoRespondersError: Nobody listens on the subject; at once.
            nats.errors.TimeoutError: `request_timeout` passed, or 5 s.
            trionats.errors.PermissionsViolationError: The server refused the request, or its inbox.
            trionats.errors.MaxSubscriptionsError: The server takes no more subscriptions, so no inbox.
            trionats.errors.DisconnectedError: The connection broke after the request was sent; whether it was acted on
                is not known. A request that was not sent yet waits for the next connection.
            nats.errors.Error: As for `publish`.
        """
        if get_ident() != self._pace.thread:
            self._pace.run.check()
        if unknown:
            raise unexpected("request", unknown)
        await checkpoint_if_cancelled()
        return await self._connection.ask(subject, payload, headers)

    @enable_ki_protection
    def request_nowait(self, subject: str, payload: Payload = b"", headers: Headers | None = None) -> PendingReply:
        """Queue a request, without waiting: for many requests in flight.

        Args:
            subject: Where to; no wildcards.
            payload: The request.
            headers: Names and values; a sequence of values repeats the name.

        Returns:
            The reply to wait for; close it, or use it in a `with` block, so that nothing is left of it.

        Raises:
            trio.WouldBlock: `pending_size` bytes are queued.
            nats.errors.Error: As for `publish`.
        """
        return self._connection.request_nowait(subject, payload, headers)

    @enable_ki_protection
    async def request_many(
        self,
        subject: str,
        payload: Payload = b"",
        headers: Headers | None = None,
        *,
        max_msgs: int = 0,
        stall: float | None = None,
        sentinel: Callable[[Msg], object] | None = None,
        reply: str = "",
        **unknown: Never,
    ) -> list[Msg]:
        """Publish a request and collect its replies: from many services, or many from one.

        It ends with the last reply: after `max_msgs`, when they stall, with the sentinel, and when the time is over. Then
        the replies that came are returned, also if there is none: when the deadline in force passes, too, so a
        `trio.move_on_after` around it loses nothing. A `request_timeout` that was chosen ends it as well, and where
        there is neither, 5 s do. Cancelled for another reason or failed, nothing is left of it. `open_replies` gives
        the replies one by one.

        The replies come to an inbox of their own, not to the one that `request` shares.

        Args:
            subject: Where to; no wildcards.
            payload: The request.
            headers: Names and values; a sequence of values repeats the name.
            max_msgs: So many replies are enough; 0 for no limit.
            stall: How many seconds after a reply the next one may take, the first one excepted; None for as long as
                the whole.
            sentinel: Called with each reply as it comes, and says whether it is the mark behind the last one, which is not
                returned. It must not wait; what it raises is raised here.
            reply: The subject for the replies, where the services expect a certain one; a new inbox otherwise.

        Returns:
            The replies, in the order in which they came.

        Raises:
            nats.errors.NoRespondersError: Nobody listens on the subject; at once.
            nats.errors.SlowConsumerError: More than 65,536 replies came, or more than 64 MiB.
            nats.errors.TimeoutError: The request could not even be queued in that time.
            trionats.errors.PermissionsViolationError: The server refused the request, or its inbox.
            trionats.errors.MaxSubscriptionsError: The server takes no more subscriptions, so no inbox.
            trionats.errors.DisconnectedError: The connection broke after the request was sent.
            TypeError: `max_msgs`, `stall` or `sentinel` is of a wrong kind.
            ValueError: `max_msgs` or `stall` is negative.
            nats.errors.Error: As for `publish`.
        """
        self._pace.run.check()
        if unknown:
            raise unexpected("request_many", unknown)
        return await self._connection.request_many(
            subject, payload, headers, max_msgs=max_msgs, stall=stall, sentinel=sentinel, reply=reply
        )

    @enable_ki_protection
    async def trace(
        self,
        subject: str,
        payload: Payload = b"",
        headers: Headers | None = None,
        *,
        only: bool = False,
        stall: float = 1.0,
        **unknown: Never,
    ) -> Trace:
        """Publish a message, and find out where it goes: which servers it passes, who gets it, and who does not, and why.

        Each server that the message passes reports what it did with it (ADR-41, server 2.11). It returns as soon as all have
        reported that were to, which the reports themselves say. One that does not, since it is gone or since an account does
        not let reports through, is waited for until nothing has come for `stall` seconds, and is then named in
        `missing`. The first report has as long as `request` waits for a reply; the deadline in force ends it, too, with
        what has come.

        The message has no reply subject. What happens behind a stream, or in an account that does not allow it (`allow_trace` of
        an import or export), is not traced.

        Args:
            subject: Where to; no wildcards.
            payload: The message.
            headers: Names and values; a sequence of values repeats the name. None of the tracing's own.
            only: Deliver the message to nobody, and store it nowhere: see where it would go.
            stall: How many seconds after a report the next one may take.

        Returns:
            Where it went; as text it is a tree.

        Raises:
            nats.errors.Error: The server is older than 2.11, where the message would be delivered and nothing reported; nothing was
                sent.
            nats.errors.TimeoutError: No server reported anything in that time.
            trionats.errors.PermissionsViolationError: The user may not publish to the subject, or not to our inbox, where servers
                report in the user's name.
            trionats.errors.DisconnectedError: The connection broke after the message was sent.
            ValueError: `stall` is not positive, or a header is the tracing's own.
        """
        self._pace.run.check()
        if unknown:
            raise unexpected("trace", unknown)
        return await trace_message(self._connection, subject, payload, headers, only=only, stall=stall)

    def with_options(
        self, *, request_timeout: float | EllipsisType | None = ..., send_deadline: bool | EllipsisType = ...
    ) -> Client:
        """Make a view of this client with other options: the connection and all else is shared.

        Args:
            request_timeout: How long a request waits at the most, in seconds, whatever deadline is in force; None for
                what is so where nobody chooses: 5 s where no deadline is in force. Left out, it stays as it is.
            send_deadline: Whether requests say for how long their reply is waited for, in whole milliseconds, in the header
                `Trionats-Timeout`: services with `honour_deadline` stop working on them then. Those of JetStream never do.
                False until somebody chooses; left out, it stays as it is.

        Returns:
            The view.

        Raises:
            TypeError: `request_timeout` is no number, or `send_deadline` neither True nor False.
            ValueError: `request_timeout` is negative.
        """
        connection = self._connection
        if request_timeout is not ...:
            if request_timeout is not None:
                check_seconds("request_timeout", request_timeout)
            connection = connection.with_request_timeout(request_timeout)
        if send_deadline is not ...:
            check_argument("with_options", "send_deadline", bool, send_deadline)
            connection = connection.with_send_deadline(send_deadline)
        view = copy.copy(self)
        view._connection = connection
        return view

    def new_inbox(self) -> str:
        """Make a subject that nobody else has, under `inbox_prefix`."""
        return self._connection.new_inbox()

    def jetstream(self, *, domain: str | None = None, prefix: str | None = None) -> JetStream:
        """Make a JetStream context on this connection. It sends nothing.

        Args:
            domain: The JetStream domain to talk to; what is published counts as stored only when a stream of this
                domain says so. Without domain and prefix, those of the nats CLI context, if the client was opened with
                one.
            prefix: The prefix of the API's subjects, instead of a domain; for instance where the domain has another
                name here than in its own acknowledgements.

        Returns:
            The context.

        Raises:
            ValueError: Both a domain and a prefix are given, or a domain that is no token.
        """
        if domain is None and prefix is None:
            domain, prefix = self._jetstream.get("domain"), self._jetstream.get("prefix")
        connection = self._connection
        if connection.send_deadline:
            # What is published into a stream would be stored with it.
            connection = connection.with_send_deadline(False)
        return JetStream(connection, domain=domain, prefix=prefix)

    # The connection.

    @enable_ki_protection
    async def flush(self, **unknown: Never) -> None:
        """Wait until the server has processed all that was published and subscribed before: a barrier.

        The deadline in force governs, and beside it a `request_timeout` that was chosen; where there is neither, it
        waits 5 s. Where there is no connection it waits for the next one.

        Raises:
            nats.errors.FlushTimeoutError: That time passed.
            trionats.errors.DisconnectedError: The connection broke first.
            nats.errors.ConnectionClosedError: The client is closed.
        """
        self._pace.run.check()
        if unknown:
            raise unexpected("flush", unknown)
        await self._flush("flush")

    async def rtt(self) -> float:
        """Measure a round trip to the server, behind what is queued.

        Returns:
            Seconds.

        Raises:
            nats.errors.Error: As for `flush`.
        """
        self._pace.run.check()
        start = trio.current_time()
        await self._flush("rtt")
        return trio.current_time() - start

    @enable_ki_protection
    async def barrier(self) -> None:
        """Wait until what is buffered in this client's feeds now was worked off.

        That is: it was received, and each task that received any of it came back for more, or ended, or left the block.
        What comes later does not count. To have what the server has sent already counted, `flush` first. It waits for
        your own code, so no default limits it; a deadline in force does. What only the calling task receives from is not
        waited for, so it may be called from inside a loop; a feed that nobody has received from yet counts as its
        opener's.

        Always a checkpoint.
        """
        self._pace.run.check()
        # A consumer that was just started is about to receive: with its second step it is known.
        await checkpoint()
        await checkpoint()
        await self._connection.barrier()

    @enable_ki_protection
    def drain_nowait(self) -> None:
        """Begin to drain, as `drain` does, without waiting for it: also from inside a loop, which then runs to its end.

        Synchronous and idempotent; on a client that is closed it does nothing.
        """
        self._pace.run.check()
        if self._nursery is not None:
            self._connection.begin_drain(self._nursery)

    @enable_ki_protection
    async def drain(self) -> None:
        """Close the client without losing what is on its way.

        All subscriptions, consumers and watchers are given up at once, and no new ones are taken. What the server had sent
        by then still comes, and their loops end when it has been received. Until all loops have come to their ends, and
        then until no request waits for a reply, messages can be published and requests made: for `drain_timeout` at
        the most. Then what is queued is sent, and the client is closed.

        A task that calls this is not waited for: what only it receives can still be received afterwards, but not
        responded to; `drain_nowait` lets such a loop go on. A feed that nobody has received from yet counts as its
        opener's. A server that says nothing for `request_timeout` is given up. Without a connection,
        also when it breaks meanwhile, the next one is tried for at once, and waited for as long as somebody works on a
        message, or what was published waits to be sent; where neither is so, the client is closed at once, and feeds
        give what is buffered. Idempotent; who calls it while it is under way joins. Cancelled, it goes on by itself
        unless nothing was begun yet; leaving the client's block, or `aclose`, cuts it short.

        Raises:
            nats.errors.DrainTimeoutError: Not all was done in time, or the server did not reply; the text names what
                was not done. The client is closed.
            nats.errors.ConnectionReconnectingError: In all of `drain_timeout` there was no connection to send what was
                published. The client is closed, and a `trionats.events.PublishesLost` event says how much it was.
            trionats.errors.DisconnectedError: The connection broke while messages were being sent, and whether they arrived is
                not known.
            nats.errors.ConnectionClosedError: The client was lost for good before it was done.
        """
        self._pace.run.check()
        await checkpoint_if_cancelled()
        self.drain_nowait()
        await self._connection.draining.wait()

    async def wait_connected(self) -> None:
        """Wait until there is a connection.

        Raises:
            nats.errors.ConnectionClosedError: There will be none: the client is closed.
        """
        self._pace.run.check()
        await trio.lowlevel.checkpoint()
        self._supervisor.check_open()
        await self._supervisor.wait_online()

    async def reconnect(self) -> None:
        """Leave the connection for a new one, without back-off, and wait until it stands.

        The server that is left gets what was published before, and is given a second to confirm it; what is published
        from the call on waits for the new connection, so that it overtakes nothing. (In a cluster, a subscriber on a
        third server may still hear the two in another order: the confirmation says that the old server has passed it
        on.) For the rest it is what a broken connection is, except that nobody waits before the first dial, and that it
        also works with `allow_reconnect=False`: requests and flushes under way fail. Cancelled, it goes on by itself.
        Where there is no connection it ends the wait for the next attempt. Calls at the same time share one new
        connection; a call after that makes another.

        Raises:
            nats.errors.ConnectionClosedError: No server is left to connect to, or the client is closed.
        """
        self._pace.run.check()
        await checkpoint_if_cancelled()
        await self._supervisor.reconnect()

    @guarded
    def set_servers(self, servers: str | Sequence[str]) -> None:
        """Put other servers in the place of all that are known, discovered ones included.

        The connection that stands is not touched: they count from the next dial on (`reconnect` makes one). Servers that
        stay keep their counts of attempts.

        Args:
            servers: One URL or several, as for `open_client`.

        Raises:
            ValueError: A URL is not valid.
            ImportError: A URL is a WebSocket's, and the extra `websocket` is not installed.
        """
        self._pace.run.check()
        self._supervisor.set_servers(servers)

    async def aclose(self) -> None:
        """Close the client: end all feeds, send what is queued, and say goodbye. Idempotent.

        It waits, shielded, until the server has processed what was queued, for `close_timeout` at the most; without a
        connection it does not wait. Feeds give what is buffered and end. Leaving the block does the same.
        """
        await self._connection.aclose()

    # What is known of it, and of its server.

    def statistics(self) -> ClientStatistics:
        """Count what was done, and what is held."""
        return statistics_of(self._connection)

    @property
    def state(self) -> events.ConnectionState:
        """How far the client is; `open_events` tells of the changes."""
        return state_of(self._connection)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that are known, without secrets: those given, and those discovered."""
        return tuple(map(str, self._supervisor.servers))

    @property
    def discovered_servers(self) -> tuple[str, ...]:
        """The servers that other servers told of, without secrets."""
        return tuple(str(server) for server in self._supervisor.servers if not server.explicit)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._connection.is_connected

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, or lost for good."""
        return self._supervisor.finished.is_set()

    @property
    def last_error(self) -> BaseException | None:
        """Why the client was lost for good; None while it lives, and when it was closed on purpose."""
        return self._supervisor.failure

    @property
    def connected_url(self) -> str | None:
        """The server that we are connected to, without secrets; None while there is no connection."""
        return str(self._supervisor.server) if self.is_connected else None

    @property
    def tls(self) -> TLSState | None:
        """What secures the connection right now; None for nothing."""
        return self._supervisor.tls

    @property
    def max_payload(self) -> int:
        """How many bytes headers and payload of a message may have together, as the server says."""
        return self._connection.max_payload

    @property
    def server_info(self) -> dict[str, Any]:
        """A copy of what the server said of itself, with the names of its INFO."""
        return copy.deepcopy(self._engine.info)

    @property
    def server_id(self) -> str:
        """The server's id."""
        return self._connection.server_id

    @property
    def server_name(self) -> str:
        """The server's name."""
        return str(self._engine.info.get("server_name", ""))

    @property
    def server_version(self) -> str:
        """The server's version, as it says it."""
        return str(self._engine.info.get("version", ""))

    @property
    def cluster(self) -> str:
        """The name of the server's cluster, empty if it is in none."""
        return str(self._engine.info.get("cluster", ""))

    @property
    def client_id(self) -> int | None:
        """The number that the server gave this connection."""
        return self._engine.info.get("client_id")

    @property
    def client_ip(self) -> str:
        """Our address, as the server sees it."""
        return str(self._engine.info.get("client_ip", ""))

    @property
    def headers_supported(self) -> bool:
        """Whether the server takes messages with headers."""
        return self._engine.info.get("headers") is True

    @property
    def jetstream_enabled(self) -> bool:
        """Whether JetStream runs on the server itself; the account may still not be allowed to use it."""
        return self._engine.info.get("jetstream") is True

    @property
    def auth_required(self) -> bool:
        """Whether the server lets nobody in who does not say who they are."""
        return self._engine.info.get("auth_required") is True

    @property
    def tls_required(self) -> bool:
        """Whether the server demands TLS; `tls` says what secures this connection."""
        return self._engine.info.get("tls_required") is True

    @property
    def is_system_account(self) -> bool:
        """Whether this connection is one of the server's system account; servers before 2.12 do not say."""
        return self._engine.info.get("acc_is_sys") is True

    # Inside.

    async def _flush(self, what: str) -> None:
        await checkpoint_if_cancelled()
        self._supervisor.check_open()
        with reply_within(self._connection.request_timeout, what, errors.FlushTimeoutError):
            await self._supervisor.barrier()


@final
class DefaultServers(str):
    """Where a client connects to when neither its caller nor a context says so; what a caller writes is a choice."""

    __slots__ = ()


@opens
@describes_options
async def open_client(
    nursery: trio.Nursery,
    servers: str | Sequence[str] = DefaultServers("nats://127.0.0.1:4222"),
    **options: Unpack[ClientOptions],
) -> AsyncIterator[Client]:
    """Connect to NATS, and stay connected for as long as the block lasts.

    The connection's tasks live in `nursery`. Tasks of your own that use the client belong in a nursery opened inside the
    block. Entering waits until the first connection stands, for `connect_timeout` per server at the most. Leaving ends
    all feeds, sends what is queued and waits until the server has processed it: shielded, `close_timeout` at the most.
    When `nursery` is cancelled, the connection ends within `close_timeout`, wherever the block stands.

    A broken connection is made anew, with backoff and jitter, and the subscriptions with it. Where there is no server
    left to try, the client is lost for good: its feeds raise why, and so do its calls.

    Args:
        nursery: Where the connection's tasks live.
        servers: One URL or several: `nats://[user:password@]host[:port]`, `nats://token@host`, or `host[:port]`; `tls://`
            demands TLS; `ws://` and `wss://` are WebSockets, whose URLs may have a path.
        **options: Each is a field of `trionats._connection.options.Options`, and is listed here from there.

    Returns:
        An async context manager that gives the `Client`.

    Raises:
        nats.errors.NoServersError: No server could be reached; the text names each, and why.
        nats.errors.AuthorizationError: A server did not let us in.
        nats.errors.InvalidUserCredentialsError: A file of credentials cannot be read, or a callback failed.
        nats.errors.SecureConnWantedError: TLS is wanted and a server does not offer it.
        nats.errors.SecureConnFailedError: The TLS handshake failed; the text names the server, and why.
        nats.errors.ProtocolError: A server does not speak NATS, or WebSocket.
        TypeError: There is no option of this name.
        ValueError: A URL, a context or an option is not valid, or options contradict each other.
        ImportError: NKeys or WebSocket are used, and what they need is not installed.
    """
    given = Given(servers, options)
    del servers, options  # a traceback may show local variables
    check_nursery(nursery, "open_client")
    client = await _made(given)
    supervisor = client._supervisor
    client._nursery = nursery
    try:
        nursery.start_soon(supervisor.run, name="trionats supervisor")
    except RuntimeError as closed:
        raise RuntimeError("open_client(nursery, ...): the nursery is closed") from closed
    nursery.start_soon(supervisor.watch_nursery, name="trionats nursery watch")
    try:
        await supervisor.wait_settled()
        yield client
    finally:
        await client.aclose()
        await client._connection.draining.gone()  # noqa: ASYNC102 - shielded and bounded in there


@guarded_async
async def _made(given: Given) -> Client:
    offer = await offered(given.options)
    if offer.url and isinstance(given.servers, DefaultServers):
        given.servers = offer.url
    return Client(given.servers, Options.of({**offer.options, **given.options}), offer.jetstream)
