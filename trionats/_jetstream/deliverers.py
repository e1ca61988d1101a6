"""The consumers whose messages one context holds, each by its life.

Strategy
    A consumer that is reset, deleted or made anew counts from the beginning again, and an acknowledgement of a message from before
    settles another one, without a word: what stands in its subject are numbers, and no life. So all messages of one life share
    one `Deliverer`, which is made void when that life ends; whoever delivers asks here for the one of the life that is. They
    are held weakly: one lives as long as a handle, a feed or a message of it does.

    A reset that is under way makes them void at once: whether an acknowledgement in flight counts before or after it is not
    known. Refused by the server, they are valid again; where its response never came they stay void: what is not
    acknowledged is delivered again, which is what a reset is for.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, final
from weakref import WeakValueDictionary

from trionats import api, errors
from trionats._jetstream.message import Deliverer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trionats._core.messaging import Publishing

__all__ = ["Deliverers"]

#: After how many seconds the server delivers again where a configuration does not say.
ACK_WAIT = 30.0


@final
class Deliverers:
    """The deliverers of one context, by the names of stream and consumer."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, str], Deliverer] = WeakValueDictionary()

    def current(self, connection: Publishing, stream: str, name: str, info: api.ConsumerInfo | None) -> Deliverer:
        """Give the deliverer of a consumer's present life, the same one to all who ask.

        Args:
            connection: What acknowledgements are sent over.
            stream: The stream's name.
            name: The consumer's.
            info: What the server said of it when whoever asks looked; None where nobody has looked.
        """
        found = self._known.get((stream, name))
        if found is None:
            found = Deliverer(connection, f"consumer {name!r} of stream {stream!r}")
            self._known[stream, name] = found
            if info is not None:
                _learn(found, info)
        return found

    def successor(self, void: Deliverer, stream: str, name: str) -> Deliverer:
        """Give the deliverer of the life that came after one that is over.

        Args:
            void: That of the life before. Of the new one as much is known as of this, until the server is asked.
            stream: The stream's name.
            name: The consumer's.
        """
        found = self._known.get((stream, name))
        if found is None:
            found = Deliverer(void.connection, void.consumer, ack_wait=void.ack_wait, acknowledges=void.acknowledges)
            found.limits_deliveries, found.backoff = void.limits_deliveries, void.backoff
            self._known[stream, name] = found
        return found

    def heard(self, info: api.ConsumerInfo) -> None:
        """Learn what the server says of a consumer now: its ack wait, and whether it is still the one that was known."""
        found = self._known.get((info.stream_name, info.name))
        if found is None:
            return
        if found.created is None or found.created == info.created:
            _learn(found, info)
        else:
            self._end(found, (info.stream_name, info.name), "was made anew")

    def gone(self, stream: str, name: str) -> None:
        """Learn that a consumer is not there any more: its messages are void.

        Args:
            stream: The stream's name.
            name: The consumer's.
        """
        found = self._known.get((stream, name))
        if found is not None:
            self._end(found, (stream, name), "was deleted")

    @contextmanager
    def ending(self, stream: str, name: str, why: str) -> Iterator[None]:
        """Make all messages of a consumer void around the request that ends its life, unless the server refuses that.

        Args:
            stream: The stream's name.
            name: The consumer's.
            why: What becomes of it: "was reset".
        """
        found = self._known.get((stream, name))
        if found is None:
            yield
            return
        found.void = f"{why}, or may have been"
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, errors.APIError) and error.code is not None
            if refused and self._known.get((stream, name)) is found:
                found.void = ""
            else:
                self._end(found, (stream, name), found.void)
            raise
        self._end(found, (stream, name), why)

    def _end(self, deliverer: Deliverer, key: tuple[str, str], why: str) -> None:
        deliverer.void = why
        if self._known.get(key) is deliverer:
            del self._known[key]


def _learn(deliverer: Deliverer, info: api.ConsumerInfo) -> None:
    config = info.config
    deliverer.created = info.created
    deliverer.acknowledges = config.ack_policy != api.AckPolicy.NONE
    deliverer.limits_deliveries = config.max_deliver is not None and config.max_deliver > 0
    # With a back-off the wait differs by delivery; where that is not looked at, the shortest is safe.
    deliverer.backoff = tuple(config.backoff or ())
    waits = deliverer.backoff or (config.ack_wait or ACK_WAIT,)
    deliverer.ack_wait = min(waits) if deliverer.acknowledges else inf
