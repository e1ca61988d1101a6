"""A stream, as a program holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from trionats._jetstream.management import JetStreamManager

if TYPE_CHECKING:
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

    async def info(self) -> api.StreamInfo:
        """Ask the server what it says of it now."""
        self.cached_info = await JetStreamManager(self._jetstream).stream_info(self.name)
        return self.cached_info
