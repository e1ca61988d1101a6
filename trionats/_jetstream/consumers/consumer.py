"""A consumer of a stream, as a program holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats import api
from trionats._core.deadlines import unexpected
from trionats._jetstream.api import confirmed
from trionats._jetstream.consumers.fetching import fetch
from trionats._jetstream.management import JetStreamManager
from trionats._jetstream.management.consumer_requests import step_down
from trionats._protocol.jetstream.consumers.fetching import EXPIRES, Wanted
from trionats._protocol.jetstream.consumers.priority import Terms

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Never

    from nats.js import api as nats_api

    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.messages.deliverers import Deliverer
    from trionats._jetstream.messages.message import JetStreamMsg

__all__ = ["Consumer"]


@final
class Consumer:
    """A consumer of a stream: what `JetStream.consumer` and `create_consumer` give.

    It holds no state on the server of its own and needs no closing.

    Attributes:
        stream: The stream's name.
        name: The consumer's.
        cached_info: What the server said of it last; None where it was only bound (`bind=True`) and never asked.
    """

    def __init__(self, jetstream: Api[Publishing], stream: str, name: str, info: api.ConsumerInfo | None) -> None:
        self._jetstream = jetstream
        self.stream, self.name, self.cached_info = stream, name, info
        self._pins: dict[str, str] = {}
        self._deliverer = jetstream.deliverers.current(jetstream.connection, stream, name, info)

    def __jetstream__(self) -> Api[Publishing]:
        return self._jetstream

    def __repr__(self) -> str:
        return f"<Consumer {self.name!r} of stream {self.stream!r}>"

    def __str__(self) -> str:
        return f"consumer {self.name!r} of stream {self.stream!r}"

    def __deliverer__(self) -> Deliverer:
        """Give what its messages are made with: whoever delivers keeps it, and asks again once it is void."""
        if self._deliverer.void:
            self._deliverer = self._jetstream.deliverers.successor(self._deliverer, self.stream, self.name)
        return self._deliverer

    async def info(self) -> api.ConsumerInfo:
        """Ask the server what it says of it now."""
        self.cached_info = await self._manager.consumer_info(self.stream, self.name)
        return self.cached_info

    async def update(self, config: nats_api.ConsumerConfig | None = None, **params: object) -> api.ConsumerInfo:
        """Change its configuration, as `JetStream.update_consumer` does: by keywords alone, just these fields.

        Args:
            config: The whole configuration; what it leaves out becomes the server's default.
            params: Fields of `ConsumerConfig` that replace those of `config`, or of what the consumer has.

        Returns:
            What the server says of it now.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, fields exclude each other, or another name is given.
            trionats.errors.APIError: The server refused, or is too old.
        """
        for field in ("name", "durable_name"):
            for name in (getattr(config, field, None), params.get(field)):
                if name is not None and name != self.name:
                    raise ValueError(f"update: {field} is {name!r}, and {self} keeps its own name")
        given = params if config is not None and (config.name or config.durable_name) else {**params, "name": self.name}
        self.cached_info = await self._manager.update_consumer(self.stream, config, **given)
        return self.cached_info

    async def delete(self) -> bool:
        """Delete it. Messages of it that are held cannot be acknowledged any more."""
        return await self._manager.delete_consumer(self.stream, self.name)

    async def pause(self, until: str | datetime) -> api.ConsumerPause:
        """Stop its deliveries until a time, as `JetStream.pause_consumer` does (server 2.11).

        Args:
            until: A datetime with a time zone, or RFC 3339 text.
        """
        return await self._manager.pause_consumer(self.stream, self.name, until)

    async def resume(self) -> api.ConsumerPause:
        """Let it deliver again (server 2.11)."""
        return await self._manager.resume_consumer(self.stream, self.name)

    async def reset(self, seq: int | None = None) -> api.ConsumerReset:
        """Let it begin again, as `JetStream.reset_consumer` does (server 2.14).

        Messages that this context holds of it cannot be acknowledged any more. Those that come while it is under way
        may be from before or after, so neither can they; they come again after the ack wait.

        Args:
            seq: The sequence of the stream to begin at; None for behind its ack floor.
        """
        done = await self._manager.reset_consumer(self.stream, self.name, seq)
        self.cached_info = done.info
        return done

    async def unpin(self, group: str) -> None:
        """Take the pin from the client of a priority group that has it (server 2.11)."""
        await self._manager.unpin_consumer(self.stream, self.name, group)

    async def step_down(self) -> bool:
        """Have another replica lead it; pulls under way are asked again by those who read.

        Raises:
            trionats.errors.APIError: The server refused: it is in no cluster.
        """
        return confirmed(str(self), await step_down(self._jetstream, self.stream, self.name))

    # Messages.

    async def fetch(
        self,
        batch: int,
        *,
        expires: float = EXPIRES,
        max_bytes: int | None = None,
        no_wait: bool = False,
        heartbeat: float | None = None,
        group: str | None = None,
        priority: int | None = None,
        min_pending: int | None = None,
        min_ack_pending: int | None = None,
        **unknown: Never,
    ) -> list[JetStreamMsg]:
        """Ask for messages once, and wait for them: until there are `batch`, or `max_bytes`, or time is up.

        What came is returned as soon as no more can be expected: also when the leader changes, the server stops, or the
        connection breaks. With nothing it asks again, within its time: the new leader, the next connection. So an empty list
        is the server's word that there was nothing; where nobody answered, that is raised when time is up.

        A deadline in force shortens what the server is told, so that a part of the batch is returned just before it instead of
        being lost: `with trio.move_on_after(1): msgs = await consumer.fetch(100, expires=30)`. It is shortened by twice the API's
        last round trip, 20 ms at least, and half of what is left at the most: a deadline nearer than that may cancel it.

        Cancelled, it gives back at once what had come and what still comes: it is NAKed, so that another worker has it in
        milliseconds. Where the consumer limits deliveries (`max_deliver`), or was bound without asking (`bind=True`), it is left to
        the ack wait. So it is when the client is closed or drained meanwhile.

        Args:
            batch: How many messages at the most, up to 1,000,000.
            expires: How many seconds the server waits for messages, from 0.001 to 86400.
            max_bytes: How many bytes at the most, as the server counts them: subject, reply subject, headers and payload of
                each message. Do not use it for a consumer of the last message of each subject (`last_per_subject`): unless the stream
                keeps one message of a subject, the server loses for good the one that does not fit (2.15).
            no_wait: Take what there is, which takes 0.1 s where there is nothing; `expires` and `heartbeat` do not apply.
            heartbeat: How often, in seconds, the server says that it is still there; half of `expires` at the most. By default
                every 5 s where it waits for 10 s or more, and every 0.5 s where it waits for 1 s or more for the last message of each
                subject (`last_per_subject`). After twice as long a silence what came is returned, or it is
                found out what is wrong.
            group: The priority group, for consumers that have some. On one of the policy `pinned_client` all fetches of this handle are
                one client; keep `expires` below half of its `priority_timeout`.
            priority: From 0, which is served first, to 9 (policy `prioritized`, server 2.12).
            min_pending: Only while at least so many messages wait (policy `overflow`, server 2.11).
            min_ack_pending: Only while at least so many are unacknowledged (policy `overflow`).

        Returns:
            The messages, in the server's order; an empty list where there were none.

        Raises:
            trionats.errors.ConsumerGoneError: There is no such consumer, or no such stream, or it was deleted meanwhile.
            trionats.errors.BadRequestError: The server refused: one of the consumer's limits (`max_batch`, `max_expires`, `max_bytes`,
                `max_waiting`); or the next message is larger than `max_bytes`.
            trionats.errors.ServiceUnavailableError: For all of its time the consumer had no leader, or gave its messages to another client.
            trionats.errors.DisconnectedError: For all of its time there was no connection.
            nats.errors.TimeoutError: Nobody answered.
            nats.errors.ConnectionClosedError: The client is closed, or was meanwhile.
            nats.errors.ConnectionDrainingError: The client is drained.
            trionats.errors.PermissionsViolationError: The user may not ask.
            TypeError: An argument is of another kind.
            ValueError: An argument cannot be, or does not fit the consumer; nothing was sent.
        """
        if unknown:
            raise unexpected("fetch", unknown, "consumer")
        terms = Terms(group, min_pending, min_ack_pending, priority)
        return await self._fetch(Wanted(batch, expires, max_bytes, no_wait, heartbeat, terms))

    async def next(
        self,
        *,
        expires: float = EXPIRES,
        group: str | None = None,
        priority: int | None = None,
        min_pending: int | None = None,
        min_ack_pending: int | None = None,
        **unknown: Never,
    ) -> JetStreamMsg | None:
        """Ask for one message, and wait for it: a `fetch` of one.

        Args:
            expires: As for `fetch`.
            group: As for `fetch`.
            priority: As for `fetch`.
            min_pending: As for `fetch`.
            min_ack_pending: As for `fetch`.

        Returns:
            The message; None where there was none.

        Raises:
            nats.errors.Error: As for `fetch`.
            TypeError: As for `fetch`.
            ValueError: As for `fetch`.
        """
        if unknown:
            raise unexpected("next", unknown, "consumer")
        terms = Terms(group, min_pending, min_ack_pending, priority)
        messages = await self._fetch(Wanted(1, expires, terms=terms, call="next"))
        return messages[0] if messages else None

    async def _fetch(self, wanted: Wanted) -> list[JetStreamMsg]:
        self._jetstream.connection.pace.run.check()
        deliverer = self.__deliverer__()
        if self.cached_info is not None:
            config = self.cached_info.config
            if config.deliver_subject:
                raise ValueError(f"{wanted.call}: {deliverer.consumer} is push based: read it with open_consumer")
            wanted.terms.check_against(
                wanted.call, deliverer.consumer, config.priority_groups or (), config.priority_policy
            )
            if config.deliver_policy == api.DeliverPolicy.LAST_PER_SUBJECT:
                wanted = wanted.waking()
        return await fetch(self._jetstream, self.stream, self.name, deliverer, wanted, self._pins)

    @property
    def _manager(self) -> JetStreamManager:
        return JetStreamManager(self._jetstream)
