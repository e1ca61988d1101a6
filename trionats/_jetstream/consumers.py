"""A consumer of a stream, as a program holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats._jetstream.management import JetStreamManager

if TYPE_CHECKING:
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

    def __deliverer__(self) -> Deliverer:
        """Give what its messages are made with: whoever delivers keeps it, and asks again once it is void."""
        if self._deliverer.void:
            self._deliverer = self._jetstream.deliverers.successor(self._deliverer, self.stream, self.name)
        return self._deliverer

    async def info(self) -> api.ConsumerInfo:
        """Ask the server what it says of it now."""
        self.cached_info = await JetStreamManager(self._jetstream).consumer_info(self.stream, self.name)
        return self.cached_info
