"""A consumer of a stream, as a program holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats._jetstream.api import confirmed
from trionats._jetstream.consumer_requests import step_down
from trionats._jetstream.management import JetStreamManager

if TYPE_CHECKING:
    from datetime import datetime

    from nats.js import api as nats_api

    from trionats import api
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api
    from trionats._jetstream.message import Deliverer

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

    @property
    def _manager(self) -> JetStreamManager:
        return JetStreamManager(self._jetstream)
