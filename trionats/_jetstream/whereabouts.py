"""Where a JetStream API is: its domain, how far away that is, and which of its streams mirror others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trionats._core.messaging import Messaging
    from trionats._protocol.jetstream.buckets.origins import Origin

__all__ = ["Whereabouts"]


@final
class Whereabouts:
    """What is known of where a JetStream API is.

    Args:
        connection: What it is asked over.
        chosen: The domain that was asked for, or None.
    """

    def __init__(self, connection: Messaging, chosen: str | None) -> None:
        self._connection = connection
        self.chosen = chosen
        self.round_trip: float | None = None
        """How many seconds the API took to respond, the last time."""
        self._named: tuple[str, str] | None = None
        self._origins: dict[str, Origin] = {}

    def origin_found(self, stream: str, origin: Origin | None) -> None:
        """Learn where the messages of a bucket are stored that was found here.

        Args:
            stream: The bucket's stream here. A mirror and a bucket of its origin's name may both be here, with the same subjects.
            origin: None for here.
        """
        if origin is None:
            self._origins.pop(stream, None)
        else:
            self._origins[stream] = origin

    def origin(self, stream: str) -> Origin | None:
        """Say where the messages of a bucket are stored, if not in its own stream."""
        return self._origins.get(stream)

    def domain_of(self, stream: str) -> str | None:
        """Say which domain stores what is written into a bucket; None where any may."""
        origin = self.origin(stream)
        if origin is not None and origin.domain is not None:
            return origin.domain or None
        return self.named or self.chosen

    def heard(self, response: Mapping[str, Any]) -> None:
        """Learn the domain from a response of the API, if it is one that names it."""
        domain = response.get("domain")
        if isinstance(domain, str):
            self._named = (self._connection.server_id, domain)

    @property
    def named(self) -> str | None:
        """The domain as the API has named itself; None where it has not, or did so on another connection's server."""
        # The same prefix may lead to another domain from there.
        return self._named[1] if self._named is not None and self._named[0] == self._connection.server_id else None
