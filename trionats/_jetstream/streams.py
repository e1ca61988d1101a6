"""A stream, as a program holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats._jetstream.api import about, confirmed
from trionats._jetstream.consumers import Consumer
from trionats._jetstream.management import JetStreamManager, purged
from trionats._protocol import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js import api as nats_api

    from trionats import api
    from trionats._core.messaging import Publishing
    from trionats._jetstream.api import Api

__all__ = ["Stream"]


@final
class Stream:
    """A stream: what `JetStream.stream` and `create_stream` give. It holds no state and needs no closing.

    Attributes:
        name: The stream's name.
        cached_info: What the server said of it last.
    """

    def __init__(self, jetstream: Api[Publishing], info: api.StreamInfo) -> None:
        self._jetstream = jetstream
        self.name, self.cached_info = info.config.name or "", info

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    def __str__(self) -> str:
        return f"stream {self.name!r}"

    async def info(self, *, subjects_filter: str | None = None, deleted_details: bool = False) -> api.StreamInfo:
        """Ask the server what it says of it now; arguments and errors as for `JetStream.stream_info`.

        Args:
            subjects_filter: List the stored subjects that match this pattern, with their counts, in `state.subjects`.
            deleted_details: List the sequences that were deleted between the first and the last, in `state.deleted`.
        """
        self.cached_info = await self._manager.stream_info(self.name, subjects_filter, deleted_details)
        return self.cached_info

    async def nearest(self) -> Stream:
        """Find the nearest stream that holds the same messages: this one, or a mirror of it in the client's own cluster.

        Which one that is, the server says (`StreamInfo.alternates`); where it names none, it is this one. A mirror may be
        behind, and holds what its filter lets through.

        Raises:
            trionats.errors.NotFoundError: The stream is not there any more.
        """
        alternates = (await self.info()).alternates or []
        if not alternates or alternates[0].name == self.name:
            return self
        return Stream(self._jetstream, await self._manager.stream_info(alternates[0].name))

    # Its configuration and its life.

    async def update(self, config: nats_api.StreamConfig | None = None, **params: object) -> api.StreamInfo:
        """Change its configuration, as `JetStream.update_stream` does: by keywords alone, just these fields.

        Args:
            config: The whole configuration; what it leaves out becomes the server's default.
            params: Fields of `StreamConfig` that replace those of `config`, or of what the stream has.

        Returns:
            What the server says of it now.

        Raises:
            TypeError: A field holds what it cannot hold; nothing was sent.
            ValueError: So does one with a number, or another name is given: a stream keeps its own.
            trionats.errors.APIError: The server refused, or is too old.
        """
        for name in (getattr(config, "name", None), params.get("name")):
            if name is not None and name != self.name:
                raise ValueError(f"update: name is {name!r}, and stream {self.name!r} keeps its own")
        self.cached_info = await self._manager.update_stream(config, **{**params, "name": self.name})
        return self.cached_info

    async def purge(self, *, subject: str | None = None, seq: int | None = None, keep: int | None = None) -> int:
        """Delete messages of it: all, or those that match.

        Args:
            subject: Only what matches this pattern.
            seq: Only what is below this sequence, which is 1 at the least. Not together with `keep`.
            keep: All but this many of the newest.

        Returns:
            How many messages were deleted.

        Raises:
            ValueError: Both `seq` and `keep` were given, or a number that none can be; nothing was sent.
            trionats.errors.APIError: The server refused (`deny_purge`, `sealed`).
        """
        return await purged(self._jetstream, "purge", self.name, seq, subject, keep)

    async def delete(self) -> bool:
        """Delete it with all its messages and consumers."""
        return await self._manager.delete_stream(self.name)

    # Its consumers.

    async def create_consumer(self, config: nats_api.ConsumerConfig | None = None, **params: object) -> Consumer:
        """Create a consumer, as `JetStream.create_consumer` does.

        Args:
            config: The configuration.
            params: Fields of `ConsumerConfig` that replace those of `config`.
        """
        info = await self._manager.add_consumer(self.name, config, **params)
        return Consumer(self._jetstream, self.name, info.name, info)

    async def consumer(self, name: str, *, bind: bool = False) -> Consumer:
        """Find a consumer of it.

        Args:
            name: Its name.
            bind: Do not ask the server: for users who may not (across accounts).

        Raises:
            trionats.errors.NotFoundError: There is no such consumer.
        """
        info = None if bind else await self._manager.consumer_info(self.name, name)
        return Consumer(self._jetstream, self.name, name, info)

    async def consumer_names(self) -> list[str]:
        """List the names of all its consumers, sorted."""
        return await self._manager.consumer_names(self.name)

    async def consumers_info(self) -> list[api.ConsumerInfo]:
        """List all its consumers, by name."""
        return await self._manager.consumers_info(self.name)

    async def delete_consumer(self, name: str) -> bool:
        """Delete a consumer of it."""
        return await self._manager.delete_consumer(self.name, name)

    # Its place in a cluster.

    async def step_down(self, preferred: str | None = None) -> bool:
        """Have another replica lead. A publish that comes before the election is over is refused with "503", and repeated.

        Args:
            preferred: The name of the server that is to lead (server 2.11); None for any.

        Raises:
            trionats.errors.APIError: The server refused: it is in no cluster, or no such replica can lead.
        """
        fields.check_argument("step_down", "preferred", str | None, preferred)
        request = None if preferred is None else {"placement": {"preferred": preferred}}
        return await self._do("LEADER.STEPDOWN", request)

    async def remove_peer(self, name: str) -> bool:
        """Take a replica away; the cluster gives another server its place, if it has one.

        Args:
            name: The name of the server.

        Raises:
            trionats.errors.APIError: The server refused: it is in no cluster, or holds no replica.
        """
        fields.check_argument("remove_peer", "name", str, name)
        return await self._do("PEER.REMOVE", {"peer": name})

    async def _do(self, what: str, request: Mapping[str, object] | None) -> bool:
        with about(str(self)):
            response = await self._jetstream.request(f"STREAM.{what}.{self.name}", request)
            return confirmed(str(self), response["success"])

    @property
    def _manager(self) -> JetStreamManager:
        return JetStreamManager(self._jetstream)
